//! What a recipe would do to a model, and why.

use onnxq_ir::ctx::Ctx;
use onnxq_pipeline::{self as pipeline, Job};
use onnxq_quant::plan::PlanRow;

use super::{Error, Inputs, Model, Recipe};

/// What a recipe would do to each node of a model, and how large the result would be.
#[derive(Clone, Debug)]
pub struct Plan {
    nodes: Vec<Node>,
    bytes: u64,
    quantized_weights: f64,
}

/// What becomes of a node with a weight.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Its name, or its place if it has none.
    pub name: String,
    /// Its operator, with the domain of all but the standard ones.
    pub op: String,
    /// The weight's name and float dimensions.
    pub weight: String,
    /// See `weight`.
    pub dims: Vec<usize>,
    /// How the weight is stored: `uint4 block 32 asymmetric`; `None`: it stays in float.
    pub scheme: Option<String>,
    /// The power of the error of the weight's output in proportion to that of the output, once it
    /// is solved with data.
    pub error: Option<f64>,
    /// Why it stays in float, or what else is to be said of it.
    pub reason: Option<String>,
}

/// Decides for each node of a model by the recipe, and predicts the size of the result to the byte.
/// Nothing is computed and nothing is run.
///
/// ```
/// use onnxq::{Model, Recipe, plan};
///
/// # fn main() -> Result<(), onnxq::Error> {
/// let model = Model::open("fixtures/slm-fixture/model.onnx")?;
/// let plan = plan(model, &Recipe::load("int4")?)?;
/// let kept: Vec<_> = plan.nodes().iter().filter(|it| it.scheme.is_none()).collect();
/// assert!(kept.iter().all(|it| it.reason.is_some()));
/// assert!(plan.bytes() < 1_000_000);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// E501 if a weight holds NaN or Inf, E702 to E704 if the recipe does not fit the model.
pub fn plan(model: Model, recipe: &Recipe) -> Result<Plan, Error> {
    let (inputs, ctx) = (Inputs::default(), Ctx::silent());
    let inner = inputs.inner();
    let job = Job { recipe: &recipe.inner, inputs: &inner, ctx: &ctx };
    let path = model.path().with_extension("q.onnx");
    let lowered = pipeline::outline(model.opened(&ctx), &job).map_err(Error::of)?;
    let outcome = lowered.predict(&path, &inputs.save.inner(), &job).map_err(Error::of)?;
    let (bytes, quantized_weights) = (outcome.after.bytes, outcome.quantized_weights);
    Ok(Plan { nodes: nodes(&outcome.nodes), bytes, quantized_weights })
}

impl Plan {
    /// In the order in which they are executed.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Bytes of all files of the result.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fraction of the weights of two and more dimensions that become smaller.
    pub fn quantized_weights(&self) -> f64 {
        self.quantized_weights
    }
}

pub(crate) fn nodes(rows: &[PlanRow]) -> Vec<Node> {
    let rows = rows.iter().filter(|it| !it.is_of_region());
    rows.map(|it| Node {
        name: it.node.clone(),
        op: it.op.clone(),
        weight: it.weight.clone(),
        dims: it.shape.clone(),
        scheme: it.scheme.clone(),
        error: it.error.map(|it| it.solved),
        reason: it.kept.clone().or(it.note.clone()),
    })
    .collect()
}
