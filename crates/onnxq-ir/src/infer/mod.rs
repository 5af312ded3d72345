//! Element types and shapes of every value, with symbolic dimensions: one table row per operator.

mod attention;
pub mod bind;
mod call;
mod control;
mod conv;
mod create;
mod data;
mod dims;
mod elementwise;
mod expr;
mod expr_text;
mod index;
mod matmul;
mod norm;
mod ops;
mod quant;
mod recurrent;
mod reduce;
mod resize;
mod shape;
mod walk;

use std::collections::BTreeMap;

pub use self::{call::Call, expr::Expr, ops::OPS};
use crate::{
    ir::{Def, Model, User, ValueId},
    tensor::{Dim, TensorType},
};

/// How much is known after inference, over the nodes of the main graph and its subgraphs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InferReport {
    /// Outputs of which the element type and every dimension are known, as number or symbol.
    pub known: usize,
    /// Outputs of nodes, without those that are left out.
    pub total: usize,
    /// Operators without a row in [`OPS`], with the number of their nodes.
    pub unknown_ops: BTreeMap<String, usize>,
}

/// Fills in the types of values as far as they can be told. Any graph will do, broken ones too.
///
/// What the file states of graph inputs and outputs stays as it is, unless an output cannot have the
/// shape that it states. Of other values its element types stay, and its shapes are completed: numbers
/// over symbols over unknown dimensions.
/// Bodies of functions stay untyped, since calls differ; their results at a call are inferred.
pub fn run(model: &mut Model) -> InferReport {
    for (id, ty) in walk::types(model) {
        if is_wrong(model, id, &ty) || !is_declared_interface(model, id) {
            model.set_type(id, ty);
        }
    }
    report(model)
}

/// Outputs that cannot have the shape that the file states, with the type that they have.
pub fn contradictions(model: &Model) -> Vec<(ValueId, TensorType)> {
    let types = walk::types(model).into_iter();
    types.filter(|(id, ty)| is_declared_interface(model, *id) && is_wrong(model, *id, ty)).collect()
}

/// Whether the shape that is stated of a value cannot be that of the inferred type.
fn is_wrong(model: &Model, id: ValueId, inferred: &TensorType) -> bool {
    model.value(id).ty.as_ref().is_some_and(|it| dims::contradicts(it, inferred))
}

fn is_declared_interface(model: &Model, id: ValueId) -> bool {
    let it = model.value(id);
    let is_output = || it.uses.iter().any(|it| matches!(it.user, User::Output(_)));
    it.ty.is_some() && (matches!(it.def, Def::Input(..)) || is_output())
}

fn report(model: &Model) -> InferReport {
    let mut report = InferReport::default();
    for id in model.nodes() {
        let node = model.node(id);
        if !model.in_main(node.graph) {
            continue;
        }
        for output in node.outputs.iter().map(|it| model.value(*it)) {
            if output.name.is_empty() && output.uses.is_empty() {
                continue;
            }
            report.total += 1;
            report.known += usize::from(output.ty.as_ref().is_some_and(is_known));
        }
        if ops::row(&node.op).is_none() && model.function(&node.op).is_none() {
            *report.unknown_ops.entry(node.op.to_string()).or_default() += 1;
        }
    }
    report
}

fn is_known(ty: &TensorType) -> bool {
    ty.shape.as_ref().is_some_and(|it| !it.contains(&Dim::Unknown))
}

#[cfg(test)]
mod tests;
