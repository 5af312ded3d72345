//! What was measured for each activation, and what it got.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::layer::Layer;
use crate::{ranges::Ranged, search::evaluator::Measure};
use onnxq_ir::no_match;
use onnxq_quant::{
    budget::Choice,
    plan::Kept,
    recipe::{AdaptGoal, AdaptSpec},
};
use onnxq_report::Comparison;

/// How the activations were chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Adapted {
    /// Predicted: what the chosen candidates take over the fastest ones, in proportion.
    pub extra_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// What losses are; `None`: choices went by the errors at nodes, the model being large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
    pub activations: Vec<Choosing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_correction: Option<Correction>,
    /// Whole models that were measured on the way to the goal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
}

/// An activation: what each candidate does, and which one it got.
#[derive(Clone, Debug, Serialize)]
pub struct Choosing {
    pub activation: String,
    pub nodes: Vec<String>,
    pub choice: String,
    /// The first of its candidates.
    pub fastest: String,
    /// By how much the nodes' outputs are off (rms in proportion, the worst node), for each
    /// candidate.
    pub errors: BTreeMap<String, f64>,
    /// What the outputs lose if only this activation is quantized, for each candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub losses: Option<BTreeMap<String, f64>>,
    /// How many times the largest row maximum is as large as the mean of all in its sample.
    pub row_ratio: f64,
}

/// Biases that take back what quantization adds to a channel on average.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Correction {
    pub biases: usize,
    /// What the outputs lose with the biases as they were, and corrected.
    pub loss: f64,
    pub corrected_loss: f64,
    /// Whether they were corrected: only if that helps.
    pub kept: bool,
}

/// A model on the way to the goal.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tried {
    /// Activations with another than their fastest candidate.
    pub raised: usize,
    /// The sum of what its activations lose one by one.
    pub predicted: f64,
    pub measured: Measured,
    pub reached: bool,
}

/// The worst of all outputs that have a metric.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Measured {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
}

impl Measured {
    pub(super) fn of(comparison: &Comparison) -> Measured {
        let mut it = Measured::default();
        for output in comparison.outputs.values().filter(|it| it.equal.is_none()) {
            if let Some(kl) = output.kl {
                let kl = kl.mean.unwrap_or(f64::MAX);
                it.kl = Some(it.kl.map_or(kl, |other| other.max(kl)));
            } else if !output.exact {
                let db = output.sqnr_db.unwrap_or(f64::NEG_INFINITY);
                it.sqnr_db = Some(it.sqnr_db.map_or(db, |other| other.min(db)));
            }
        }
        it
    }

    pub(super) fn reaches(self, goal: AdaptGoal) -> bool {
        let kl = goal.max_kl.zip(self.kl).is_none_or(|(max, it)| it <= max);
        let sqnr = goal.min_sqnr_db.zip(self.sqnr_db).is_none_or(|(min, it)| it >= min);
        kl && sqnr
    }

    /// How many times the loss of the goal it loses; `None` if the goal limits nothing of it.
    pub(super) fn of_goal(self, goal: AdaptGoal) -> Option<f64> {
        let kl = goal.max_kl.zip(self.kl).map(|(max, it)| it / max.max(f64::MIN_POSITIVE));
        let sqnr = goal.min_sqnr_db.zip(self.sqnr_db);
        let noise = sqnr.map(|(min, it)| 10f64.powf((min - it) / 10.0));
        kl.into_iter().chain(noise).reduce(f64::max)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kl, self.sqnr_db) {
            (Some(kl), _) => write!(f, "a mean KL divergence of {kl:.4}"),
            (None, Some(db)) => write!(f, "an SQNR of {db:.1} dB"),
            (None, None) => f.write_str("the same outputs"),
        }
    }
}

impl Adapted {
    pub(super) fn new(
        ranged: Ranged<'_>,
        spec: &AdaptSpec,
        layers: &[Layer],
        picks: &[usize],
        measure: Option<Measure>,
        tried: Vec<Tried>,
    ) -> Adapted {
        let m = &ranged.planned.model;
        let time = |picked: &dyn Fn(usize) -> usize| -> f64 {
            let each = layers.iter().enumerate();
            each.map(|(at, it)| (it.candidates[picked(at)].time * it.rows) as f64).sum()
        };
        let (least, chosen) = (time(&|_| 0), time(&|at| picks[at]));
        let choosing = |(layer, pick): (&Layer, &usize)| Choosing {
            activation: m.value(layer.x).name.to_string(),
            nodes: layer.nodes.iter().map(|it| m.node_label(*it)).collect(),
            choice: layer.candidates[*pick].name(),
            fastest: layer.candidates[0].name(),
            errors: layer.candidates.iter().map(|it| (it.name(), it.worst().sqrt())).collect(),
            losses: measure
                .map(|_| layer.candidates.iter().map(|it| (it.name(), it.loss)).collect()),
            row_ratio: layer.row_ratio,
        };
        Adapted {
            extra_time: if least > 0.0 { chosen / least - 1.0 } else { 0.0 },
            budget: spec.budget,
            measure,
            activations: layers.iter().zip(picks).map(choosing).collect(),
            bias_correction: None,
            tried,
        }
    }
}

/// The nodes that stay as they are, with the error that they would have.
pub(super) fn kept(
    ranged: Ranged<'_>,
    layers: &[Layer],
    choices: &[Vec<Choice>],
    picks: &[usize],
) -> Vec<Kept> {
    let m = &ranged.planned.model;
    let elements = |it: usize| {
        m.constant(ranged.planned.plan.sites[it].site.weight).map_or(0, |it| it.numel())
    };
    let mut list = Vec::new();
    for ((layer, choices), pick) in layers.iter().zip(choices).zip(picks) {
        if layer.candidates[*pick].plans.iter().any(Option::is_some) {
            continue;
        }
        let (name, error) =
            (layer.candidates[0].name(), 100.0 * layer.candidates[0].worst().sqrt());
        let reason = match choices[*pick].price <= choices[0].price {
            true => no_match!("calibration: {name} would be no faster than float"),
            false => no_match!("calibration: {name} would change its output by {error:.1} %"),
        };
        for (node, site) in layer.nodes.iter().zip(&layer.sites) {
            list.push(Kept { node: *node, elements: elements(*site), reason: reason.clone() });
        }
    }
    list
}
