//! What a cut holds of each sample.

use std::io;

use crate::kept::Kept;
use onnxq_ir::{ValueId, tensor::Tensor};

pub(super) struct Cut {
    /// The values that each sample has, in this order.
    pub values: Vec<ValueId>,
    /// `None`: there are none.
    kept: Option<Kept>,
}

impl Cut {
    /// Before the first node: nothing is computed yet.
    pub(super) fn start() -> Cut {
        Cut { values: Vec::new(), kept: None }
    }

    pub(super) fn new(values: Vec<ValueId>) -> io::Result<Cut> {
        let kept = if values.is_empty() { None } else { Some(Kept::new()?) };
        Ok(Cut { values, kept })
    }

    pub(super) fn store(&self, sample: usize, tensors: &[&Tensor]) -> io::Result<()> {
        self.kept.as_ref().map_or(Ok(()), |it| it.store(sample, tensors))
    }

    pub(super) fn load(&self, sample: usize) -> io::Result<Vec<Tensor>> {
        self.kept.as_ref().map_or_else(|| Ok(Vec::new()), |it| it.load(sample))
    }
}
