//! Documents become examples of at most a window of tokens.

use sha2::{Digest, Sha256};

use super::{Example, Training, TrainingFacts, order::held_out};
use crate::data::{DataError, Vocabulary};

/// The tokens of one document.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    example: Example,
    /// Every token counts, and texts follow each other through windows.
    is_text: bool,
    /// Tokens that were cut off before.
    lost: usize,
}

impl Piece {
    pub(super) fn text(ids: Vec<u32>) -> Piece {
        let mut piece = Piece { is_text: true, ..Piece::default() };
        piece.push(&ids, true);
        piece
    }

    pub(super) fn push(&mut self, ids: &[u32], count: bool) {
        self.example.ids.extend(ids.iter().map(|it| i64::from(*it)));
        self.example.counts.extend(ids.iter().map(|_| count));
    }

    /// A text with the special tokens around it, which stay where the text is cut.
    pub(super) fn labelled(
        vocabulary: &Vocabulary,
        text: &str,
        label: usize,
        window: usize,
    ) -> Result<Piece, DataError> {
        let ids = vocabulary.encode(text, true)?;
        let (before, after) = vocabulary.around()?;
        let lost = ids.len().saturating_sub(window.max(before.len() + after.len() + 1));
        let end = ids.len() - after.len().min(ids.len());
        let mut piece = Piece { lost, ..Piece::default() };
        piece.push(&ids[..end.saturating_sub(lost)], false);
        piece.push(&ids[end..], false);
        piece.example.label = Some(label);
        Ok(piece)
    }
}

/// Examples of one side, and the text that is not a whole window yet.
#[derive(Default)]
struct Side {
    examples: Vec<Example>,
    text: Example,
    packed: Example,
    documents: usize,
}

pub(super) struct Cutter {
    window: usize,
    pack: bool,
    end: Option<u32>,
    /// Trained on, and held out.
    sides: [Side; 2],
    facts: TrainingFacts,
}

impl Cutter {
    pub(super) fn new(how: &Training) -> Cutter {
        let (window, sides) = (how.window.max(2), Default::default());
        Cutter { window, pack: how.pack, end: how.end, sides, facts: TrainingFacts::default() }
    }

    pub(super) fn add(&mut self, piece: Piece, is_held_out: bool) {
        let side = &mut self.sides[usize::from(is_held_out)];
        side.documents += 1;
        if piece.is_text {
            append(&mut side.text, &piece.example);
            side.text.ids.extend(self.end.map(i64::from));
            side.text.counts.extend(self.end.map(|_| true));
            drain(side, self.window);
            return;
        }
        let Piece { mut example, lost, .. } = piece;
        let cut = lost + example.ids.len().saturating_sub(self.window);
        example.ids.truncate(self.window);
        example.counts.truncate(self.window);
        self.facts.cut_tokens += cut;
        self.facts.cut_examples += usize::from(cut > 0);
        let learns = example.label.is_some() || example.counts.iter().skip(1).any(|it| *it);
        match (learns, self.pack && example.label.is_none()) {
            (false, _) => self.facts.empty_examples += 1,
            (true, false) => side.examples.push(first_is_given(example)),
            (true, true) => pack(side, first_is_given(example), self.window),
        }
    }

    /// A text that is the only one of its file: its windows are held out one by one.
    pub(super) fn add_whole(&mut self, ids: Vec<u32>, share: f64) {
        self.sides[0].documents += 1;
        let mut text = Piece::text(ids).example;
        text.ids.extend(self.end.map(i64::from));
        text.counts.extend(self.end.map(|_| true));
        let mut whole = Side { text, ..Side::default() };
        drain(&mut whole, self.window);
        whole.examples.extend(rest(&mut whole.text));
        for example in whole.examples {
            let bytes: Vec<u8> = example.ids.iter().flat_map(|it| it.to_le_bytes()).collect();
            let side = usize::from(held_out(Sha256::digest(bytes).into(), share));
            self.sides[side].examples.push(example);
        }
    }

    pub(super) fn finish(mut self, facts: &mut TrainingFacts) -> [Vec<Example>; 2] {
        for side in &mut self.sides {
            let last = [rest(&mut side.text), rest(&mut side.packed)];
            side.examples.extend(last.into_iter().flatten());
            self.facts.documents += side.documents;
            for it in &side.examples {
                self.facts.tokens += it.ids.len();
                self.facts.counted_tokens += it.counts.iter().filter(|it| **it).count();
            }
        }
        self.facts.held_out_documents = self.sides[1].documents;
        *facts = self.facts;
        self.sides.map(|it| it.examples)
    }
}

/// Nothing stands before the first token that it could be predicted from.
fn first_is_given(mut example: Example) -> Example {
    if let Some(first) = example.counts.first_mut() {
        *first = false;
    }
    example
}

fn append(to: &mut Example, from: &Example) {
    to.ids.extend(&from.ids);
    to.counts.extend(&from.counts);
}

/// Whole windows of the text.
fn drain(side: &mut Side, window: usize) {
    let whole = side.text.ids.len() / window * window;
    let (ids, counts) = (side.text.ids.split_off(whole), side.text.counts.split_off(whole));
    let text = std::mem::replace(&mut side.text, Example { ids, counts, label: None });
    let windows = text.ids.chunks_exact(window).zip(text.counts.chunks_exact(window));
    side.examples.extend(windows.map(|(ids, counts)| {
        first_is_given(Example { ids: ids.to_vec(), counts: counts.to_vec(), label: None })
    }));
}

/// What is left, if there is anything to predict.
fn rest(example: &mut Example) -> Option<Example> {
    let example = first_is_given(std::mem::take(example));
    (example.ids.len() > 1).then_some(example)
}

fn pack(side: &mut Side, example: Example, window: usize) {
    if side.packed.ids.len() + example.ids.len() > window {
        side.examples.extend(rest(&mut side.packed));
    }
    append(&mut side.packed, &example);
}
