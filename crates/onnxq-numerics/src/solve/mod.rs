//! Solvers choose quantized values, scales and zero points for a weight. They know nothing of ONNX.

mod blocks;
mod gptq;
mod grid;
mod hqq;
mod imatrix;
mod lanes;
mod minimum;
mod mse;
mod nest;
mod rtn;
mod search;
mod signround;
mod sums;
mod target;

use ndarray::ArrayView2;

pub use self::{gptq::Feedback, signround::Curvature, target::Target};
use super::{
    scheme::Scheme,
    stats::{InputStats, Needs},
};
use crate::specs;
use onnxq_ir::{
    diag::{Code, Diagnostic},
    tensor::{QMatrix, QShape},
};

specs! {
    /// A solver and its settings, as a recipe names it.
    #[derive(Default)]
    pub enum SolverSpec("solver", "a solver", "Settings") as solver: Solver {
        /// Round to nearest: no data needed, and the bytes that ONNX Runtime's own tool writes.
        #[default]
        rtn::Rtn,
    } with settings {
        mse::Mse,
        hqq::Hqq,
        imatrix::Imatrix,
        gptq::Gptq,
        signround::Signround,
    }
}

pub trait Solver: Send + Sync {
    /// What it must know of the weight's inputs.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Into how many groups of rows it cuts a weight, each with statistics of its own, in which
    /// tokens count by what the model's loss makes of the group's outputs; `None`: in none, all
    /// tokens count the same.
    fn groups(&self) -> Option<usize> {
        None
    }

    /// Why it cannot solve weights of a scheme.
    fn fits(&self, _: &Scheme) -> Result<(), &'static str> {
        Ok(())
    }

    /// The statistics in the form it works with; once for all weights that read the same input.
    fn prepare(&self, stats: &InputStats) -> Result<Prepared, BadStats> {
        Ok(Prepared::of(stats))
    }

    /// `rows` are some rows of a weight, `[n, k]`; `shape` describes the whole weight. `input` is
    /// what [`Solver::prepare`] made; without it (embedding tables have no inputs) every column
    /// counts the same.
    ///
    /// Rows must not influence each other: the driver decides how many of them a call gets,
    /// and calls in parallel.
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        input: Option<&Prepared>,
    ) -> QMatrix;
}

/// Statistics of an input, prepared for a solver.
pub struct Prepared {
    /// How much an error in column `j` costs: `E[x_j²]`, `[k]`.
    pub importance: Vec<f32>,
    /// What GPTQ needs of the Hessian.
    pub feedback: Option<Feedback>,
    /// For solvers that descend by its gradients.
    pub curvature: Option<Curvature>,
    /// What the weights are to be replaced by before they are solved.
    pub target: Option<Target>,
}

impl Prepared {
    /// What the statistics say of each column alone.
    pub fn of(stats: &InputStats) -> Prepared {
        let importance = stats.mean_square.clone();
        Prepared { importance, feedback: None, curvature: None, target: None }
    }
}

/// Why statistics are of no use.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the statistics hold {0}")]
pub struct BadStats(pub &'static str);

impl Diagnostic for BadStats {
    fn code(&self) -> Code {
        Code::E614
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod minimum_laws;
