//! What was measured for each activation, and why it is quantized as it is.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::unit::{Unit, Way};
use crate::{
    ir::Model,
    pipeline::Planned,
    quant::plan::{Activation, PlanRow},
    recipe::{AdaptGoal, AdaptSpec},
    report::Comparison,
};

/// How the activations were chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Adapted {
    /// Predicted: what the chosen ways take over the fastest ones, in proportion.
    pub extra_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    pub activations: Vec<Choosing>,
    /// Whole models that were measured on the way to the goal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
}

/// An activation: what each way does, and which one it got.
#[derive(Clone, Debug, Serialize)]
pub struct Choosing {
    pub activation: String,
    pub nodes: Vec<String>,
    pub choice: &'static str,
    /// By how much the nodes' outputs are off (rms in proportion, the worst node), for each way.
    pub errors: BTreeMap<&'static str, f64>,
    /// How many times the largest row maximum is as large as the mean of all in its sample.
    pub row_ratio: f64,
}

/// A model on the way to the goal.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tried {
    /// Activations with another than their fastest way.
    pub raised: usize,
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

impl fmt::Display for AdaptGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kl = self.max_kl.map(|it| format!("KL ≤ {it}"));
        let sqnr = self.min_sqnr_db.map(|it| format!("SQNR ≥ {it} dB"));
        f.write_str(&kl.into_iter().chain(sqnr).collect::<Vec<_>>().join(", "))
    }
}

/// How a way is called.
fn name(way: &Way) -> &'static str {
    match way.activation() {
        Some(Activation::Tensor) => "tensor",
        Some(Activation::Row) => "row",
        None => "none",
    }
}

pub(super) fn of(
    planned: &Planned,
    spec: &AdaptSpec,
    units: &[Unit],
    picks: &[usize],
    tried: Vec<Tried>,
) -> Adapted {
    let m = &planned.model;
    let time = |picked: &dyn Fn(usize) -> usize| -> f64 {
        let each = units.iter().enumerate();
        each.map(|(at, it)| (it.ways[picked(at)].time * it.rows) as f64).sum()
    };
    let (least, chosen) = (time(&|_| 0), time(&|at| picks[at]));
    let choosing = |(unit, pick): (&Unit, &usize)| Choosing {
        activation: m.value(unit.x).name.to_string(),
        nodes: unit.ways[0].plans.iter().map(|it| m.node_label(it.site.node)).collect(),
        choice: name(&unit.ways[*pick]),
        errors: unit.ways.iter().map(|it| (name(it), it.worst().sqrt())).collect(),
        row_ratio: unit.row_ratio,
    };
    Adapted {
        extra_time: if least > 0.0 { chosen / least - 1.0 } else { 0.0 },
        budget: spec.budget,
        activations: units.iter().zip(picks).map(choosing).collect(),
        tried,
    }
}

impl Adapted {
    /// Says at each node what the data decided.
    pub(super) fn note(&self, rows: &mut [PlanRow], m: &Model) {
        for it in &self.activations {
            let others = it.errors.iter().filter(|(name, _)| **name != it.choice);
            let others: Vec<String> =
                others.map(|(name, error)| format!("{name} {:.2} %", 100.0 * error)).collect();
            let own = it.errors.get(it.choice).copied().unwrap_or_default();
            let note = format!("off by {:.2} % (with {})", 100.0 * own, others.join(", "));
            for row in rows.iter_mut().filter(|row| it.nodes.contains(&m.node_label(row.id))) {
                row.note = Some(match row.note.take() {
                    Some(old) => format!("{old}; {note}"),
                    None => note.clone(),
                });
            }
        }
    }
}
