//! A result that is compared with the original before it gets its place.

use std::path::{Path, PathBuf};

use super::{
    super::{
        Failure, Ui, command_line, environment, show,
        stream::{Output, Received},
    },
    Args, exit_code, report,
};
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::SaveOptions,
};
use onnxq_pipeline::{self as pipeline, Inputs, Outcome, Staged, Validate};
use onnxq_quant::recipe::{Gate, Recipe};
use onnxq_report::Report;
use onnxq_run::data::Dataset;

impl Args {
    /// Quantizes to `output` what holds its gates on `data`.
    pub(super) fn judged(
        &self,
        (output, stdin, data): (Output, &Received, &Path),
        (recipe, gates): (&Recipe, &[Gate]),
        inputs: &Inputs,
        save: &SaveOptions,
        ui: &Ui,
    ) -> Result<u8, Failure> {
        if is_same_file(&self.model, output.path()) {
            return Err(OriginalLost { path: output.path().into() }.into());
        }
        // Fetched now, it can also say what executes; if it cannot be, the comparison says so.
        let _ = ui.global.runtime(ui).ensure();
        let staged = Staged::new(output.path(), self.force)?;
        let named = output.progress(ui);
        let shown = staged.shown(&named);
        let ctx = Ctx { progress: &shown, ..ui.ctx() };
        let outcome = self.quantize(&staged.path(), recipe, inputs, save, &ctx);
        let mut outcome = outcome.map_err(|failure| output.explained(failure))?;
        outcome.model = stdin.shown(&self.model).into();
        let written = outcome.output.is_some();
        if !written && !self.allow_noop {
            return report(ui, &outcome, None, self.allow_noop);
        }
        outcome.output = written.then(|| output.shown().to_owned());
        // Without a result the original is what will be used, so that is what gates are asked of.
        let candidate = if written { staged.path() } else { self.model.clone() };
        let mut validation = match self.validate((&outcome, stdin), &candidate, data, gates, ui) {
            Ok(validation) => validation,
            Err(failure) => return Err(unjudged(staged, written, &output, failure, ui)),
        };
        if written && validation.passes() {
            staged.accept()?;
            output.deliver()?;
        } else if written && output.is_stream() {
            outcome.output = None;
        } else if written {
            let place = staged.reject()?;
            validation.models.candidate.path = place.display().to_string();
            outcome.output = Some(place);
        }
        let human = || show::outcome(&outcome, Some(&validation));
        if !self.reports.is_asked() {
            return report(ui, &outcome, Some(&validation), self.allow_noop);
        }
        self.reports.deliver(&validation, human, ui)?;
        Ok(exit_code(&outcome, Some(&validation), self.allow_noop))
    }

    fn validate(
        &self,
        (outcome, stdin): (&Outcome, &Received),
        candidate: &Path,
        data: &Path,
        gates: &[Gate],
        ui: &Ui,
    ) -> Result<Report, Failure> {
        let validate = Validate {
            reference: &self.model,
            candidate,
            reference_as: Some(stdin.shown(&self.model)),
            candidate_as: outcome.output.as_deref(),
            data: Dataset::of_path(data, self.data.from.options(&self.model)),
            open: self.input.options(),
            gates,
            baseline: self.measure.baseline.as_deref(),
            measures: self.measure.measures(),
            threads: ui.global.session_threads(),
            memory: self.calibration.memory,
            runtime: ui.global.runtime(ui),
            command: command_line(),
            program: environment::program(),
        };
        Ok(pipeline::validate(&validate, Some(outcome), &ui.ctx())?)
    }
}

/// What could not be judged does not get its place either.
fn unjudged(staged: Staged, written: bool, output: &Output, failure: Failure, ui: &Ui) -> Failure {
    if !written || output.is_stream() {
        return failure;
    }
    match staged.reject() {
        Ok(place) => {
            ui.note(&format!("{} was written; comparing it failed", place.display()));
            failure
        }
        Err(error) => error.into(),
    }
}

/// Whether two paths lead to one file, which exists.
fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

#[derive(Debug, thiserror::Error)]
#[error("{} would replace the original, and nothing would be left to compare with", .path.display())]
struct OriginalLost {
    path: PathBuf,
}

impl Diagnostic for OriginalLost {
    fn code(&self) -> Code {
        Code::E904
    }

    fn hint(&self) -> Option<String> {
        Some("choose another output name, or leave out the comparison".into())
    }
}
