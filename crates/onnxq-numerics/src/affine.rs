//! How the codes of an activation stand for its values: `x ≈ scale · (code − zero)`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use onnxq_ir::tensor::{DType, Tensor};

/// Values that codes must span. Zero is always in it: padding and ReLU must be exact.
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
pub enum CodeType {
    Int8,
    #[default]
    Uint8,
}

/// The scale and zero point of one activation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Affine {
    pub dtype: CodeType,
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

impl CodeType {
    /// The lowest and the highest code.
    pub fn codes(self) -> (i32, i32) {
        match self {
            CodeType::Int8 => (-128, 127),
            CodeType::Uint8 => (0, 255),
        }
    }

    pub fn dtype(self) -> DType {
        match self {
            CodeType::Int8 => DType::I8,
            CodeType::Uint8 => DType::U8,
        }
    }
}

impl Affine {
    /// Codes that span an interval, zero being one of its values exactly.
    ///
    /// An interval without extent gets scale 1: its only value is zero.
    pub fn new(range: Interval, dtype: CodeType) -> Affine {
        let (low, high) = dtype.codes();
        let extent = f64::from(range.hi) - f64::from(range.lo);
        let scale = (extent / f64::from(high - low)) as f32;
        if !scale.is_normal() {
            return Affine { dtype, scale: 1.0, zero: low };
        }
        let zero = f64::from(low) - f64::from(range.lo) / f64::from(scale);
        let zero = (zero.round_ties_even() as i32).clamp(low, high);
        Affine { dtype, scale, zero }
    }

    /// What the lowest and the highest code stand for.
    pub fn interval(self) -> Interval {
        let (low, high) = self.dtype.codes();
        let value = |code: i32| self.scale * (code - self.zero) as f32;
        Interval { lo: value(low), hi: value(high) }
    }

    /// The code of `x`.
    pub fn code(self, x: f32) -> i32 {
        let (low, high) = self.dtype.codes();
        let code = (x / self.scale).round_ties_even() + self.zero as f32;
        code.clamp(low as f32, high as f32) as i32
    }

    pub fn scale_tensor(self) -> Tensor {
        Tensor::scalar(self.scale)
    }

    /// The zero point, a scalar of the codes' type.
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
        affine.scale * (affine.code(x) - affine.zero) as f32
    }

    proptest! {
        #[test]
        fn zero_is_exact_and_values_inside_are_half_a_step_off_at_most(
            lo in -100f32..1.0, hi in -1f32..100.0, at in 0f32..1.0, signed: bool,
        ) {
            let range = Interval::new(lo, hi);
            let dtype = if signed { CodeType::Int8 } else { CodeType::Uint8 };
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
        let affine = Affine::new(Interval::new(0.0, 6.0), CodeType::Int8);
        assert_eq!((affine.zero, round_trip(affine, 6.0)), (-128, 6.0));
        assert_eq!(Affine::new(Interval::default(), CodeType::Uint8).scale, 1.0);
    }
}
