//! Where the scales of an activation's channels can go: what computes it and what reads it.
//!
//! ```text
//! norm       x = norm(…)·γ + β                       γ/s, β/s
//! linear     x = MatMul(a, v)·gate, Relu(…), … + b   columns of v / s, b/s
//! attention  x = Attention(q, k, v), or in single    as linear, one scale per value channel
//!            operators heads(MatMul(p, repeat(split(v))))
//! mul        anything else                           x · (1/s), a new node
//! ```

use std::{collections::BTreeMap, fmt};

use super::Ties;
use crate::{ops::Weight, plan::SitePlan};
use onnxq_ir::{
    Attrs, Def, Model, NoMatch, NodeId, Patch, Ref, User, ValueId, no_match,
    ops::{OpInfo, Set, Traits},
    tensor::{DType, Dim, Tensor, from_f32},
};

/// An activation that only planned weights read, and what takes its scales.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    pub input: ValueId,
    /// The MatMuls that read it, in execution order.
    pub sites: Vec<NodeId>,
    pub fold: Fold,
    pub ties: Ties,
}

/// What absorbs the inverse scales.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fold {
    pub kind: Kind,
    spots: Vec<Spot>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Gain and bias of a normalisation.
    Norm,
    /// Output columns of the linear layer before.
    Linear,
    /// Output columns of the values that attention weighs.
    Attention,
    /// A new multiplication.
    Mul,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Norm => "norm",
            Kind::Linear => "linear",
            Kind::Attention => "attention",
            Kind::Mul => "mul",
        })
    }
}

/// A constant operand whose last axis is divided by the scales.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spot {
    node: NodeId,
    index: usize,
}

/// The groups of a plan in execution order, and why the other sites have none. With `mul` a
/// multiplication is inserted where nothing absorbs the scales.
pub fn groups(m: &Model, sites: &[SitePlan], mul: bool) -> (Vec<Group>, Vec<(NodeId, NoMatch)>) {
    let mut readers: BTreeMap<ValueId, Vec<NodeId>> = BTreeMap::new();
    let mut order: Vec<ValueId> = Vec::new();
    for site in sites.iter().filter(|it| it.site.kind == Weight::MatMul) {
        let Ok(input) = m.operand(site.site.node, 0) else { continue };
        let list = readers.entry(input).or_default();
        if list.is_empty() {
            order.push(input);
        }
        list.push(site.site.node);
    }
    let (mut groups, mut missed) = (Vec::new(), Vec::new());
    for input in order {
        let sites = readers.remove(&input).unwrap_or_default();
        match group(m, input, &sites, mul) {
            Ok(it) => groups.push(it),
            Err(reason) => missed.extend(sites.into_iter().map(|it| (it, reason.clone()))),
        }
    }
    (groups, missed)
}

fn group(m: &Model, input: ValueId, sites: &[NodeId], mul: bool) -> Result<Group, NoMatch> {
    let channels = rows(m, sites[0])?;
    let made = |kind, spots, ties| {
        let fold = Fold { kind, spots };
        Group { input, sites: sites.to_vec(), fold, ties }
    };
    let inserted = |reason| {
        let graph = m.node(sites[0]).graph;
        match mul && sites.iter().all(|it| m.node(*it).graph == graph) {
            true => Ok(made(Kind::Mul, Vec::new(), Ties::none(channels))),
            false => Err(reason),
        }
    };
    if let Err(reason) = only_sites(m, input, sites) {
        return inserted(reason);
    }
    let fused = m.producer(input, "Attention").ok();
    if fused.is_some() || m.producer(input, "Reshape").is_ok() {
        let found = match fused {
            Some(node) => fused_attention(m, node, channels),
            None => attention(m, input, channels),
        };
        let absorbed =
            found.and_then(|(value, ties)| Ok((absorb(m, value, ties.sources(), DEPTH)?, ties)));
        return match absorbed {
            Ok((spots, ties)) => Ok(made(Kind::Attention, spots, ties)),
            Err(reason) => inserted(reason),
        };
    }
    match absorb(m, input, channels, DEPTH) {
        Ok(spots) => {
            let is_linear = spots.iter().any(|it| m.node(it.node).op.is("MatMul"));
            let kind = if is_linear { Kind::Linear } else { Kind::Norm };
            Ok(made(kind, spots, Ties::none(channels)))
        }
        Err(reason) => inserted(reason),
    }
}

/// The values that attention weighs for the product `site`, `[batch, length, heads · size]`, and its
/// heads. Nobody else reads either.
pub(super) fn values_of_attention(m: &Model, site: NodeId) -> Result<(ValueId, Ties), NoMatch> {
    let (input, channels) = (m.operand(site, 0)?, rows(m, site)?);
    only_sites(m, input, &[site])?;
    match m.producer(input, "Attention") {
        Ok(node) => fused_attention(m, node, channels),
        Err(_) => attention(m, input, channels),
    }
}

/// Rows of the weight `[k, n]` of a MatMul.
fn rows(m: &Model, site: NodeId) -> Result<usize, NoMatch> {
    Ok(m.constant(m.operand(site, 1)?)?.shape[0])
}

/// Whoever else reads the activation would read other numbers.
fn only_sites(m: &Model, input: ValueId, sites: &[NodeId]) -> Result<(), NoMatch> {
    let name = &m.value(input).name;
    for it in &m.value(input).uses {
        match it.user {
            User::Node(node) if it.index == 0 && sites.contains(&node) => {}
            User::Node(node) => {
                return Err(no_match!("`{name}` is also read by {}", m.node_label(node)));
            }
            _ => return Err(no_match!("`{name}` is an output of the graph")),
        }
    }
    Ok(())
}

/// Elementwise operators that a scale passes through, one after another.
const DEPTH: usize = 16;

/// The constants to be divided so that each of the last axis' `k` channels of `value` is.
fn absorb(m: &Model, value: ValueId, k: usize, depth: usize) -> Result<Vec<Spot>, NoMatch> {
    let it = m.value(value);
    let node = match it.def {
        Def::Node(node) if m.node(node).output() == value && depth > 0 => node,
        Def::Node(_) => return Err(no_match!("nothing near `{}` absorbs a scale", it.name)),
        _ => return Err(no_match!("`{}` is not computed", it.name)),
    };
    let through = |index| absorb(m, only(m, node, index)?, k, depth - 1);
    let op = &m.node(node).op;
    if let Some((gain, bias)) = op.info().filter(|it| it.has(Traits::LAYER_NORM)).and_then(gains) {
        return norm(m, node, k, gain, bias);
    }
    match &*op.to_string() {
        "Div" => through(0),
        _ if op.is_in(THROUGH) => through(0),
        "MatMul" => Ok(vec![columns(m, node, k)?]),
        "Mul" => {
            let vector = [0, 1].into_iter().find_map(|it| vector(m, node, it, k).ok());
            match vector {
                Some(gain) => Ok(vec![gain]),
                None => through(1).or_else(|_| through(0)),
            }
        }
        _ if op.has(Traits::ADDITIVE) => {
            let mut spots = Vec::new();
            for index in 0..m.node(node).inputs.len() {
                match m.constant(m.operand(node, index)?) {
                    Ok(_) => spots.push(vector(m, node, index, k)?),
                    Err(_) => spots.extend(through(index)?),
                }
            }
            Ok(spots)
        }
        op => Err(no_match!("`{}` comes from {op}, which absorbs no scale", it.name)),
    }
}

/// Operators of one operand that a scale passes; the slopes of `PRelu` may be one per channel.
const THROUGH: Set = Set::of(Traits::HOMOGENEOUS).without(Traits::POOL).minus(&["PRelu"]);

fn gains(norm: &OpInfo) -> Option<(usize, Option<usize>)> {
    Some((norm.gain?, norm.bias))
}

/// Input `index`, which nobody else uses.
fn only(m: &Model, node: NodeId, index: usize) -> Result<ValueId, NoMatch> {
    let value = m.operand(node, index)?;
    m.only_use(value)?;
    Ok(value)
}

/// Gain and bias of a normalisation of the last axis.
fn norm(
    m: &Model,
    node: NodeId,
    k: usize,
    gain: usize,
    bias: Option<usize>,
) -> Result<Vec<Spot>, NoMatch> {
    let axis = m.int_attr(node, "axis", -1);
    let last = m.rank(m.node(node).output()).map(|it| it as i64 - 1);
    if axis != -1 && Some(axis) != last {
        return Err(no_match!("{} normalises from axis {axis}", m.node_label(node)));
    }
    let mut spots = vec![vector(m, node, gain, k)?];
    if let Some(bias) = bias.filter(|it| m.operand(node, *it).is_ok()) {
        spots.push(vector(m, node, bias, k)?);
    }
    Ok(spots)
}

/// A small constant operand with an element for each channel.
fn vector(m: &Model, node: NodeId, index: usize, k: usize) -> Result<Spot, NoMatch> {
    let value = m.operand(node, index)?;
    let tensor = m.constant(value)?;
    scalable(m, value, tensor)?;
    if tensor.numel() != k || tensor.shape.last() != Some(&k) {
        return Err(no_match!("`{}` ({tensor:?}) is no vector of {k}", m.value(value).name));
    }
    m.small_f32(value)?;
    Ok(Spot { node, index })
}

/// The weight of a linear layer with `k` outputs.
fn columns(m: &Model, node: NodeId, k: usize) -> Result<Spot, NoMatch> {
    let value = m.operand(node, 1)?;
    let tensor = m.constant(value)?;
    scalable(m, value, tensor)?;
    match tensor.shape[..] {
        [_, columns] if columns == k => Ok(Spot { node, index: 1 }),
        _ => Err(no_match!("`{}` ({tensor:?}) has not {k} columns", m.value(value).name)),
    }
}

/// Types whose values survive a detour through `f32`.
pub(super) fn scalable(m: &Model, value: ValueId, tensor: &Tensor) -> Result<(), NoMatch> {
    match tensor.dtype {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        it => Err(no_match!("`{}` is of type {it}", m.value(value).name)),
    }
}

/// `Attention` of values `[batch, length, heads · size]` that no cache keeps: the values.
fn fused_attention(m: &Model, node: NodeId, k: usize) -> Result<(ValueId, Ties), NoMatch> {
    let label = m.node_label(node);
    let kept = |it: &&ValueId| !m.value(**it).uses.is_empty();
    if m.operand(node, 5).is_ok() || m.node(node).outputs[1..].iter().any(|it| kept(&it)) {
        return Err(NoMatch("a cache keeps them".into()));
    }
    let count = |name| usize::try_from(m.int_attr(node, name, 0)).unwrap_or(0);
    let (heads, shared) = (count("q_num_heads"), count("kv_num_heads"));
    if heads == 0 || shared == 0 || heads % shared != 0 || !k.is_multiple_of(heads) {
        return Err(no_match!("{label} does not say its heads"));
    }
    let ties = Ties { heads, shared, size: k / heads };
    Ok((only(m, node, 2)?, ties))
}

/// `Reshape(Transpose(MatMul(p, v)))`, where `v` is split into heads, each maybe repeated.
fn attention(m: &Model, x: ValueId, k: usize) -> Result<(ValueId, Ties), NoMatch> {
    let merge = m.producer(x, "Reshape")?;
    let merged = only(m, merge, 0)?;
    let context = only(m, swap(m, merged)?, 0)?;
    let product = m.producer(context, "MatMul")?;
    let (heads, size) = (fixed(m, merged, 2)?, fixed(m, merged, 3)?);
    if heads * size != k {
        return Err(no_match!("{heads} heads of {size} are not {k} channels"));
    }
    let value = only(m, product, 1)?;
    if (fixed(m, value, 1)?, fixed(m, value, 3)?) != (heads, size) {
        return Err(no_match!("`{}` is not split into {heads} heads", m.value(value).name));
    }
    let value = match m.producer(value, "Reshape") {
        Ok(join) => repeated(m, join, value)?,
        Err(_) => value,
    };
    let split = only(m, swap(m, value)?, 0)?;
    let shared = fixed(m, split, 2)?;
    let projection = only(m, m.producer(split, "Reshape")?, 0)?;
    if fixed(m, split, 3)? != size || shared == 0 || heads % shared != 0 {
        return Err(no_match!("`{}` is not split into heads of {size}", m.value(split).name));
    }
    Ok((projection, Ties { heads, shared, size }))
}

/// What is repeated by `Reshape(Expand(Unsqueeze(v)))`: `[b, g, t, d]` becomes
/// `[b, g, 1, t, d]`, `[b, g, r, t, d]`, `[b, g·r, t, d]`.
fn repeated(m: &Model, join: NodeId, joined: ValueId) -> Result<ValueId, NoMatch> {
    let wide = only(m, join, 0)?;
    let flat = only(m, m.producer(wide, "Expand")?, 0)?;
    let value = only(m, m.producer(flat, "Unsqueeze")?, 0)?;
    let [from, to] = [m.shape(wide)?, m.shape(joined)?];
    let same = |a: &Dim, b: &Dim| a.surely_equals(b);
    let batch = from.len() == 5 && to.len() == 4 && same(&from[0], &to[0]);
    let groups = fixed(m, wide, 1)?;
    let is_repeat = batch
        && fixed(m, joined, 1)? == groups * fixed(m, wide, 2)?
        && fixed(m, joined, 3)? == fixed(m, wide, 4)?
        && (fixed(m, flat, 1)?, fixed(m, flat, 2)?) == (groups, 1)
        && (fixed(m, value, 1)?, fixed(m, value, 3)?) == (groups, fixed(m, wide, 4)?);
    match is_repeat {
        true => Ok(value),
        false => Err(no_match!("`{}` is not heads repeated", m.value(joined).name)),
    }
}

/// The Transpose between `[b, t, h, d]` and `[b, h, t, d]`.
fn swap(m: &Model, value: ValueId) -> Result<NodeId, NoMatch> {
    let node = m.producer(value, "Transpose")?;
    match m.ints_attr(node, "perm") {
        Some([0, 2, 1, 3]) => Ok(node),
        _ => Err(no_match!("`{}` is not heads swapped with tokens", m.value(value).name)),
    }
}

/// A dimension that must be a number.
fn fixed(m: &Model, value: ValueId, axis: usize) -> Result<usize, NoMatch> {
    let dim = m.shape(value)?.get(axis).and_then(Dim::fixed);
    dim.ok_or_else(|| no_match!("dimension {axis} of `{}` is no number", m.value(value).name))
}

/// Divides the channels of a group's activation by `scales`, `[k]`, and multiplies the rows of the
/// weights that read it. `scales` are equal for tied channels. Constants that other nodes use too
/// stay as they are for those.
pub fn apply(m: &mut Model, group: &Group, scales: &[f32]) -> Result<(), NoMatch> {
    let first = group.sites[0];
    let mut patch = Patch::before(first);
    let mut made: Vec<(ValueId, Ref)> = Vec::new();
    for &site in &group.sites {
        let weight = m.operand(site, 1)?;
        let new = match made.iter().find(|it| it.0 == weight) {
            Some(it) => it.1,
            None => {
                let tensor = m.constant(weight)?.scaled(0, scales);
                patch.constant(&m.value(weight).name, tensor)
            }
        };
        made.push((weight, new));
        patch = patch.rewire(site, 1, new);
    }
    let mut inverse = vec![1.0; group.ties.sources()];
    scales.iter().enumerate().for_each(|(j, it)| inverse[group.ties.source(j)] = 1.0 / it);
    for spot in &group.fold.spots {
        let value = m.operand(spot.node, spot.index)?;
        let tensor = divided(m, value, &inverse)?;
        let new = patch.constant(&m.value(value).name, tensor);
        patch = patch.rewire(spot.node, spot.index, new);
    }
    if group.fold.kind != Kind::Mul {
        patch.apply(m);
        return Ok(());
    }
    let name = format!("{}_smooth", m.value(group.input).name);
    let dtype = m.constant(m.operand(first, 1)?)?.dtype;
    let bytes = from_f32(dtype, &inverse).map_err(|err| no_match!("{err}"))?;
    let factor = Tensor::new(dtype, vec![inverse.len()], bytes);
    let factor = patch.constant(&format!("{name}_scale"), factor);
    let x = patch.step(&name, "Mul", [group.input.into(), factor], Attrs::default());
    for &site in &group.sites {
        patch = patch.rewire(site, 0, x);
    }
    let made = patch.apply(m);
    if let Some(ty) = m.value(group.input).ty.clone() {
        m.set_type(made.value(x), ty);
    }
    Ok(())
}

/// A constant whose last axis is multiplied: a view of a matrix, anything smaller now.
fn divided(m: &Model, value: ValueId, inverse: &[f32]) -> Result<Tensor, NoMatch> {
    let tensor = m.constant(value)?;
    if tensor.numel() != inverse.len() {
        return Ok(tensor.scaled(1, inverse));
    }
    let values = m.small_f32(value)?;
    let values: Vec<f32> = values.iter().zip(inverse).map(|(a, b)| a * b).collect();
    let bytes = from_f32(tensor.dtype, &values).map_err(|err| no_match!("{err}"))?;
    Ok(Tensor::new(tensor.dtype, tensor.shape.clone(), bytes))
}

#[cfg(test)]
mod tests;
