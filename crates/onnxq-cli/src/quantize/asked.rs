//! What asks for a comparison: whoever names a gate wants it judged.

use std::path::PathBuf;

use super::{super::shared::NoEffect, Args, Failure, NoData};
use onnxq_ir::diag::{Code, Diagnostic};
use onnxq_quant::recipe::Recipe;

impl Args {
    /// The data to compare on, if anything asks for a comparison. Never made up: random inputs prove
    /// nothing.
    pub(super) fn comparison(&self, recipe: &Recipe) -> Result<Option<PathBuf>, Failure> {
        let asked = self.asked();
        if let Some(asked) = asked.filter(|_| self.dry_run) {
            return Err(NoEffect { asked, without: "a dry run compares nothing" }.into());
        }
        let from = &self.data.from;
        let samples = self.calibration.calibration.is_some() || asked.is_some();
        for (flag, given) in
            [("--tokenizer", from.tokenizer.is_some()), ("--preprocess", from.preprocess.is_some())]
        {
            if given && !samples {
                let without = "there is no --data and no --calibration";
                return Err(NoEffect { asked: flag, without }.into());
            }
        }
        let has_gates = recipe.gates.as_ref().is_some_and(|list| !list.is_empty());
        let asked = asked.or_else(|| (has_gates && !self.dry_run).then_some("the recipe's gates"));
        let data = self.validate.clone().flatten().or_else(|| from.data.clone());
        match (asked, data) {
            (None, _) => Ok(None),
            (Some(_), Some(data)) => Ok(Some(data)),
            (Some(asked), None) => Err(NoComparison { asked }.into()),
        }
    }

    /// The first flag that only a comparison gives a meaning.
    fn asked(&self) -> Option<&'static str> {
        let (from, measure) = (&self.data.from, &self.measure);
        let flags = [
            ("--gate", !self.data.gate.is_empty()),
            ("--baseline", measure.baseline.is_some()),
            ("--validate", self.validate.is_some()),
            ("--data", from.data.is_some()),
            ("--samples", from.samples.is_some()),
            ("--full", measure.full),
            ("--layers", measure.layers),
            ("--no-latency", measure.no_latency),
            ("--report", self.reports.report.is_some()),
            ("--emit", !self.reports.emit.is_empty()),
            ("--output-format", self.reports.output_format.is_some()),
        ];
        flags.into_iter().find(|flag| flag.1).map(|flag| flag.0)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{asked} needs a comparison with the original, and there is no data for it")]
struct NoComparison {
    asked: &'static str,
}

impl Diagnostic for NoComparison {
    fn code(&self) -> Code {
        Code::E712
    }

    fn hint(&self) -> Option<String> {
        NoData("compare on").hint()
    }
}
