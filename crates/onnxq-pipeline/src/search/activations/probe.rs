//! What each way of quantizing an activation does to the outputs of its nodes.
//!
//! Next to every node stands a twin for each way; only the power of its error leaves the graph.

use super::{twins::Twins, unit::Unit};
use crate::{Error, Inputs, ranges::Ranged};
use onnxq_ir::{Attrs, ValueId, ctx::Ctx};
use onnxq_numerics::{exact_sum::FixedSum, solve::BadStats};
use onnxq_quant::{ops::Weight, plan::Activation};
use onnxq_run::calibrate::{Observe, Sample};

/// Fills in the errors of all ways, and what is known of the units' rows. Returns how many samples
/// it ran.
pub(super) fn measure(
    ranged: Ranged<'_>,
    units: &mut [Unit],
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<u64, Error> {
    let mut probe = Probe { twins: Twins::new(ranged), taps: Vec::new() };
    for (at, unit) in units.iter().enumerate() {
        probe.unit(at, unit);
    }
    let Probe { twins, taps } = probe;
    let mut sums: Vec<Sums> = taps.iter().map(|it| Sums::new(it.by_row)).collect();
    let observers = sums.iter_mut().map(|it| it as &mut dyn Observe);
    let values = taps.iter().map(|it| it.value).zip(observers).collect();
    let samples = twins.run(ranged, values, inputs, ctx)?;
    for (tap, sums) in taps.iter().zip(&sums) {
        tap.tell(&mut units[tap.unit], sums);
    }
    for way in units.iter_mut().flat_map(|it| &mut it.ways) {
        way.loss = way.error();
    }
    Ok(samples)
}

struct Probe<'a> {
    twins: Twins<'a>,
    taps: Vec<Tap>,
}

/// What a value of the probing model says.
struct Tap {
    value: ValueId,
    unit: usize,
    what: What,
    /// Pairs per token, not one for the whole sample.
    by_row: bool,
}

enum What {
    /// The error of a site under a way.
    Error { way: usize, site: usize },
    /// The magnitudes of rows.
    Rows,
}

impl Tap {
    fn tell(&self, unit: &mut Unit, sums: &Sums) {
        match self.what {
            What::Error { way, site } => {
                unit.ways[way].errors[site] = sums.mean();
                unit.rows = sums.rows;
            }
            What::Rows => unit.row_ratio = sums.ratio,
        }
    }
}

impl Probe<'_> {
    fn unit(&mut self, at: usize, unit: &Unit) {
        let by_row = unit.kind == Weight::MatMul;
        for (site, node) in unit.nodes.iter().enumerate() {
            let y = self.twins.m.node(*node).output();
            let signal = self.power(y, by_row);
            for (way, it) in unit.ways.iter().enumerate() {
                // What stays as it is has no error.
                let Some(plan) = &it.plans[site] else { continue };
                let twin = self.twins.twin(plan);
                let error = self.twins.add("Sub", &[twin, y], Attrs::default());
                let error = self.power(error, by_row);
                let axis = if by_row { -1i64 } else { 0 };
                let attrs = Attrs::default().with("axis", axis);
                let pair = self.twins.add("Concat", &[error, signal], attrs);
                let what = What::Error { way, site };
                self.taps.push(Tap { value: pair, unit: at, what, by_row });
            }
        }
        if by_row && unit.ways.iter().any(|it| it.activation() == Some(Activation::Row)) {
            let abs = self.twins.add("Abs", &[unit.x], Attrs::default());
            let largest = self.twins.reduce("ReduceMax", abs, -1);
            let pair =
                self.twins.add("Concat", &[largest, largest], Attrs::default().with("axis", -1i64));
            self.taps.push(Tap { value: pair, unit: at, what: What::Rows, by_row });
        }
    }

    /// The sum of squares: per token, or per pixel over its channels.
    fn power(&mut self, value: ValueId, by_row: bool) -> ValueId {
        self.twins.reduce("ReduceSumSquare", value, if by_row { -1 } else { 1 })
    }
}

/// Sums over rows that depend on no order.
struct Sums {
    by_row: bool,
    rows: u64,
    /// Of ratios.
    total: FixedSum,
    terms: u64,
    ratio: f64,
}

impl Sums {
    fn new(by_row: bool) -> Sums {
        Sums { by_row, rows: 0, total: FixedSum::default(), terms: 0, ratio: 1.0 }
    }

    fn mean(&self) -> f64 {
        self.total.mean(self.terms)
    }

    /// Noise that is larger than the signal is as bad as none of it being left.
    fn add(&mut self, noise: f64, signal: f64) {
        let ratio = if noise <= 0.0 { 0.0 } else { (noise / signal).min(1.0) };
        self.total.add(ratio);
        self.terms += 1;
    }
}

impl Observe for Sums {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        let sum = |values: &[f32]| values.iter().map(|it| f64::from(*it)).sum::<f64>();
        if !self.by_row {
            // Maps of errors and of signals, one after the other.
            let (noise, signal) = sample.values.split_at(sample.values.len() / 2);
            self.add(sum(noise), sum(signal));
            self.rows += signal.len() as u64;
            return Ok(());
        }
        let pairs = sample.values.chunks_exact(2);
        let largest = pairs.clone().map(|it| it[1]).fold(0f32, f32::max);
        let mean = sum(sample.values) / sample.values.len().max(1) as f64;
        if mean > 0.0 {
            self.ratio = self.ratio.max(f64::from(largest) / mean);
        }
        self.rows += pairs.len() as u64;
        pairs.for_each(|it| self.add(f64::from(it[0]), f64::from(it[1])));
        Ok(())
    }
}
