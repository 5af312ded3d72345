//! Smaller models of a transformer: without some of its layers, or with narrower feed-forward blocks.
//!
//! Layers are found by what they compute, never by names. These are no passes, since they change what
//! the model computes, and a cache what callers pass in and get back.

mod flow;
mod narrow;
mod owned;
mod remove;
mod steps;
#[cfg(test)]
mod tests;
mod width;

use self::{
    flow::Flow,
    owned::own,
    steps::{Step, is_stream, steps},
};
pub use self::{
    narrow::narrow_feed_forward,
    remove::{Removed, remove_layers, without_caches},
    width::{FeedForward, feed_forward},
};
use onnxq_ir::{
    Model, NoMatch, NodeId, ValueId,
    diag::{Code, Diagnostic},
    infer, no_match,
    untrusted::Untrusted,
};

/// One layer: attention and, after it or beside it, a feed-forward block.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The value of the residual stream that goes in.
    pub input: ValueId,
    /// The one that comes out, of the same shape.
    pub output: ValueId,
    /// Inputs of the model that this layer alone reads: its past.
    pub inputs: Vec<ValueId>,
    /// Outputs of the model that this layer alone computes: its cache.
    pub outputs: Vec<ValueId>,
    /// What is computed from the stream inside of it, in order of execution.
    pub nodes: Vec<NodeId>,
    steps: Vec<Step>,
}

impl Layer {
    /// What the layer adds to the residual stream, in order: that of the attention first.
    pub fn terms(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.steps.iter().flat_map(|it| it.terms.iter().copied())
    }
}

/// Why a model cannot be made smaller in this way.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PruneError {
    #[error("the layers of the model are not recognised: {0}")]
    Unrecognised(String),
    #[error("the model has {count} layers, numbered from 0: there is no layer {layer}")]
    NoLayer { layer: usize, count: usize },
    #[error("all {count} layers are to be removed: one must stay")]
    All { count: usize },
    #[error("layer {layer} cannot be removed: {reason}")]
    Needed { layer: usize, reason: String },
    #[error("the feed-forward block of layer {layer} cannot be narrowed: {reason}")]
    Width { layer: usize, reason: String },
    #[error("the hidden channel {channel} of layer {layer} cannot be kept: {reason}")]
    Channel { layer: usize, channel: usize, reason: &'static str },
    #[error("the weight `{}` cannot be read: {reason}", Untrusted(weight))]
    Weight { weight: String, reason: String },
}

impl Diagnostic for PruneError {
    fn code(&self) -> Code {
        Code::E412
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            PruneError::Unrecognised(_) => {
                "prune the float model that an exporter or `onnxq import --layout hf` wrote: what was \
                 fused for a runtime or quantized hides its residual sums"
            }
            PruneError::All { .. } => "keep at least one layer",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// The layers of a transformer, in order, as exporters write it or as [`STANDARD`](super::STANDARD)
/// leaves it.
///
/// # Errors
/// E412 says what stands against it.
pub fn layers(model: &Model) -> Result<Vec<Layer>, PruneError> {
    // Types of inner values tell sums of the stream from others; what the caller has stays as it is.
    let mut typed = model.clone();
    infer::run(&mut typed);
    found(&Flow::of(&typed)).map_err(|it| PruneError::Unrecognised(it.0.into_owned()))
}

fn found(flow: &Flow) -> Result<Vec<Layer>, NoMatch> {
    let groups = groups(flow, steps(flow).map_err(|it| fused(flow.m).unwrap_or(it))?)?;
    let mut layers: Vec<Layer> = groups.into_iter().map(|it| layer(flow, it)).collect();
    same_shape(flow, &layers)?;
    own(flow, &mut layers)?;
    Ok(layers)
}

/// Says so where residual sums are inside of fused norms.
fn fused(m: &Model) -> Option<NoMatch> {
    let names =
        ["com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization"];
    let is_fused = |it: &NodeId| names.iter().any(|name| m.node(*it).op.is(name));
    let node = m.nodes().into_iter().find(is_fused)?;
    Some(no_match!("`{}` has a residual sum fused into it", m.node_label(node)))
}

/// Steps by layer: each begins with attention.
fn groups(flow: &Flow, steps: Vec<Step>) -> Result<Vec<Vec<Step>>, NoMatch> {
    let mut groups: Vec<Vec<Step>> = Vec::new();
    for step in steps {
        match groups.last_mut() {
            Some(group) if !step.attends => group.push(step),
            None if !step.attends => {
                let name = &flow.m.value(step.sum).name;
                return Err(no_match!("the sum `{name}` adds to the stream before any attention"));
            }
            _ => groups.push(vec![step]),
        }
    }
    let count = groups[0].len();
    match groups.iter().position(|it| it.len() != count || it.len() > 2) {
        Some(at) => {
            let (name, own) = (&flow.m.value(groups[at][0].sum).name, groups[at].len());
            Err(no_match!(
                "from `{name}` on, {own} sums follow each other until the next attention, which is not \
                 one attention and one feed-forward block as in the first layer ({count})"
            ))
        }
        None => Ok(groups),
    }
}

fn layer(flow: &Flow, steps: Vec<Step>) -> Layer {
    let (input, output) = (steps[0].from, steps[steps.len() - 1].to);
    let mut nodes: Vec<NodeId> = flow.forward(input, output).into_iter().collect();
    nodes.sort_by_key(|it| flow.place(*it));
    Layer { input, output, inputs: Vec::new(), outputs: Vec::new(), nodes, steps }
}

/// Every value of the stream has one type, as far as it is known.
fn same_shape(flow: &Flow, layers: &[Layer]) -> Result<(), NoMatch> {
    let first = layers[0].input;
    let fits = |it: ValueId| is_stream(flow, first, it) && flow.m.dtype(first) == flow.m.dtype(it);
    match layers.iter().find(|it| !fits(it.output)) {
        Some(it) => {
            let names = [first, it.output].map(|it| flow.m.value(it).name.clone());
            Err(no_match!("`{}` and `{}` are not of one shape", names[0], names[1]))
        }
        None => Ok(()),
    }
}
