//! The report: everything that is known of a comparison, as one document that other programs read.
//!
//! Its JSON is stable (`onnxq.report/1`): fields are only ever added. Numbers are finite; a figure
//! that does not apply, or that was infinite, is `null`. There are no times of day.

mod decisions;
mod facts;
mod layers;
mod read;
mod run;
mod spread;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};

pub use self::{
    decisions::{Decision, DecisionColumn},
    facts::{FileFacts, Kept, ModelFacts, Models, PrecisionRow, WeightKind},
    layers::{Attribution, Bisection, LayerError, Probe, Suggestion},
    read::{ReadError, parse, read},
    run::{Environment, Overlap, Provenance, RecipeFacts, Samples, Warning},
    spread::Spread,
};
use super::{baseline::BaselineFacts, figures::Comparison, gate::GateResult};

/// The name and version of the format.
pub const SCHEMA: &str = "onnxq.report/1";

/// A candidate model against its reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Report {
    /// `onnxq.report/1`.
    pub schema: String,
    pub verdict: Verdict,
    pub models: Models,
    pub gates: Vec<GateResult>,
    /// The older report that this one was held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineFacts>,
    /// How far the outputs are apart, and how fast both models run.
    #[serde(flatten)]
    pub figures: Comparison,
    /// Where the error enters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
    /// Every node of the candidate with a weight, in the order of execution.
    pub precision: Vec<PrecisionRow>,
    /// What stays in float, and why; empty if that is not known.
    pub kept: Vec<Kept>,
    /// What was decided while the candidate was made; empty if that is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    pub environment: Environment,
    pub provenance: Provenance,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was asked: no gates, no baseline.
    #[default]
    NotJudged,
    /// Every gate holds, and no figure is worse than the baseline allows.
    Pass,
    PassWithWarnings,
    /// A gate does not hold, or a figure is worse than the baseline allows.
    Fail,
}

impl Report {
    /// The verdict that gates and warnings make together.
    pub fn judge(&mut self) {
        self.verdict = if self.gates.iter().any(|it| !it.pass) || self.regressions() > 0 {
            Verdict::Fail
        } else if self.gates.is_empty() && self.baseline.is_none() {
            Verdict::NotJudged
        } else if self.warnings.is_empty() {
            Verdict::Pass
        } else {
            Verdict::PassWithWarnings
        };
    }

    /// Figures that are worse than in the baseline.
    pub fn regressions(&self) -> usize {
        let rows = self.baseline.iter().flat_map(|it| &it.rows);
        rows.filter(|it| !it.pass).count()
    }

    pub fn passes(&self) -> bool {
        self.verdict != Verdict::Fail
    }
}

/// The JSON Schema of a report. Draft 7, because editors know no newer one.
pub fn schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Report>();
    let text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text + "\n"
}
