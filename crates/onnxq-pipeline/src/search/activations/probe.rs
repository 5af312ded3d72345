//! What each candidate for an activation does to the outputs of its nodes.
//!
//! Next to every node stands a copy for each candidate; only the power of its error leaves the
//! graph.

use super::{copies::Copies, layer::Layer};
use crate::{Error, Inputs, ranges::Ranged};
use onnxq_ir::{Attrs, ValueId, ctx::Ctx};
use onnxq_numerics::{exact_sum::FixedSum, solve::BadStats};
use onnxq_quant::{ops::Weight, plan::Activation};
use onnxq_run::{
    calibrate::{Observe, Sample},
    data::Batch,
};

/// Fills in the errors of all candidates, and what is known of the layers' rows, as these samples
/// show them.
pub(super) fn measure(
    ranged: Ranged<'_>,
    layers: &mut [Layer],
    samples: &[Batch],
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<(), Error> {
    let mut probe = Probe { copies: Copies::new(ranged), taps: Vec::new() };
    for (at, layer) in layers.iter().enumerate() {
        probe.layer(at, layer);
    }
    let Probe { copies, taps } = probe;
    let mut sums: Vec<Sums> = taps.iter().map(|it| Sums::new(it.by_row)).collect();
    let observers = sums.iter_mut().map(|it| it as &mut dyn Observe);
    let values = taps.iter().map(|it| it.value).zip(observers).collect();
    copies.run(ranged, values, (samples, inputs), ctx)?;
    for (tap, sums) in taps.iter().zip(&sums) {
        tap.tell(&mut layers[tap.layer], sums);
    }
    for candidate in layers.iter_mut().flat_map(|it| &mut it.candidates) {
        candidate.loss = candidate.error();
    }
    Ok(())
}

struct Probe<'a> {
    copies: Copies<'a>,
    taps: Vec<Tap>,
}

/// What a value of the probing model says.
struct Tap {
    value: ValueId,
    layer: usize,
    what: What,
    /// Pairs per token, not one for the whole sample.
    by_row: bool,
}

enum What {
    /// The error of a site under a candidate.
    Error { candidate: usize, site: usize },
    /// The magnitudes of rows.
    Rows,
}

impl Tap {
    fn tell(&self, layer: &mut Layer, sums: &Sums) {
        match self.what {
            What::Error { candidate, site } => {
                layer.candidates[candidate].errors[site] = sums.mean();
                layer.rows = sums.rows;
            }
            What::Rows => layer.row_ratio = sums.ratio,
        }
    }
}

impl Probe<'_> {
    fn layer(&mut self, at: usize, layer: &Layer) {
        let by_row = matches!(layer.kind, Weight::MatMul | Weight::Batched(_));
        for (site, node) in layer.nodes.iter().enumerate() {
            let y = self.copies.m.node(*node).output();
            let signal = self.power(y, by_row);
            for (candidate, it) in layer.candidates.iter().enumerate() {
                // What stays as it is has no error.
                let Some(plan) = &it.plans[site] else { continue };
                let copy = self.copies.copy(plan);
                let error = self.copies.add("Sub", &[copy, y], Attrs::default());
                let error = self.power(error, by_row);
                let axis = if by_row { -1i64 } else { 0 };
                let attrs = Attrs::default().with("axis", axis);
                let pair = self.copies.add("Concat", &[error, signal], attrs);
                let what = What::Error { candidate, site };
                self.taps.push(Tap { value: pair, layer: at, what, by_row });
            }
        }
        if by_row
            && layer
                .candidates
                .iter()
                .any(|it| it.activation() == Some(Activation::DynamicPerToken))
        {
            let abs = self.copies.add("Abs", &[layer.x], Attrs::default());
            let largest = self.copies.reduce("ReduceMax", abs, -1);
            let pair = self.copies.add(
                "Concat",
                &[largest, largest],
                Attrs::default().with("axis", -1i64),
            );
            self.taps.push(Tap { value: pair, layer: at, what: What::Rows, by_row });
        }
    }

    /// The sum of squares: per token, or per pixel over its channels.
    fn power(&mut self, value: ValueId, by_row: bool) -> ValueId {
        self.copies.reduce("ReduceSumSquare", value, if by_row { -1 } else { 1 })
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
