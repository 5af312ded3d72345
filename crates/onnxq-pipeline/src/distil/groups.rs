//! Samples of a step become groups that run together.

use std::collections::BTreeMap;

use super::examples::Example;
use crate::Error;
use onnxq_ir::{
    Model, ValueId,
    tensor::{Tensor, TensorError},
};
use onnxq_run::data::Batch;

/// So many groups a step is cut into, whatever the number of threads: sums of gradients are made group
/// by group, so this number is part of the result.
pub(super) const GROUPS: usize = 4;

/// Samples that run together, with what of them counts.
pub(super) struct Stacked {
    pub samples: usize,
    pub inputs: Batch,
    /// By token of all samples.
    pub counts: Vec<bool>,
    /// Whether `counts` says which tokens are to be predicted, rather than which are read.
    pub shifted: bool,
    pub labels: Option<Vec<i64>>,
}

/// Groups of about the same number of samples. Samples of different shapes run one by one.
pub(super) fn stack(examples: Vec<Example>) -> Result<Vec<Stacked>, Error> {
    let size = examples.len().div_ceil(GROUPS).max(1);
    let mut groups = Vec::new();
    for part in examples.chunks(size) {
        let same = part.iter().all(|it| are_alike(&it.inputs, &part[0].inputs));
        let pieces = if same { vec![part] } else { part.chunks(1).collect() };
        for piece in pieces {
            groups.push(join(piece)?);
        }
    }
    Ok(groups)
}

fn are_alike(a: &Batch, b: &Batch) -> bool {
    let alike = |(name, it): (&String, &Tensor)| {
        b.get(name).is_some_and(|other| other.shape == it.shape && it.shape.first() == Some(&1))
    };
    a.len() == b.len() && a.iter().all(alike)
}

fn join(examples: &[Example]) -> Result<Stacked, Error> {
    let mut inputs = Batch::new();
    for (name, first) in &examples[0].inputs {
        let parts: Vec<&Tensor> = examples.iter().map(|it| &it.inputs[name]).collect();
        inputs.insert(name.clone(), concat(first, &parts)?);
    }
    let counts = examples.iter().map(counted).collect::<Result<Vec<_>, _>>()?.concat();
    let labels: Option<Vec<Vec<i64>>> = examples.iter().map(|it| it.labels.clone()).collect();
    let shifted = examples.iter().any(|it| it.counts.is_some());
    Ok(Stacked {
        samples: examples.len(),
        inputs,
        counts,
        shifted,
        labels: labels.map(|it| it.concat()),
    })
}

/// One after the other along the axis of the batch.
fn concat(first: &Tensor, parts: &[&Tensor]) -> Result<Tensor, TensorError> {
    if parts.len() == 1 {
        return Ok(first.clone());
    }
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&part.bytes()?);
    }
    let mut shape = first.shape.clone();
    shape[0] = parts.len();
    Ok(Tensor::new(first.dtype, shape, bytes))
}

/// Which tokens of a sample count: those that are no padding, if nothing else is said.
fn counted(example: &Example) -> Result<Vec<bool>, TensorError> {
    match &example.counts {
        Some(counts) => Ok(counts.clone()),
        None => unpadded(&example.inputs),
    }
}

/// By token: whether it is none of padding.
pub(crate) fn unpadded(inputs: &Batch) -> Result<Vec<bool>, TensorError> {
    if let Some(mask) = inputs.get("attention_mask") {
        let is_on = |it: f32| it != 0.0;
        return Ok(match mask.dtype.is_float() {
            true => mask.to_f32()?.into_iter().map(is_on).collect(),
            false => mask.to_i64()?.into_iter().map(|it| it != 0).collect(),
        });
    }
    let ids = inputs.get("input_ids").or_else(|| inputs.values().next());
    Ok(vec![true; ids.map_or(1, |it| it.shape.iter().take(2).product())])
}

/// The inputs by the values of a model.
pub(crate) fn by_value(m: &Model, inputs: &Batch) -> BTreeMap<ValueId, Tensor> {
    let values = m.graph(m.main).inputs.iter();
    values.filter_map(|it| Some((*it, inputs.get(&*m.value(*it).name)?.clone()))).collect()
}
