//! The gradients of a group of samples, leaf by leaf.

use super::{Kind, LeafId, Weights};
use crate::tape::{Gradient, Grads, SlotId};

/// Sums of gradients. Where only scales are trained, the gradient of the weight itself is reduced to
/// those of its scales at once, so that it never takes memory for longer than a step.
pub struct GroupGrads<'a> {
    weights: &'a Weights,
    /// By leaf: the gradient of its elements; empty where only scales are trained.
    pub dense: Vec<Gradient<f32>>,
    /// By weight: the gradients of the logarithms of its scales.
    pub theta: Vec<Vec<f32>>,
    scratch: Vec<Vec<f32>>,
}

impl<'a> GroupGrads<'a> {
    pub fn new(weights: &'a Weights) -> GroupGrads<'a> {
        let dense = (0..weights.leaf_count()).map(|at| {
            let leaf = LeafId(at);
            let len = weights.shape(leaf).iter().product();
            let dense = weights.is_trained(leaf) && !is_reduced(weights, leaf);
            Gradient { values: vec![0.0; if dense { len } else { 0 }], fresh: true }
        });
        let theta = weights.list.iter().map(|it| vec![0.0; it.theta.len()]).collect();
        GroupGrads { weights, dense: dense.collect(), theta, scratch: Vec::new() }
    }

    /// As if nothing had been added.
    pub fn clear(&mut self) {
        self.dense.iter_mut().for_each(|it| it.fresh = true);
        self.theta.iter_mut().for_each(|it| it.fill(0.0));
    }

    /// Adds what another group found.
    pub fn add(&mut self, other: &GroupGrads<'_>) {
        for (own, other) in self.dense.iter_mut().zip(&other.dense) {
            if !other.fresh {
                own.add(|i| other.values[i]);
            }
        }
        for (own, other) in self.theta.iter_mut().zip(&other.theta) {
            own.iter_mut().zip(other).for_each(|(it, more)| *it += *more);
        }
    }
}

/// Whether nothing is trained of a leaf's weight but its scales.
fn is_reduced(weights: &Weights, leaf: LeafId) -> bool {
    let weight = &weights.list[weights.behind(leaf).0];
    matches!(weight.kind, Kind::Quantized(_)) && weight.rounded_from().is_none()
}

impl Grads<f32> for GroupGrads<'_> {
    fn take(&mut self, leaf: LeafId) -> Gradient<f32> {
        if is_reduced(self.weights, leaf) {
            let len = self.weights.shape(leaf).iter().product();
            let mut values = self.scratch.pop().unwrap_or_default();
            values.resize(len, 0.0);
            return Gradient { values, fresh: true };
        }
        let none = Gradient { values: Vec::new(), fresh: true };
        let taken = std::mem::replace(&mut self.dense[leaf.0], none);
        // A weight that is two inputs of one step.
        if taken.values.is_empty() {
            let len = self.weights.shape(leaf).iter().product();
            return Gradient { values: vec![0.0; len], fresh: true };
        }
        taken
    }

    fn give(&mut self, leaf: LeafId, gradient: Gradient<f32>) {
        if is_reduced(self.weights, leaf) {
            if !gradient.fresh {
                self.reduce(leaf, &gradient.values);
            }
            self.scratch.push(gradient.values);
            return;
        }
        let own = &mut self.dense[leaf.0];
        if own.values.is_empty() {
            *own = gradient;
        } else if !gradient.fresh {
            own.add(|i| gradient.values[i]);
        }
    }

    fn see(&mut self, _: SlotId, _: &[f32]) {}
}

impl GroupGrads<'_> {
    fn reduce(&mut self, leaf: LeafId, dw: &[f32]) {
        let (index, flipped) = self.weights.behind(leaf);
        let weight = &self.weights.list[index];
        let Kind::Quantized(quantized) = &weight.kind else { return };
        let sums = &mut self.theta[index];
        if flipped {
            quantized.reduce_flipped(&weight.theta, dw, sums);
        } else {
            quantized.reduce(&weight.theta, dw, sums);
        }
    }
}
