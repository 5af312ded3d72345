//! Bias correction: what quantization adds to a channel on average is taken from its bias.
//!
//! Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019;
//! here the mean error of each node is measured on data.

use super::{built_of, copies::Copies, report::Correction};
use crate::{Error, Job, ranges::Ranged, search::evaluator::Evaluator};
use onnxq_ir::{Attrs, Model, NodeId, ValueId, tensor::Tensor};
use onnxq_numerics::{exact_sum::FixedSum, solve::BadStats};
use onnxq_quant::{
    ops::Weight,
    plan::{Activation, SitePlan},
};
use onnxq_run::calibrate::{Observe, Sample};

/// The constant that is added to each channel of a node's result.
struct Bias {
    /// Who reads it, and where.
    reader: NodeId,
    index: usize,
    values: Vec<f32>,
    /// For each channel, the sum of errors, and how many there were.
    sums: Sums,
}

/// The model with corrected biases of all static sites, if that helps; `None` if they have none.
pub(super) fn correct(
    ranged: Ranged<'_>,
    &Job { recipe, inputs, ctx }: &Job,
) -> Result<Option<(Correction, Option<Model>)>, Error> {
    let sites = &ranged.planned.plan.sites;
    let mut copies = Copies::new(ranged);
    let (mut biases, mut errors) = (Vec::new(), Vec::new());
    for site in sites.iter().filter(|it| it.activation == Some(Activation::Static)) {
        let Some(bias) = bias_of(&ranged.planned.model, site) else { continue };
        errors.push(error(&mut copies, site));
        biases.push(bias);
    }
    if biases.is_empty() {
        return Ok(None);
    }
    let evaluator = Evaluator::new(ranged.planned, inputs)?.on_target(recipe);
    let observers = biases.iter_mut().map(|it| &mut it.sums as &mut dyn Observe);
    let values = errors.into_iter().zip(observers).collect();
    copies.run(ranged, values, (evaluator.batches(), inputs), ctx)?;
    let mut model = ranged.planned.model.clone();
    biases.iter().for_each(|it| it.apply(&mut model));
    let loss = |model: &Model| {
        evaluator.loss_of(&built_of(model.clone(), ranged, sites.clone())?, usize::MAX)
    };
    let (loss, corrected_loss) = (loss(&ranged.planned.model)?, loss(&model)?);
    let kept = corrected_loss < loss;
    let correction = Correction { biases: biases.len(), loss, corrected_loss, kept };
    Ok(Some((correction, kept.then_some(model))))
}

fn bias_of(m: &Model, site: &SitePlan) -> Option<Bias> {
    let node = site.site.node;
    let (reader, index) = match site.site.kind {
        Weight::Conv => (node, 2),
        Weight::MatMul => {
            let add = m.only_use(m.node(node).output()).ok()?;
            let other = m.node(add).inputs.iter().position(|it| *it != Some(m.node(node).output()));
            (add, other.filter(|_| m.node(add).op.is("Add"))?)
        }
        _ => return None,
    };
    let tensor = m.constant(m.operand(reader, index).ok()?).ok()?;
    let shape = &m.constant(site.site.weight).ok()?.shape;
    let channels = if site.site.kind == Weight::Conv { shape[0] } else { shape[1] };
    if tensor.shape != [channels] || !tensor.dtype.is_float() {
        return None;
    }
    Some(Bias { reader, index, values: tensor.to_f32().ok()?, sums: Sums::new(channels) })
}

/// The error of a site's result, its channels last: of each token, or the mean over all pixels.
fn error(copies: &mut Copies, site: &SitePlan) -> ValueId {
    let y = copies.m.node(site.site.node).output();
    let copy = copies.copy(site);
    let error = copies.add("Sub", &[copy, y], Attrs::default());
    match site.site.kind {
        Weight::Conv => {
            let pooled = copies.add("GlobalAveragePool", &[error], Attrs::default());
            copies.add("Flatten", &[pooled], Attrs::default())
        }
        _ => error,
    }
}

impl Bias {
    fn apply(&self, m: &mut Model) {
        let mean = self.sums.mean();
        let values = self.values.iter().zip(mean).map(|(bias, error)| bias - error);
        let tensor = Tensor::from_f32(&[self.values.len()], values.collect::<Vec<_>>());
        let name = m.operand(self.reader, self.index).map(|it| m.value(it).name.to_string());
        let value = m.add_constant(m.main, &name.unwrap_or_default(), tensor);
        m.set_input(self.reader, self.index, Some(value));
    }
}

/// The sum of each channel.
struct Sums {
    totals: Vec<FixedSum>,
    rows: u64,
}

impl Sums {
    fn new(channels: usize) -> Sums {
        Sums { totals: vec![FixedSum::default(); channels], rows: 0 }
    }

    fn mean(&self) -> Vec<f32> {
        self.totals.iter().map(|it| it.mean(self.rows) as f32).collect()
    }
}

impl Observe for Sums {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        for row in sample.values.chunks_exact(self.totals.len().max(1)) {
            self.rows += 1;
            self.totals.iter_mut().zip(row).for_each(|(total, it)| total.add(f64::from(*it)));
        }
        Ok(())
    }
}
