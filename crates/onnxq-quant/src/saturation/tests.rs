//! The simulation is what the kernels do, and what is chosen follows from it.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::*;
use crate::window::Window;
use onnxq_ir::tensor::{DType, Tensor, ZeroPoints};
use onnxq_numerics::{
    affine::Interval,
    scheme::{Granularity, Scheme},
    solve::{Rtn, Solver},
};

fn quantized(float: &Array2<f32>, range: Range) -> QMatrix {
    let granularity = Granularity::Channel;
    let scheme = Scheme {
        bits: 8,
        zero_points: ZeroPoints::Symmetric,
        granularity,
        range,
        superblock: None,
    };
    let shape = scheme.shape(float.nrows(), float.ncols(), DType::F32);
    Rtn.solve(float.view(), &scheme, shape, None)
}

/// Numbers from 0 to 1 without a pattern that matters.
fn noise(seed: u32) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32
    })
}

fn matrix(rows: usize, columns: usize, values: impl Iterator<Item = f32>) -> Array2<f32> {
    Array2::from_shape_vec((rows, columns), values.take(rows * columns).collect()).unwrap()
}

fn sampled(k: usize, values: &[f32]) -> SampledRows {
    let mut rows = SampledRows::new(Window::Rows(k), 64, false);
    rows.add(values, &[values.len() / k, k]);
    rows
}

fn simulated(x: &[f32], w: &Array2<f32>) -> Saturation {
    let (eight, seven) = (quantized(w, Range::Narrow), quantized(w, Range::Reduced));
    let rows = sampled(w.ncols(), x);
    simulate(&rows, None, w.view(), &eight, &seven, &Layout::matrix())
}

#[test]
fn many_rows_are_judged_by_some_of_them() {
    let scheme = Scheme {
        bits: 8,
        zero_points: ZeroPoints::Symmetric,
        granularity: Granularity::Channel,
        range: Range::Reduced,
        superblock: None,
    };
    let x: Vec<f32> = noise(1).take(8 * 16).collect();
    for (n, judged) in [(7, 7), (512, 512), (513, 512), (2000, 512)] {
        let weight = Tensor::from_f32(&[n, 16], noise(2).take(n * 16));
        let layout = Layout::matrix();
        let found = measure(&sampled(16, &x), None, &weight, &scheme, DType::F32, &layout).unwrap();
        assert_eq!(found.pairs, 8 * judged * 8);
    }
}

/// `MatMulInteger` in ONNX Runtime 1.31.1 without VNNI gave 1 048 544 for this, 2 072 640 with it.
#[test]
fn pairs_are_added_as_the_instruction_does() {
    let (x, w) = ([255u8; 64], [127i8; 64]);
    assert_eq!(clamped_product(&x, &w), (1_048_544, 32));
    assert_eq!(product(&x, &w), 2_072_640);
    assert_eq!(clamped_product(&[255; 3], &[-128; 3]), (-32_768 - 32_640, 1));
    assert_eq!(clamped_product(&[255; 4], &[127, -128, 64, 64]), (-255 + 32_640, 0));
}

#[test]
fn bell_shaped_weights_keep_their_bit_and_flat_ones_lose_it() {
    let bell = |seed: u32| {
        let pairs = noise(seed).zip(noise(seed + 1)).zip(noise(seed + 2).zip(noise(seed + 3)));
        pairs.map(|((a, b), (c, d))| a + b + c + d)
    };
    let x: Vec<f32> = bell(1).take(32 * 128).collect();
    let found = simulated(&x, &matrix(16, 128, bell(7).map(|it| (it - 2.0).powi(3))));
    assert!(!found.decide().reduced, "{found:?}");
    let x: Vec<f32> = noise(1).take(32 * 128).collect();
    let flat = noise(6).map(|it| if it < 0.5 { -1.0 - it } else { 1.0 + it });
    let found = simulated(&x, &matrix(16, 128, flat));
    assert!(found.saturated > found.pairs / 50, "{found:?}");
    assert!(found.output_error_8bit < found.output_error_7bit, "{found:?}");
    assert!(found.output_error_7bit < found.output_error_saturated, "{found:?}");
    let choice = found.decide();
    assert_eq!(choice.range(Range::Narrow), Range::Reduced);
    assert!(choice.reason.starts_with("7 bits: without VNNI "), "{}", choice.reason);
}

#[test]
fn what_fits_needs_no_data() {
    let w = matrix(4, 32, noise(7).map(|it| it - 0.5));
    let reduced = bound(&quantized(&w, Range::Reduced), &Layout::matrix());
    assert!(!reduced.reduced, "{}", reduced.reason);
    let eight = quantized(&w, Range::Narrow);
    assert!(bound(&eight, &Layout::matrix()).reduced);
    // Signs that alternate cancel.
    let signs = matrix(2, 32, (0..).map(|it| if it % 2 == 0 { 1.0 } else { -1.0 }));
    assert!(!bound(&quantized(&signs, Range::Narrow), &Layout::matrix()).reduced);
    // A pair of a convolution is two channels of one tap: both at even places here.
    let turned = Layout::conv(2, &[4, 4], 1);
    assert!(bound(&quantized(&signs, Range::Narrow), &turned).reduced);
    assert!(!bound(&eight, &Layout::conv(1, &[32], 4)).reduced);
}

#[test]
fn nothing_depends_on_the_order_of_samples() {
    let samples: Vec<Vec<f32>> = (0..9).map(|it| noise(it).take(40 * 8).collect()).collect();
    let gather = |order: &[usize]| {
        let mut rows = SampledRows::new(Window::Rows(8), 50, false);
        order.iter().for_each(|it| rows.add(&samples[*it], &[40, 8]));
        rows.iter().map(|(row, range)| (row.to_vec(), range)).collect::<Vec<_>>()
    };
    let kept = gather(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(kept.len(), 50);
    assert_eq!(kept, gather(&[8, 3, 1, 0, 2, 7, 6, 5, 4]));
    assert_eq!(kept, gather(&[8, 8, 3, 1, 0, 2, 7, 6, 5, 4, 0]));
}

#[test]
fn rows_that_are_normalised_have_ranges_of_normalised_rows() {
    let mut rows = SampledRows::new(Window::Rows(2), 8, true);
    rows.add(&[1.0, -4.0, 100.0, 50.0], &[2, 2]);
    let mut found: Vec<_> = rows.iter().map(|it| (it.0.to_vec(), it.1)).collect();
    found.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap());
    let range = Interval { lo: -1.0, hi: 1.0 };
    assert_eq!(found, [(vec![0.25, -1.0], range), (vec![1.0, 0.5], range)]);
}

/// Every patch of a convolution, times its weight in the order of the kernel, is what the
/// evaluator computes.
#[test]
fn patches_are_what_a_convolution_multiplies() {
    for attrs in [
        "strides = [2, 1], pads = [1, 0, 1, 2], group = 2",
        "dilations = [2, 1], group = 1",
        "auto_pad = \"SAME_UPPER\", strides = [2, 2], group = 4",
        "auto_pad = \"SAME_LOWER\", group = 2",
    ] {
        let group: usize = attrs.rsplit(' ').next().unwrap().parse().unwrap();
        let per_group = 4 / group;
        let text = format!(
            "main (float[2,4,6,7] x) => (float[n,c,h,w] y) <float[8,{per_group},3,2] w>
             {{ y = Conv <{attrs}> (x, w) }}"
        );
        let m = onnxq_ir::text::parse(&text).unwrap();
        let x: Vec<f32> = noise(3).take(2 * 4 * 6 * 7).collect();
        let input = Tensor::from_f32(&[2, 4, 6, 7], x.iter().copied());
        let y = onnxq_ir::eval::run(&m, &BTreeMap::from([("x".to_owned(), input)])).unwrap();
        let y = &y["y"];
        let node = m.nodes()[0];
        let w = m.constant(m.operand(node, 1).unwrap()).unwrap().to_f32().unwrap();
        let site = crate::ops::site(&m, node).unwrap().unwrap();
        let (window, layout) = layer(&m, &site).unwrap();
        let k = per_group * 6;
        let mut rows = SampledRows::new(window, 1000, false);
        rows.add(&x, &[2, 4, 6, 7]);
        assert_eq!(rows.len() * 8, y.numel(), "{attrs}");
        let mut sums = Vec::new();
        for (row, _) in rows.iter() {
            for output in 0..8 {
                let own = layout.ordered(|it| w[output * k + it], k);
                let part = &row[output / (8 / group) * k..][..k];
                sums.push(part.iter().zip(own).map(|(a, b)| a * b).sum::<f32>());
            }
        }
        let mut expected = y.to_f32().unwrap();
        sums.sort_by(f32::total_cmp);
        expected.sort_by(f32::total_cmp);
        for (a, b) in sums.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5, "{attrs}: {a} is not {b}");
        }
    }
}

#[track_caller]
fn told(text: &str) -> String {
    let m = onnxq_ir::text::parse(text).unwrap();
    safety(&m).unwrap().text().unwrap_or_default()
}

#[test]
fn a_model_says_where_it_is_exact() {
    let product = |w: &str| {
        format!(
            "main (float[1,4] x) => (int32[1,2] y) <int8[4,2] w = {{{w}}}> {{
                 q, s, z = DynamicQuantizeLinear (x)
                 y = MatMulInteger (q, w, z) }}"
        )
    };
    let anywhere = "int8 exact on every x86-64 and arm64 CPU: 0 of 1 layers can saturate";
    let vnni = "int8 exact on x86-64 with AVX512-VNNI or AVX-VNNI and arm64 only: \
                on older CPUs 1 of 1 layers can saturate (see `onnxq explain avx2`)";
    // Pairs go down the columns.
    assert_eq!(told(&product("64, 127, 64, 1, -64, 127, -64, -128")), anywhere);
    assert_eq!(told(&product("64, 127, 65, 1, -64, 127, -64, -128")), vnni);
    let signed = "main (int8[1,4] x) => (int32[1,2] y) <int8[4,2] w = {9,9,9,9,9,9,9,9}>
        { y = MatMulInteger (x, w) }";
    assert_eq!(told(signed), "");
}

#[test]
fn convolutions_pair_the_channels_of_a_pixel() {
    let conv = |shape: &str, group: usize, w: &str| {
        format!(
            "main (uint8[1,2,3,3] x) => (uint8[1,2,3,2] y)
             <float s = {{1}}, uint8 z = {{0}}, int8 o = {{0}}, int8[{shape}] w = {{{w}}}>
             {{ y = QLinearConv <group = {group}> (x, s, z, w, s, o, s, z) }}"
        )
    };
    // Two channels of two taps: (a0 a1)(b0 b1) is multiplied as a0 b0 a1 b1.
    assert!(told(&conv("1,2,1,2", 1, "100, 100, -100, -100")).contains("0 of 1"));
    assert!(told(&conv("1,2,1,2", 1, "100, -100, 100, -100")).contains("1 of 1"));
    assert_eq!(told(&conv("2,1,1,2", 2, "100, 100, 100, 100")), "");
    assert!(told(&conv("4,1,1,2", 2, "100, 100, 1, 1, 1, 1, 1, 1")).contains("1 of 1"));
}

#[test]
fn pairs_of_quantize_and_dequantize_count_with_either_type() {
    for dtype in ["int8", "uint8"] {
        let text = format!(
            "main (float[1,2] x) => (float[1,2] y)
             <float s = {{1}}, {dtype} z = {{0}}, int8[2,2] w = {{100, 1, 100, 1}}> {{
                 q = QuantizeLinear (x, s, z)
                 d = DequantizeLinear (q, s, z)
                 v = DequantizeLinear (w, s)
                 y = MatMul (d, v) }}"
        );
        assert!(told(&text).contains("1 of 1"), "{dtype}");
    }
}
