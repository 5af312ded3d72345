//! What merges make of the text of a token, and which of them makes it.
//!
//! Of the merges that end in a token, one at most is ever done: merges of a text between two borders which
//! stay are those of that text alone, and on its own the text of a token comes down to one pair, if to any.
//! So the rank of that merge says all, which is why one score for each token can say it, too.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::super::SPACE;

/// A character that is no token.
const STRANGE: u32 = u32::MAX;

/// Merges by the pairs of tokens that they join.
pub(super) struct Merging<'a> {
    ids: HashMap<&'a str, u32>,
    /// Rank, and the token that comes of it.
    pairs: HashMap<(u32, u32), (u32, u32)>,
}

/// What is left of the text of a token when nothing can be merged any more.
#[derive(Debug, PartialEq)]
pub(super) enum Left {
    /// One character.
    Character,
    /// The token, which the merge of a rank made of two others.
    Token {
        rank: u32,
        parts: (u32, u32),
    },
    /// Two tokens, which llama.cpp would join.
    Pair(String, String),
    More,
}

struct Symbol {
    id: u32,
    start: usize,
    /// The place of the next one, or the number of characters.
    next: usize,
    before: Option<usize>,
}

/// A pair that may be merged: its rank, where it begins, both tokens.
type Candidate = Reverse<(u32, usize, (u32, u32))>;

impl<'a> Merging<'a> {
    /// `merges` by rank. With `splits`, texts are cut before each space, so that nothing is merged across it.
    pub(super) fn new(
        ids: HashMap<&'a str, u32>,
        merges: &[(&'a str, &'a str)],
        splits: bool,
    ) -> Result<Merging<'a>, usize> {
        let mut pairs = HashMap::new();
        for (rank, (left, right)) in merges.iter().enumerate() {
            let find = |text: &str| ids.get(text).copied().ok_or(rank);
            let pair = (find(left)?, find(right)?);
            let whole = find(&format!("{left}{right}"))?;
            if !(splits && right.starts_with(SPACE)) {
                pairs.insert(pair, (u32::try_from(rank).map_err(|_| rank)?, whole));
            }
        }
        Ok(Merging { ids, pairs })
    }

    /// What becomes of the text of a token.
    pub(super) fn of(&self, text: &str) -> Left {
        let mut symbols = self.characters(text);
        if symbols.len() < 2 {
            return Left::Character;
        }
        let (mut count, mut last) = (symbols.len(), None);
        let mut candidates: BinaryHeap<Candidate> =
            (0..symbols.len()).filter_map(|at| self.candidate(&symbols, at)).collect();
        while let Some(Reverse((rank, at, pair))) = candidates.pop() {
            let next = symbols[at].next;
            // What was merged otherwise meanwhile.
            if symbols[at].id != pair.0 || symbols.get(next).is_none_or(|it| it.id != pair.1) {
                continue;
            }
            symbols[at].id = self.pairs[&pair].1;
            symbols[at].next = symbols[next].next;
            symbols[next].id = STRANGE;
            let after = symbols[at].next;
            if let Some(symbol) = symbols.get_mut(after) {
                symbol.before = Some(at);
            }
            let starts = symbols[at].before.into_iter().chain([at]);
            candidates.extend(starts.filter_map(|start| self.candidate(&symbols, start)));
            (count, last) = (count - 1, Some((rank, pair)));
        }
        match (count, last) {
            (1, Some((rank, parts))) => Left::Token { rank, parts },
            (2, _) => {
                let (left, right) = text.split_at(symbols[symbols[0].next].start);
                Left::Pair(left.to_owned(), right.to_owned())
            }
            _ => Left::More,
        }
    }

    fn characters(&self, text: &str) -> Vec<Symbol> {
        let ends = text.char_indices().skip(1).map(|it| it.0).chain([text.len()]);
        let symbol = |(place, ((start, _), end)): (usize, ((usize, char), usize))| Symbol {
            id: self.ids.get(&text[start..end]).copied().unwrap_or(STRANGE),
            start,
            next: place + 1,
            before: place.checked_sub(1),
        };
        text.char_indices().zip(ends).enumerate().map(symbol).collect()
    }

    fn candidate(&self, symbols: &[Symbol], at: usize) -> Option<Candidate> {
        let pair = (symbols[at].id, symbols.get(symbols[at].next)?.id);
        let (rank, _) = self.pairs.get(&pair)?;
        Some(Reverse((*rank, at, pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(tokens: &[&'static str], merges: &[(&'static str, &'static str)], text: &str) -> Left {
        let ids = tokens.iter().copied().zip(0..).collect();
        Merging::new(ids, merges, false).unwrap().of(text)
    }

    #[test]
    fn one_merge_makes_a_token() {
        let tokens = ["a", "b", "c", "ab", "bc", "abc"];
        let both = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")];
        assert_eq!(left(&tokens, &both, "abc"), Left::Token { rank: 3, parts: (0, 4) });
        assert_eq!(left(&tokens, &both, "a"), Left::Character);
        // `bc` comes first, and then nothing joins it to `a`.
        let one = [("b", "c"), ("a", "b"), ("ab", "c")];
        assert_eq!(left(&tokens, &one, "abc"), Left::Pair("a".into(), "bc".into()));
        assert_eq!(left(&tokens, &one[1..], "abc"), Left::Token { rank: 1, parts: (3, 2) });
        assert_eq!(left(&tokens, &[], "abc"), Left::More);
        assert_eq!(left(&["a", "é!"], &[], "é!"), Left::Pair("é".into(), "!".into()));
    }

    #[test]
    fn the_leftmost_of_one_rank_comes_first() {
        let tokens = ["a", "aa", "aaa"];
        let merges = [("a", "a"), ("aa", "a"), ("a", "aa")];
        assert_eq!(left(&tokens, &merges, "aaa"), Left::Token { rank: 1, parts: (1, 0) });
        assert_eq!(left(&tokens, &merges[..1], "aaaa"), Left::Pair("aa".into(), "aa".into()));
    }

    #[test]
    fn nothing_is_merged_across_a_cut() {
        let ids = ["a", SPACE, "a\u{2581}"].into_iter().zip(0..).collect();
        let merging = Merging::new(ids, &[("a", SPACE)], true).unwrap();
        assert_eq!(merging.of("a\u{2581}"), Left::Pair("a".into(), SPACE.into()));
        let unknown = Merging::new(HashMap::new(), &[("a", "b")], false);
        assert_eq!(unknown.err(), Some(0));
    }
}
