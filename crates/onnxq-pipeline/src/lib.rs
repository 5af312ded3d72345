//! The jobs as typed stages: each is a function that takes one and returns the next.
//!
//! ```text
//! Opened ─prepare→ Prepared ─plan→ Planned ─decide→ Decided ─lower→ Lowered ─write→ Outcome
//! ```
//!
//! [`DECISIONS`] lists what happens between a plan and its final form, by name.

pub mod attribution;
pub mod convert;
mod decide;
mod deliver;
pub mod distil;
mod error;
pub mod facts;
mod gguf;
pub mod import;
mod isolation;
mod job;
mod judged;
mod lint;
mod lower;
mod open;
pub mod origin;
mod outcome;
pub mod package;
mod plan;
mod quantize;
mod ranges;
mod search;
mod solve;
mod staged;
pub mod student;
mod transform;
mod untrue;
mod validate;
mod write;

pub use self::{
    decide::{DECISIONS, Decided, Deciding, Decision},
    deliver::{Delivered, Destination, ResultRefused},
    error::Error,
    gguf::{ROUNDED, to_gguf},
    job::{Inputs, Job, OutputFile},
    lint::{Execution, LintReport, execution, fix, lint},
    lower::Lowered,
    open::{Census, Opened, Prepared},
    outcome::Outcome,
    plan::Planned,
    quantize::{Quantized, outline, quantize},
    search::{
        activations::{Adapted, Choosing, Correction, Measured, Tried, Unreached},
        bits::{Goal, Mixed, Point, Sensitivity, Unmet},
        evaluator::Measure,
        saturation::{Bits, Exactness},
    },
    solve::{MissingStats, NeedsData},
    staged::{Shown, Staged},
    validate::{Measures, Validate, validate, validate_loaded},
};
use onnxq_ir::{Model, ctx::Ctx};
use onnxq_quant::recipe;
use onnxq_rewrite as rewrite;

/// Rewrites a model by named passes and rules.
pub fn rewrite(
    model: &mut Model,
    names: &[String],
    ctx: &Ctx,
) -> Result<Vec<(String, usize)>, Error> {
    let mut steps = Vec::new();
    for name in names {
        match name.as_str() {
            // As in a recipe's `prepare`.
            recipe::STANDARD => steps.extend(rewrite::STANDARD.iter().map(|it| (*it).to_owned())),
            _ => steps.push(name.clone()),
        }
    }
    let steps = rewrite::run(model, &steps, ctx)?;
    model.verify()?;
    Ok(steps)
}
