//! Tables that a model looks numbers of tokens up in: a tokenizer that makes larger ones is that of
//! another model, which ONNX Runtime would only say in its own words, and late.

use super::{Batches, DataError};
use onnxq_ir::{Def, Model, NodeId, ValueId};

/// The same batches, if the model has a row for each token in them.
pub fn fitting(batches: Batches, model: &Model) -> Result<Batches, DataError> {
    let Some((input, id)) = batches.largest_token() else { return Ok(batches) };
    match rows_for(model, &input) {
        Some(rows) if id as usize >= rows => {
            let tokenizer = batches.files().get(1).cloned().unwrap_or_default();
            Err(DataError::OtherTokenizer { tokenizer, input, id, rows })
        }
        _ => Ok(batches),
    }
}

/// Rows of the smallest table that the model looks this input up in.
pub fn rows_for(model: &Model, input: &str) -> Option<usize> {
    model.nodes_of(model.main).filter_map(|node| rows(model, node, input)).min()
}

/// Rows of the table that a node looks this input up in, if it does.
fn rows(model: &Model, id: NodeId, input: &str) -> Option<usize> {
    let node = model.node(id);
    let axis = match () {
        () if node.op.is("Gather") => "axis",
        () if node.op.is("com.microsoft.GatherBlockQuantized") => "gather_axis",
        () => return None,
    };
    let [Some(table), Some(indices), ..] = node.inputs[..] else { return None };
    if model.int_attr(id, axis, 0) != 0 || *model.value(origin(model, indices)).name != *input {
        return None;
    }
    match &model.value(table).def {
        Def::Const(tensor) => tensor.shape.first().copied(),
        // Of a table that is dequantized first only the type is known.
        _ => model.value(table).ty.as_ref()?.shape.as_ref()?.first()?.fixed(),
    }
}

/// Where numbers of tokens come from, whatever type they were made in between.
fn origin(model: &Model, value: ValueId) -> ValueId {
    match model.producer(value, "Cast").or_else(|_| model.producer(value, "Identity")) {
        Ok(id) => model.node(id).inputs.first().copied().flatten().unwrap_or(value),
        Err(_) => value,
    }
}
