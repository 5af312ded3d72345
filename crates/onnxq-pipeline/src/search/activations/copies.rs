//! Copies of nodes beside the originals, quantized as they would be in the result.
//!
//! All read what the float model computes, so what a copy does differently is its own doing.

use std::collections::BTreeMap;

use crate::{
    Error, Inputs,
    lower::finish,
    ranges::{MeasuredRanges, Ranged},
};
use onnxq_ir::{
    Attrs, Def, Model, NodeId, Op, ValueId,
    ctx::Ctx,
    tensor::{DType, Tensor, TensorType},
};
use onnxq_numerics::affine::Interval;
use onnxq_quant::{
    insert,
    ops::Site,
    plan::{Activation, Plan, SitePlan},
};
use onnxq_run::{
    calibrate::{self, Observe, Target},
    data::{Batch, Dataset},
};

/// The model with copies; nodes are added at its end.
pub(super) struct Copies<'a> {
    pub m: Model,
    measured: &'a MeasuredRanges,
    /// Of the copies' activations and results.
    ranges: BTreeMap<ValueId, Interval>,
    sites: Vec<SitePlan>,
}

impl<'a> Copies<'a> {
    pub(super) fn new(ranged: Ranged<'a>) -> Copies<'a> {
        let (m, measured) = (ranged.planned.model.clone(), ranged.measured);
        Copies { m, measured, ranges: BTreeMap::new(), sites: Vec::new() }
    }

    /// Quantizes the copies and shows `values` to their observers, on these samples.
    pub(super) fn run(
        mut self,
        ranged: Ranged<'_>,
        values: Vec<(ValueId, &mut dyn Observe)>,
        (samples, inputs): (&[Batch], &Inputs),
        ctx: &Ctx,
    ) -> Result<(), Error> {
        let outputs = self.m.graph(self.m.main).outputs.len();
        let (values, observers): (Vec<ValueId>, Vec<&mut dyn Observe>) = values.into_iter().unzip();
        // As outputs they are found again once the nodes before them were replaced.
        values.iter().for_each(|it| self.m.add_output(self.m.main, *it));
        let plan = Plan { sites: self.sites, ranges: self.ranges, ..Plan::default() };
        insert::quantize(&mut self.m, &plan, &mut ranged.sources());
        finish(&mut self.m, &plan.sites, &Ctx::silent())?;
        let values = self.m.graph(self.m.main).outputs[outputs..].to_vec();
        let target = |(value, observer)| Target { value, bytes: 0, observer };
        let targets = values.into_iter().zip(observers).map(target).collect();
        let samples = Dataset::of_samples(samples.to_vec());
        let batches = samples.batches(&calibrate::model_inputs(&ranged.planned.model))?;
        let run = inputs.run(&self.m, &ranged.planned.files, batches);
        Ok(calibrate::observe(run, targets, ctx)?)
    }

    /// A copy of a site's node, at the end of the graph, and its plan; returns its output.
    pub(super) fn copy(&mut self, plan: &SitePlan) -> ValueId {
        let node = self.m.node(plan.site.node);
        let (op, mut inputs, attrs) = (node.op.clone(), node.inputs.clone(), node.attrs.clone());
        let y = node.output();
        let (name, ty) = (self.m.value(y).name.to_string(), self.m.value(y).ty.clone());
        let copy = self.m.add_value(&name, ty, Def::Input(self.m.main, None));
        if let (Some(Activation::Static), Some(x)) = (plan.activation, inputs[0]) {
            // An activation of its own, because candidates may differ in its range.
            let own = self.add("Identity", &[x], Attrs::default());
            self.m.value_mut(own).ty = self.m.value(x).ty.clone();
            inputs[0] = Some(own);
            for (value, of) in [(own, x), (copy, y)] {
                let range = self.measured.get(of, &plan.quantized);
                self.ranges.extend(range.map(|it| (value, it)));
            }
        }
        let id = self.node(op, inputs, attrs, copy);
        let site = Site { node: id, ..plan.site };
        self.sites.push(SitePlan { site, ..plan.clone() });
        copy
    }

    /// Over one axis, which is kept with length 1.
    pub(super) fn reduce(&mut self, op: &str, value: ValueId, axis: i64) -> ValueId {
        if self.m.opset("") < 18 {
            return self.add(op, &[value], Attrs::default().with("axes", vec![axis]));
        }
        let axes = self.m.add_constant(self.m.main, "axes", Tensor::from_i64(&[1], [axis]));
        self.add(op, &[value, axes], Attrs::default())
    }

    pub(super) fn add(&mut self, op: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
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
