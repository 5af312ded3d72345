//! Activations of the reference, counted while it runs, and the ranges that the candidate gives them.

use std::collections::BTreeSet;

use super::{Side, align::shapes, cut::maker, noise::Meter, spread::Counts, stitched::Runner};
use crate::Error;
use onnxq_ir::{
    Model, ValueId,
    tensor::{DType, Tensor},
};
use onnxq_numerics::{affine, observe};
use onnxq_quant::raise::Input;
use onnxq_report::{Histogram, Interval, document::Spread};
use onnxq_run::{
    calibrate::{Mask, mask},
    data::Batch,
};

/// Bars of a histogram.
const BARS: usize = 60;

/// Counts each value on all samples. Only so many values are held as memory allows.
pub(super) fn count(
    side: &Side,
    meter: &Meter,
    values: BTreeSet<ValueId>,
) -> Result<Counts, Error> {
    let mut counts = Counts::new();
    let (computed, given): (Vec<ValueId>, Vec<ValueId>) =
        values.into_iter().partition(|it| maker(&side.model, *it).is_some());
    for value in given {
        let name = &side.model.value(value).name;
        for batch in meter.batches {
            let tensor = batch.get(&**name);
            tensor.map_or(Ok(()), |tensor| add(&mut counts, value, tensor, batch))?;
        }
    }
    for values in passes(side, meter, computed)? {
        let mut runner = Runner::open(&side.model, side, &[], &values)?;
        for batch in meter.batches {
            for (value, tensor) in values.iter().zip(runner.run(batch, &[])?) {
                add(&mut counts, *value, &tensor, batch)?;
            }
        }
    }
    Ok(counts)
}

/// Values that are held together.
fn passes(side: &Side, meter: &Meter, values: Vec<ValueId>) -> Result<Vec<Vec<ValueId>>, Error> {
    let size = |it: &&Batch| it.values().map(Tensor::numel).sum::<usize>();
    let Some(largest) = meter.batches.iter().max_by_key(size).filter(|_| !values.is_empty()) else {
        return Ok(Vec::new());
    };
    let shapes = shapes(side, &values, largest)?;
    let (mut list, mut held): (Vec<Vec<ValueId>>, u64) = (Vec::new(), 0);
    for (value, shape) in values.into_iter().zip(shapes) {
        let numel: u64 = shape.iter().map(|it| it.unsigned_abs()).product();
        let bytes = numel * size_of::<f32>() as u64 + observe::Histogram::BYTES as u64;
        match list.last_mut() {
            Some(pass) if held + bytes <= meter.memory => pass.push(value),
            _ => {
                held = 0;
                list.push(vec![value]);
            }
        }
        held += bytes;
    }
    Ok(list)
}

/// Finite numbers, without the tokens of padding.
fn add(counts: &mut Counts, value: ValueId, tensor: &Tensor, batch: &Batch) -> Result<(), Error> {
    if !tensor.dtype.is_float() {
        return Ok(());
    }
    let mut numbers = tensor.to_f32()?;
    let fits = |mask: &Mask| mask.fits(&tensor.shape, 1);
    if let Some(mask) = mask(batch)?.filter(fits) {
        numbers = mask.keep(&numbers, &tensor.shape, 1).0;
    }
    numbers.retain(|it| it.is_finite());
    counts.entry(value).or_default().add(&numbers).expect("the numbers are finite");
    Ok(())
}

/// The counts in bars of one width, and the range of the quantized numbers in the candidate `m`.
pub(super) fn spread(
    name: String,
    counts: &observe::Histogram,
    m: &Model,
    input: &Input,
) -> Spread {
    let dynamic = matches!(input, Input::Fused(_) | Input::Quantized { dynamic: true, .. });
    let holds = held(m, input);
    let (mut low, mut high) = (f64::from(counts.min()), f64::from(counts.max()));
    if let Some(holds) = holds {
        (low, high) = (low.min(holds.low), high.max(holds.high));
    }
    let outside =
        holds.map(|it| counts.outside(affine::Interval { lo: it.low as f32, hi: it.high as f32 }));
    let histogram = bars(counts, low, high);
    let (unit, scale_per) = ("value".into(), None);
    Spread { name, unit, scale_per, histogram, holds, outside, dynamic, stored: false }
}

fn bars(counts: &observe::Histogram, low: f64, high: f64) -> Histogram {
    let width = if high > low { (high - low) / BARS as f64 } else { 1.0 / BARS as f64 };
    let mut list = vec![0; BARS];
    for bin in counts.bins() {
        let middle = (bin.lo + bin.hi) / 2.0;
        let bar = ((middle - low) / width).clamp(0.0, (BARS - 1) as f64);
        list[bar as usize] += bin.count;
    }
    let edges = (0..=BARS).map(|at| low + width * at as f64).collect();
    Histogram { edges, counts: list }
}

/// From half a step below the least quantized number to half a step above the largest, if both are
/// the same in each run.
fn held(m: &Model, input: &Input) -> Option<Interval> {
    let Input::Quantized { quantized, scale, zero, dynamic: false, .. } = *input else {
        return None;
    };
    let [scale] = m.small_f32(scale).ok()?[..] else { return None };
    let scale = f64::from(scale);
    let zero_point = match zero {
        Some(zero) => *m.small_i64(zero).ok()?.first()? as f64,
        None => 0.0,
    };
    let dtype = zero.and_then(|it| m.dtype(it)).or_else(|| m.dtype(quantized));
    let (least, largest) = match dtype.unwrap_or(DType::U8) {
        DType::I8 => (-128.0, 127.0),
        DType::U8 => (0.0, 255.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::U16 => (0.0, 65535.0),
        _ => return None,
    };
    let end = |number: f64| (number - zero_point) * scale;
    let range = Interval { low: end(least - 0.5), high: end(largest + 0.5) };
    (range.low.is_finite() && range.high > range.low && range.high.is_finite()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_reach_over_the_numbers_and_the_range() {
        let text = "main (uint8[n] x) => (float[n] y) <float s = {0.5}, uint8 z = {2}> {
                y = DequantizeLinear (x, s, z)
            }";
        let m = onnxq_ir::text::parse(text).unwrap();
        let input = onnxq_quant::raise::activation(&m, m.node(m.nodes()[0]).output());
        let mut counts = observe::Histogram::default();
        counts.add(&[-4.0, 0.0, 1.0, 200.0]).unwrap();
        let found = spread("x".into(), &counts, &m, &input);
        assert_eq!(found.holds, Some(Interval { low: -1.25, high: 126.75 }));
        assert_eq!((found.outside, found.dynamic), (Some(0.5), false));
        let edges = &found.histogram.edges;
        assert_eq!((edges.len(), edges[0], edges[BARS].round()), (BARS + 1, -4.0, 200.0));
        assert_eq!(found.histogram.counts.iter().sum::<u64>(), 4);
        let float = spread("x".into(), &counts, &m, &Input::Float(m.node(m.nodes()[0]).output()));
        assert_eq!((float.holds, float.outside), (None, None));
    }
}
