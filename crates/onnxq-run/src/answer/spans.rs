//! Labels of tokens become spans of the text: `B-PER I-PER` is one person.

use super::Span;
use crate::data::Encoded;

/// The best label of a token, and its probability.
pub(super) struct TokenLabel<'a> {
    pub label: &'a str,
    pub score: f32,
}

/// A span under way, and how many words it has.
struct Open {
    span: Span,
    words: usize,
    word: Option<u32>,
}

/// Spans of the same label. A word has the label of its first token.
pub(super) fn spans(text: &str, encoded: &Encoded, labels: &[TokenLabel<'_>]) -> Vec<Span> {
    let mut done: Vec<Span> = Vec::new();
    let mut open: Option<Open> = None;
    let mut last: Option<u32> = None;
    for (at, token) in labels.iter().enumerate() {
        let (Some(word), &(start, end)) = (encoded.words[at], &encoded.places[at]) else {
            continue;
        };
        if start == end {
            continue;
        }
        if last == Some(word) {
            // The rest of a word belongs to its span.
            if let Some(it) = open.as_mut().filter(|it| it.word == Some(word)) {
                it.span.end = end;
            }
            continue;
        }
        last = Some(word);
        let Some((begins, label)) = entity(token.label) else {
            done.extend(open.take().map(|it| it.finish(text)));
            continue;
        };
        match open.as_mut().filter(|it| !begins && it.span.label == label) {
            Some(it) => it.more(token.score, word, end),
            None => {
                done.extend(open.take().map(|it| it.finish(text)));
                let (label, score) = (label.to_owned(), token.score);
                let span = Span { label, score, start, end, text: String::new() };
                open = Some(Open { span, words: 1, word: Some(word) });
            }
        }
    }
    done.extend(open.map(|it| it.finish(text)));
    done
}

impl Open {
    fn more(&mut self, score: f32, word: u32, end: usize) {
        (self.span.score, self.words) = (self.span.score + score, self.words + 1);
        (self.span.end, self.word) = (end, Some(word));
    }

    /// The mean of its words, and its text.
    fn finish(mut self, text: &str) -> Span {
        let inside = text.get(self.span.start..self.span.end).unwrap_or_default();
        // Tokens of some tokenizers have the space before them.
        let trimmed = inside.trim_start();
        self.span.start += inside.len() - trimmed.len();
        self.span.text = trimmed.trim_end().to_owned();
        self.span.end = self.span.start + self.span.text.len();
        self.span.score /= self.words as f32;
        self.span
    }
}

/// Whether a label begins a span, and what the span is called; `None` outside of all.
fn entity(label: &str) -> Option<(bool, &str)> {
    if label == "O" || label == "0" || label.is_empty() {
        return None;
    }
    Some(match label.split_once('-') {
        Some(("B" | "S" | "U", name)) => (true, name),
        Some(("I" | "E" | "L" | "M", name)) => (false, name),
        _ => (false, label),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A label for each token, with its place and word.
    fn of(text: &str, tokens: &[(&str, usize, usize, Option<u32>)]) -> Vec<(String, String, f32)> {
        let encoded = Encoded {
            ids: vec![0; tokens.len()],
            places: tokens.iter().map(|it| (it.1, it.2)).collect(),
            words: tokens.iter().map(|it| it.3).collect(),
        };
        let labels: Vec<TokenLabel<'_>> = tokens
            .iter()
            .enumerate()
            .map(|(at, it)| TokenLabel { label: it.0, score: at as f32 })
            .collect();
        let list = spans(text, &encoded, &labels);
        for it in &list {
            assert_eq!(text[it.start..it.end], it.text);
        }
        list.into_iter().map(|it| (it.label, it.text, it.score)).collect()
    }

    fn span(label: &str, text: &str, score: f32) -> (String, String, f32) {
        (label.into(), text.into(), score)
    }

    #[test]
    fn words_of_one_label_are_one_span() {
        let text = "Anna Lind lives in Umeå";
        let tokens = [
            ("I-LOC", 0, 0, None),
            ("B-PER", 0, 2, Some(0)),
            ("O", 2, 4, Some(0)),
            ("I-PER", 5, 9, Some(1)),
            ("O", 10, 15, Some(2)),
            ("O", 16, 18, Some(3)),
            ("I-LOC", 18, 24, Some(4)),
        ];
        let expected = [span("PER", "Anna Lind", 2.0), span("LOC", "Umeå", 6.0)];
        assert_eq!(of(text, &tokens), expected);
    }

    #[test]
    fn a_beginning_is_a_new_span_and_plain_labels_join() {
        let tokens = [
            ("B-PER", 0, 1, Some(0)),
            ("B-PER", 2, 3, Some(1)),
            ("I-LOC", 4, 5, Some(2)),
            ("S-LOC", 6, 7, Some(3)),
        ];
        let expected = [
            span("PER", "a", 0.0),
            span("PER", "b", 1.0),
            span("LOC", "c", 2.0),
            span("LOC", "d", 3.0),
        ];
        assert_eq!(of("a b c d", &tokens), expected);
        let plain = [("name", 0, 1, Some(0)), ("name", 2, 3, Some(1)), ("O", 4, 5, Some(2))];
        assert_eq!(of("a b c", &plain), [span("name", "a b", 0.5)]);
        assert_eq!(of("", &[]), []);
    }
}
