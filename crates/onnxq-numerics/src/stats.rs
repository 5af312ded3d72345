//! What calibration knows of the values that a weight is multiplied with: `x` of `y = x · w`.

use ndarray::Array2;

/// Moments of one input over all observed rows (tokens). `k` is the length of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct InputStats {
    /// Rows observed.
    pub rows: u64,
    /// `E[x_j²]`, `[k]`: the diagonal of the Hessian.
    pub mean_square: Vec<f32>,
    /// `max |x_j|`, `[k]`.
    pub max_abs: Vec<f32>,
    /// `E[x xᵀ]`, if a solver needs it.
    pub hessian: Option<Hessian>,
    /// `E[(x − x̃) x̃ᵀ]`, `[k, k]`, if layers before are quantized: `x` is what the float model has
    /// here, all else is of `x̃`, what is left of it.
    pub drift: Option<Array2<f32>>,
}

/// A symmetric `[k, k]` matrix: its lower triangle, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Hessian {
    pub k: usize,
    /// `(i, j)` with `j <= i` is at `i (i + 1) / 2 + j`.
    pub lower: Vec<f32>,
}

/// How much of the statistics a solver needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Needs {
    #[default]
    Nothing,
    /// `mean_square` and `max_abs`.
    Diagonal,
    /// Everything.
    Hessian,
}

impl InputStats {
    pub fn k(&self) -> usize {
        self.mean_square.len()
    }
}

impl Hessian {
    pub fn get(&self, i: usize, j: usize) -> f32 {
        let (i, j) = (i.max(j), i.min(j));
        self.lower[i * (i + 1) / 2 + j]
    }

    /// All of it, `[k, k]`.
    pub fn full(&self) -> Array2<f32> {
        Array2::from_shape_fn((self.k, self.k), |(i, j)| self.get(i, j))
    }

    /// Values in the lower triangle of a `[k, k]` matrix.
    pub fn len_of(k: usize) -> usize {
        k * (k + 1) / 2
    }
}
