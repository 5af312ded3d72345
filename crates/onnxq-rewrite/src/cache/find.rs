//! The attention of a model, with and without caches, and what its masks are.

use super::CacheError;
use crate::passes::Site;
use onnxq_ir::{
    Def, Model, Name, NoMatch, NodeId, Use, User, ValueId, no_match,
    tensor::{DType, Dim},
};

/// More than any model has; what is done for each pair of layers stays quick.
const MOST_LAYERS: usize = 4096;

/// An `Attention` of the main graph.
pub(super) struct Layer {
    pub node: NodeId,
    pub kv_heads: usize,
    /// Of a head of keys and of values.
    pub sizes: [usize; 2],
    /// Batch and length.
    pub rows: [Dim; 2],
}

/// The caches of a model, by the names of its inputs and outputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cached {
    pub layers: Vec<Cache>,
    /// The input that says which tokens count, `[batch, total]`.
    pub padding: Option<Name>,
}

/// Keys and values before and after a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cache {
    pub past: [Name; 2],
    pub present: [Name; 2],
}

pub(super) fn refused(m: &Model, node: NodeId, reason: NoMatch) -> CacheError {
    CacheError::Node { node: m.node_label(node), reason: reason.0.into_owned() }
}

/// Every attention, in execution order.
pub(super) fn layers(m: &Model) -> Result<Vec<Layer>, CacheError> {
    let nodes = m.nodes().into_iter().filter(|it| {
        let it = m.node(*it);
        it.op.is("Attention") && m.in_main(it.graph)
    });
    let layers: Vec<Layer> = nodes
        .map(|it| layer(m, it).map_err(|reason| refused(m, it, reason)))
        .collect::<Result<_, _>>()?;
    match &layers[..] {
        [] => Err(CacheError::NoAttention),
        [first, .., _] if layers.len() > MOST_LAYERS => {
            Err(refused(m, first.node, no_match!("{} layers are too many", layers.len())))
        }
        _ => Ok(layers),
    }
}

fn layer(m: &Model, node: NodeId) -> Result<Layer, NoMatch> {
    if m.node(node).graph != m.main {
        return Err(no_match!("the attention is in the body of another node"));
    }
    if m.node(node).inputs.iter().skip(6).flatten().next().is_some() {
        return Err(no_match!("the attention has lengths of keys"));
    }
    let (q, k, v) = (m.operand(node, 0)?, m.operand(node, 1)?, m.operand(node, 2)?);
    let [batch, length, _] = &m.shape(q)?[..] else {
        return Err(no_match!("the heads of the query are an axis of their own"));
    };
    if [q, k, v].iter().any(|it| m.dtype(*it) != Some(DType::F32)) {
        return Err(no_match!("the attention is not in float32"));
    }
    let kv_heads = usize::try_from(m.int_attr(node, "kv_num_heads", 0)).unwrap_or(0);
    let size = |it: ValueId| match &m.shape(it)?[..] {
        [b, l, hidden] if b.surely_equals(batch) && l.surely_equals(length) => {
            let size = hidden.fixed().filter(|it| kv_heads > 0 && it % kv_heads == 0);
            size.map(|it| it / kv_heads).ok_or_else(|| no_match!("the size of heads is not known"))
        }
        _ => Err(no_match!("`{}` is not of the tokens of the query", m.value(it).name)),
    };
    let rows = [batch.clone(), length.clone()];
    Ok(Layer { node, kv_heads, sizes: [size(k)?, size(v)?], rows })
}

/// The masks, each proven to be causal. Attention without a mask must be causal by itself.
pub(super) fn sites(m: &Model, layers: &[Layer]) -> Result<Vec<Site>, CacheError> {
    let mut sites: Vec<Site> = Vec::new();
    for it in layers {
        if sites.iter().any(|site| site.users.contains(&it.node)) {
            continue;
        }
        let site = match m.operand(it.node, 3) {
            Ok(_) => Site::of(m, it.node).and_then(|it| it.prove(m).map(|_| it)),
            Err(_) if m.int_attr(it.node, "is_causal", 0) == 0 => {
                Err(no_match!("the attention is not causal"))
            }
            // Which key the first query sees is a matter of the reader's taste.
            Err(_) if m.operand(it.node, 4).is_ok() => {
                Err(no_match!("the attention has a past and no mask"))
            }
            Err(_) => Ok(causal(m, it, layers)),
        };
        sites.push(site.map_err(|reason| refused(m, it.node, reason))?);
    }
    Ok(sites)
}

/// What layers that mask by themselves would have for a mask.
fn causal(m: &Model, layer: &Layer, layers: &[Layer]) -> Site {
    let alone =
        |it: &&Layer| m.operand(it.node, 3).is_err() && m.int_attr(it.node, "is_causal", 0) == 1;
    let query = m.node(layer.node).inputs[0].expect("a layer has a query");
    Site {
        mask: query,
        users: layers.iter().filter(alone).map(|it| it.node).collect(),
        is_term: false,
        batch: layer.rows[0].clone(),
        length: layer.rows[1].clone(),
        query: (query, 1),
        past: None,
        padding: None,
    }
}

/// The one input that masks depend on.
pub(super) fn padding(m: &Model, sites: &[Site]) -> Result<Option<ValueId>, CacheError> {
    let mut found = sites.iter().filter_map(|it| Some((it.users[0], it.padding?)));
    let Some((_, first)) = found.next() else { return Ok(None) };
    match found.find(|it| it.1 != first) {
        None => Ok(Some(first)),
        Some((node, _)) => Err(refused(m, node, no_match!("the mask depends on another input"))),
    }
}

/// The caches of a model whose attention takes them from inputs and returns them. It must be as
/// [`super::prepare`] leaves it.
pub fn caches(m: &Model) -> Result<Cached, CacheError> {
    let layers = layers(m)?;
    if layers.iter().all(|it| m.operand(it.node, 4).is_err()) {
        return Err(CacheError::NoCache);
    }
    let cache = |it: &Layer| cache(m, it.node).map_err(|reason| refused(m, it.node, reason));
    let list = layers.iter().map(cache).collect::<Result<_, _>>()?;
    let padding = padding(m, &sites(m, &layers)?)?;
    Ok(Cached { layers: list, padding: padding.map(|it| m.value(it).name.clone()) })
}

fn cache(m: &Model, node: NodeId) -> Result<Cache, NoMatch> {
    let past = |index| {
        let value = m.operand(node, index)?;
        let it = m.value(value);
        let own = matches!(it.def, Def::Input(graph, None) if graph == m.main);
        if own && it.uses.iter().all(|it| is_cache_use(m, node, *it)) {
            return Ok(it.name.clone());
        }
        Err(no_match!("`{}` is no input for the cache alone", it.name))
    };
    let present = |index: usize| {
        let it = m.node(node).outputs.get(index).filter(|it| m.is_output(**it));
        let it = it.ok_or_else(|| no_match!("the attention does not return its cache"))?;
        match m.value(*it).uses.len() {
            1 => Ok(m.value(*it).name.clone()),
            _ => Err(no_match!("`{}` has other uses", m.value(*it).name)),
        }
    };
    Ok(Cache { past: [past(4)?, past(5)?], present: [present(1)?, present(2)?] })
}

/// The attention itself, or a question for the size.
fn is_cache_use(m: &Model, node: NodeId, it: Use) -> bool {
    match it.user {
        User::Node(user) => user == node || m.node(user).op.is("Shape"),
        _ => false,
    }
}
