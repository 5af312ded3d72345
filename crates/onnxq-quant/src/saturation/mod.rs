//! What int8 products lose on x86 CPUs without VNNI, layer by layer.
//!
//! Their kernels multiply unsigned integers of activations with signed integers of weights by
//! `vpmaddubsw`: two products that are neighbours along the summed axis are added in 16 bits, and
//! what does not fit becomes ±32767. Weights of 7 bits (`-64..64`) always fit; whether 8 bits are
//! worse than that depends on the layer, so it is simulated. Checked bit for bit against ONNX
//! Runtime 1.31.1 with its CPUID instructions answered as if there were no VNNI:
//!
//! ```text
//! saturate    uint8 · int8 in MatMulInteger, QLinearMatMul, MatMulIntegerToFloat, QGemm,
//!             DynamicQuantizeMatMul, DynamicQuantizeLSTM, QLinearConv; pairs of nodes around
//!             MatMul, Gemm and Conv, also with int8 activations, which ONNX Runtime turns into
//!             uint8
//! exact       depthwise convolutions; int8 · int8 in the operators above; weights of uint8;
//!             ConvInteger with weights of int8; CPUs with VNNI; ARM
//! ```

mod layer;
mod rows;
mod safety;

use ndarray::ArrayView2;
use rayon::prelude::*;
use serde::Serialize;

pub use self::{
    layer::{layer, measure},
    rows::SampledRows,
    safety::{Safety, Unsafe, safety},
};
use onnxq_ir::tensor::QMatrix;
use onnxq_numerics::{
    affine::{Affine, QuantizedType},
    scheme::Range,
};

/// The largest sum of the magnitudes of two weights of one sign that no activation overflows:
/// `255 · 128 < 32768`.
pub const SAFE_PAIR: i32 = 128;

/// Which columns of a weight a kernel multiplies one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Groups of a convolution: each reads its own part of an activation's row.
    pub groups: usize,
    /// Each group of a convolution has one channel.
    single: bool,
    /// The column of the weight that comes `j`th; `None`: the `j`th.
    order: Option<Vec<usize>>,
}

impl Layout {
    pub fn matrix() -> Layout {
        Layout { groups: 1, single: false, order: None }
    }

    /// Of a weight `[outputs, channels, …kernel]`, `channels` being those of one group: kernels
    /// sum over the channels of a pixel first.
    pub fn conv(channels: usize, kernel: &[usize], groups: usize) -> Layout {
        let taps: usize = kernel.iter().product();
        let tap = |tap| (0..channels).map(move |it| it * taps + tap);
        let order = Some((0..taps).flat_map(tap).collect());
        Layout { groups, single: channels == 1, order }
    }

    /// Depthwise convolutions have kernels of their own, which add in 32 bits.
    fn never_saturates(&self, outputs: usize) -> bool {
        self.single && self.groups == outputs
    }

    fn column(&self, at: usize) -> usize {
        self.order.as_ref().map_or(at, |it| it[at])
    }

    fn ordered<T: Copy>(&self, row: impl Fn(usize) -> T, k: usize) -> Vec<T> {
        (0..k).map(|at| row(self.column(at))).collect()
    }
}

/// What a layer loses, on rows of its activation and of its weight.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Saturation {
    /// Pairs of products that were added.
    pub pairs: u64,
    /// Those that did not fit 16 bits.
    pub saturated: u64,
    /// `‖ŷ − y‖ / ‖y‖` with 8-bit weights, where nothing saturates.
    pub output_error_8bit: f64,
    /// The same where pairs saturate.
    pub output_error_saturated: f64,
    /// With 7-bit weights, which are the same everywhere.
    pub output_error_7bit: f64,
}

/// Which quantized values a weight should use, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Choice {
    /// Whether the lost bit costs less than what saturates.
    pub reduced: bool,
    pub reason: String,
}

impl Choice {
    /// `eight`: the range of 8-bit weights of the format.
    pub fn range(&self, eight: Range) -> Range {
        if self.reduced { Range::Reduced } else { eight }
    }
}

impl Saturation {
    /// 8 bits if and only if what saturates costs no more than a bit.
    pub fn decide(&self) -> Choice {
        let percent = |it: f64| format!("{:.2} %", it * 100.0);
        let (eight, seven) =
            (percent(self.output_error_saturated), percent(self.output_error_7bit));
        if self.saturated == 0 {
            let reason = "8 bits: no pair of products saturates".into();
            return Choice { reduced: false, reason };
        }
        let share = self.saturated as f64 / self.pairs.max(1) as f64;
        let what = format!("without VNNI {:.2e} of the pairs saturate", share);
        match self.output_error_saturated <= self.output_error_7bit {
            true => {
                let reason = format!("8 bits: {what}, error {eight}, with 7 bits {seven}");
                Choice { reduced: false, reason }
            }
            false => {
                let reason = format!("7 bits: {what}, error {eight} instead of {seven}");
                Choice { reduced: true, reason }
            }
        }
    }
}

/// A choice that needs no data: 8 bits if no activation can make a pair of products saturate.
pub fn bound(eight: &QMatrix, layout: &Layout) -> Choice {
    let k = eight.shape.k;
    let middle = i32::from(eight.shape.middle());
    let unsafe_row = eight.quantized.outer_iter().find_map(|row| {
        let quantized = layout.ordered(|at| i32::from(row[at]) - middle, k);
        quantized.chunks(2).map(pair_reach).find(|it| *it > SAFE_PAIR)
    });
    match unsafe_row.filter(|_| !layout.never_saturates(eight.shape.n)) {
        None => {
            Choice { reduced: false, reason: "8 bits: its weights can saturate nowhere".into() }
        }
        Some(_) => Choice {
            reduced: true,
            reason: "7 bits: its weights could saturate without VNNI".into(),
        },
    }
}

/// The sum of the magnitudes of those weights of a pair that have the sign of the larger sum.
fn pair_reach(pair: &[i32]) -> i32 {
    let sum = |sign: i32| pair.iter().map(|it| (it * sign).max(0)).sum::<i32>();
    sum(1).max(sum(-1))
}

/// Sums of squares of one weight row.
#[derive(Clone, Copy, Default)]
struct Sums {
    saturated: u64,
    exact: f64,
    clamped: f64,
    seven: f64,
    float: f64,
}

/// Simulates a layer: `rows` of its activation times rows of its weight, `float` `[n, k]`, which
/// became `eight` and, with one bit less, `seven`; both symmetric with a scale per row. Rows of a
/// grouped convolution must be those of all groups, as many each.
///
/// `affine` are the quantized values of the activation; `None`: each run has its own range.
pub fn simulate(
    rows: &SampledRows,
    affine: Option<Affine>,
    float: ArrayView2<'_, f32>,
    eight: &QMatrix,
    seven: &QMatrix,
    layout: &Layout,
) -> Saturation {
    let quantized: Vec<QuantizedRow> = rows
        .iter()
        .map(|(row, range)| {
            QuantizedRow::new(
                row,
                affine.unwrap_or_else(|| Affine::new(range, QuantizedType::Uint8)),
            )
        })
        .collect();
    let (n, k) = float.dim();
    let per_group = n.div_ceil(layout.groups.max(1)).max(1);
    let sums = (0..n).into_par_iter().map(|at| {
        let weight = Row {
            float: layout.ordered(|it| float[(at, it)], k),
            eight: Quantized::of(eight, at, layout),
            seven: Quantized::of(seven, at, layout),
        };
        let first = at / per_group * k;
        let mut sums = Sums::default();
        quantized.iter().for_each(|it| weight.add(it, first, &mut sums));
        match layout.never_saturates(n) {
            true => Sums { saturated: 0, clamped: sums.exact, ..sums },
            false => sums,
        }
    });
    // Gathered in order, so that the sums are the same for any number of threads.
    let mut total = Sums::default();
    for it in sums.collect::<Vec<Sums>>() {
        total.saturated += it.saturated;
        total.exact += it.exact;
        total.clamped += it.clamped;
        total.seven += it.seven;
        total.float += it.float;
    }
    let error = |it: f64| if total.float > 0.0 { (it / total.float).sqrt() } else { 0.0 };
    Saturation {
        pairs: (quantized.len() * n * k.div_ceil(2)) as u64,
        saturated: total.saturated,
        output_error_8bit: error(total.exact),
        output_error_saturated: error(total.clamped),
        output_error_7bit: error(total.seven),
    }
}

/// A row of an activation and its quantized values, from 0 to 255 whatever their type.
struct QuantizedRow<'a> {
    values: &'a [f32],
    quantized: Vec<u8>,
    scale: f32,
    zero: i32,
}

impl QuantizedRow<'_> {
    fn new(values: &[f32], affine: Affine) -> QuantizedRow<'_> {
        let (low, _) = affine.dtype.quantized();
        let quantized = values.iter().map(|it| (affine.integer(*it) - low) as u8).collect();
        QuantizedRow { values, quantized, scale: affine.scale, zero: affine.zero - low }
    }
}

/// A row of a weight in the order of the kernel.
struct Row {
    float: Vec<f32>,
    eight: Quantized,
    seven: Quantized,
}

struct Quantized {
    quantized: Vec<i8>,
    scale: f32,
    sum: i32,
}

impl Quantized {
    fn of(it: &QMatrix, row: usize, layout: &Layout) -> Quantized {
        let quantized = it.quantized.row(row);
        let integer = |at| (i32::from(quantized[at]) - 128) as i8;
        let quantized = layout.ordered(integer, it.shape.k);
        let sum = quantized.iter().map(|it| i32::from(*it)).sum();
        Quantized { quantized, scale: it.scales[(row, 0)], sum }
    }

    fn value(&self, sum: i32, x: &QuantizedRow<'_>) -> f64 {
        let shifted = i64::from(sum) - i64::from(x.zero) * i64::from(self.sum);
        shifted as f64 * f64::from(x.scale) * f64::from(self.scale)
    }
}

impl Row {
    fn add(&self, x: &QuantizedRow<'_>, first: usize, sums: &mut Sums) {
        let k = self.float.len();
        let (values, quantized) = (&x.values[first..first + k], &x.quantized[first..first + k]);
        let exact: f64 =
            values.iter().zip(&self.float).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let (clamped, saturated) = clamped_product(quantized, &self.eight.quantized);
        let square = |sum: i32, quantized: &Quantized| (quantized.value(sum, x) - exact).powi(2);
        sums.saturated += saturated;
        sums.exact += square(product(quantized, &self.eight.quantized), &self.eight);
        sums.clamped += square(clamped, &self.eight);
        sums.seven += square(product(quantized, &self.seven.quantized), &self.seven);
        sums.float += exact * exact;
    }
}

/// `Σ x·w`.
pub fn product(x: &[u8], w: &[i8]) -> i32 {
    x.iter().zip(w).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum()
}

/// `Σ x·w` as `vpmaddubsw` adds it, and how many pairs saturated.
pub fn clamped_product(x: &[u8], w: &[i8]) -> (i32, u64) {
    let (mut total, mut saturated) = (0i32, 0u32);
    let product = |x: u8, w: i8| i32::from(x) * i32::from(w);
    let (xs, ws) = (x.chunks_exact(2), w.chunks_exact(2));
    // The last product of an odd number fits by itself.
    if let ([x], [w]) = (xs.remainder(), ws.remainder()) {
        total += product(*x, *w);
    }
    for (x, w) in xs.zip(ws) {
        let sum = product(x[0], w[0]) + product(x[1], w[1]);
        let fits = sum.clamp(i16::MIN.into(), i16::MAX.into());
        total += fits;
        saturated += u32::from(fits != sum);
    }
    (total, saturated.into())
}

#[cfg(test)]
mod tests;
