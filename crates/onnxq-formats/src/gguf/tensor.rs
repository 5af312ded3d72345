//! Tensors of a file as tensors of a model: views, whose rows are made when they are read.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use onnxq_ir::tensor::{DType, Origin, Rows, Tensor, TensorError};

use super::{
    file::Info,
    integers,
    types::{Block, Decode, GgmlType},
};

/// `None` of a type that is not implemented.
pub(super) fn tensor(info: &Info) -> Option<Tensor> {
    let (kind, shape) = (info.kind, info.shape.clone());
    match kind.decode() {
        Decode::Unread => None,
        Decode::Plain(dtype) => {
            let stored = Tensor::new(dtype, shape, info.bytes.clone());
            Some(if dtype.is_float() { stored.cast(DType::F32) } else { stored })
        }
        Decode::Blocks(block) => {
            let columns = shape.last().copied().unwrap_or(1);
            let rows = shape.iter().rev().skip(1).product();
            let blocks = Blocks { kind, block, columns, bytes: info.bytes.clone() };
            let matrix = Tensor::of_rows(DType::F32, [rows, columns], Arc::new(blocks));
            Some(matrix.reshaped(shape))
        }
    }
}

/// Rows of blocks.
struct Blocks {
    kind: GgmlType,
    block: Block,
    columns: usize,
    bytes: Bytes,
}

impl Rows for Blocks {
    fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
        let (elements, size) = (self.kind.elements(), self.kind.bytes());
        let row_bytes = self.columns / elements * size;
        // Those blocks of a row in which the columns lie.
        let blocks = columns.start / elements..columns.end.div_ceil(elements);
        let cut = columns.start - blocks.start * elements..columns.end - blocks.start * elements;
        let decode = |bytes: &[u8], to: &mut [f32]| {
            for (from, to) in bytes.chunks_exact(size).zip(to.chunks_exact_mut(elements)) {
                (self.block)(from, to);
            }
        };
        let mut out = vec![0.0; rows.len() * columns.len()];
        let mut line = vec![0.0; blocks.len() * elements];
        for (row, to) in rows.zip(out.chunks_exact_mut(columns.len().max(1))) {
            let bytes = &self.bytes[row * row_bytes..][blocks.start * size..blocks.end * size];
            if cut.len() == line.len() {
                decode(bytes, to);
            } else {
                decode(bytes, &mut line);
                to.copy_from_slice(&line[cut.clone()]);
            }
        }
        Ok(out)
    }

    fn place(&self) -> usize {
        self.bytes.as_ptr().addr()
    }

    fn origin(self: Arc<Self>) -> Option<Origin> {
        integers::origin(self.kind, self.columns, &self.bytes)
    }
}
