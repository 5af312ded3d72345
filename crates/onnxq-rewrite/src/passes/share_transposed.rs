//! A constant that is the transpose of another is computed from it, so that a file holds one of the two.
//!
//! ```text
//! Gather(w, i), MatMul(x, wᵀ)      →      Gather(w, i), MatMul(x, Transpose(w))
//! ```
//!
//! Runtimes compute it once, when they load the model. For a model that stays in float; formats of
//! quantized weights have their own way.

use std::collections::BTreeMap;

use crate::{Pass, PassError, trace};
use onnxq_ir::{Attrs, Def, Model, Patch, ValueId, ctx::Ctx, tensor::Tensor};

pub(super) const SHARE_TRANSPOSED: Pass = Pass {
    name: "share-transposed",
    help: "compute a constant that is another's transpose from it, so that it is stored once",
    limited: true,
    run,
};

/// So few elements are worth no node.
const FEW: usize = 1024;

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let pairs = pairs(model);
    let done = pairs.len().min(ctx.max_rewrites);
    for &(view, base) in &pairs[..done] {
        let name = model.value(view).name.to_string();
        if ctx.trace.is_some() {
            let what = format!("the transpose of `{}`", model.value(base).name);
            trace(ctx, SHARE_TRANSPOSED.name, &name, &what);
        }
        let Some(first) = model.nodes_of(model.main).next() else { continue };
        let mut patch = Patch::before(first);
        let attrs = Attrs::default().with("perm", vec![1i64, 0]);
        let turned = patch.step(&name, "Transpose", [base.into()], attrs);
        patch.replace(view, turned).apply(model);
    }
    Ok(done)
}

/// `(the view, the matrix that it is the transpose of)`, both of the main graph and both in use.
fn pairs(m: &Model) -> Vec<(ValueId, ValueId)> {
    let mut bases: BTreeMap<(usize, usize), ValueId> = BTreeMap::new();
    let mut views = Vec::new();
    for &value in &m.graph(m.main).constants {
        let Some((tensor, place)) = placed(m, value) else { continue };
        match tensor.is_transposed() {
            true => views.push((value, place)),
            false => drop(bases.entry(place).or_insert(value)),
        }
    }
    let of = |(view, place): (ValueId, (usize, usize))| {
        let base = *bases.get(&place)?;
        let turned = placed(m, view)?.0.shape.iter().rev().copied().collect::<Vec<_>>();
        (placed(m, base)?.0.shape == turned).then_some((view, base))
    };
    views.into_iter().filter_map(of).collect()
}

/// A matrix in use, and where its bytes lie.
fn placed(m: &Model, value: ValueId) -> Option<(&Tensor, (usize, usize))> {
    let Def::Const(tensor) = &m.value(value).def else { return None };
    let is_used = !m.value(value).uses.is_empty() && tensor.numel() > FEW;
    Some((tensor, tensor.place().filter(|_| is_used && tensor.shape.len() == 2)?))
}
