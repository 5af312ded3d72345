//! Weights that a transform made, on the disk: a nameless file, mapped once all of them are there.

use std::{fs::File, io, ops::Range};

use bytes::Bytes;
use rayon::prelude::*;

use onnxq_ir::{
    fs::{map, write_all_at},
    tensor::{DType, Tensor, TensorError, from_f32},
};

/// Elements that are changed at once.
const PIECE: usize = 1 << 20;

pub(super) struct Scratch {
    file: File,
    end: u64,
}

impl Scratch {
    pub(super) fn new() -> Result<Scratch, TensorError> {
        Ok(Scratch { file: tempfile::tempfile().map_err(io_error)?, end: 0 })
    }

    /// Appends the rows of a matrix `[r, k]`, each changed in place, in its own type; says where.
    pub(super) fn changed(
        &mut self,
        rows: &Tensor,
        change: impl Fn(&mut [f64]) + Sync,
    ) -> Result<Place, TensorError> {
        let (start, width) = (self.end, rows.shape[1].max(1));
        let count = (PIECE / width).max(1);
        for first in (0..rows.shape[0]).step_by(count) {
            let range = first..(first + count).min(rows.shape[0]);
            let mut values = rows.rows_f32(range)?;
            values.par_chunks_exact_mut(width).for_each(|row| {
                let mut wide: Vec<f64> = row.iter().map(|it| f64::from(*it)).collect();
                change(&mut wide);
                row.iter_mut().zip(wide).for_each(|(it, wide)| *it = wide as f32);
            });
            let bytes = from_f32(rows.dtype, &values)?;
            write_all_at(&self.file, &bytes, self.end).map_err(io_error)?;
            self.end += bytes.len() as u64;
        }
        let range = start as usize..self.end as usize;
        // Tensors begin where the widest vector loads want them.
        self.end = self.end.next_multiple_of(64);
        Ok(Place { dtype: rows.dtype, shape: rows.shape.clone(), is_transposed: false, range })
    }

    /// All that was written.
    pub(super) fn map(self) -> Result<Bytes, TensorError> {
        map(&self.file).map_err(io_error)
    }
}

/// Where a matrix lies, and how it is seen.
pub(super) struct Place {
    dtype: DType,
    shape: Vec<usize>,
    is_transposed: bool,
    range: Range<usize>,
}

impl Place {
    pub(super) fn shaped(self, shape: Vec<usize>) -> Place {
        Place { shape, ..self }
    }

    pub(super) fn transposed(self) -> Place {
        Place { is_transposed: !self.is_transposed, ..self }
    }

    pub(super) fn tensor(&self, bytes: &Bytes) -> Tensor {
        let tensor = Tensor::new(self.dtype, self.shape.clone(), bytes.slice(self.range.clone()));
        if self.is_transposed { tensor.transposed() } else { tensor }
    }
}

fn io_error(error: io::Error) -> TensorError {
    TensorError::Scratch(error.to_string())
}
