//! How two models differ, judged.

use std::{fmt, str::FromStr};

use onnxq_quant::recipe::{self, gate::GateError};
use onnxq_report::{Report as Document, emit::emitter, gate, lookup};

use super::Error;

/// How two models differ: figures, facts, and whether gates hold.
pub struct Report {
    pub(crate) inner: Document,
}

/// A limit: `kl.mean<=0.05`, `logits:top1>=0.97`. `onnxq explain` lists the metrics.
#[derive(Clone, Debug)]
pub struct Gate {
    pub(crate) inner: recipe::Gate,
}

/// Whether a limit holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GateResult {
    /// The limit as text.
    pub gate: String,
    /// What was measured; `None` if nothing was.
    pub measured: Option<f64>,
    /// Whether it holds. What was not measured does not.
    pub pass: bool,
}

impl FromStr for Gate {
    type Err = Error;

    /// # Errors
    /// E706 if it is not of the form `metric.statistic<=limit`.
    fn from_str(text: &str) -> Result<Gate, Error> {
        let inner = text.parse().map_err(|error: GateError| Error::of(error))?;
        Ok(Gate { inner })
    }
}

impl Report {
    /// Whether every gate holds.
    pub fn passes(&self) -> bool {
        self.inner.passes()
    }

    /// What became of each gate.
    pub fn gates(&self) -> Vec<GateResult> {
        self.inner.gates.iter().map(result).collect()
    }

    /// Whether another limit would hold.
    pub fn check(&self, limit: &Gate) -> GateResult {
        result(&gate::check(&limit.inner, &self.inner.figures))
    }

    /// A figure by the name that gates use, of the worst output that has it: `kl`, `top1`,
    /// `sqnr_db`, `size_ratio`; `statistic` is `mean`, `p99`, ….
    pub fn figure(&self, metric: &str, statistic: Option<&str>) -> Option<f64> {
        let found = lookup::find(&self.inner.figures, metric, statistic);
        found.into_iter().map(|it| it.value).reduce(f64::max)
    }

    /// `onnxq.report/1`, as `schemas/report.json` describes it.
    pub fn to_json(&self) -> String {
        self.render("json").expect("a report has a JSON form")
    }

    /// The report as `html`, `json`, `junit`, `markdown`, `sarif`, …; `None` if there is no such
    /// format.
    pub fn render(&self, format: &str) -> Option<String> {
        Some((emitter(format)?.emit)(&self.inner))
    }
}

fn result(it: &gate::GateResult) -> GateResult {
    GateResult { gate: it.gate.clone(), measured: it.measured, pass: it.pass }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("passes", &self.passes()).finish_non_exhaustive()
    }
}
