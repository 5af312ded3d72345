//! What a run did and measured, as data: the JSON beside a model is this struct.

mod accumulate;
mod compare;
mod gate;
mod latency;
pub mod metrics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    accumulate::{NonFinite, OutputMetrics, Perplexity},
    compare::{CompareError, CompareOptions, Comparison, Size, compare},
    gate::GateResult,
    latency::Latency,
};

/// `1,142,372`: counts as people read them.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `25.1 MiB`: sizes as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

pub const SCHEMA: &str = "onnxq.report/1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub verdict: Verdict,
    pub models: Models,
    pub recipe: Option<RecipeNote>,
    pub gates: Vec<GateResult>,
    pub data: Option<DataNote>,
    pub comparison: Option<Comparison>,
    /// Nodes that could have been quantized and were not.
    pub kept: Vec<Kept>,
    pub environment: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    /// No gate was set.
    #[default]
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Models {
    pub reference: ModelNote,
    pub candidate: Option<ModelNote>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelNote {
    pub path: String,
    pub sha256: String,
    /// External data included.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeNote {
    pub name: String,
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataNote {
    pub path: String,
    pub sha256: String,
    pub samples: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub node: String,
    pub op: String,
    pub reason: String,
}

impl Report {
    pub fn new(models: Models) -> Report {
        Report {
            schema: SCHEMA.into(),
            verdict: Verdict::None,
            models,
            recipe: None,
            gates: Vec::new(),
            data: None,
            comparison: None,
            kept: Vec::new(),
            environment: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds the results and what follows from them.
    pub fn set_gates(&mut self, gates: Vec<GateResult>) {
        self.verdict = match &gates[..] {
            [] => Verdict::None,
            list if list.iter().all(|it| it.pass) => Verdict::Pass,
            _ => Verdict::Fail,
        };
        self.gates = gates;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::gate::Gate;

    #[test]
    fn digits_come_in_groups() {
        assert_eq!([0, 999, 1000, 1_142_372].map(grouped), ["0", "999", "1,000", "1,142,372"]);
    }

    #[test]
    fn json_leads_back_to_the_report() {
        let mut report = Report::new(Models::default());
        report.comparison =
            Some(Comparison { size: Some(Size::new(0, 0)), ..Comparison::default() });
        let gate: Gate = "size_ratio<=1".parse().unwrap();
        report.set_gates(vec![gate.check(report.comparison.as_ref().unwrap())]);
        assert_eq!(report.verdict, Verdict::Fail);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.starts_with(r#"{"schema":"onnxq.report/1","verdict":"fail","#), "{json}");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
