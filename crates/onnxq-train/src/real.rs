//! The numbers that a tape computes with: `f32` for training, `f64` to test gradients.

use std::{
    borrow::Cow,
    iter::Sum,
    ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign},
};

use gemm::Parallelism;
use onnxq_ir::tensor::Tensor;
use pulp::Arch;

/// A float type with what operators need of it.
pub trait Real:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + 'static
{
    fn of(value: f64) -> Self;
    fn of_f32(value: f32) -> Self;
    fn wide(self) -> f64;
    /// `eˣ`, made of additions and products, so that loops of it become vector code.
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;
    fn powf(self, by: Self) -> Self;
    fn abs(self) -> Self;
    /// To the nearest whole number, halves to the even one, as ONNX rounds.
    fn round(self) -> Self;

    /// The elements of a tensor where they lie, if they are stored as such numbers.
    fn lying(_: &Tensor) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if self < other { self } else { other }
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::of_f32(1.0) / (Self::of_f32(1.0) + (-self).exp())
    }
}

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn of_f32(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self.into()
    }

    /// To 2e-7 relative: argument reduction by ln 2 in two parts (Cody and Waite, 1980) and the
    /// Taylor series to the 7th power.
    #[inline(always)]
    fn exp(self) -> f32 {
        const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to a whole number
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        const SERIES: [f32; 8] =
            [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        // Outside, the result would be no normal number.
        let x = Real::min(Real::max(self, -87.0), 88.0);
        let shifted = x * std::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let mut sum = SERIES[0];
        for it in &SERIES[1..] {
            sum = sum * r + it;
        }
        sum * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
    }

    #[inline(always)]
    fn ln(self) -> f32 {
        self.ln()
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        self.sqrt()
    }

    #[inline(always)]
    fn tanh(self) -> f32 {
        // (1 - e) / (1 + e) loses digits near zero, where the Taylor series does not.
        const SERIES: [f32; 7] = [
            21_844.0 / 6_081_075.0,
            -1_382.0 / 155_925.0,
            62.0 / 2_835.0,
            -17.0 / 315.0,
            2.0 / 15.0,
            -1.0 / 3.0,
            1.0,
        ];
        let square = self * self;
        if square < 0.25 {
            return self * SERIES.iter().fold(0.0, |sum, it| sum * square + it);
        }
        let e = Real::exp(-2.0 * self.abs());
        ((1.0 - e) / (1.0 + e)).copysign(self)
    }

    #[inline(always)]
    fn erf(self) -> f32 {
        libm::erff(self)
    }

    #[inline(always)]
    fn powf(self, by: f32) -> f32 {
        self.powf(by)
    }

    #[inline(always)]
    fn abs(self) -> f32 {
        self.abs()
    }

    #[inline(always)]
    fn round(self) -> f32 {
        self.round_ties_even()
    }

    fn lying(tensor: &Tensor) -> Option<&[f32]> {
        match tensor.f32s() {
            Ok(Cow::Borrowed(it)) => Some(it),
            _ => None,
        }
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn of_f32(value: f32) -> f64 {
        value.into()
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    fn exp(self) -> f64 {
        self.exp()
    }

    fn ln(self) -> f64 {
        self.ln()
    }

    fn sqrt(self) -> f64 {
        self.sqrt()
    }

    fn tanh(self) -> f64 {
        self.tanh()
    }

    fn erf(self) -> f64 {
        libm::erf(self)
    }

    fn powf(self, by: f64) -> f64 {
        self.powf(by)
    }

    fn abs(self) -> f64 {
        self.abs()
    }

    fn round(self) -> f64 {
        self.round_ties_even()
    }
}

/// Runs a loop with the widest vectors that the CPU has.
#[inline(always)]
pub(crate) fn vectorized<T>(run: impl FnOnce() -> T) -> T {
    Arch::new().dispatch(run)
}

/// A matrix in a slice: element `(i, j)` lies at `start + i * rows + j * columns`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub start: usize,
    /// From one row to the next.
    pub rows: usize,
    /// From one column to the next.
    pub columns: usize,
}

impl View {
    /// A matrix row by row, from the first element on.
    pub(crate) fn dense(columns: usize) -> View {
        View { start: 0, rows: columns, columns: 1 }
    }

    /// The same elements with rows and columns swapped.
    pub(crate) fn transposed(self) -> View {
        View { rows: self.columns, columns: self.rows, ..self }
    }

    pub(crate) fn from(self, start: usize) -> View {
        View { start, ..self }
    }

    /// Whether all elements of an `[m, n]` matrix lie in a slice of that length.
    fn fits(self, [m, n]: [usize; 2], len: usize) -> bool {
        m == 0 || n == 0 || self.start + (m - 1) * self.rows + (n - 1) * self.columns < len
    }
}

/// What a product does to its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Into {
    /// What was there does not count.
    Fresh,
    Added,
}

/// `y = scale · a b` or `y += scale · a b`, with `a` of `[m, k]` and `b` of `[k, n]`, on one thread.
///
/// Panics if a matrix does not lie in its slice.
pub(crate) fn product<R: Real>(
    [m, k, n]: [usize; 3],
    scale: f64,
    (a, a_at): (&[R], View),
    (b, b_at): (&[R], View),
    (y, y_at): (&mut [R], View),
    into: Into,
) {
    assert!(a_at.fits([m, k], a.len()) && b_at.fits([k, n], b.len()), "factors lie in slices");
    assert!(y_at.fits([m, n], y.len()), "a product lies in its slice");
    if m == 0 || n == 0 {
        return;
    }
    let stride = |it: usize| it as isize;
    // SAFETY: all elements of the three matrices lie in their slices, as was just checked; `y` is
    // borrowed exclusively, so it overlaps neither factor, and its own elements are distinct, since a
    // view never has two elements in one place (its strides are those of rows of a dense tensor).
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr().add(y_at.start),
            stride(y_at.columns),
            stride(y_at.rows),
            into == Into::Added,
            a.as_ptr().add(a_at.start.min(a.len())),
            stride(a_at.columns),
            stride(a_at.rows),
            b.as_ptr().add(b_at.start.min(b.len())),
            stride(b_at.columns),
            stride(b_at.rows),
            R::of(1.0),
            R::of(scale),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_and_tanh_are_right_to_the_last_digits(x in -80.0f32..80.0) {
            let (own, right) = (Real::exp(x), f64::from(x).exp());
            prop_assert!((f64::from(own) / right - 1.0).abs() < 4e-7, "{x}: {own} {right}");
            let (own, right) = (Real::tanh(x / 20.0), f64::from(x / 20.0).tanh());
            prop_assert!((f64::from(own) - right).abs() <= 4e-7 * right.abs(), "{x}: {own} {right}");
        }

        #[test]
        fn products_are_sums_of_products(m in 0usize..6, k in 0usize..6, n in 0usize..6, swap: bool) {
            let value = |it: usize| ((it * 37 + 11) % 17) as f64 - 8.0;
            let (a, b): (Vec<f64>, Vec<f64>) =
                ((0..m * k).map(value).collect(), (0..k * n).map(|it| value(it + 5)).collect());
            let a_at = if swap { View::dense(m).transposed() } else { View::dense(k) };
            let mut y = vec![1.0; m * n];
            let (shape, y_at) = ([m, k, n], View::dense(n));
            product(shape, 2.0, (&a, a_at), (&b, View::dense(n)), (&mut y, y_at), Into::Added);
            for i in 0..m {
                for j in 0..n {
                    let at = |p: usize| a[i * a_at.rows + p * a_at.columns];
                    let sum: f64 = (0..k).map(|p| at(p) * b[p * n + j]).sum();
                    prop_assert!((y[i * n + j] - (1.0 + 2.0 * sum)).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "factors lie in slices")]
    fn a_factor_outside_its_slice_is_a_bug() {
        let (a, b, mut y) = ([0f32; 3], [0f32; 4], [0f32; 4]);
        let at = View::dense(2);
        product([2, 2, 2], 1.0, (&a, at), (&b, at), (&mut y, at), Into::Fresh);
    }
}
