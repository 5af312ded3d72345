//! Weights of quantized checkpoints: integers in several tensors become one view that dequantizes its rows,
//! and keeps where the integers lie.

mod config;
mod layout;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use onnxq_ir::{
    tensor::{DType, Rows, Tensor},
    untrusted::Untrusted,
};

use super::{
    Config, Weights,
    weights::{Data, Stored},
};
use crate::CheckpointError;

/// Puts together what `quantization_config` says is quantized.
pub(super) fn join(weights: &mut Weights, config: &Config) -> Result<(), CheckpointError> {
    let Some(method) = config::method(config)? else { return Ok(()) };
    let end = method.values_end();
    let named = |it: &str| it.strip_suffix(end).map(str::to_owned);
    let stems: Vec<String> = weights.names().filter_map(named).collect();
    for stem in stems {
        let mut parts = Parts { weights, stem: &stem };
        // A float weight has the name that integers of one byte have, too.
        if !parts.has_integers(end) {
            continue;
        }
        let packed = layout::packed(&method, &mut parts)?;
        let (shape, kind) = ([packed.grid.n, packed.grid.k], packed.kind.to_string());
        let source: Arc<dyn Rows> = Arc::new(packed);
        let view = Tensor::of_rows(DType::F32, shape, source);
        let (name, data) = (format!("{stem}weight"), Data::View(view));
        let (type_name, shape) = (kind, shape.to_vec());
        let stored = Stored { name: name.clone(), type_name, shape, data, blocks: None };
        weights.add(name, stored).map_err(|before| {
            let problem = format!("`{}` is there in float and in integers", Untrusted(&before));
            CheckpointError::Weights { file: "the weights".into(), problem }
        })?;
    }
    Ok(())
}

/// The tensors that make up one weight.
struct Parts<'a> {
    weights: &'a mut Weights,
    /// All before the name of the part, with its dot.
    stem: &'a str,
}

/// A tensor of a type that was asked for.
struct Part {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Parts<'_> {
    fn has_integers(&self, end: &str) -> bool {
        let stored = self.weights.stored(&format!("{}{end}", self.stem));
        stored.is_some_and(|it| matches!(it.data, Data::Integers(..)))
    }

    /// A part that may be missing.
    fn take(&mut self, end: &str, types: &[DType]) -> Result<Option<Part>, CheckpointError> {
        let name = format!("{}{end}", self.stem);
        let Some(stored) = self.weights.take(&name) else { return Ok(None) };
        match stored.data {
            Data::Integers(dtype, bytes) | Data::Bytes(dtype, bytes) if types.contains(&dtype) => {
                Ok(Some(Part { name, dtype, shape: stored.shape, bytes }))
            }
            _ => {
                let known: Vec<String> = types.iter().map(DType::to_string).collect();
                let actual = format!("{}{:?}", stored.type_name, stored.shape);
                Err(CheckpointError::Shape { name, actual, expected: known.join(" or ") })
            }
        }
    }

    fn need(&mut self, end: &str, types: &[DType]) -> Result<Part, CheckpointError> {
        let name = format!("{}{end}", self.stem);
        self.take(end, types)?.ok_or_else(|| CheckpointError::Weights {
            file: "the weights".into(),
            problem: format!("tensor `{}` is missing", Untrusted(&name)),
        })
    }
}

impl Part {
    /// An error unless the part has this shape.
    fn checked(self, shape: &[usize]) -> Result<Part, CheckpointError> {
        if self.shape == shape {
            return Ok(self);
        }
        let actual = format!("{}{:?}", self.dtype, self.shape);
        Err(CheckpointError::Shape { name: self.name, actual, expected: format!("of {shape:?}") })
    }

    /// Both sizes of a matrix that has elements.
    fn sizes(&self) -> Result<[usize; 2], CheckpointError> {
        match self.shape[..] {
            [a, b] if a > 0 && b > 0 => Ok([a, b]),
            _ => {
                let actual = format!("{}{:?}", self.dtype, self.shape);
                let (name, expected) = (self.name.clone(), "a matrix with elements".to_owned());
                Err(CheckpointError::Shape { name, actual, expected })
            }
        }
    }
}
