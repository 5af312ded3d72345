//! A part of a model as a model: from the values of one cut to the values of the next.

use std::collections::BTreeSet;

use onnxq_ir::{Def, Model, User, ValueId};

/// Where a tensor comes from while a segment runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Input `.0` of the whole model, by its place in [`Segment::data`].
    Data(usize),
    /// Value `.0` of the cut where the segment begins.
    Cut(usize),
    /// Output `.0` of the segment.
    Run(usize),
}

pub struct Segment {
    pub model: Model,
    /// Inputs of the whole model that are needed, by name.
    pub data: Vec<String>,
    /// What feeds each input of `model`.
    pub inputs: Vec<Origin>,
    /// Where each wanted value is found.
    pub wanted: Vec<Origin>,
}

/// The part of `whole` that computes `wanted` from its inputs and the values `cut`.
pub fn segment(whole: &Model, cut: &[ValueId], wanted: &[ValueId]) -> Segment {
    let mut model = without_ends(whole);
    let main = model.main;
    let mut data: Vec<(ValueId, String)> = Vec::new();
    let mut outputs: Vec<ValueId> = Vec::new();
    let wanted = wanted.iter().map(|it| origin(whole, cut, *it, &mut data, &mut outputs)).collect();
    outputs.iter().for_each(|it| model.add_output(main, *it));
    let begins: Vec<ValueId> = cut.iter().map(|it| begin(&mut model, *it)).collect();
    model.remove_all_dead();
    let kept: BTreeSet<ValueId> =
        model.values().filter(|(_, it)| !it.uses.is_empty()).map(|(id, _)| id).collect();
    let mut inputs = Vec::new();
    let mut left = std::mem::take(&mut model.graph_mut(main).inputs);
    left.retain(|it| kept.contains(it));
    for value in &left {
        match (begins.iter().position(|it| it == value), &model.value(*value).def) {
            (Some(at), _) => inputs.push(Origin::Cut(at)),
            (None, Def::Input(_, None)) => {
                inputs.push(Origin::Data(datum(whole, *value, &mut data)));
            }
            // Whoever omits it gets its default.
            (None, _) => {}
        }
    }
    model.graph_mut(main).inputs = left;
    Segment { model, data: data.into_iter().map(|it| it.1).collect(), inputs, wanted }
}

/// The model without outputs: all of it is dead until some are added.
pub fn without_ends(whole: &Model) -> Model {
    let mut model = whole.clone();
    let main = model.main;
    for value in std::mem::take(&mut model.graph_mut(main).outputs) {
        model.value_mut(value).uses.retain(|it| it.user != User::Output(main));
    }
    let annotations = std::mem::take(&mut model.graph_mut(main).annotations);
    for (_, value) in annotations.into_iter().flat_map(|it| it.params) {
        model.value_mut(value).uses.retain(|it| it.user != User::Annotation(main));
    }
    model
}

fn origin(
    whole: &Model,
    cut: &[ValueId],
    value: ValueId,
    data: &mut Vec<(ValueId, String)>,
    outputs: &mut Vec<ValueId>,
) -> Origin {
    if let Some(at) = cut.iter().position(|it| *it == value) {
        return Origin::Cut(at);
    }
    if let Def::Input(..) = whole.value(value).def {
        return Origin::Data(datum(whole, value, data));
    }
    let known = outputs.iter().position(|it| *it == value);
    Origin::Run(known.unwrap_or_else(|| {
        outputs.push(value);
        outputs.len() - 1
    }))
}

fn datum(whole: &Model, value: ValueId, data: &mut Vec<(ValueId, String)>) -> usize {
    let known = data.iter().position(|it| it.0 == value);
    known.unwrap_or_else(|| {
        data.push((value, whole.value(value).name.to_string()));
        data.len() - 1
    })
}

/// Makes a computed value an input of the segment.
fn begin(model: &mut Model, value: ValueId) -> ValueId {
    let ty = model.value(value).ty.clone();
    let main = model.main;
    let input = model.add_input(main, "cut", ty);
    model.replace_all_uses(value, input);
    input
}
