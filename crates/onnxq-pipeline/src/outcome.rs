//! What a quantization did, for people and scripts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Adapted, Census, Exactness, Execution, Job, Lowered, Mixed, Planned, distil::Learnt, gguf::Gguf,
};
use onnxq_ir::{Model, NodeId, diag::Warning, onnx::Files, releases::Needed};
use onnxq_quant::{plan::PlanRow, sources::MeasuredError};

/// The result of a quantization.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub recipe: String,
    pub model: PathBuf,
    /// `None` after a dry run.
    pub output: Option<PathBuf>,
    pub before: Census,
    pub after: Census,
    /// A prediction that data may change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimate: bool,
    pub quantized_nodes: usize,
    /// Fraction of the bytes of float weights of two and more dimensions that became smaller.
    pub quantized_weights: f64,
    /// Which ONNX Runtime computes the result; `None` of a GGUF file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needed>,
    /// How many tensors of a GGUF file have which type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<&'static str, usize>,
    pub nodes: Vec<PlanRow>,
    /// How activations were chosen, if by measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapted: Option<Adapted>,
    /// How bits were chosen, if by measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed: Option<Mixed>,
    /// What training gave back, if the recipe asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distil: Option<Learnt>,
    /// What ONNX Runtime makes of the result; `None` after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// On which CPUs its int8 layers are exact; `None` after a dry run and without such layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8: Option<Exactness>,
    pub warnings: Vec<Warning>,
}

impl Outcome {
    fn new(
        files: &Files,
        model: &Model,
        (before, after): (Census, Census),
        nodes: Vec<PlanRow>,
        job: &Job,
    ) -> Outcome {
        Outcome {
            schema: "onnxq.quantize/1",
            onnxq: env!("CARGO_PKG_VERSION"),
            recipe: job.recipe.name.clone(),
            model: files.model.clone(),
            output: None,
            before,
            after,
            estimate: false,
            quantized_nodes: nodes.iter().filter(|it| it.format.is_some()).count(),
            quantized_weights: quantized_weights(&nodes),
            needs: Some(Needed::by(model)),
            types: BTreeMap::new(),
            nodes,
            adapted: None,
            mixed: None,
            distil: None,
            execution: None,
            int8: None,
            warnings: Vec::new(),
        }
    }
}

impl Planned {
    /// The outcome of a job that had nothing to do.
    pub(super) fn nothing(&self, job: &Job) -> Outcome {
        let after = Census::of(&self.model, self.before.bytes);
        let rows = self.plan.rows(&self.model);
        let outcome =
            Outcome::new(&self.files, &self.model, (self.before.clone(), after), rows, job);
        Outcome { warnings: self.warnings.clone(), ..outcome }
    }
}

impl Lowered {
    /// The outcome of a model of so many bytes, if it was written to `output`.
    pub fn outcome(&self, output: Option<&Path>, size: u64, job: &Job) -> Outcome {
        let nodes = with_errors(&self.rows, &self.weight_errors);
        let after = Census::of(&self.model, size);
        let outcome =
            Outcome::new(&self.files, &self.model, (self.before.clone(), after), nodes, job);
        Outcome {
            output: output.map(Path::to_owned),
            adapted: self.adapted.clone(),
            mixed: self.mixed.clone(),
            distil: self.learnt.clone(),
            warnings: self.warnings.clone(),
            needs: outcome.needs.clone().filter(|_| self.gguf.is_none()),
            types: self.gguf.as_ref().map(Gguf::types).unwrap_or_default(),
            ..outcome
        }
    }
}

/// Rows with the errors of those weights that are solved by now.
pub(super) fn with_errors(
    rows: &[PlanRow],
    weight_errors: &[(NodeId, MeasuredError)],
) -> Vec<PlanRow> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        let weight_error = weight_errors.iter().find(|it| it.0 == row.id);
        row.error = weight_error.and_then(|it| it.1.error());
    }
    rows
}

/// Fraction of the weights' bytes that the plan makes smaller.
fn quantized_weights(rows: &[PlanRow]) -> f64 {
    let weights = |it: &&PlanRow| it.shape.len() >= 2;
    let count = |row: &PlanRow| row.shape.iter().product::<usize>() as f64;
    let mut seen: BTreeMap<&str, (f64, bool)> = BTreeMap::new();
    for row in rows.iter().filter(weights) {
        let entry = seen.entry(&row.weight).or_insert((count(row), false));
        entry.1 |= row.format.is_some();
    }
    let total: f64 = seen.values().map(|it| it.0).sum();
    let quantized: f64 = seen.values().filter(|it| it.1).map(|it| it.0).sum();
    if total == 0.0 { 0.0 } else { quantized / total }
}
