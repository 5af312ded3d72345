//! How the quantized values of an activation stand for its values: `x ≈ scale · (integer − zero)`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use onnxq_ir::tensor::{DType, Tensor};

/// Values that quantized values must span. Zero is always in it: padding and ReLU must be exact.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Interval {
    pub lo: f32,
    pub hi: f32,
}

/// The 8-bit integers that stand for activations.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum QuantizedType {
    Int8,
    #[default]
    Uint8,
}

/// The scale and zero point of one activation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Affine {
    pub dtype: QuantizedType,
    pub scale: f32,
    pub zero: i32,
}

impl Interval {
    /// The smallest interval with both ends and zero in it.
    pub fn new(lo: f32, hi: f32) -> Interval {
        Interval { lo: lo.min(0.0), hi: hi.max(0.0) }
    }

    pub fn union(self, other: Interval) -> Interval {
        Interval { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    /// As far below zero as above.
    pub fn symmetric(self) -> Interval {
        let reach = self.hi.max(-self.lo);
        Interval { lo: -reach, hi: reach }
    }
}

impl QuantizedType {
    /// The lowest and the highest quantized value.
    pub fn quantized(self) -> (i32, i32) {
        match self {
            QuantizedType::Int8 => (-128, 127),
            QuantizedType::Uint8 => (0, 255),
        }
    }

    pub fn dtype(self) -> DType {
        match self {
            QuantizedType::Int8 => DType::I8,
            QuantizedType::Uint8 => DType::U8,
        }
    }
}

impl Affine {
    /// Quantized values that span an interval, zero being one of its values exactly.
    ///
    /// An interval without extent gets scale 1: its only value is zero.
    pub fn new(range: Interval, dtype: QuantizedType) -> Affine {
        let (low, high) = dtype.quantized();
        let shape = f64::from(range.hi) - f64::from(range.lo);
        let scale = (shape / f64::from(high - low)) as f32;
        if !scale.is_normal() {
            return Affine { dtype, scale: 1.0, zero: low };
        }
        let zero = f64::from(low) - f64::from(range.lo) / f64::from(scale);
        let zero = (zero.round_ties_even() as i32).clamp(low, high);
        Affine { dtype, scale, zero }
    }

    /// What the lowest and the highest quantized value stand for.
    pub fn interval(self) -> Interval {
        let (low, high) = self.dtype.quantized();
        let value = |integer: i32| self.scale * (integer - self.zero) as f32;
        Interval { lo: value(low), hi: value(high) }
    }

    /// The quantized value of `x`.
    pub fn integer(self, x: f32) -> i32 {
        let (low, high) = self.dtype.quantized();
        let integer = (x / self.scale).round_ties_even() + self.zero as f32;
        integer.clamp(low as f32, high as f32) as i32
    }

    pub fn scale_tensor(self) -> Tensor {
        Tensor::scalar(self.scale)
    }

    /// The zero point, a scalar of the quantized values' type.
    pub fn zero_tensor(self) -> Tensor {
        Tensor::new(self.dtype.dtype(), vec![], vec![self.zero as u8])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value that `x` becomes.
    fn round_trip(affine: Affine, x: f32) -> f32 {
        affine.scale * (affine.integer(x) - affine.zero) as f32
    }

    proptest! {
        #[test]
        fn zero_is_exact_and_values_inside_are_half_a_step_off_at_most(
            lo in -100f32..1.0, hi in -1f32..100.0, at in 0f32..1.0, signed: bool,
        ) {
            let range = Interval::new(lo, hi);
            let dtype = if signed { QuantizedType::Int8 } else { QuantizedType::Uint8 };
            let affine = Affine::new(range, dtype);
            prop_assert_eq!(round_trip(affine, 0.0), 0.0);
            let x = range.lo + at * (range.hi - range.lo);
            // The zero point is rounded too, so the ends may lie half a step further out.
            let error = (round_trip(affine, x) - x).abs();
            prop_assert!(error <= affine.scale * 1.01, "{} is {} off", x, error);
        }
    }

    #[test]
    fn after_relu_every_code_is_used() {
        let affine = Affine::new(Interval::new(0.0, 6.0), QuantizedType::Int8);
        assert_eq!((affine.zero, round_trip(affine, 6.0)), (-128, 6.0));
        assert_eq!(Affine::new(Interval::default(), QuantizedType::Uint8).scale, 1.0);
    }
}
