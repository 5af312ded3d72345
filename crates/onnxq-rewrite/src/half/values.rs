//! Constants in a narrow type: whether they fit, and their elements when they are read.

use std::collections::BTreeMap;

use super::{Clamped, HalfError, Made};
use onnxq_ir::{
    Model, ValueId,
    tensor::{DType, Tensor, from_f32},
};

/// From this magnitude on, a number stands for infinity: masks hold -1e9 or the lowest float.
const ENDLESS: f32 = 1e8;
/// Numbers that are read at a time.
const PIECE: usize = 1 << 20;

/// The constants of a model in the narrow type, made once each.
pub(super) struct Narrowed {
    dtype: DType,
    made: Made,
    ranges: BTreeMap<ValueId, Range>,
    clamped: BTreeMap<ValueId, Clamped>,
}

/// The magnitudes of a constant's elements.
#[derive(Clone, Copy, Default)]
struct Range {
    /// The smallest of those that are out of range, and the one of the largest magnitude.
    least_beyond: Option<f32>,
    beyond: f32,
    largest: f32,
    /// Whether a nonzero number becomes zero.
    vanishes: bool,
    count: usize,
}

/// Whether a constant can be stored.
pub(super) enum Fit {
    Fits,
    /// Numbers beyond the range that stand for infinity.
    Clamps {
        from: f32,
        to: f32,
    },
    Not(String),
}

impl Narrowed {
    pub(super) fn new(dtype: DType) -> Narrowed {
        Narrowed { dtype, made: Made::new(), ranges: BTreeMap::new(), clamped: BTreeMap::new() }
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// What happens to a constant in the narrow type; `masks` says that its node takes the end of
    /// the range for infinity.
    pub(super) fn fit(&mut self, m: &Model, value: ValueId, masks: bool) -> Result<Fit, HalfError> {
        let range = match self.ranges.get(&value) {
            Some(it) => *it,
            None => {
                let tensor = m.constant(value).expect("the caller has seen a constant");
                let name = || m.value(value).name.to_string();
                let range = range(tensor, self.dtype)
                    .map_err(|source| HalfError::Tensor { name: name(), source })?;
                self.ranges.insert(value, range);
                range
            }
        };
        Ok(range.fit(self.dtype, masks))
    }

    pub(super) fn clamp(&mut self, m: &Model, value: ValueId, from: f32, to: f32) {
        let name = m.value(value).name.to_string();
        self.clamped.insert(value, Clamped { value: name, from, to });
    }

    pub(super) fn take_clamped(&mut self) -> Vec<Clamped> {
        self.clamped.values().cloned().collect()
    }

    /// The same constant in the narrow type.
    pub(super) fn constant(&mut self, m: &mut Model, value: ValueId) -> ValueId {
        if let Some(it) = self.made.get(&value) {
            return *it;
        }
        let tensor = narrow(m.constant(value).expect("the caller has seen a constant"), self.dtype);
        let name = m.value(value).name.to_string();
        let new = m.add_constant(m.main, &name, tensor);
        self.made.insert(value, new);
        new
    }

    pub(super) fn count(&self) -> usize {
        self.made.len()
    }
}

/// A constant in another float type, converted when it is read. Finite numbers beyond the range
/// become its ends: an infinite one would make NaN where it is multiplied by zero.
pub(super) fn narrow(tensor: &Tensor, dtype: DType) -> Tensor {
    let base = tensor.clone();
    Tensor::lazy(dtype, base.shape.clone(), move || {
        let limit = limit(dtype);
        let bytes = base.bytes()?;
        let mut out = Vec::with_capacity(bytes.len() / 2);
        for piece in bytes.chunks(4 * PIECE) {
            let values: Vec<f32> = floats(piece).map(|it| clamped(it, limit)).collect();
            out.extend(from_f32(dtype, &values)?);
        }
        Ok(out.into())
    })
}

fn clamped(value: f32, limit: f32) -> f32 {
    if value.is_finite() { value.clamp(-limit, limit) } else { value }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().expect("four bytes")))
}

/// The largest finite number.
pub(super) fn limit(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => half::f16::MAX.to_f32(),
        _ => half::bf16::MAX.to_f32(),
    }
}

/// Half of the smallest number above zero: less is rounded to zero.
fn least(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 2f32.powi(-25),
        _ => 0.0,
    }
}

fn range(tensor: &Tensor, dtype: DType) -> Result<Range, onnxq_ir::tensor::TensorError> {
    let (limit, least) = (limit(dtype), least(dtype));
    let mut range = Range { count: tensor.numel(), ..Range::default() };
    for it in floats(&tensor.bytes()?) {
        let size = it.abs();
        // Infinity itself is a number of every type, and was meant.
        if size.is_finite() && size > limit {
            let known = range.least_beyond.unwrap_or(f32::INFINITY);
            range.least_beyond = Some(known.min(size));
            if size > range.beyond.abs() {
                range.beyond = it;
            }
        }
        if size.is_finite() {
            range.largest = range.largest.max(size);
        }
        range.vanishes |= size > 0.0 && size <= least;
    }
    Ok(range)
}

impl Range {
    fn fit(&self, dtype: DType, masks: bool) -> Fit {
        let limit = limit(dtype);
        if let Some(least) = self.least_beyond {
            if masks && (least >= ENDLESS || dtype == DType::BF16) {
                return Fit::Clamps { from: self.beyond, to: limit.copysign(self.beyond) };
            }
            return Fit::Not(format!(
                "a constant holds {}, beyond the range of {dtype}",
                self.beyond
            ));
        }
        // Among many weights, a few that vanish are no loss.
        if self.vanishes && (self.count == 1 || self.largest < 1e-6) {
            return Fit::Not(format!("a constant of {} is zero in {dtype}", self.largest));
        }
        Fit::Fits
    }
}
