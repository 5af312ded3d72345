//! A part of a model as a model: from the values of one cut to the values of the next.

use onnxq_ir::{Def, Extracted, Feed, Model, ValueId, extract};

/// Where a value is found once a segment has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there before.
    Fed(Feed),
    /// Output `.0` of the segment.
    Computed(usize),
}

pub(super) struct Segment {
    pub part: Extracted,
    /// Where each wanted value is found.
    pub wanted: Vec<Origin>,
}

/// The part of `whole` that computes `wanted` from its inputs and the values `cut`.
pub(super) fn segment(whole: &Model, cut: &[ValueId], wanted: &[ValueId]) -> Segment {
    let mut outputs: Vec<ValueId> = Vec::new();
    let wanted = wanted.iter().map(|it| origin(whole, cut, *it, &mut outputs)).collect();
    Segment { part: extract(whole, cut, &outputs), wanted }
}

fn origin(whole: &Model, cut: &[ValueId], value: ValueId, outputs: &mut Vec<ValueId>) -> Origin {
    if let Some(at) = cut.iter().position(|it| *it == value) {
        return Origin::Fed(Feed::Value(at));
    }
    if let Def::Input(..) = whole.value(value).def {
        return Origin::Fed(Feed::Input(whole.value(value).name.clone()));
    }
    let known = outputs.iter().position(|it| *it == value);
    Origin::Computed(known.unwrap_or_else(|| {
        outputs.push(value);
        outputs.len() - 1
    }))
}

impl Segment {
    /// The inputs of the whole model that are needed, those that are wanted first.
    pub(super) fn data(&self) -> impl Iterator<Item = &str> {
        let wanted = self.wanted.iter().filter_map(|it| match it {
            Origin::Fed(feed) => Some(feed),
            Origin::Computed(_) => None,
        });
        wanted.chain(&self.part.feeds).filter_map(|it| match it {
            Feed::Input(name) => Some(&**name),
            Feed::Value(_) => None,
        })
    }

    /// Whether there is anything to compute.
    pub(super) fn runs(&self) -> bool {
        self.wanted.iter().any(|it| matches!(it, Origin::Computed(_)))
    }
}
