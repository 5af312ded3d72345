//! Solvers on one weight of 64 rows and 512 columns, 4 bits in blocks of 32.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use onnxq_ir::tensor::{DType, ZeroPoints};
use onnxq_numerics::{
    scheme::{Granularity, Range, Scheme},
    solve::{Gptq, Hqq, Mse, SolverSpec},
    stats::{Hessian, InputStats},
};

const ROWS: usize = 64;
const COLUMNS: usize = 512;

const SCHEME: Scheme = Scheme {
    bits: 4,
    zero_points: ZeroPoints::Asymmetric,
    granularity: Granularity::Block(32),
    range: Range::Full,
    superblock: None,
};

fn solve(c: &mut Criterion) {
    let weight = Array2::from_shape_fn((ROWS, COLUMNS), |(i, j)| noise(i * COLUMNS + j));
    let stats = stats();
    let shape = SCHEME.shape(ROWS, COLUMNS, DType::F32);
    let solvers = [
        SolverSpec::Rtn,
        SolverSpec::Mse(Mse::default()),
        SolverSpec::Hqq(Hqq::default()),
        SolverSpec::Gptq(Gptq::default()),
    ];
    let mut group = c.benchmark_group("solve");
    group.throughput(Throughput::Elements((ROWS * COLUMNS) as u64));
    for spec in &solvers {
        let solver = spec.solver();
        let input = solver.prepare(&stats).expect("the statistics are finite");
        group.bench_function(BenchmarkId::from_parameter(spec.name()), |b| {
            b.iter(|| solver.solve(black_box(weight.view()), &SCHEME, shape, Some(&input)));
        });
    }
    group.finish();
}

/// Columns that hang together a little, as those of activations do.
fn stats() -> InputStats {
    let lower = (0..COLUMNS).flat_map(|i| (0..=i).map(move |j| 0.5f32.powi((i - j) as i32)));
    InputStats {
        rows: 4096,
        mean_square: vec![1.0; COLUMNS],
        max_abs: vec![4.0; COLUMNS],
        hessian: Some(Hessian { k: COLUMNS, lower: lower.collect() }),
        drift: None,
    }
}

/// From -1 to 1, without a pattern.
fn noise(at: usize) -> f32 {
    (at as f32 * 12.9898).sin()
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = solve
}
criterion_main!(benches);
