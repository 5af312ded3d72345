//! A decoder that sees whole sequences becomes one that goes on where it was.
//!
//! ```text
//! Attention(q, k, v, mask)      →      Attention(q, k, v, mask, past_k, past_v) and present_k, present_v
//! ```
//!
//! Positions begin after the past, and the mask covers it. Inputs and outputs are named and
//! ordered as optimum does: `past_key_values.0.key`, `past_key_values.0.value`, …, `present.0.key`.

use std::collections::BTreeSet;

use super::{
    CacheError,
    find::{self, Layer, refused},
    prepare, tokens,
};
use crate as rewrite;
use crate::{
    passes::{Site, build},
    rules::size_of,
};
use onnxq_ir::{
    Attrs, Def, Model, Name, NodeId, Patch, User, ValueId,
    ctx::Ctx,
    infer::{Expr, bind},
    no_match,
    tensor::{DType, Dim, TensorType},
};

/// What was added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// Layers of attention, each with two inputs and two outputs more.
    pub layers: usize,
    /// The model was not in the form that shows its attention, so it was prepared.
    pub prepared: bool,
    /// Nodes that number the tokens, which begin after the past now.
    pub positions: usize,
    /// The input that says which tokens count; it is as long as past and tokens together now.
    pub padding: Option<Name>,
}

/// Gives a model a cache, or leaves it as it is.
///
/// Everything but attention must treat tokens one by one; what does not is named.
pub fn add_kv_cache(model: &mut Model, ctx: &Ctx) -> Result<Added, CacheError> {
    let mut m = model.clone();
    let prepared = prepare(&mut m, ctx)?;
    let mut added = add(&mut m)?;
    added.prepared = prepared;
    m.remove_all_dead();
    rewrite::run(&mut m, &["dedupe-constants", "dedupe-nodes", "infer-types"], ctx)?;
    *model = m;
    Ok(added)
}

fn add(m: &mut Model) -> Result<Added, CacheError> {
    let layers = find::layers(m)?;
    if let Some(it) = layers.iter().find(|it| m.operand(it.node, 4).is_ok()) {
        return Err(CacheError::Cached { node: m.node_label(it.node) });
    }
    let first = layers[0].node;
    let [batch, length] = layers[0].rows.clone();
    for it in &layers {
        check(m, it, &layers[0]).map_err(|reason| refused(m, it.node, reason))?;
    }
    let sites = find::sites(m, &layers)?;
    let padding = find::padding(m, &sites)?;
    if let Some(it) = padding {
        let square = [batch.clone(), length.clone()];
        if m.shape(it).ok().map(|it| &it[..]) != Some(&square[..]) {
            let reason = no_match!("`{}` is not as long as the query", m.value(it).name);
            return Err(refused(m, first, reason));
        }
        measure_tokens(m, it);
    }
    let nodes: BTreeSet<NodeId> = layers.iter().map(|it| it.node).collect();
    let ranges = tokens::one_by_one(m, &length, padding, &nodes)?;

    let past = free_name(m, "past_sequence_length");
    let total = sum(&past, &length);
    let total = total.ok_or_else(|| refused(m, first, no_match!("the length is not known")))?;
    if let Some(it) = padding {
        let dtype = m.dtype(it).unwrap_or(DType::I64);
        retype(m, it, TensorType::new(dtype, [batch, total.clone()]));
    }
    let taken = m.values().map(|it| it.1.name.clone()).collect();
    let mut pasts = Vec::new();
    for (index, it) in layers.iter().enumerate() {
        pasts.push((it.node, attach(m, it, index, [&past, &total], &taken)?));
    }
    for it in &ranges {
        after_past(m, *it, pasts[0].1);
    }
    for site in sites {
        mask(m, site, &pasts);
    }
    let padding = padding.map(|it| m.value(it).name.clone());
    Ok(Added { layers: layers.len(), prepared: false, positions: ranges.len(), padding })
}

fn check(m: &Model, it: &Layer, first: &Layer) -> Result<(), onnxq_ir::NoMatch> {
    if it.rows != first.rows {
        return Err(no_match!("other layers have another batch or length"));
    }
    if !matches!(it.rows[1], Dim::Symbol(_)) {
        return Err(no_match!("the length is {}, not a name", it.rows[1]));
    }
    let outputs = m.node(it.node).outputs.iter().skip(1);
    if outputs.clone().any(|it| !m.value(*it).uses.is_empty()) {
        return Err(no_match!("the attention has other results in use"));
    }
    Ok(())
}

/// Sizes are asked of an input of tokens, not of the padding mask that gets longer.
fn measure_tokens(m: &mut Model, padding: ValueId) {
    let inputs = m.graph(m.main).inputs.clone();
    let twin = |it: &ValueId| {
        *it != padding
            && matches!((m.shape(*it), m.shape(padding)), (Ok(a), Ok(b)) if a == b)
            && m.value(*it).uses.iter().any(|it| matches!(it.user, User::Node(_)))
    };
    let Some(twin) = inputs.iter().copied().find(twin) else { return };
    for it in m.value(padding).uses.clone() {
        if let User::Node(node) = it.user
            && m.node(node).op.is("Shape")
        {
            m.set_input(node, it.index, Some(twin));
        }
    }
}

/// A name that no dimension of an input has.
fn free_name(m: &Model, stem: &str) -> Dim {
    let inputs = m.graph(m.main).inputs.iter();
    let shapes = inputs.filter_map(|it| m.shape(*it).ok());
    let known: BTreeSet<Name> = shapes.flatten().flat_map(bind::names).collect();
    let numbered = (1..).map(|it| format!("{stem}_{it}"));
    let mut names = std::iter::once(stem.to_owned()).chain(numbered);
    let name = names.find(|it| !known.contains(&**it)).expect("numbers do not end");
    Dim::Symbol(name.into())
}

fn sum(a: &Dim, b: &Dim) -> Option<Dim> {
    Some(Expr::of(a)?.add(&Expr::of(b)?)?.dim()).filter(|it| *it != Dim::Unknown)
}

/// Sets the type of an input or output, and drops the encoded one that would be written instead.
pub(super) fn retype(m: &mut Model, value: ValueId, ty: TensorType) {
    m.set_type(value, ty);
    if let Some(kept) = &mut m.value_mut(value).kept {
        kept.info = None;
    }
}

/// Adds the inputs and outputs of a layer. Returns the past keys.
fn attach(
    m: &mut Model,
    layer: &Layer,
    index: usize,
    [past, total]: [&Dim; 2],
    taken: &BTreeSet<Name>,
) -> Result<ValueId, CacheError> {
    let mut first = None;
    for (at, (what, size)) in ["key", "value"].into_iter().zip(layer.sizes).enumerate() {
        let names = ["past_key_values", "present"].map(|it| format!("{it}.{index}.{what}"));
        if let Some(it) = names.iter().find(|it| taken.contains(&***it)) {
            return Err(refused(m, layer.node, no_match!("another value is called `{it}`")));
        }
        let ty = |length: &Dim| {
            let [batch, heads, size] = [layer.rows[0].clone(), layer.kv_heads.into(), size.into()];
            TensorType::new(DType::F32, [batch, heads, length.clone(), size])
        };
        let input = m.add_input(m.main, &names[0], Some(ty(past)));
        m.set_input(layer.node, 4 + at, Some(input));
        first.get_or_insert(input);
        let output = match m.node(layer.node).outputs.get(1 + at) {
            Some(it) => *it,
            None => {
                let it = m.add_value("", None, Def::Node(layer.node));
                m.node_mut(layer.node).outputs.push(it);
                it
            }
        };
        m.value_mut(output).name = names[1].as_str().into();
        retype(m, output, ty(total));
        m.add_output(m.main, output);
    }
    Ok(first.expect("a layer has keys"))
}

/// `Range(0, length, 1)` becomes `Range(past, past + length, 1)`.
fn after_past(m: &mut Model, range: NodeId, past_key: ValueId) {
    let inputs = m.node(range).inputs.clone();
    let (Some(length), Some(one)) = (inputs[1], inputs[2]) else { return };
    let mut patch = Patch::before(range);
    let past = size_of(&mut patch, (past_key, 2));
    let past = patch.step("past", "Squeeze", [past], Attrs::default());
    let total = patch.step("past_and_length", "Add", [past, length.into()], Attrs::default());
    patch.rewire(range, 0, past).rewire(range, 1, total).rewire(range, 2, one.into()).apply(m);
}

/// The mask again, over the past as well.
fn mask(m: &mut Model, mut site: Site, pasts: &[(NodeId, ValueId)]) {
    site.past = pasts.iter().find(|it| it.0 == site.users[0]).map(|it| it.1);
    for it in &site.users {
        m.node_mut(*it).attrs.remove("is_causal");
    }
    build(m, &site);
}
