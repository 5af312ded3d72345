//! `adapt`: what calibration data decides about the activation of each node.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActivationSpec, FormatName, resolve};
use crate::{format, plan::SitePlan};
use onnxq_ir::{Model, NoMatch};
use onnxq_numerics::specs::{Settings, Wrong};

/// What the activation of each node is quantized with, decided by what calibration data shows.
///
/// Nodes that read the same activation decide together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdaptSpec {
    /// What to choose from, the fastest first; each is laid over what `quantize` says of the node.
    /// What a node cannot have is left out for it.
    #[serde(alias = "ways")]
    pub candidates: Vec<ActivationCandidate>,
    /// Time that may be spent on accuracy, as a fraction of what the nodes take if each has its
    /// fastest candidate: 0.05 is 5 %. It goes where it removes the most error. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// A node whose output is further off (rms error by rms, per token) gets a slower candidate,
    /// whatever the budget. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error: Option<f64>,
    /// Takes from the biases of static nodes what quantization adds to their channels on average
    /// (Nagel et al. 2019), if the outputs gain by it. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bias_correction: bool,
    /// What the model must reach on the calibration data. Nodes get slower candidates, those with
    /// the largest errors first, until it does; if it never does, that is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<AdaptGoal>,
}

/// A candidate: how an activation may be quantized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivationCandidate {
    /// As in `quantize`.
    pub activation: ActivationSpec,
    /// As in `quantize`. Default: what that says. `[]` leaves the node as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Vec<FormatName>>,
}

/// Limits for a model's outputs; each counts for the outputs that it can be measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdaptGoal {
    /// The mean KL divergence from the original in nats, where outputs are logits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_kl: Option<f64>,
    /// The signal to quantization noise ratio in dB, of all other outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sqnr_db: Option<f64>,
}

impl Settings for AdaptSpec {
    fn check(&self) -> Result<(), Wrong> {
        if self.candidates.is_empty() {
            return Err(Wrong::new("candidates", "there is nothing to choose from"));
        }
        for (i, candidate) in self.candidates.iter().enumerate() {
            let unknown = |it: &&FormatName| format::format(it).is_none();
            if let Some(name) = candidate.format.iter().flatten().find(unknown) {
                return Err(Wrong::new(
                    format!("candidates.{i}.format"),
                    format!("unknown format `{name}`"),
                ));
            }
            if let Some(it) = candidate.activation.observer() {
                it.check()
                    .map_err(|it| it.inside(&format!("candidates.{i}.activation.observer")))?;
            }
        }
        let goal = self.goal.unwrap_or_default();
        let limits =
            [("budget", self.budget), ("max_error", self.max_error), ("goal.max_kl", goal.max_kl)];
        for (key, limit) in limits {
            if limit.is_some_and(|it| !it.is_finite() || it < 0.0) {
                return Err(Wrong::new(key, "must not be negative"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for AdaptGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kl = self.max_kl.map(|it| format!("KL ≤ {it}"));
        let sqnr = self.min_sqnr_db.map(|it| format!("SQNR ≥ {it} dB"));
        f.write_str(&kl.into_iter().chain(sqnr).collect::<Vec<_>>().join(", "))
    }
}

impl ActivationCandidate {
    /// The site with its activation quantized like this, or why it cannot have it; `None` if it
    /// stays as it is.
    pub fn of(&self, m: &Model, site: &SitePlan) -> Result<Option<SitePlan>, NoMatch> {
        let own = [site.format.name.to_owned()];
        let names = self.format.as_deref().unwrap_or(&own);
        if names.is_empty() {
            return Ok(None);
        }
        let wanted = self.activation.complete();
        let activation = wanted.map(resolve::activation);
        let quantized = wanted.map(|it| it.quantized).unwrap_or_default();
        let mut reasons = Vec::new();
        for name in names {
            // Loading has checked the name.
            let Some(format) = format::format(name) else { continue };
            let scheme = (format.place)(m, &site.site)
                .and_then(|()| (format.scheme)(site.scheme, activation));
            match scheme {
                Ok(scheme) => {
                    return Ok(Some(SitePlan {
                        scheme,
                        activation,
                        quantized,
                        format,
                        ..site.clone()
                    }));
                }
                Err(reason) => reasons.push(format!("{name}: {reason}")),
            }
        }
        Err(NoMatch(reasons.join("; ").into()))
    }
}
