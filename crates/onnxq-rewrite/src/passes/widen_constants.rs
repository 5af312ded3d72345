//! Weights that a file stores in half floats behind a `Cast`: seen as the float32 weights that they
//! are while a model is quantized, and stored as they were if they are left.
//!
//! ```text
//! MatMul(x, Cast(w))     →      MatMul(x, w'), w' reads w as float32
//! ```

use crate::{Pass, PassError, nodes_in_main, trace};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, ValueId,
    ctx::Ctx,
    no_match,
    tensor::{DType, Tensor},
};

pub(super) const WIDEN_CONSTANTS: Pass = Pass {
    name: "widen-constants",
    help: "read constants of half floats behind a Cast as float32, without copying them",
    limited: true,
    run: widen,
};

pub(super) const NARROW_CONSTANTS: Pass = Pass {
    name: "narrow-constants",
    help: "store constants that are read from half floats as these, with a Cast",
    limited: true,
    run: narrow,
};

/// So few elements are worth no node.
const FEW: usize = 64;

fn widen(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut count = 0;
    for node in nodes_in_main(model) {
        if count == ctx.max_rewrites {
            break;
        }
        if !model.is_live(node) || !model.node(node).op.is("Cast") {
            continue;
        }
        match wide(model, node) {
            Ok(tensor) => {
                let output = model.node(node).output();
                let mut patch = Patch::before(node);
                let constant = patch.constant(&model.value(output).name, tensor);
                patch.replace(output, constant).apply(model);
                count += 1;
            }
            Err(reason) if ctx.trace.is_some() => {
                let label = model.node_label(node);
                trace(ctx, WIDEN_CONSTANTS.name, &label, &reason.to_string());
            }
            Err(_) => {}
        }
    }
    Ok(count)
}

fn wide(m: &Model, node: NodeId) -> Result<Tensor, NoMatch> {
    let output = m.node(node).output();
    let half = m.constant(m.operand(node, 0)?)?;
    let to = DType::from_number(m.int_attr(node, "to", 0) as i32);
    if m.is_output(output) {
        return Err(no_match!("`{}` is an output of the graph", m.value(output).name));
    }
    match (half.dtype, to) {
        (DType::F16 | DType::BF16, Some(DType::F32)) => Ok(half.cast(DType::F32)),
        (from, _) => Err(no_match!("it casts {from}, not a half float to float32")),
    }
}

fn narrow(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut count = 0;
    for graph in model.graphs() {
        for value in model.graph(graph).constants.clone() {
            if count < ctx.max_rewrites
                && let Some(half) = narrower(model, value)
            {
                // Whoever reads it is a node, so there is one.
                let first = model.nodes_of(graph).next();
                let Some(first) = first else { continue };
                store_narrow(model, value, half, first);
                count += 1;
            }
        }
    }
    Ok(count)
}

/// The half floats that a constant in use reads, if they are worth a node.
fn narrower(m: &Model, value: ValueId) -> Option<Tensor> {
    let half = m.constant(value).ok()?.narrower()?;
    (half.numel() > FEW && !m.value(value).uses.is_empty()).then(|| half.clone())
}

/// Stores `half` in place of a constant, with a Cast at the beginning of its graph.
fn store_narrow(model: &mut Model, value: ValueId, half: Tensor, first: NodeId) {
    let name = model.value(value).name.to_string();
    let attrs = Attrs::default().with("to", i64::from(DType::F32.number()));
    let mut patch = Patch::before(first);
    let stored = patch.constant(&name, half);
    let cast = patch.step(&format!("{name}_float"), "Cast", [stored], attrs);
    patch.replace(value, cast).apply(model);
}
