//! A float weight on the grid of the quantized one that stands for it.

use onnxq_ir::tensor::{QMatrix, QShape, QSource, Tensor, TensorError};
use onnxq_report::{Histogram, Interval, document::Spread};

/// Numbers that are read at once.
const PIECE: usize = 1 << 20;
/// Bars of the histogram, and where they end: half of the grid is 1 wide.
const BARS: usize = 60;
const END: f64 = 1.5;
/// More noise than this share of the signal: the quantized weight stands for something else, as
/// when a transform moved scales into it.
const FOREIGN: f64 = 0.25;

/// Reads both weights once, piece by piece. `None` if they are not the same weight.
pub(super) fn spread(
    name: String,
    float: &Tensor,
    quantized: &dyn QSource,
) -> Result<Option<Spread>, TensorError> {
    let shape = quantized.shape();
    if float.shape != [shape.n, shape.k] || shape.k == 0 {
        return Ok(None);
    }
    let mut counts = Counts::default();
    let step = PIECE / shape.k + 1;
    for start in (0..shape.n).step_by(step) {
        let rows = start..(start + step).min(shape.n);
        // Zero points that are no integers are on no grid.
        let Ok(part) = quantized.solve(rows.clone()) else { return Ok(None) };
        counts.add(&float.rows_f32(rows)?, &part);
    }
    Ok(counts.is_same().then(|| counts.spread(name, &shape)))
}

/// The quantized numbers alone, where the float ones that they stand for are not known: a transform
/// changed them, or nodes were fused.
pub(super) fn stored(name: String, quantized: &dyn QSource) -> Result<Option<Spread>, TensorError> {
    let shape = quantized.shape();
    let mut counts = Counts::default();
    let step = PIECE / shape.k.max(1) + 1;
    for start in (0..shape.n).step_by(step) {
        let Ok(part) = quantized.solve(start..(start + step).min(shape.n)) else { return Ok(None) };
        part.quantized.iter().for_each(|it| counts.place(f64::from(*it), half(&shape)));
    }
    Ok(Some(Spread { outside: None, stored: true, ..counts.spread(name, &shape) }))
}

struct Counts {
    bars: [u64; BARS],
    outside: u64,
    signal: f64,
    noise: f64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts { bars: [0; BARS], outside: 0, signal: 0.0, noise: 0.0 }
    }
}

impl Counts {
    fn add(&mut self, float: &[f32], part: &QMatrix) {
        let (QShape { k, block, .. }, half) = (part.shape, half(&part.shape));
        for (at, value) in float.iter().enumerate() {
            let (row, column) = (at / k, at % k);
            let group = (row, column / block.max(1));
            let scale = f64::from(part.scales[group]);
            let zero = f64::from(part.zero_points[group]);
            let value = f64::from(*value);
            let stored = (f64::from(part.quantized[(row, column)]) - zero) * scale;
            self.signal += value * value;
            self.noise += (value - stored).powi(2);
            let place = value / scale + zero;
            if place.is_finite() {
                self.place(place, half);
            }
        }
    }

    /// Counts a number that lies so many steps above the lowest quantized one.
    fn place(&mut self, place: f64, half: f64) {
        self.outside += u64::from(place < -0.5 || place > 2.0 * half - 0.5);
        let share = ((place - half) / half + END) / (2.0 * END);
        let bar = (share * BARS as f64).clamp(0.0, (BARS - 1) as f64);
        self.bars[bar as usize] += 1;
    }

    fn is_same(&self) -> bool {
        self.signal > 0.0 && self.noise < FOREIGN * self.signal
    }

    fn spread(&self, name: String, shape: &QShape) -> Spread {
        let edge = |at: usize| END * (2.0 * at as f64 / BARS as f64 - 1.0);
        let half_step = 0.5 / half(shape);
        let count: u64 = self.bars.iter().sum();
        Spread {
            name,
            unit: "grid".into(),
            scale_per: Some(match shape.blocks() {
                1 => "channel".into(),
                _ => format!("block of {}", shape.block),
            }),
            histogram: Histogram {
                edges: (0..=BARS).map(edge).collect(),
                counts: self.bars.to_vec(),
            },
            holds: Some(Interval { low: -1.0 - half_step, high: 1.0 - half_step }),
            outside: Some(self.outside as f64 / count.max(1) as f64),
            ..Spread::default()
        }
    }
}

/// Half of the steps of a grid.
fn half(shape: &QShape) -> f64 {
    f64::from(1u32 << (shape.bits - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use onnxq_ir::tensor::{DType, ZeroPoints};
    use std::ops::Range;

    /// Two rows of 4 bits with scales of their own.
    struct Fixed;

    impl QSource for Fixed {
        fn shape(&self) -> QShape {
            let zero_points = ZeroPoints::Symmetric;
            QShape {
                n: 2,
                k: 2,
                block: 2,
                bits: 4,
                zero_points,
                scale: DType::F32,
                superblock: None,
            }
        }

        fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
            assert_eq!(rows, 0..2);
            let (quantized, zero_points) = (array![[15, 0], [8, 12]], array![[8], [8]]);
            Ok(QMatrix::plain(self.shape(), quantized, array![[1.0], [0.1]], zero_points))
        }
    }

    fn spread_of(values: [f32; 4]) -> Option<Spread> {
        spread("w".into(), &Tensor::from_f32(&[2, 2], values), &Fixed).unwrap()
    }

    #[test]
    fn each_row_is_measured_by_its_own_scale() {
        let found = spread_of([7.7, -8.0, 0.0, 0.4]).unwrap();
        assert_eq!((found.outside, found.scale_per.as_deref()), (Some(0.25), Some("channel")));
        assert_eq!(found.holds, Some(Interval { low: -1.0625, high: 0.9375 }));
        let filled = |it: &(usize, &u64)| *it.1 > 0;
        let bars: Vec<usize> =
            found.histogram.counts.iter().enumerate().filter(filled).map(|it| it.0).collect();
        // -1, 0, 0.5 and 0.96 of the way from -1.5 to 1.5.
        assert_eq!(bars, [10, 30, 40, 49]);
        assert_eq!(found.histogram.edges[10], -1.0);
    }

    #[test]
    fn what_stands_for_another_weight_has_no_spread() {
        assert_eq!(spread_of([-7.6, 8.0, 0.0, 0.4]), None);
        let codes = stored("w".into(), &Fixed).unwrap().unwrap();
        assert_eq!((codes.stored, codes.outside), (true, None));
        assert_eq!(codes.histogram.counts.iter().sum::<u64>(), 4);
        let wide = Tensor::from_f32(&[1, 4], [1.0; 4]);
        assert_eq!(spread("w".into(), &wide, &Fixed).unwrap(), None);
    }
}
