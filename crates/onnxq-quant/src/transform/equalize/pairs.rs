//! Layers that follow each other with nothing between that a scale does not pass.

use std::collections::{BTreeMap, BTreeSet};

use super::{layer::Layer, scalable};
use onnxq_ir::{Def, Model, NoMatch, NodeId, ValueId, no_match, ops::Traits};

/// Two layers; every channel of the first is a channel of the second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub first: NodeId,
    pub second: NodeId,
    /// Constants that are added to the first one's channels, by node and input.
    pub biases: Vec<(NodeId, usize)>,
}

/// All pairs of a model in execution order.
#[derive(Default, Debug)]
pub(crate) struct Pairs {
    /// The layers of the pairs.
    pub layers: BTreeMap<NodeId, Layer>,
    pub pairs: Vec<Pair>,
    pub missed: Vec<(NodeId, NoMatch)>,
}

/// Nodes between two layers.
const DEPTH: usize = 16;

impl Pairs {
    pub(crate) fn find(m: &Model) -> Pairs {
        let mut found = Pairs::default();
        for node in m.nodes().into_iter().filter(|it| m.in_main(m.node(*it).graph)) {
            let Some(second) = Layer::of(m, node) else { continue };
            let pair = second.and_then(|second| Ok((pair(m, &second)?, second)));
            match pair {
                Ok(((pair, first), second)) => {
                    found.layers.insert(first.node, first);
                    found.layers.insert(second.node, second);
                    found.pairs.push(pair);
                }
                Err(reason) => found.missed.push((node, reason)),
            }
        }
        // The first layer of a pair has no reason to be named, it was equalized.
        let paired: BTreeSet<NodeId> = found.layers.keys().copied().collect();
        found.missed.retain(|it| !paired.contains(&it.0));
        found
    }
}

/// The pair that ends with `second`, and its first layer.
fn pair(m: &Model, second: &Layer) -> Result<(Pair, Layer), NoMatch> {
    let graph = m.node(second.node).graph;
    let (mut at, mut biases) = (second.node, Vec::new());
    // What is added lies behind how many channels there are, so it is checked last.
    let mut added: Vec<(NodeId, usize)> = Vec::new();
    for _ in 0..DEPTH {
        let index = if at == second.node { 0 } else { through(m, at, second.spatial, &mut added)? };
        let value = m.operand(at, index)?;
        at = producer(m, value)?;
        if m.node(at).graph != graph {
            return Err(no_match!("`{}` comes from another graph", m.value(value).name));
        }
        let Some(first) = Layer::of(m, at) else { continue };
        let first = first?;
        let label = m.node_label(at);
        if first.spatial != second.spatial || first.outputs() != second.inputs() {
            return Err(no_match!("its channels are not those of {label}"));
        }
        if first.spatial > 0 && m.operand(at, 2).is_ok() {
            biases.push((at, 2));
        }
        biases.extend(added);
        for &(node, index) in &biases {
            channelwise(m, node, index, &first, node == at)?;
        }
        return Ok((Pair { first: at, second: second.node, biases }, first));
    }
    Err(NoMatch("no layer near computes its input".into()))
}

/// The node that computes a value which nobody else reads.
fn producer(m: &Model, value: ValueId) -> Result<NodeId, NoMatch> {
    let it = m.value(value);
    match it.def {
        Def::Node(node) if m.node(node).output() == value => {
            m.only_use(value)?;
            Ok(node)
        }
        _ => Err(no_match!("`{}` is not computed by a layer", it.name)),
    }
}

/// The input through which positive factors of channels pass a node.
fn through(
    m: &Model,
    node: NodeId,
    spatial: usize,
    added: &mut Vec<(NodeId, usize)>,
) -> Result<usize, NoMatch> {
    let label = m.node_label(node);
    let of_one = |index| m.operand(node, index).is_ok_and(|it| is_one(m, it));
    let op = &m.node(node).op;
    match &*op.to_string() {
        _ if op.has(Traits::HOMOGENEOUS) && (spatial > 0 || !op.has(Traits::POOL)) => Ok(0),
        "Clip" => match (bound(m, node, 1), bound(m, node, 2)) {
            (Some(low), Some(high)) if passes(low) && passes(high) => Ok(0),
            _ => Err(no_match!("{label} clips at values other than zero")),
        },
        "Mul" if of_one(1) => Ok(0),
        "Mul" if of_one(0) => Ok(1),
        "Div" if of_one(1) => Ok(0),
        "Add" => {
            let constant = [1, 0]
                .into_iter()
                .find(|it| m.operand(node, *it).is_ok_and(|it| m.constant(it).is_ok()));
            let index = constant.ok_or_else(|| no_match!("{label} adds two activations"))?;
            added.push((node, index));
            Ok(1 - index)
        }
        op => Err(no_match!("its input comes through {op}, which no scale passes")),
    }
}

fn is_one(m: &Model, value: ValueId) -> bool {
    m.constant(value).is_ok_and(|it| it.numel() == 1 && it.shape.len() <= 1)
}

/// What a Clip clips at; `None`: not known.
fn bound(m: &Model, node: NodeId, index: usize) -> Option<f32> {
    let (name, open) = match index {
        1 => ("min", f32::NEG_INFINITY),
        _ => ("max", f32::INFINITY),
    };
    match m.operand(node, index) {
        Ok(value) => m.small_f32(value).ok()?.first().copied(),
        Err(_) => Some(m.float_attr(node, name, open)),
    }
}

/// Zero stays zero under any factor; what no value reaches too.
fn passes(bound: f32) -> bool {
    bound == 0.0 || bound.abs() >= f32::MAX
}

/// A constant of one element per channel, along the channels' axis. `own`: the bias of a
/// convolution, `[channels]`.
fn channelwise(
    m: &Model,
    node: NodeId,
    index: usize,
    first: &Layer,
    own: bool,
) -> Result<(), NoMatch> {
    let value = m.operand(node, index)?;
    let tensor = m.constant(value)?;
    scalable(m, node, tensor)?;
    m.small_f32(value)?;
    let spatial = if own { 0 } else { first.spatial };
    let mut dims = tensor.shape.iter().rev();
    let flat = dims.by_ref().take(spatial).all(|it| *it == 1);
    let channels = dims.next() == Some(&first.outputs());
    match flat && channels && tensor.numel() == first.outputs() {
        true => Ok(()),
        false => Err(no_match!("`{}` ({tensor:?}) is no number per channel", m.value(value).name)),
    }
}
