//! A model by a recipe.

use std::{fmt, path::Path};

use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::Loaded,
};
use onnxq_pipeline::{self as pipeline, Job, Lowered};

use super::{
    Error, Inputs, Model, Node, Recipe, SaveOptions,
    plan::nodes,
    progress::{Inner, Silent},
};

/// A quantized model in memory. Weights that needed no data are computed when they are written.
pub struct Quantized {
    model: Model,
    nodes: Vec<Node>,
    warnings: Vec<String>,
}

/// Nothing in the model can be quantized.
#[derive(Debug, thiserror::Error)]
#[error("nothing was quantized: {reasons}")]
struct Nothing {
    reasons: String,
}

impl Diagnostic for Nothing {
    fn code(&self) -> Code {
        Code::N001
    }
}

/// Quantizes a model in memory.
///
/// ```
/// use onnxq::{Inputs, Model, Recipe, quantize};
///
/// # fn main() -> Result<(), onnxq::Error> {
/// let model = Model::open("fixtures/slm-fixture/model.onnx")?;
/// let quantized = quantize(model, &Recipe::load("avx512_vnni")?, &Inputs::default())?;
/// assert!(quantized.nodes().iter().any(|it| it.op == "MatMul" && it.scheme.is_some()));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// E501 if a weight holds NaN or Inf, E6xx if data is missing or does not fit, E7xx if the recipe
/// does not fit the model, E8xx if ONNX Runtime is missing or fails, N001 if there is nothing to do.
pub fn quantize(model: Model, recipe: &Recipe, inputs: &Inputs) -> Result<Quantized, Error> {
    let progress = Inner(inputs.progress.unwrap_or(&Silent));
    let ctx = Ctx { progress: &progress, ..Ctx::silent() };
    let inner = inputs.inner();
    let job = Job { recipe: &recipe.inner, inputs: &inner, ctx: &ctx };
    match pipeline::quantize(model.opened(&ctx), &job).map_err(Error::of)? {
        pipeline::Quantized::Lowered(it) => Quantized::of(*it, inputs.save, &job),
        pipeline::Quantized::Nothing(outcome) => {
            let mut reasons: Vec<&str> =
                outcome.nodes.iter().filter_map(|it| it.kept.as_deref()).collect();
            reasons.sort_unstable();
            reasons.dedup();
            Err(Error::of(Nothing { reasons: reasons.join("; ") }))
        }
    }
}

impl Quantized {
    fn of(mut lowered: Lowered, save: SaveOptions, job: &Job) -> Result<Quantized, Error> {
        lowered.finalize(&save.inner()).map_err(Error::of)?;
        let outcome = lowered.outcome(None, 0, job);
        let warnings = outcome.warnings.iter().map(ToString::to_string).collect();
        let Lowered { model, files, .. } = lowered;
        let model = Model::made(Loaded { model, warnings: Vec::new(), files });
        Ok(Quantized { nodes: nodes(&outcome.nodes), model, warnings })
    }

    /// What became of each node with a weight, in the order in which they are executed.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What the user should know although it is no error.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The model, to look at, to compare or to convert.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model alone.
    pub fn into_model(self) -> Model {
        self.model
    }

    /// The bytes of an `.onnx` file.
    ///
    /// # Errors
    /// As [`Model::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.model.to_bytes()
    }

    /// Writes the model; see [`Model::save`].
    ///
    /// # Errors
    /// As [`Model::save`].
    pub fn save(&self, path: impl AsRef<Path>, options: SaveOptions) -> Result<(), Error> {
        self.model.save(path, options)
    }
}

impl fmt::Debug for Quantized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quantized").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}
