//! Laws of GPTQ.

use faer::linalg::solvers::DenseSolveCore;
use ndarray::{Array2, s};
use proptest::prelude::*;

use super::*;
use crate::{
    scheme::{Granularity, Range},
    solve::Rtn,
    stats::Hessian,
};
use onnxq_ir::tensor::{DType, ZeroPoints};

/// Numbers that are the same everywhere: SplitMix64, summed to something like a bell curve.
pub(in crate::solve) struct Noise(pub u64);

impl Noise {
    pub(in crate::solve) fn next(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.uniform()).sum();
        (sum - 2.0) * 3f32.sqrt()
    }

    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((it ^ (it >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    pub(in crate::solve) fn array(&mut self, n: usize, k: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((n, k), || self.next())
    }
}

/// Inputs of an eighth of the rank, some noise, and columns of different size.
pub(in crate::solve) fn inputs(
    k: usize,
    rows: usize,
    noise: &mut Noise,
) -> (Array2<f32>, Array2<f32>) {
    let rank = (k / 8).max(1);
    let mix = noise.array(rank, k);
    let size: Vec<f32> = (0..k).map(|_| (noise.next() * 0.7).exp()).collect();
    let mut draw = || {
        let mut x = noise.array(rows, rank).dot(&mix) / (rank as f32).sqrt();
        x += &(noise.array(rows, k) * 0.3);
        x.outer_iter_mut().for_each(|mut row| {
            row.iter_mut().zip(&size).for_each(|(x, size)| *x *= size);
        });
        x
    };
    (draw(), draw())
}

pub(in crate::solve) fn stats(x: &Array2<f32>) -> InputStats {
    let (rows, k) = x.dim();
    let h = x.t().dot(x) / rows as f32;
    let lower = (0..k).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|at| h[at]).collect();
    InputStats {
        rows: rows as u64,
        mean_square: h.diag().to_vec(),
        max_abs: (0..k).map(|j| x.column(j).iter().fold(0f32, |a, b| a.max(b.abs()))).collect(),
        hessian: Some(Hessian { k, lower }),
        drift: None,
    }
}

/// `Σ ((w − ŵ) xᵀ)²` of each row of the weight.
pub(in crate::solve) fn losses(w: &Array2<f32>, q: &QMatrix, x: &Array2<f32>) -> Vec<f64> {
    let error = (w - &q.dequantize()).mapv(f64::from).dot(&x.t().mapv(f64::from));
    error.outer_iter().map(|it| it.iter().map(|it| it * it).sum()).collect()
}

/// GPTQ as published.
fn textbook() -> Gptq {
    Gptq { grid: GridChoice::Rtn, polish: false, ..Gptq::default() }
}

fn scheme(bits: u32, zero_points: ZeroPoints, granularity: Granularity, range: Range) -> Scheme {
    Scheme { bits, zero_points, granularity, range, superblock: None }
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let bits = prop::sample::select(vec![2u32, 4, 8]);
    let zero_points = prop::sample::select(vec![ZeroPoints::Symmetric, ZeroPoints::Asymmetric]);
    let blocks = [Granularity::Channel, Granularity::Block(16), Granularity::Block(32)];
    let range = prop::sample::select(vec![Range::Full, Range::Narrow, Range::Reduced]);
    (bits, zero_points, prop::sample::select(blocks.to_vec()), range).prop_map(
        |(bits, zero_points, granularity, range)| scheme(bits, zero_points, granularity, range),
    )
}

#[test]
fn held_out_error_is_at_most_half_of_rtn() {
    let (n, k) = (64, 256);
    let mut noise = Noise(1);
    let (seen, held_out) = inputs(k, 1024, &mut noise);
    let w = noise.array(n, k) * 0.05;
    let gptq = Gptq::default();
    let prepared = gptq.prepare(&stats(&seen)).unwrap();
    for block in [32, 128] {
        for zero_points in [ZeroPoints::Symmetric, ZeroPoints::Asymmetric] {
            let scheme = scheme(4, zero_points, Granularity::Block(block), Range::Full);
            let shape = scheme.shape(n, k, DType::F32);
            let sum = |q: &QMatrix| losses(&w, q, &held_out).iter().sum::<f64>();
            let rtn = sum(&Rtn.solve(w.view(), &scheme, shape, None));
            let own = sum(&gptq.solve(w.view(), &scheme, shape, Some(&prepared)));
            println!("{block} {zero_points:?}: {:.3}", own / rtn);
            assert!(own <= 0.5 * rtn, "block {block} {zero_points:?}: {}", own / rtn);
        }
    }
}

/// `[error, damped error]` of each of 8 rows, solved with and without polishing.
fn polished(seed: u64, k: usize, f16: bool) -> [Vec<[f64; 2]>; 2] {
    let mut noise = Noise(seed);
    let (x, _) = inputs(k, 2 * k, &mut noise);
    let w = noise.array(8, k);
    let scheme = scheme(4, ZeroPoints::Asymmetric, Granularity::Block(32), Range::Full);
    let shape = scheme.shape(8, k, if f16 { DType::F16 } else { DType::F32 });
    [true, false].map(|polish| {
        let gptq = Gptq { polish, ..Gptq::default() };
        let prepared = gptq.prepare(&stats(&x)).unwrap();
        let q = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
        let damping = prepared.feedback.as_ref().unwrap().damping[0] * x.nrows() as f32;
        let delta = &w - &q.dequantize();
        let own = losses(&w, &q, &x).into_iter().zip(delta.outer_iter());
        own.map(|(loss, row)| [loss, loss + f64::from(damping * row.dot(&row))]).collect()
    })
}

/// Polishing lowers the damped error; a row that plain rounding serves better then has that, or
/// what it was before, whose error is no greater.
fn is_no_worse(with: [f64; 2], without: [f64; 2]) -> bool {
    (0..2).any(|it| with[it] <= without[it] * 1.001)
}

#[test]
fn a_row_that_polishing_would_harm_keeps_what_it_had() {
    let [with, without] = polished(6596707786590906064, 45, false);
    assert!(with.iter().zip(&without).all(|it| is_no_worse(*it.0, *it.1)), "{with:?} {without:?}");
}

#[test]
fn polish_helps() {
    let sums = (0..20)
        .map(|seed| polished(seed, 64, false).map(|it| it.iter().map(|it| it[1]).sum::<f64>()));
    let [with, without] = sums.fold([0.0; 2], |sum, it| [sum[0] + it[0], sum[1] + it[1]]);
    assert!(with < 0.99 * without, "{with} {without}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_row_is_worse_than_rounding(
        seed in any::<u64>(), n in 1usize..5, k in 1usize..100, rows in 1usize..80,
        scheme in schemes(), settings in any::<[bool; 3]>(),
    ) {
        let [act_order, polish, f16] = settings;
        let mut noise = Noise(seed);
        let (x, _) = inputs(k, rows, &mut noise);
        let mut w = noise.array(n, k);
        w.iter_mut().step_by(7).for_each(|it| *it *= 20.0);
        let gptq = Gptq { act_order, polish, ..Gptq::default() };
        let prepared = gptq.prepare(&stats(&x)).unwrap();
        let shape = scheme.shape(n, k, if f16 { DType::F16 } else { DType::F32 });
        let q = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
        let rtn = Rtn.solve(w.view(), &scheme, shape, None);
        let signal = losses(&w, &QMatrix { scales: &q.scales * 0.0, ..q.clone() }, &x);
        let own = losses(&w, &q, &x).into_iter();
        for ((own, rtn), signal) in own.zip(losses(&w, &rtn, &x)).zip(signal) {
            prop_assert!(own <= rtn * 1.001 + signal * 1e-6, "{own} {rtn}");
        }
        prop_assert!(q.quantized.iter().all(|it| f32::from(*it) <= scheme.max_quantized()));
        if scheme.zero_points == ZeroPoints::Symmetric && scheme.range == Range::Narrow {
            prop_assert!(q.quantized.iter().all(|it| *it > 0));
        }
    }

    #[test]
    fn polish_does_no_harm(seed in any::<u64>(), k in 33usize..100, f16 in any::<bool>()) {
        let [with, without] = polished(seed, k, f16);
        for (with, without) in with.iter().zip(&without) {
            prop_assert!(is_no_worse(*with, *without), "{with:?} {without:?}");
        }
    }

    #[test]
    fn any_split_of_rows_gives_the_same(
        seed in any::<u64>(), n in 2usize..150, k in 1usize..80, at in 0usize..150,
    ) {
        let mut noise = Noise(seed);
        let (x, _) = inputs(k, 64, &mut noise);
        let w = noise.array(n, k);
        let at = at % n;
        let gptq = Gptq::default();
        let prepared = gptq.prepare(&stats(&x)).unwrap();
        let scheme = scheme(4, ZeroPoints::Asymmetric, Granularity::Block(16), Range::Full);
        let shape = scheme.shape(n, k, DType::F32);
        let whole = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
        let below = gptq.solve(w.slice(s![at.., ..]), &scheme, shape, Some(&prepared));
        prop_assert_eq!(whole.quantized.slice(s![at.., ..]), below.quantized);
        prop_assert_eq!(whole.scales.slice(s![at.., ..]), below.scales);
        prop_assert_eq!(whole.zero_points.slice(s![at.., ..]), below.zero_points);
    }

    #[test]
    fn inputs_without_correlation_leave_the_rounding_of_the_grid(
        seed in any::<u64>(), k in 1usize..80, scheme in schemes(),
    ) {
        let mut noise = Noise(seed);
        let w = noise.array(3, k);
        let mut stats = stats(&Array2::ones((1, k)));
        let h = stats.hessian.as_mut().unwrap();
        (0..k).for_each(|i| (0..i).for_each(|j| h.lower[i * (i + 1) / 2 + j] = 0.0));
        let gptq = textbook();
        let prepared = gptq.prepare(&stats).unwrap();
        let shape = scheme.shape(3, k, DType::F32);
        let q = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
        prop_assert_eq!(q, Rtn.solve(w.view(), &scheme, shape, None));
    }
}

/// A factor used by column instead of by row makes feedback a no-op: three tools shipped that.
#[test]
fn correlated_inputs_change_codes_but_not_the_grid() {
    let mut noise = Noise(3);
    let (x, _) = inputs(64, 256, &mut noise);
    let w = noise.array(8, 64);
    let gptq = Gptq { polish: false, ..Gptq::default() };
    let prepared = gptq.prepare(&stats(&x)).unwrap();
    let alone = Prepared { feedback: None, target: None, ..gptq.prepare(&stats(&x)).unwrap() };
    let scheme = scheme(4, ZeroPoints::Symmetric, Granularity::Block(32), Range::Full);
    let shape = scheme.shape(8, 64, DType::F32);
    let with = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
    let without = gptq.solve(w.view(), &scheme, shape, Some(&alone));
    assert_eq!(with.scales, without.scales);
    let changed = with.quantized.iter().zip(&without.quantized).filter(|(a, b)| a != b).count();
    assert!(changed > 8 * 64 / 10, "{changed} quantized values");
    let [with, without] = [with, without].map(|it| losses(&w, &it, &x).iter().sum::<f64>());
    assert!(with < 0.7 * without, "{with} {without}");
}

/// The textbook: update every later column by the row of the inverse's factor, in f64.
#[test]
fn codes_are_those_of_the_textbook() {
    let (n, k) = (6, 48);
    let mut noise = Noise(4);
    let (x, _) = inputs(k, 256, &mut noise);
    let w = noise.array(n, k);
    let gptq = textbook();
    let stats = stats(&x);
    let prepared = gptq.prepare(&stats).unwrap();
    let scheme = scheme(4, ZeroPoints::Asymmetric, Granularity::Block(16), Range::Full);
    let shape = scheme.shape(n, k, DType::F32);
    let q = gptq.solve(w.view(), &scheme, shape, Some(&prepared));

    let order = &prepared.feedback.as_ref().unwrap().order;
    let h = stats.hessian.as_ref().unwrap();
    let damping = stats.mean_square.iter().map(|it| f64::from(*it)).sum::<f64>() / k as f64 * 0.01;
    let damped = |i: usize, j: usize| {
        f64::from(h.get(order[i], order[j])) + if i == j { damping } else { 0.0 }
    };
    let h = faer::Mat::from_fn(k, k, damped);
    let inverse = h.partial_piv_lu().inverse();
    let lower = inverse.llt(faer::Side::Lower).unwrap().L().to_owned();
    let upper = lower.transpose();
    for row in 0..n {
        let mut values: Vec<f64> = order.iter().map(|it| f64::from(w[(row, *it)])).collect();
        let mut wrong = 0;
        for i in 0..k {
            let group = order[i] / 16;
            let (scale, zero) = (q.scales[(row, group)], q.zero_points[(row, group)]);
            let integer = (values[i] / f64::from(scale) + f64::from(zero)).round().clamp(0.0, 15.0);
            wrong += usize::from(integer as u8 != q.quantized[(row, order[i])]);
            let error =
                (values[i] - (integer - f64::from(zero)) * f64::from(scale)) / upper[(i, i)];
            (i..k).for_each(|j| values[j] -= error * upper[(i, j)]);
        }
        assert_eq!(wrong, 0, "row {row}");
    }
}

#[test]
fn dead_columns_get_the_rounding_of_the_grid() {
    let mut noise = Noise(5);
    let (mut x, _) = inputs(32, 128, &mut noise);
    x.column_mut(3).fill(0.0);
    x.column_mut(31).fill(0.0);
    let w = noise.array(4, 32);
    let scheme = scheme(4, ZeroPoints::Symmetric, Granularity::Block(16), Range::Full);
    let shape = scheme.shape(4, 32, DType::F32);
    let gptq = textbook();
    let prepared = gptq.prepare(&stats(&x)).unwrap();
    let q = gptq.solve(w.view(), &scheme, shape, Some(&prepared));
    let rtn = Rtn.solve(w.view(), &scheme, shape, None);
    assert_eq!(q.quantized.column(3), rtn.quantized.column(3));
    assert_eq!(q.quantized.column(31), rtn.quantized.column(31));
    let nothing = gptq.prepare(&stats(&Array2::zeros((1, 32)))).unwrap();
    assert_eq!(gptq.solve(w.view(), &scheme, shape, Some(&nothing)), rtn);
}

#[test]
fn statistics_of_no_use_are_an_error_and_a_singular_matrix_is_not() {
    let gptq = Gptq { damping: 0.0, ..Gptq::default() };
    let one = Array2::from_shape_fn((1, 40), |(_, j)| j as f32 - 7.0);
    assert!(gptq.prepare(&stats(&one)).is_ok());
    let bad = |change: &dyn Fn(&mut InputStats)| {
        let mut stats = stats(&one);
        change(&mut stats);
        gptq.prepare(&stats).map(|_| ()).unwrap_err().0
    };
    assert_eq!(bad(&|it| it.hessian = None), "no Hessian");
    let at = |at: usize, value: f32| bad(&move |it| it.hessian.as_mut().unwrap().lower[at] = value);
    assert_eq!(at(5, f32::NAN), "values that are not finite");
    assert_eq!(at(0, -1.0), "negative mean squares");
    // No covariance of anything, but finite.
    let mut odd = stats(&one);
    odd.hessian.as_mut().unwrap().lower[1] = 1e20;
    assert!(gptq.prepare(&odd).is_ok());
}

#[test]
fn damping_is_a_fraction() {
    // As a recipe is loaded: read, then checked.
    let loaded = |damping: &str| -> Result<Gptq, String> {
        let text = format!(r#"{{"damping": {damping}}}"#);
        let settings: Gptq = serde_json::from_str(&text).map_err(|it| it.to_string())?;
        settings.check().map_err(|it| it.to_string())?;
        Ok(settings)
    };
    assert_eq!(loaded("0.1").unwrap().damping, 0.1);
    for bad in ["-0.1", "2", "1e40"] {
        assert!(loaded(bad).is_err(), "{bad}");
    }
}
