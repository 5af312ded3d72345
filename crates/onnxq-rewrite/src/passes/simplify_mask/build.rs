//! A causal mask with padding in the fewest nodes.

use super::Site;
use crate::rules::{size_of, sized};
use onnxq_ir::{
    Attrs, Model, NodeId, Patch, Ref,
    tensor::{DType, Tensor},
};

/// About as many nodes as the mask takes.
pub(super) const NODES: usize = 13;

/// Puts the mask into the model, or takes it out where the attention masks by itself.
pub(crate) fn build(m: &mut Model, site: &Site) {
    if site.needs_no_mask() {
        for &user in &site.users {
            m.set_input(user, 3, None);
            m.set_attr(user, "is_causal", 1i64.into());
        }
        return;
    }
    let first = first(m, &site.users);
    let mut patch = Patch::before(first);
    let mask = mask(m, site, &mut patch);
    for &user in &site.users {
        let is_mask = |it: &usize| match site.is_term {
            true => m.operand(user, *it) == Ok(site.mask),
            false => *it == 3,
        };
        for index in (0..4).filter(is_mask) {
            patch = patch.rewire(user, index, mask);
        }
    }
    patch.apply(m);
}

fn first(m: &Model, users: &[NodeId]) -> NodeId {
    let graph = m.node(users[0]).graph;
    m.nodes_of(graph).find(|it| users.contains(it)).unwrap_or(users[0])
}

/// `[batch, 1, length, total]`, or without padding `[length, total]`.
fn mask(m: &Model, site: &Site, patch: &mut Patch) -> Ref {
    let attrs = Attrs::default();
    let scalar = |patch: &mut Patch, it| patch.constant("bound", Tensor::from_i64(&[], [it]));
    let single = |patch: &mut Patch, it: &[i64]| {
        patch.constant("axes", Tensor::from_i64(&[it.len()], it.iter().copied()))
    };
    let (query, axis) = site.query;
    let length = size_of(patch, sized(m, &site.length, (query, axis)));
    let length = patch.step("length", "Squeeze", [length], attrs.clone());
    let total = match (site.padding, site.past) {
        (Some(it), _) => {
            let total = size_of(patch, (it, 1));
            patch.step("total", "Squeeze", [total], attrs.clone())
        }
        (None, Some(it)) => {
            let past = size_of(patch, (it, 2));
            let past = patch.step("past", "Squeeze", [past], attrs.clone());
            patch.step("total", "Add", [past, length], attrs.clone())
        }
        (None, None) => length,
    };
    let (zero, one) = (scalar(patch, 0), scalar(patch, 1));
    let past = patch.step("first_query", "Sub", [total, length], attrs.clone());
    let keys = patch.step("keys", "Range", [zero, total, one], attrs.clone());
    let queries = patch.step("queries", "Range", [past, total, one], attrs.clone());
    let last = single(patch, &[1]);
    let queries = patch.step("query_rows", "Unsqueeze", [queries, last], attrs.clone());
    let mut seen = patch.step("causal", "LessOrEqual", [keys, queries], attrs.clone());
    if let Some(it) = site.padding {
        let to = attrs.clone().with("to", i64::from(DType::Bool.number()));
        let real = match m.dtype(it) {
            Some(DType::Bool) => it.into(),
            _ => patch.step("real", "Cast", [it.into()], to),
        };
        let middle = single(patch, &[1, 2]);
        let real = patch.step("real_keys", "Unsqueeze", [real, middle], attrs.clone());
        seen = patch.step("seen", "And", [seen, real], attrs.clone());
    }
    let [nothing, lowest] = [0.0, f32::MIN].map(|it| patch.constant("mask", Tensor::scalar(it)));
    patch.step("mask", "Where", [seen, nothing, lowest], attrs)
}
