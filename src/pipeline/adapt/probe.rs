//! What each way of quantizing an activation does to the outputs of its nodes.
//!
//! Next to every node stands a twin for each way, quantized as it would be in the result. All read
//! what the float model computes, so an error is a node's own; only its power leaves the graph.

use std::collections::BTreeMap;

use super::unit::Unit;
use crate::{
    calibrate::{self, Observe, Sample, Target},
    ctx::Ctx,
    ir::{Attrs, Def, Model, NodeId, Op, ValueId},
    pipeline::{Calibration, Error, Planned, finish, ranges::Spans},
    quant::{
        affine::Interval,
        insert,
        ops::{Site, Weight},
        plan::{Activation, Plan, SitePlan},
        solve::BadStats,
        sources::Sources,
    },
    tensor::{DType, Tensor, TensorType},
};

/// Fills in the errors of all ways, and what is known of the units' rows. Returns how many samples
/// it ran.
pub(super) fn measure(
    planned: &Planned,
    units: &mut [Unit],
    calibration: &Calibration,
    ctx: &Ctx,
) -> Result<u64, Error> {
    let (m, spans) = (planned.model.clone(), &planned.spans);
    let (ranges, sites, taps) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut probe = Probe { m, spans, ranges, sites, taps };
    for (at, unit) in units.iter().enumerate() {
        probe.unit(at, unit);
    }
    let Probe { mut m, ranges, sites, taps, .. } = probe;
    let values: Vec<ValueId> = taps.iter().map(|it| it.value).collect();
    let outputs = m.graph(m.main).outputs.len();
    values.iter().for_each(|it| m.add_output(m.main, *it));
    let plan = Plan { sites, ranges, ..Plan::default() };
    insert::quantize(&mut m, &plan, &mut Sources::default());
    finish(&mut m, &plan.sites, &Ctx::silent())?;
    let values = m.graph(m.main).outputs[outputs..].to_vec();
    let mut sums: Vec<Sums> = taps.iter().map(|it| Sums::new(it.by_row)).collect();
    let target = |(value, observer)| Target { value, bytes: 0, observer };
    let targets = values.into_iter().zip(sums.iter_mut().map(|it| it as &mut dyn Observe));
    let targets = targets.map(target).collect();
    let batches = calibration.batches(&planned.model)?;
    let samples = batches.samples() as u64;
    let (files, options) = (&planned.files, calibration.collect(false));
    calibrate::observe(&m, files, targets, batches, options, &calibration.runtime, ctx)?;
    for (tap, sums) in taps.iter().zip(&sums) {
        tap.tell(&mut units[tap.unit], sums);
    }
    for way in units.iter_mut().flat_map(|it| &mut it.ways) {
        way.loss = way.error();
    }
    Ok(samples)
}

/// The model with its twins; nodes are added at its end.
struct Probe<'a> {
    m: Model,
    spans: &'a Spans,
    /// Of the twins' activations and results.
    ranges: BTreeMap<ValueId, Interval>,
    /// Of the twins.
    sites: Vec<SitePlan>,
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
            let y = self.m.node(*node).output();
            let signal = self.power(y, by_row);
            for (way, it) in unit.ways.iter().enumerate() {
                // What stays as it is has no error.
                let Some(plan) = &it.plans[site] else { continue };
                let twin = self.twin(plan);
                let error = self.add("Sub", &[twin, y], Attrs::default());
                let error = self.power(error, by_row);
                let axis = if by_row { -1i64 } else { 0 };
                let attrs = Attrs::default().with("axis", axis);
                let pair = self.add("Concat", &[error, signal], attrs);
                let what = What::Error { way, site };
                self.taps.push(Tap { value: pair, unit: at, what, by_row });
            }
        }
        if by_row && unit.ways.iter().any(|it| it.activation() == Some(Activation::Row)) {
            let abs = self.add("Abs", &[unit.x], Attrs::default());
            let largest = self.reduce("ReduceMax", abs, -1);
            let pair =
                self.add("Concat", &[largest, largest], Attrs::default().with("axis", -1i64));
            self.taps.push(Tap { value: pair, unit: at, what: What::Rows, by_row });
        }
    }

    /// A copy of a site's node, at the end of the graph, and its plan; returns its output.
    fn twin(&mut self, plan: &SitePlan) -> ValueId {
        let node = self.m.node(plan.site.node);
        let (op, mut inputs, attrs) = (node.op.clone(), node.inputs.clone(), node.attrs.clone());
        let y = node.output();
        let (name, ty) = (self.m.value(y).name.to_string(), self.m.value(y).ty.clone());
        let twin = self.m.add_value(&name, ty, Def::Input(self.m.main, None));
        if let (Some(Activation::Static), Some(x)) = (plan.activation, inputs[0]) {
            // An activation of its own, because ways may differ in its range.
            let own = self.add("Identity", &[x], Attrs::default());
            self.m.value_mut(own).ty = self.m.value(x).ty.clone();
            inputs[0] = Some(own);
            for (value, of) in [(own, x), (twin, y)] {
                let range = self.spans.get(of, &plan.codes);
                self.ranges.extend(range.map(|it| (value, it)));
            }
        }
        let id = self.node(op, inputs, attrs, twin);
        let site = Site { node: id, ..plan.site };
        self.sites.push(SitePlan { site, ..plan.clone() });
        twin
    }

    /// The sum of squares: per token, or per pixel over its channels.
    fn power(&mut self, value: ValueId, by_row: bool) -> ValueId {
        self.reduce("ReduceSumSquare", value, if by_row { -1 } else { 1 })
    }

    /// Over one axis, which is kept with length 1.
    fn reduce(&mut self, op: &str, value: ValueId, axis: i64) -> ValueId {
        if self.m.opset("") < 18 {
            return self.add(op, &[value], Attrs::default().with("axes", vec![axis]));
        }
        let axes = self.m.add_constant(self.m.main, "axes", Tensor::from_i64(&[1], [axis]));
        self.add(op, &[value, axes], Attrs::default())
    }

    fn add(&mut self, op: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        let main = self.m.main;
        // Its shape is none of the first input's; that it is float is all that matters.
        let dtype = self.m.dtype(inputs[0]).unwrap_or(DType::F32);
        let ty = Some(TensorType { dtype, shape: None });
        let value = self.m.add_value("probe", ty, Def::Input(main, None));
        let inputs = inputs.iter().copied().map(Some).collect();
        self.node(Op::new(op), inputs, attrs, value);
        value
    }

    fn node(&mut self, op: Op, inputs: Vec<Option<ValueId>>, attrs: Attrs, y: ValueId) -> NodeId {
        let main = self.m.main;
        self.m.add_node(main, None, (op, "".into()), inputs, attrs, vec![y])
    }
}

/// Sums over rows that depend on no order.
struct Sums {
    by_row: bool,
    rows: u64,
    /// Ratios, in units of 2⁻⁴⁰.
    total: u128,
    terms: u64,
    ratio: f64,
}

const UNIT: f64 = (1u64 << 40) as f64;

impl Sums {
    fn new(by_row: bool) -> Sums {
        Sums { by_row, rows: 0, total: 0, terms: 0, ratio: 1.0 }
    }

    fn mean(&self) -> f64 {
        if self.terms == 0 { 0.0 } else { self.total as f64 / UNIT / self.terms as f64 }
    }

    /// Noise that is larger than the signal is as bad as none of it being left.
    fn add(&mut self, noise: f64, signal: f64) {
        let ratio = if noise <= 0.0 { 0.0 } else { (noise / signal).min(1.0) };
        self.total += (ratio * UNIT).round() as u128;
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
