//! The blocks of a tensor, rows by rows: solved in parallel, in bounded memory.

use std::{io::Write, ops::Range, sync::Arc};

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::{Made, Values};
use onnxq_formats::{
    ExportTensor,
    gguf::{GgmlType, SourceError, WriteError, Writer},
};
use onnxq_ir::tensor::{QMatrix, QShape, QSource, TensorError};

/// Rows that are solved at once, at least.
const TILE: usize = 128;
/// Tiles whose bytes are held until those before them are written.
const AHEAD: usize = 16;

/// Appends a tensor to a file.
pub(super) fn append<'a>(
    writer: &mut Writer<'a>,
    tensor: &'a ExportTensor,
    made: &'a Made,
) -> Result<(), WriteError> {
    let (name, kind, shape) = (&tensor.name, made.kind, &tensor.shape);
    match &made.values {
        Values::Rounded => writer.rounded(name, kind, &tensor.floats()),
        Values::Stored(bytes) => writer.tensor(name, kind, shape, |to| Ok(to.write_all(bytes)?)),
        Values::Solved(sources) => {
            writer.tensor(name, kind, shape, move |to| write(kind, tensor, sources, to))
        }
    }
}

fn write(
    kind: GgmlType,
    tensor: &ExportTensor,
    sources: &[Arc<dyn QSource>],
    to: &mut dyn Write,
) -> Result<(), SourceError> {
    let tiles = tiles(tensor);
    for tiles in tiles.chunks(AHEAD) {
        let packed = tiles.par_iter().map(|rows| {
            let q = solved(tensor, sources, rows.clone())?;
            Ok(kind.pack(&q).expect("solvers know no other types"))
        });
        let packed: Result<Vec<Vec<u8>>, TensorError> = packed.collect();
        for bytes in packed? {
            to.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Runs of the tensor's rows that are as many rows of its parts: heads, where rows are in another order.
fn tiles(tensor: &ExportTensor) -> Vec<Range<usize>> {
    let mut tiles = Vec::new();
    let (mut start, mut most) = (0, 0);
    for row in 0..tensor.shape[0] {
        most = most.max(tensor.order.as_ref().map_or(row, |it| it[row]));
        let is_whole = most == row && row + 1 - start >= TILE;
        if is_whole || row + 1 == tensor.shape[0] {
            tiles.push(start..row + 1);
            start = row + 1;
        }
    }
    tiles
}

/// Rows of the file.
fn solved(
    tensor: &ExportTensor,
    sources: &[Arc<dyn QSource>],
    rows: Range<usize>,
) -> Result<QMatrix, TensorError> {
    let mut parts = Vec::new();
    for (part, source) in tensor.parts.iter().zip(sources) {
        let own = part.rows.start.max(rows.start)..part.rows.end.min(rows.end);
        if !own.is_empty() {
            parts.push(source.solve(own.start - part.rows.start..own.end - part.rows.start)?);
        }
    }
    let whole = if parts.len() == 1 {
        parts.remove(0)
    } else {
        QMatrix::stacked(sources[0].shape(), &parts)
    };
    Ok(match &tensor.order {
        Some(order) => {
            let order: Vec<usize> = order[rows.clone()].iter().map(|it| it - rows.start).collect();
            picked(&whole, &order)
        }
        None => whole,
    })
}

fn picked(q: &QMatrix, rows: &[usize]) -> QMatrix {
    fn of<T: Clone>(values: &Array2<T>, rows: &[usize]) -> Array2<T> {
        values.select(Axis(0), rows)
    }
    QMatrix {
        shape: QShape { n: rows.len(), ..q.shape },
        quantized: of(&q.quantized, rows),
        scales: of(&q.scales, rows),
        zero_points: of(&q.zero_points, rows),
        minimums: of(&q.minimums, rows),
        steps: of(&q.steps, rows),
    }
}
