//! CONTRACT STUB

use ndarray::ArrayView2;

use super::stats::InputStats;
use crate::tensor::QMatrix;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutputError {
    pub error: f64,
    pub signal: f64,
}

pub fn output_error(
    rows: ArrayView2<f32>,
    q: &QMatrix,
    _stats: Option<&InputStats>,
) -> OutputError {
    let back = q.dequantize();
    let error = rows.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    OutputError { error, signal: rows.iter().map(|it| f64::from(*it).powi(2)).sum() }
}
