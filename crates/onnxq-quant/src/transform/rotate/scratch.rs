//! Rotated weights on the disk: a nameless file, mapped once all of them are there.

use std::{fs::File, io, ops::Range};

use bytes::Bytes;
use rayon::prelude::*;

use super::matrix::Rotation;
use onnxq_ir::{
    fs::{map, write_all_at},
    tensor::{DType, Tensor, TensorError, from_f32},
};

/// Elements that are rotated at once.
const PIECE: usize = 1 << 20;

pub(super) struct Scratch {
    file: File,
    end: u64,
}

impl Scratch {
    pub(super) fn new() -> Result<Scratch, TensorError> {
        Ok(Scratch { file: tempfile::tempfile().map_err(io_error)?, end: 0 })
    }

    /// Appends `rows·diag(gain)·Q` for the rows of a matrix `[r, n]`, in its own type; says where.
    pub(super) fn rotated(
        &mut self,
        rows: &Tensor,
        gain: Option<&[f32]>,
        q: &Rotation,
    ) -> Result<Place, TensorError> {
        let start = self.end;
        let count = (PIECE / q.len()).max(1);
        for first in (0..rows.shape[0]).step_by(count) {
            let range = first..(first + count).min(rows.shape[0]);
            let mut values = rows.rows_f32(range)?;
            values.par_chunks_exact_mut(q.len()).for_each(|row| rotate(row, gain, q));
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

/// Where a rotated matrix lies, and how it is seen.
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

fn rotate(row: &mut [f32], gain: Option<&[f32]>, q: &Rotation) {
    let mut wide: Vec<f64> = row.iter().map(|it| f64::from(*it)).collect();
    if let Some(gain) = gain {
        wide.iter_mut().zip(gain).for_each(|(it, gain)| *it *= f64::from(*gain));
    }
    q.rotate(&mut wide);
    row.iter_mut().zip(wide).for_each(|(it, wide)| *it = wide as f32);
}

fn io_error(error: io::Error) -> TensorError {
    TensorError::Scratch(error.to_string())
}
