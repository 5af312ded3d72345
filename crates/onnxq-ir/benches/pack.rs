//! Packings of one quantized weight of 1024 × 1024: its integers, as each consumer wants them.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use onnxq_ir::tensor::{DType, Packing, Part, QMatrix, QShape, ZeroPoints};

const SIZE: usize = 1024;

/// Each packing with the bits it is used for.
const PACKINGS: &[(&str, Packing, u32)] = &[
    ("blocked", Packing::Blocked, 4),
    ("blocked_rows", Packing::BlockedRows, 4),
    ("gather", Packing::Gather, 4),
    ("nbits_2", Packing::NBits, 2),
    ("nbits_4", Packing::NBits, 4),
    ("nbits_8", Packing::NBits, 8),
    ("per_channel", Packing::PerChannel, 8),
    ("per_slice", Packing::PerSlice(2), 8),
    ("per_row", Packing::PerRow, 8),
];

fn pack(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack");
    group.throughput(Throughput::Elements((SIZE * SIZE) as u64));
    for &(name, packing, bits) in PACKINGS {
        let weight = weight(bits);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| packing.pack(black_box(&weight), Part::Quantized));
        });
    }
    group.finish();
}

fn weight(bits: u32) -> QMatrix {
    let shape = QShape {
        n: SIZE,
        k: SIZE,
        block: 32,
        bits,
        zero_points: ZeroPoints::Symmetric,
        scale: DType::F32,
        superblock: None,
    };
    let blocks = (SIZE, shape.blocks());
    QMatrix::plain(
        shape,
        Array2::from_shape_fn((SIZE, SIZE), |(i, j)| ((i * 7 + j) % (1 << bits)) as u8),
        Array2::from_elem(blocks, 0.01),
        Array2::from_elem(blocks, shape.middle()),
    )
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = pack
}
criterion_main!(benches);
