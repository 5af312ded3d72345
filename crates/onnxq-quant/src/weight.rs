//! Weights that yield quantized rows when their bytes are needed: solved then, or already.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;
use serde::Serialize;

use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{read_exact_at, write_all_at},
    tensor::{DType, QMatrix, QShape, QSource, Tensor, TensorError, first_non_finite},
};
use onnxq_numerics::{
    error::{OutputError, output_errors},
    guided::group_rows,
    scheme::Scheme,
    solve::{Prepared, Rtn, Solver, SolverSpec},
    stats::InputStats,
};

#[cfg(test)]
mod tests;

/// Statistics of a weight's input, and what a solver made of them.
pub struct Input {
    pub stats: InputStats,
    pub prepared: Prepared,
}

/// A float weight and how it is to be quantized.
pub struct FloatWeight {
    pub name: String,
    /// `[n, k]`.
    pub rows: Tensor,
    /// Whether the rows are the columns of the weight in the model.
    pub transposed: bool,
    pub scheme: Scheme,
    pub solver: SolverSpec,
    /// Element type of the stored scales.
    pub scale: DType,
    /// One for each group of rows, as [`group_rows`] cuts them; none: nothing is known.
    pub inputs: Vec<Arc<Input>>,
    pub errors: Arc<Errors>,
}

impl QSource for FloatWeight {
    fn shape(&self) -> QShape {
        self.scheme.shape(self.rows.shape[0], self.rows.shape[1], self.scale)
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let k = self.rows.shape[1];
        let values = self.rows.rows_f32(rows.clone())?;
        if let Some((at, what)) = first_non_finite(&values) {
            let (row, column) = match (rows.start + at / k, at % k) {
                (row, column) if self.transposed => (column, row),
                place => place,
            };
            return Err(TensorError::NonFinite { name: self.name.clone(), what, row, column });
        }
        let view = ArrayView2::from_shape((rows.len(), k), &values).expect("rows of k values");
        let parts = self.groups(rows.clone()).into_iter().map(|(part, input)| {
            let own = part.start - rows.start..part.end - rows.start;
            self.solve_part(part.start, view.slice(s![own, ..]), input)
        });
        let mut parts: Vec<QMatrix> = parts.collect();
        // Most weights are one group, which need not be copied.
        Ok(if parts.len() == 1 { parts.remove(0) } else { QMatrix::stacked(self.shape(), &parts) })
    }
}

impl FloatWeight {
    /// The parts of some rows that lie in one group each, and what is known of its inputs.
    fn groups(&self, rows: Range<usize>) -> Vec<(Range<usize>, Option<&Input>)> {
        let (n, count) = (self.rows.shape[0], self.inputs.len());
        if count < 2 || rows.is_empty() {
            return vec![(rows, self.inputs.first().map(|it| &**it))];
        }
        let part = |at: usize| {
            let own = group_rows(n, count, at);
            own.start.max(rows.start)..own.end.min(rows.end)
        };
        let parts = self.inputs.iter().enumerate().map(|(at, it)| (part(at), Some(&**it)));
        parts.filter(|it| !it.0.is_empty()).collect()
    }

    /// Solves rows of one group.
    fn solve_part(&self, start: usize, rows: ArrayView2<f32>, input: Option<&Input>) -> QMatrix {
        let prepared = input.map(|it| &it.prepared);
        let target = prepared.and_then(|it| it.target.as_ref()).map(|it| it.of(rows));
        let aim = target.as_ref().map_or(rows, |it| it.view());
        let q = self.solver.solver().solve(aim, &self.scheme, self.shape(), prepared);
        // Two bits lose so much that the user must see it, and so does rounding for the second time.
        if self.solver != SolverSpec::Rtn || self.scheme.bits < 4 || self.rows.origin().is_some() {
            self.measure((start, rows), aim, &q, input.map(|it| &it.stats));
        }
        q
    }

    /// The errors of round-to-nearest and of the solver, to what was aimed for.
    ///
    /// Some rows at a time: errors of all of them at once would take several times their memory.
    fn measure(
        &self,
        (start, rows): (usize, ArrayView2<f32>),
        aim: ArrayView2<f32>,
        q: &QMatrix,
        stats: Option<&InputStats>,
    ) {
        for first in (0..rows.nrows()).step_by(TILE) {
            let part = s![first..(first + TILE).min(rows.nrows()), ..];
            let own = q.rows(first..(first + TILE).min(rows.nrows()));
            let rtn = Rtn.solve(rows.slice(part), &self.scheme, self.shape(), None);
            let errors = output_errors(aim.slice(part), [&rtn, &own], stats);
            self.errors.record(start + first, errors);
        }
    }
}

/// Rows that are solved at once: the same for any number of threads, so that sums of errors are.
const TILE: usize = 128;

/// Quantized weights on the disk: a nameless file that vanishes with the last of them.
pub struct Store {
    file: Arc<File>,
    end: u64,
}

impl Store {
    pub fn new() -> io::Result<Store> {
        Ok(Store { file: Arc::new(tempfile::tempfile()?), end: 0 })
    }

    /// Solves all rows of a weight, in parallel, and keeps what comes out.
    pub fn solve(&mut self, weight: &FloatWeight) -> Result<StoredWeight, StoreError> {
        let shape = weight.shape();
        let stored = StoredWeight { shape, file: self.file.clone(), at: self.end };
        self.end += stored.row_bytes() * shape.n as u64;
        let starts: Vec<usize> = (0..shape.n).step_by(TILE).collect();
        starts.par_iter().try_for_each(|&start| {
            let rows = start..(start + TILE).min(shape.n);
            stored.write(start, &weight.solve(rows)?).map_err(StoreError::Io)
        })?;
        Ok(stored)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot keep quantized weights in a temporary file: {0}")]
    Io(io::Error),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Diagnostic for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::Io(_) => Code::E901,
            StoreError::Tensor(it) => it.code(),
        }
    }
}

/// A weight that was solved before.
pub struct StoredWeight {
    shape: QShape,
    file: Arc<File>,
    at: u64,
}

impl StoredWeight {
    /// Floats of a row: scales, minimums, steps of superblocks.
    fn floats(&self) -> [usize; 3] {
        [self.shape.blocks(), self.shape.minimums(), self.shape.steps()]
    }

    /// A row: its quantized values, its zero points, its floats.
    fn row_bytes(&self) -> u64 {
        let floats: usize = self.floats().iter().sum();
        (self.shape.k + self.shape.blocks() + 4 * floats) as u64
    }

    fn write(&self, start: usize, q: &QMatrix) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.row_bytes() as usize * q.quantized.nrows());
        for row in 0..q.quantized.nrows() {
            bytes.extend(q.quantized.row(row).iter());
            bytes.extend(q.zero_points.row(row).iter());
            for floats in [&q.scales, &q.minimums, &q.steps] {
                bytes.extend(floats.row(row).iter().flat_map(|it| it.to_le_bytes()));
            }
        }
        write_all_at(&self.file, &bytes, self.at + start as u64 * self.row_bytes())
    }
}

impl QSource for StoredWeight {
    fn shape(&self) -> QShape {
        self.shape
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let (k, blocks, width) = (self.shape.k, self.shape.blocks(), self.row_bytes() as usize);
        let mut bytes = vec![0; width * rows.len()];
        let at = self.at + (rows.start * width) as u64;
        read_exact_at(&self.file, &mut bytes, at)
            .map_err(|err| TensorError::Io(err.to_string()))?;
        let (mut quantized, mut zero_points) = (Vec::new(), Vec::new());
        let mut floats = [const { Vec::new() }; 3];
        for row in bytes.chunks_exact(width.max(1)) {
            quantized.extend_from_slice(&row[..k]);
            zero_points.extend_from_slice(&row[k..k + blocks]);
            let mut rest = row[k + blocks..].as_chunks::<4>().0.iter();
            for (to, count) in floats.iter_mut().zip(self.floats()) {
                to.extend(rest.by_ref().take(count).map(|it| f32::from_le_bytes(*it)));
            }
        }
        let (rows, [scales, minimums, steps]) = (rows.len(), floats);
        let fits = "as many as a row has";
        let [scales, minimums, steps] = [scales, minimums, steps]
            .map(|it| Array2::from_shape_vec((rows, it.len() / rows.max(1)), it).expect(fits));
        Ok(QMatrix {
            shape: QShape { n: rows, ..self.shape },
            quantized: Array2::from_shape_vec((rows, k), quantized).expect(fits),
            scales,
            zero_points: Array2::from_shape_vec((rows, blocks), zero_points).expect(fits),
            minimums,
            steps,
        })
    }
}

/// Errors of a weight's output, gathered while its rows are solved.
#[derive(Default)]
pub struct Errors(Mutex<BTreeMap<usize, [OutputError; 2]>>);

impl Errors {
    /// Of the rows from `start`: the error of round-to-nearest and that of the solver.
    fn record(&self, start: usize, errors: [OutputError; 2]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(start, errors);
    }

    /// `None` if nothing was solved, or by round-to-nearest itself.
    pub fn total(&self, measure: Measure) -> Option<WeightError> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_empty() {
            return None;
        }
        let sum = |at: usize, of: fn(&OutputError) -> f64| -> f64 {
            list.values().map(|it| of(&it[at])).sum()
        };
        let relative = |at| match sum(at, |it| it.signal) {
            0.0 => 0.0,
            signal => sum(at, |it| it.error) / signal,
        };
        let (rtn, solved) = (relative(0), relative(1));
        let ratio = if rtn > 0.0 { solved / rtn } else { 1.0 };
        Some(WeightError { measure, rtn, solved, ratio })
    }
}

/// What an error of a weight's output was measured with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// All second moments of the inputs: the error of the output on the calibration data.
    Hessian,
    /// Only their mean squares, as if the inputs were uncorrelated.
    Diagonal,
    /// Nothing: the error of the weight itself.
    Weight,
}

/// The squared error of a weight's output in proportion to the squared output.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct WeightError {
    pub measure: Measure,
    /// Had it been rounded to nearest.
    pub rtn: f64,
    pub solved: f64,
    /// `solved / rtn`.
    pub ratio: f64,
}

/// The float weight that a source stands for, `[n, k]`, of the given element type.
pub fn dequantized(source: Arc<dyn QSource>, dtype: DType) -> Tensor {
    let QShape { n, k, .. } = source.shape();
    Tensor::lazy(dtype, vec![n, k], move || {
        let values = source.solve(0..n)?.dequantize();
        let values = values.as_slice().expect("a new array is in order");
        Ok(onnxq_ir::tensor::from_f32(dtype, values)?.into())
    })
}
