//! What holds where blocks have minimums, or scales that are integers: the types of ggml.

use ndarray::{Array2, s};
use proptest::prelude::*;

use super::{
    gptq::tests::{Noise, inputs, losses, stats},
    laws::gaussian,
    *,
};
use crate::scheme::{Granularity, Range};
use onnxq_ir::tensor::{DType, Superblock, ZeroPoints};

const fn scheme(bits: u32, zero_points: ZeroPoints, block: usize, nested: (usize, u32)) -> Scheme {
    let superblock = match nested {
        (0, _) => None,
        (blocks, bits) => Some(Superblock { blocks, bits }),
    };
    let granularity = Granularity::Block(block);
    Scheme { bits, zero_points, granularity, range: Range::Full, superblock }
}

const SCHEMES: [(&str, Scheme); 7] = [
    ("Q4_1", scheme(4, ZeroPoints::Minimum, 32, (0, 0))),
    ("Q5_1", scheme(5, ZeroPoints::Minimum, 32, (0, 0))),
    ("Q2_K", scheme(2, ZeroPoints::Minimum, 16, (16, 4))),
    ("Q3_K", scheme(3, ZeroPoints::Symmetric, 16, (16, 6))),
    ("Q4_K", scheme(4, ZeroPoints::Minimum, 32, (8, 6))),
    ("Q5_K", scheme(5, ZeroPoints::Minimum, 32, (8, 6))),
    ("Q6_K", scheme(6, ZeroPoints::Symmetric, 16, (16, 8))),
];

fn solvers() -> [SolverSpec; 4] {
    let (mse, imatrix) = (mse::Mse::default(), imatrix::Imatrix::default());
    let gptq = SolverSpec::Gptq(gptq::Gptq::default());
    [SolverSpec::Rtn, SolverSpec::Mse(mse), SolverSpec::Imatrix(imatrix), gptq]
}

/// Rows of one or two superblocks, with outliers, blocks of one value, and any magnitude.
fn weight() -> impl Strategy<Value = Array2<f32>> {
    let value = prop_oneof![8 => -1f32..1.0, 1 => Just(0.0), 1 => -40f32..40.0];
    let values = prop_oneof![
        prop::collection::vec(value, 2 * 512),
        prop::collection::vec(0.5f32..3.5, 2 * 512),
        prop::collection::vec(-3.5f32..-0.5, 2 * 512),
        (-2f32..2.0).prop_map(|it| vec![it; 2 * 512]),
    ];
    let magnitude = prop::sample::select(vec![1.0f32, 1e-3, 1e-9, 1e3, 0.0]);
    (values, magnitude).prop_map(|(values, magnitude)| {
        let values = values.into_iter().map(|it| it * magnitude).collect();
        Array2::from_shape_vec((2, 512), values).expect("two rows")
    })
}

/// What is stored says what is meant.
fn check(scheme: &Scheme, q: &QMatrix) {
    let kept = |it: &f32| half::f16::from_f32(*it).to_f32() == *it;
    assert!(q.quantized.iter().all(|it| f32::from(*it) <= scheme.max_quantized()));
    let Some(superblock) = scheme.superblock else {
        assert!(q.scales.iter().chain(&q.minimums).all(kept));
        return;
    };
    assert!(q.steps.iter().all(kept));
    let (low, high) = superblock.scales(scheme.zero_points);
    let whole = |value: f32, step: f32| {
        let at = if step == 0.0 { 0.0 } else { (value / step).round() };
        assert_eq!(at * step, value, "{step}");
        assert!((low as f32..=high as f32).contains(&at), "{at}");
    };
    for (at, scale) in q.scales.indexed_iter() {
        let step = at.1 / superblock.blocks * q.shape.parts();
        whole(*scale, q.steps[(at.0, step)]);
        if q.shape.minimums() > 0 {
            whole(-q.minimums[at], q.steps[(at.0, step + 1)]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_stored_is_what_is_meant(w in weight()) {
        for (name, scheme) in SCHEMES {
            let shape = scheme.shape(2, 512, DType::F16);
            for solver in solvers() {
                let q = solver.solver().solve(w.view(), &scheme, shape, None);
                check(&scheme, &q);
                let back = q.dequantize();
                prop_assert!(back.iter().all(|it| it.is_finite()), "{} {}", name, solver.name());
                let alone = solver.solver().solve(w.slice(s![1.., ..]), &scheme, shape, None);
                prop_assert_eq!(&alone, &q.rows(1..2), "{} {}", name, solver.name());
            }
        }
    }

    #[test]
    fn no_row_is_worse_than_rounded_to_nearest(seed: u64) {
        let mut noise = Noise(seed | 1);
        let (x, _) = inputs(512, 300, &mut noise);
        let w = noise.array(3, 512);
        let gptq = gptq::Gptq::default();
        let prepared = gptq.prepare(&stats(&x)).unwrap();
        for (name, scheme) in SCHEMES {
            let shape = scheme.shape(3, 512, DType::F16);
            let own = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
            check(&scheme, &own);
            let plain = Rtn.solve(w.view(), &scheme, shape, None);
            for (own, plain) in losses(&w, &own, &x).into_iter().zip(losses(&w, &plain, &x)) {
                prop_assert!(own <= plain * (1.0 + 1e-4), "{}: {} {}", name, own, plain);
            }
        }
    }
}

#[test]
fn searching_pays_on_gaussian_values() {
    let w = Array2::from_shape_vec((64, 512), gaussian(64 * 512)).expect("64 rows");
    // Measured: 0.789, 0.792, 0.856, 0.935, 0.941, 0.988 and 0.917 of round-to-nearest's squared error. Its
    // scales are chosen among neighbours, too, which is why little is left to gain in superblocks.
    let most = [0.80, 0.80, 0.87, 0.94, 0.95, 0.99, 0.93];
    for ((name, scheme), most) in SCHEMES.into_iter().zip(most) {
        let shape = scheme.shape(64, 512, DType::F16);
        let error = |it: SolverSpec| {
            let q = it.solver().solve(w.view(), &scheme, shape, None);
            (&w - &q.dequantize()).mapv(|it| f64::from(it) * f64::from(it)).sum()
        };
        let [plain, found] = [SolverSpec::Rtn, SolverSpec::Mse(mse::Mse::default())].map(error);
        println!("{name}: {:.4} of {:.6}", found / plain, plain / w.len() as f64);
        assert!(found < most * plain, "{name}: {}", found / plain);
    }
}

#[test]
fn feedback_halves_the_error_of_outputs() {
    let mut noise = Noise(1);
    let (seen, held_out) = inputs(512, 2048, &mut noise);
    let w = noise.array(64, 512) * 0.05;
    let gptq = gptq::Gptq::default();
    let prepared = gptq.prepare(&stats(&seen)).unwrap();
    for (name, scheme) in SCHEMES {
        let shape = scheme.shape(64, 512, DType::F16);
        let sum = |q: &QMatrix| losses(&w, q, &held_out).iter().sum::<f64>();
        let mse = sum(&mse::Mse::default().solve(w.view(), &scheme, shape, None));
        let own = sum(&gptq.solve(w.view(), &scheme, shape, Some(&prepared)));
        println!("{name}: {:.3}", own / mse);
        assert!(own <= 0.12 * mse, "{name}: {}", own / mse);
    }
}
