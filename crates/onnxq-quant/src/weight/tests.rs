//! The number of threads changes nothing.

use proptest::prelude::*;

use super::*;
use onnxq_ir::tensor::ZeroPoints;
use onnxq_numerics::{
    scheme::{Granularity, Range},
    solve::{Gptq, Hqq, Imatrix, Mse},
    stats::Hessian,
};

/// `n` numbers between -1 and 1, the middle ones more often.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| (uniform() + uniform() + uniform()) / 3.0).collect()
}

/// Moments of 64 inputs of `k` values.
fn stats(seed: u64, k: usize) -> InputStats {
    let x = Array2::from_shape_vec((64, k), numbers(seed, 64 * k)).expect("64 rows");
    let h = x.t().dot(&x) / 64.0;
    let lower = (0..k).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|at| h[at]).collect();
    InputStats {
        rows: 64,
        mean_square: h.diag().to_vec(),
        max_abs: vec![1.0; k],
        hessian: Some(Hessian { k, lower }),
        drift: None,
    }
}

/// What a number of threads make of a weight, and the errors that they note.
fn solved(
    threads: usize,
    (seed, n, k): (u64, usize, usize),
    scheme: Scheme,
    solver: SolverSpec,
) -> (QMatrix, Option<WeightError>) {
    let stats = stats(seed, k);
    let prepared = solver.solver().prepare(&stats).expect("moments of real inputs");
    let weight = FloatWeight {
        name: "w".into(),
        rows: Tensor::from_f32(&[n, k], numbers(seed.wrapping_add(1), n * k)),
        transposed: false,
        scheme,
        solver,
        scale: DType::F32,
        inputs: vec![Arc::new(Input { stats, prepared })],
        errors: Arc::default(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let stored = pool.install(|| Store::new().expect("a file").solve(&weight)).expect("a weight");
    (stored.solve(0..n).expect("rows"), weight.errors.total(Measure::Hessian))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_number_of_threads_gives_the_same(
        seed in any::<u64>(),
        n in 1usize..600,
        k in 1usize..40,
        zero_points in prop::sample::select(vec![ZeroPoints::Symmetric, ZeroPoints::Asymmetric]),
        block in prop::sample::select(vec![16usize, 32]),
    ) {
        let granularity = Granularity::Block(block);
        let scheme = Scheme { bits: 4, zero_points, granularity, range: Range::Full };
        for solver in [
            SolverSpec::Mse(Mse::default()),
            SolverSpec::Imatrix(Imatrix::default()),
            SolverSpec::Hqq(Hqq::default()),
            SolverSpec::Gptq(Gptq::default()),
        ] {
            let one = solved(1, (seed, n, k), scheme, solver);
            prop_assert_eq!(&one, &solved(8, (seed, n, k), scheme, solver), "{}", solver.name());
        }
    }
}
