//! Float tensors as tensors of a file, each element rounded by itself.

use std::io::Write;

use onnxq_ir::tensor::{Tensor, TensorError, from_f32};

use super::{
    types::{Decode, GgmlType},
    writer::{SourceError, WriteError, Writer},
};

/// Elements that are made at a time.
const PIECE: usize = 1 << 20;

impl Writer<'_> {
    /// Appends a float tensor, rounded to a type of floats or to integers with one scale for 32
    /// elements: the bytes that the package `gguf` makes of it.
    ///
    /// # Errors
    /// Another type, and what [`Self::tensor`] refuses.
    pub fn rounded(
        &mut self,
        name: &str,
        kind: GgmlType,
        tensor: &Tensor,
    ) -> Result<(), WriteError> {
        if encode(kind, &[]).is_none() {
            let problem = format!("cannot be rounded to {kind}");
            return Err(WriteError::Invalid { name: name.to_owned(), problem });
        }
        let own = tensor.clone();
        self.tensor(name, kind, &tensor.shape, move |to| write(kind, &own, to))
    }
}

fn write(kind: GgmlType, tensor: &Tensor, to: &mut dyn Write) -> Result<(), SourceError> {
    let tensor = tensor.held()?;
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let rows = tensor.numel() / columns;
    let is_matrix = tensor.shape.len() == 2;
    let matrix = if is_matrix { tensor } else { tensor.reshaped(vec![rows, columns]) };
    let step = (PIECE / columns).max(1);
    for start in (0..rows).step_by(step) {
        let values = matrix.rows_f32(start..(start + step).min(rows))?;
        to.write_all(&encode(kind, &values).expect("checked when it was appended")?)?;
    }
    Ok(())
}

/// The bytes of whole rows; `None` of a type that is no rounding of its elements.
fn encode(kind: GgmlType, values: &[f32]) -> Option<Result<Vec<u8>, TensorError>> {
    if let Some(format) = kind.legacy() {
        return Some(Ok(format.pack(&format.round(values))));
    }
    match kind.decode() {
        Decode::Plain(dtype) if dtype.is_float() => Some(from_f32(dtype, values)),
        _ => None,
    }
}
