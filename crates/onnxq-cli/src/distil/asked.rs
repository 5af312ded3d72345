//! Whether the flags make sense for the student and the data at hand.

use std::path::{Path, PathBuf};

use super::{
    super::{Failure, shared::no_effect},
    Args, Who, lessons,
};
use onnxq_ir::diag::{Code, Diagnostic};
use onnxq_quant::recipe::LossName;

/// What stands for `--recipe` if it is not given.
const USUAL_RECIPE: &str = "avx512_vnni";

impl Args {
    /// Fails if a flag would have no effect.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.check_student()?;
        self.check_data()?;
        let is_left =
            matches!(self.student, Who::Smaller(_)) && self.how.loss != Some(LossName::Ce);
        let unlike = "only students with layers of their teacher have its hidden states";
        no_effect([("--hidden", self.how.hidden.is_some() && !is_left)], unlike)?;
        let keeps = self.how.cache_teacher.is_some();
        let unkept = "the loss asks no teacher, or compares vectors, which have no likeliest token";
        no_effect([("--cache-teacher", keeps && !self.has_labels())], unkept)?;
        let without = "the loss asks no teacher, or compares vectors, which predict no token";
        no_effect([("--labels", self.how.labels.is_some() && !self.has_labels())], without)
    }

    fn check_student(&self) -> Result<(), Failure> {
        let Who::Given(student) = &self.student else { return self.check_recipe() };
        if self.how.loss == Some(LossName::Ce) {
            return Err(NotAsked { student: student.clone() }.into());
        }
        self.check_recipe()
    }

    /// Flags of students that are quantized, and of those that are not.
    fn check_recipe(&self) -> Result<(), Failure> {
        if self.student == Who::Quantized {
            return Ok(());
        }
        let recipe = &self.recipe;
        let flags = [
            ("--recipe", recipe.recipe != USUAL_RECIPE),
            ("--set", !recipe.set.is_empty()),
            ("--exclude", !recipe.exclude.is_empty()),
            ("--include", !recipe.include.is_empty()),
        ];
        no_effect(flags, "the student stays in float; `onnxq quantize` takes it afterwards")?;
        let few = self.data.calibration_samples.is_some();
        let solves = matches!(self.student, Who::Smaller(_));
        let without = "no solver and no choice of layers looks at samples";
        no_effect([("--calibration-samples", few && !solves)], without)
    }

    fn check_data(&self) -> Result<(), Failure> {
        let data = &self.data;
        if data.data.iter().all(|it| lessons::is_text(it)) {
            return Ok(());
        }
        let several = data.data.len() > 1;
        no_effect([("a second --data", several)], "only texts are read from several places")?;
        no_effect([("--pack", data.pack)], "only texts are packed into windows")?;
        let flags =
            [("--window", data.window.is_some()), ("--tokenizer", data.tokenizer.is_some())];
        match is_array(&data.data[0]) {
            true => no_effect(flags, "samples in arrays have the length that they have"),
            false => Ok(()),
        }
    }

    /// Whether the next token can be a part of the loss.
    fn has_labels(&self) -> bool {
        let by_teacher = matches!(self.how.loss, None | Some(LossName::Kl));
        by_teacher && self.student != Who::Own
    }
}

fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "npy" || it == "npz")
}

/// MODEL would teach, and the loss is of the data alone.
#[derive(Debug, thiserror::Error)]
#[error("MODEL has no effect: with --loss ce the student learns from the data, not from a teacher")]
struct NotAsked {
    student: PathBuf,
}

impl Diagnostic for NotAsked {
    fn code(&self) -> Code {
        Code::E712
    }

    fn hint(&self) -> Option<String> {
        let student = self.student.display();
        Some(format!(
            "train that model itself: `onnxq distil {student} --student given --loss ce …`"
        ))
    }
}
