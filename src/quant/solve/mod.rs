//! Solvers choose codes, scales and zeros for a weight. They know nothing of ONNX.

mod gptq;
mod grid;
mod hqq;
mod imatrix;
mod mse;
mod rtn;
mod spec;

use ndarray::ArrayView2;

pub(in crate::quant) use self::spec::SpecVisitor;
pub use self::{
    gptq::{Feedback, Gptq},
    hqq::Hqq,
    imatrix::Imatrix,
    mse::Mse,
    rtn::Rtn,
    spec::SolverSpec,
};
use super::{
    scheme::Scheme,
    stats::{InputStats, Needs},
};
use crate::{
    codes::Fault,
    tensor::{QMatrix, QShape},
};

pub trait Solver: Send + Sync {
    /// What it must know of the weight's inputs.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// The statistics in the form it works with; once for all weights that read the same input.
    fn prepare(&self, stats: &InputStats) -> Result<Prepared, BadStats> {
        Ok(Prepared { importance: stats.mean_square.clone(), feedback: None })
    }

    /// `rows` are some rows of a weight, `[n, k]`; `extent` describes the whole weight. `input` is
    /// what [`Solver::prepare`] made; without it (embedding tables have no inputs) every column
    /// counts the same.
    ///
    /// Rows must not influence each other: the driver decides how many of them a call gets,
    /// and calls in parallel.
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        extent: QShape,
        input: Option<&Prepared>,
    ) -> QMatrix;
}

/// Statistics of an input, prepared for a solver.
pub struct Prepared {
    /// How much an error in column `j` costs: `E[x_j²]`, `[k]`.
    pub importance: Vec<f32>,
    /// What GPTQ needs of the Hessian.
    pub feedback: Option<Feedback>,
}

/// Why statistics are of no use.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the statistics hold {0}")]
pub struct BadStats(pub &'static str);

impl Fault for BadStats {
    fn code(&self) -> &'static str {
        "E614"
    }
}

#[cfg(test)]
mod laws {
    //! What holds for every solver.

    use ndarray::{Array2, s};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        quant::scheme::{Granularity, Range},
        tensor::{DType, Zeros},
    };

    /// Every solver with its default settings. Without statistics all columns count the same.
    const SOLVERS: &[SolverSpec] = &[SolverSpec::Rtn];

    fn weight() -> impl Strategy<Value = Array2<f32>> {
        (1usize..5, 1usize..70).prop_flat_map(|(n, k)| {
            prop::collection::vec(
                prop_oneof![8 => -2f32..2.0, 1 => Just(0.0), 1 => -1e3f32..1e3],
                n * k,
            )
            .prop_map(move |it| Array2::from_shape_vec((n, k), it).expect("n times k values"))
        })
    }

    fn scheme() -> impl Strategy<Value = Scheme> {
        let bits = prop::sample::select(vec![2u32, 4, 8]);
        let zeros = prop::sample::select(vec![Zeros::Symmetric, Zeros::Asymmetric]);
        let granularity = prop::sample::select(vec![
            Granularity::Channel,
            Granularity::Block(16),
            Granularity::Block(32),
        ]);
        let range = prop::sample::select(vec![Range::Full, Range::Narrow, Range::Reduced]);
        (bits, zeros, granularity, range).prop_map(|(bits, zeros, granularity, range)| Scheme {
            bits,
            zeros,
            granularity,
            range,
        })
    }

    proptest! {
        #[test]
        fn rows_do_not_influence_each_other(w in weight(), scheme in scheme()) {
            let extent = scheme.extent(w.nrows(), w.ncols(), DType::F32);
            for solver in SOLVERS {
                let whole = solver.solver().solve(w.view(), &scheme, extent, None);
                let last = w.nrows() - 1;
                let alone = solver.solver().solve(w.slice(s![last.., ..]), &scheme, extent, None);
                prop_assert_eq!(whole.codes.row(last), alone.codes.row(0));
                prop_assert_eq!(whole.scales.row(last), alone.scales.row(0));
                prop_assert_eq!(whole.zeros.row(last), alone.zeros.row(0));
            }
        }

        #[test]
        fn an_error_is_at_most_a_step(w in weight(), scheme in scheme()) {
            let extent = scheme.extent(w.nrows(), w.ncols(), DType::F32);
            for solver in SOLVERS {
                let q = solver.solver().solve(w.view(), &scheme, extent, None);
                let back = q.dequantize();
                for ((at, value), back) in w.indexed_iter().zip(&back) {
                    let step = q.scales[(at.0, at.1 / extent.block)].abs();
                    // The one code that the positive side of a full range lacks costs a step.
                    prop_assert!((value - back).abs() <= step * 1.001 + 1e-6, "{value} {back} {step}");
                }
            }
        }

        #[test]
        fn zero_stays_zero_and_codes_fit(w in weight(), scheme in scheme()) {
            let extent = scheme.extent(w.nrows(), w.ncols(), DType::F32);
            let middle = 1u8 << (scheme.bits - 1);
            for solver in SOLVERS {
                let q = solver.solver().solve(w.view(), &scheme, extent, None);
                let back = q.dequantize();
                prop_assert!(w.iter().zip(&back).all(|(w, back)| *w != 0.0 || *back == 0.0));
                prop_assert!(q.codes.iter().all(|it| f32::from(*it) <= scheme.max_code()));
                if scheme.zeros == Zeros::Symmetric {
                    prop_assert!(q.zeros.iter().all(|it| *it == middle));
                }
                if scheme.zeros == Zeros::Symmetric && scheme.range == Range::Narrow {
                    prop_assert!(q.codes.iter().all(|it| *it > 0));
                    prop_assert!(q.scales.iter().all(|it| *it >= 0.0));
                }
            }
        }
    }
}
