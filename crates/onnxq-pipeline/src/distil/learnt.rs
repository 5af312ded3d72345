//! What a training did, for people and scripts.

use onnxq_ir::diag::{Code, Diagnostic};
use onnxq_quant::recipe::{DistilSpec, Group};
use serde::{Deserialize, Serialize};

/// The result of a training.
#[derive(Clone, Debug, Serialize)]
pub struct Learnt {
    /// What the loss is: kl, ce, cosine or square.
    pub loss: &'static str,
    /// What was trained, and how many numbers these are.
    pub train: Vec<&'static str>,
    pub trained_numbers: usize,
    pub samples: usize,
    pub held_out: usize,
    pub steps: usize,
    pub tokens: u64,
    /// Of held-out samples, before the first step and in the state that is written.
    pub before: f64,
    pub after: f64,
    /// The step of the state that is written.
    pub best: usize,
    pub curve: Vec<Point>,
    /// Of the samples.
    pub sha256: String,
}

impl Learnt {
    /// What a model says of it in its metadata.
    pub(crate) fn told(&self) -> String {
        let Learnt { loss, train, before, after, best, steps, tokens, sha256, .. } = self;
        serde_json::json!({
            "loss": loss, "train": train, "before": before, "after": after, "best_step": best,
            "steps": steps, "tokens": tokens, "samples_sha256": sha256,
        })
        .to_string()
    }

    /// The same in just so many bytes, as a prediction of the size knew it; longer if it must.
    pub(crate) fn told_in(&self, bytes: usize) -> String {
        format!("{:<bytes$}", self.told())
    }

    /// What stands for [`Learnt::told`] before the training: as long as it can become.
    pub(crate) fn room(spec: &DistilSpec) -> String {
        // No number has more digits in JSON.
        const LONGEST: f64 = -1.234_567_890_123_456_7e-300;
        let parts = Group::ALL.iter().filter(|it| spec.trains(it.1)).map(|it| it.0);
        let longest = Learnt {
            loss: "square",
            train: parts.collect(),
            trained_numbers: usize::MAX,
            samples: usize::MAX,
            held_out: usize::MAX,
            steps: spec.steps,
            tokens: u64::MAX,
            before: LONGEST,
            after: LONGEST,
            best: spec.steps,
            curve: Vec::new(),
            sha256: "0".repeat(64),
        };
        " ".repeat(longest.told().len())
    }

    /// One line.
    pub fn summary(&self) -> String {
        let Learnt { loss, before, after, best, steps, .. } = self;
        format!(
            "{loss} of held-out samples {before:.5} → {after:.5}, best at step {best} of {steps}"
        )
    }
}

/// A look at held-out samples.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    pub step: usize,
    /// The mean loss of the steps since the last look.
    pub loss: f64,
    pub held_out: f64,
}

/// No state was better on held-out samples than the first.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing gained: on held-out samples the loss was {before:.6} before training, and {best:.6} at best after it"
)]
pub struct NothingGained {
    pub before: f64,
    pub best: f64,
}

impl Diagnostic for NothingGained {
    fn code(&self) -> Code {
        Code::N003
    }

    fn hint(&self) -> Option<String> {
        Some(
            "nothing was written; train for more steps, with a smaller learning rate, or on more samples"
                .into(),
        )
    }
}
