//! Cross-layer equalization: a channel between two layers gets the same range in the weights that
//! compute it and in those that read it.
//!
//! For `y = W₂ f(W₁ x + b)` and `f(s·x) = s·f(x)`, channel `i` of what `f` reads can be divided by
//! any `s_i > 0`: rows of `W₁` and of `b` are, columns of `W₂` are multiplied. With
//! `s_i = √(r₁ᵢ / r₂ᵢ)` for largest magnitudes `r`, both ranges are `√(r₁ᵢ r₂ᵢ)`. After Nagel et
//! al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019. Layers in
//! two pairs are swept until nothing moves; a depthwise convolution between two others is one.
//!
//! A scale that all weights of a layer share fits every channel then, and no channel of the
//! activation between is much narrower than its quantized values. No data is needed.

mod layer;
mod pairs;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::layer::{Layer, Side};
pub(super) use self::pairs::{Pair, Pairs};
use super::{ChangeModel, Changed, Transform, Work};
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, no_match,
    tensor::{DType, Tensor, TensorError, from_f32},
};
use onnxq_numerics::specs::Settings;

/// The ranges of channels between two layers, shared by the weights of both. Needs no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Equalize {}

impl Settings for Equalize {}

impl Transform for Equalize {
    fn work(&self) -> Work<'_> {
        Work::Model(self)
    }
}

impl ChangeModel for Equalize {
    fn change(&self, m: &mut Model) -> Result<Changed, TensorError> {
        let done = self.apply(m)?;
        let (float, rotated) = (Vec::new(), Vec::new());
        Ok(Changed { summary: done.describe(), missed: done.missed, float, rotated })
    }
}

/// What was equalized.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Equalized {
    pub pairs: Vec<Evened>,
    /// Layers whose input no layer computes through functions that a scale passes, or that could
    /// not be scaled.
    pub missed: Vec<(NodeId, NoMatch)>,
}

/// A pair of layers, before and after.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Evened {
    pub first: NodeId,
    pub second: NodeId,
    pub channels: usize,
    /// The widest channel of the first layer's weights over the median one.
    pub before: f32,
    pub after: f32,
}

/// What a layer's channels are multiplied with.
struct Factors {
    outputs: Vec<f64>,
    inputs: Vec<f64>,
}

impl Factors {
    fn of(&mut self, side: Side) -> &mut [f64] {
        match side {
            Side::Outputs => &mut self.outputs,
            Side::Inputs => &mut self.inputs,
        }
    }
}

/// Factors of layers, by their nodes.
type All = BTreeMap<NodeId, Factors>;

/// The most sweeps over all pairs.
const SWEEPS: usize = 40;

/// A sweep that moves no scale further than by this fraction is the last.
const STILL: f64 = 1e-3;

/// Scales stay within this factor of one.
const REACH: f64 = 1e4;

impl Equalize {
    /// Equalizes every pair of layers of the model, whose float function stays the same.
    pub fn apply(&self, m: &mut Model) -> Result<Equalized, TensorError> {
        let Pairs { layers, pairs, missed } = Pairs::find(m);
        let mut factors: All = BTreeMap::new();
        for (node, layer) in &layers {
            let (outputs, inputs) = (vec![1.0; layer.outputs()], vec![1.0; layer.inputs()]);
            factors.insert(*node, Factors { outputs, inputs });
        }
        let before = spreads(m, &layers, &pairs, &factors)?;
        // A pair that shares no layer with another is level after one sweep.
        let chained = pairs.iter().any(|it| pairs.iter().any(|other| other.second == it.first));
        for _ in 0..if chained { SWEEPS } else { 1 } {
            let mut moved = 0f64;
            for pair in &pairs {
                moved = moved.max(level(m, &layers, pair, &mut factors)?);
            }
            if moved < STILL {
                break;
            }
        }
        let after = spreads(m, &layers, &pairs, &factors)?;
        for layer in layers.values() {
            carry_out(m, layer, &factors[&layer.node])?;
        }
        for pair in &pairs {
            shift(m, pair, &factors[&pair.first].outputs)?;
        }
        let evened = pairs.iter().zip(before).zip(after).map(|((it, before), after)| {
            let (first, second, channels) = (it.first, it.second, layers[&it.first].outputs());
            Evened { first, second, channels, before, after }
        });
        Ok(Equalized { pairs: evened.collect(), missed })
    }
}

/// Gives both ends of each channel the same range; how far the furthest scale moved.
fn level(
    m: &Model,
    layers: &BTreeMap<NodeId, Layer>,
    pair: &Pair,
    all: &mut All,
) -> Result<f64, TensorError> {
    let first = ranges(m, &layers[&pair.first], Side::Outputs, all)?;
    let second = ranges(m, &layers[&pair.second], Side::Inputs, all)?;
    let is_live = |it: f64| it > 0.0 && it.is_finite();
    let mut moved = 0f64;
    for (channel, (r1, r2)) in first.into_iter().zip(second).enumerate() {
        // What is zero on one side computes nothing.
        if !is_live(r1) || !is_live(r2) {
            continue;
        }
        let outputs = &mut all.get_mut(&pair.first).expect("a layer").outputs[channel];
        let to = (*outputs / (r1 / r2).sqrt()).clamp(1.0 / REACH, REACH);
        moved = moved.max((to / *outputs).ln().abs());
        let step = *outputs / to;
        *outputs = to;
        all.get_mut(&pair.second).expect("a layer").inputs[channel] *= step;
    }
    Ok(moved)
}

/// The largest magnitude of each channel of a side, as it is scaled so far.
fn ranges(m: &Model, layer: &Layer, side: Side, all: &mut All) -> Result<Vec<f64>, TensorError> {
    let factors = all.get_mut(&layer.node).expect("a layer");
    let mut ranges = layer.ranges(m, side, factors.of(side.other()))?;
    ranges.iter_mut().zip(factors.of(side)).for_each(|(range, it)| *range *= *it);
    Ok(ranges)
}

/// How much wider the widest channel of each pair's first layer is than the median one.
fn spreads(
    m: &Model,
    layers: &BTreeMap<NodeId, Layer>,
    pairs: &[Pair],
    factors: &All,
) -> Result<Vec<f32>, TensorError> {
    let spread = |pair: &Pair| {
        let (layer, it) = (&layers[&pair.first], &factors[&pair.first]);
        let ranges = layer.ranges(m, Side::Outputs, &it.inputs)?;
        let mut ranges: Vec<f64> = ranges.iter().zip(&it.outputs).map(|(a, b)| a * b).collect();
        ranges.retain(|it| *it > 0.0);
        ranges.sort_by(f64::total_cmp);
        let widest = ranges.last().copied().unwrap_or(1.0);
        Ok((widest / ranges.get(ranges.len() / 2).copied().unwrap_or(widest)) as f32)
    };
    pairs.iter().map(spread).collect()
}

/// Replaces the weight, and the bias that a convolution adds.
fn carry_out(m: &mut Model, layer: &Layer, it: &Factors) -> Result<(), TensorError> {
    if it.outputs.iter().chain(&it.inputs).all(|it| *it == 1.0) {
        return Ok(());
    }
    let weight = m.operand(layer.node, 1).and_then(|it| Ok((it, m.constant(it)?)));
    let (weight, tensor) = weight.expect("a layer has a weight");
    let scaled = layer.scaled(tensor, &it.outputs, &it.inputs);
    let mut patch = Patch::before(layer.node);
    let new = patch.constant(&m.value(weight).name, scaled);
    patch.rewire(layer.node, 1, new).apply(m);
    Ok(())
}

/// Scales what is added to a pair's channels: the biases.
fn shift(m: &mut Model, pair: &Pair, factors: &[f64]) -> Result<(), TensorError> {
    for &(node, index) in &pair.biases {
        let bias = m.operand(node, index).and_then(|it| Ok((it, m.constant(it)?)));
        let (bias, tensor) = bias.expect("a bias is constant");
        let values = tensor.to_f32()?;
        let values = values.iter().zip(factors).map(|(a, b)| (f64::from(*a) * b) as f32);
        let bytes = from_f32(tensor.dtype, &values.collect::<Vec<_>>())?;
        let scaled = Tensor::new(tensor.dtype, tensor.shape.clone(), bytes);
        let mut patch = Patch::before(node);
        let new = patch.constant(&m.value(bias).name, scaled);
        patch.rewire(node, index, new).apply(m);
    }
    Ok(())
}

/// Types whose values survive a detour through `f32`.
fn scalable(m: &Model, node: NodeId, tensor: &Tensor) -> Result<(), NoMatch> {
    match tensor.dtype {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        it => Err(no_match!("a constant of {} is of type {it}", m.node_label(node))),
    }
}

impl Equalized {
    /// `7 pairs of layers: channels apart by ×31 at most, now ×1.8`.
    pub fn describe(&self) -> String {
        if self.pairs.is_empty() {
            return "no pair of layers: nothing to equalize".into();
        }
        let most = |of: fn(&Evened) -> f32| self.pairs.iter().map(of).fold(1.0, f32::max);
        let count = self.pairs.len();
        let noun = if count == 1 { "pair" } else { "pairs" };
        let (before, after) = (most(|it| it.before), most(|it| it.after));
        format!("{count} {noun} of layers: widest channel ×{before:.1} the median, now ×{after:.1}")
    }
}

#[cfg(test)]
mod tests;
