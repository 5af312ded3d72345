//! The number of threads changes nothing.

use proptest::prelude::*;

use super::*;
use onnxq_ir::tensor::ZeroPoints;
use onnxq_numerics::{
    guided::group_rows,
    scheme::{Granularity, Range},
    solve::{Gptq, Hqq, Imatrix, Mse, Signround},
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

/// A weight of random numbers whose groups of rows have these statistics.
fn weight(
    (seed, n, k): (u64, usize, usize),
    scheme: Scheme,
    solver: SolverSpec,
    groups: Vec<InputStats>,
) -> FloatWeight {
    let input = |stats: InputStats| {
        let prepared = solver.solver().prepare(&stats).expect("moments of real inputs");
        Arc::new(Input { stats, prepared })
    };
    FloatWeight {
        name: "w".into(),
        rows: Tensor::from_f32(&[n, k], numbers(seed.wrapping_add(1), n * k)),
        transposed: false,
        scheme,
        solver,
        scale: DType::F32,
        inputs: groups.into_iter().map(input).collect(),
        errors: Arc::default(),
    }
}

/// What a number of threads make of a weight, and the errors that they note.
fn solved(
    threads: usize,
    (seed, n, k): (u64, usize, usize),
    scheme: Scheme,
    solver: SolverSpec,
) -> (QMatrix, Option<WeightError>) {
    let weight = weight((seed, n, k), scheme, solver, vec![stats(seed, k)]);
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
        let scheme = Scheme { bits: 4, zero_points, granularity, range: Range::Full , superblock: None};
        for solver in [
            SolverSpec::Mse(Mse::default()),
            SolverSpec::Imatrix(Imatrix::default()),
            SolverSpec::Hqq(Hqq::default()),
            SolverSpec::Gptq(Gptq::default()),
            SolverSpec::Signround(Signround { iterations: 9, ..Signround::default() }),
        ] {
            let one = solved(1, (seed, n, k), scheme, solver);
            prop_assert_eq!(&one, &solved(8, (seed, n, k), scheme, solver), "{}", solver.name());
        }
    }

    #[test]
    fn groups_of_rows_are_solved_as_weights_of_their_own(
        seed in any::<u64>(),
        n in 4usize..300,
        k in 1usize..40,
        groups in 2usize..=4,
    ) {
        let granularity = Granularity::Block(16);
        let zero_points = ZeroPoints::Asymmetric;
        let scheme = Scheme { bits: 4, zero_points, granularity, range: Range::Full , superblock: None};
        for solver in [
            SolverSpec::Imatrix(Imatrix::default()),
            SolverSpec::Gptq(Gptq::default()),
            SolverSpec::Signround(Signround { iterations: 3, ..Signround::default() }),
        ] {
            let own = |it: usize| stats(seed.wrapping_add(it as u64), k);
            let case = (seed, n, k);
            let all = weight(case, scheme, solver, (0..groups).map(own).collect());
            let whole = Store::new().unwrap().solve(&all).unwrap().solve(0..n).unwrap();
            let mut errors = 0.0;
            for group in 0..groups {
                let alone = weight(case, scheme, solver, vec![own(group)]);
                let rows = group_rows(n, groups, group);
                let part = alone.solve(rows.clone()).unwrap();
                prop_assert_eq!(part.quantized, whole.quantized.slice(s![rows.clone(), ..]));
                prop_assert_eq!(part.scales, whole.scales.slice(s![rows.clone(), ..]));
                prop_assert_eq!(part.zero_points, whole.zero_points.slice(s![rows, ..]));
                let list = alone.errors.0.lock().unwrap();
                errors += list.values().map(|it| it[1].error).sum::<f64>();
            }
            let list = all.errors.0.lock().unwrap();
            let sum = list.values().map(|it| it[1].error).sum::<f64>();
            prop_assert!((sum - errors).abs() <= 1e-5 * (sum + errors), "{} {}", sum, errors);
        }
    }

    #[test]
    fn groups_that_know_the_same_change_nothing(seed in any::<u64>(), n in 4usize..300) {
        let granularity = Granularity::Block(16);
        let zero_points = ZeroPoints::Symmetric;
        let scheme = Scheme { bits: 2, zero_points, granularity, range: Range::Full , superblock: None};
        let solver = SolverSpec::Gptq(Gptq::default());
        let of = |groups: usize| {
            let all = weight((seed, n, 33), scheme, solver, vec![stats(seed, 33); groups]);
            Store::new().unwrap().solve(&all).unwrap().solve(0..n).unwrap()
        };
        prop_assert_eq!(of(1), of(3));
    }
}
