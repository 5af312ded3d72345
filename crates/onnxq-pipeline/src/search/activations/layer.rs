//! Activations that choose how they are quantized, and what each candidate takes and loses.

use std::collections::BTreeMap;

use onnxq_ir::{Model, NoMatch, NodeId, ValueId};
use onnxq_numerics::observe::ObserverSpec;
use onnxq_quant::{
    budget::Choice,
    cost::Product,
    ops::{Weight, rows},
    plan::{Activation, SitePlan},
    recipe::{ActivationSpec, AdaptSpec},
};

/// Sites that read one activation: they choose together.
pub(super) struct Layer {
    /// The activation.
    pub x: ValueId,
    pub kind: Weight,
    /// Indices into the plan's sites, and their nodes.
    pub sites: Vec<usize>,
    pub nodes: Vec<NodeId>,
    /// Of all sites as one product.
    extent: Product,
    /// The fastest first.
    pub candidates: Vec<Candidate>,
    /// Rows of the activation in all samples.
    pub rows: u64,
    /// How many times the largest row maximum is as large as the mean of all, at most.
    pub row_ratio: f64,
}

pub(super) struct Candidate {
    /// For each site of the layer; `None`: it stays as it is.
    pub plans: Vec<Option<SitePlan>>,
    /// Predicted, per row, in picoseconds.
    pub time: u64,
    /// Of the weights in the file.
    pub bytes: u64,
    /// For each site of the layer: the power of the error in proportion to that of the output, mean
    /// over rows.
    pub errors: Vec<f64>,
    /// What the model's outputs lose if this activation alone is quantized, by this candidate.
    /// Until that is measured: the sum of `errors`.
    pub loss: f64,
}

/// Picoseconds that a byte of a file is worth per sample: what reading it takes ten times, once for
/// the sample and then for tokens that are made one by one.
const BYTE: u64 = 700;

impl Layer {
    pub(super) fn choices(&self, samples: u64) -> Vec<Choice> {
        let price = |it: &Candidate| it.time * self.rows.max(1) + it.bytes * BYTE * samples;
        self.candidates.iter().map(|it| Choice { price: price(it), loss: it.loss }).collect()
    }

    /// Whether the two are alike but for their place in the model.
    pub(super) fn is_like(&self, other: &Layer) -> bool {
        let names = |it: &Layer| it.candidates.iter().map(Candidate::name).collect::<Vec<_>>();
        self.kind == other.kind
            && self.extent == other.extent
            && self.sites.len() == other.sites.len()
            && names(self) == names(other)
    }

    /// The losses of the first candidates, and with them those of the others: in proportion to
    /// errors.
    pub(super) fn set_losses(&mut self, known: &[f64]) {
        let per_error = known[0] / self.candidates[0].error().max(f64::MIN_POSITIVE);
        let last = known.last().copied().unwrap_or_default();
        for (at, candidate) in self.candidates.iter_mut().enumerate() {
            candidate.loss = match known.get(at) {
                _ if !candidate.is_quantized() => 0.0,
                Some(it) => *it,
                // A slower candidate is at least as good as the last that was worth measuring.
                None if known.len() > 1 => last.min(per_error * candidate.error()),
                None => per_error * candidate.error(),
            };
        }
    }

    /// The fastest candidate whose worst site is off by at most so much (rms); else the best.
    pub(super) fn within(&self, limit: f64) -> usize {
        let best = || {
            let by_error = |a: &usize, b: &usize| {
                self.candidates[*a].worst().total_cmp(&self.candidates[*b].worst())
            };
            (0..self.candidates.len()).min_by(by_error).unwrap_or(0)
        };
        self.candidates.iter().position(|it| it.worst().sqrt() <= limit).unwrap_or_else(best)
    }
}

impl Candidate {
    pub(super) fn activation(&self) -> Option<Activation> {
        self.plans[0].as_ref().and_then(|it| it.activation)
    }

    /// The errors of all its sites together.
    pub(super) fn error(&self) -> f64 {
        self.errors.iter().sum()
    }

    pub(super) fn is_quantized(&self) -> bool {
        self.plans.iter().any(Option::is_some)
    }

    /// The error of the site that is off the most.
    pub(super) fn worst(&self) -> f64 {
        self.errors.iter().copied().fold(0.0, f64::max)
    }

    /// `static`, `static mse`, `tensor`, `row`; in float, `stored` if the weight is quantized and
    /// `float` if not.
    pub(super) fn name(&self) -> String {
        let Some(plan) = &self.plans[0] else { return "float".into() };
        let name = match plan.activation {
            Some(Activation::Static) if plan.quantized.observer != ObserverSpec::default() => {
                return format!("static {}", plan.quantized.observer.name());
            }
            Some(Activation::Static) => "static",
            Some(Activation::DynamicPerTensor) => "tensor",
            Some(Activation::DynamicPerToken) => "row",
            None => "stored",
        };
        name.into()
    }
}

/// The activations that have more than one candidate, in the order of their first reader.
pub(super) fn find(m: &Model, sites: &[SitePlan], spec: &AdaptSpec) -> Vec<Layer> {
    let mut groups: Vec<(ValueId, Vec<usize>)> = Vec::new();
    let mut of: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (at, site) in sites.iter().enumerate() {
        if matches!(site.site.kind, Weight::Gather | Weight::Recurrent) {
            continue;
        }
        let Ok(x) = m.operand(site.site.node, 0) else { continue };
        // What looks at values sees those of the main graph.
        if m.node(site.site.node).graph != m.main {
            continue;
        }
        let is_product = matches!(site.site.kind, Weight::MatMul | Weight::Batched(_));
        match of.get(&x).filter(|_| is_product) {
            Some(group) => groups[*group].1.push(at),
            None => {
                of.insert(x, groups.len());
                groups.push((x, vec![at]));
            }
        }
    }
    let layer = |(x, group): (ValueId, Vec<usize>)| {
        let own: Vec<&SitePlan> = group.iter().map(|it| &sites[*it]).collect();
        let (kind, extent) = (own[0].site.kind, extent(m, &own));
        let candidates = candidates(m, &own, extent, spec);
        let nodes = own.iter().map(|it| it.site.node).collect();
        Layer { x, kind, sites: group, nodes, extent, candidates, rows: 0, row_ratio: 1.0 }
    };
    groups.into_iter().map(layer).filter(|it| it.candidates.len() > 1).collect()
}

fn candidates(m: &Model, own: &[&SitePlan], extent: Product, spec: &AdaptSpec) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    // What the recipe computes in float is not made of integers again.
    let is_float = own.iter().any(|it| it.activation.is_none());
    for candidate in &spec.candidates {
        if is_float && candidate.activation != ActivationSpec::Float {
            continue;
        }
        let plans: Result<Vec<Option<SitePlan>>, NoMatch> =
            own.iter().map(|it| candidate.of(m, it)).collect();
        let Ok(plans) = plans else { continue };
        let key = |it: &Option<SitePlan>| {
            it.as_ref().map(|it| (it.activation, it.format.name, it.quantized.observer.name()))
        };
        if candidates.iter().any(|it| it.plans.iter().map(key).eq(plans.iter().map(key))) {
            continue;
        }
        let time = extent.time(plans[0].as_ref().and_then(|it| it.activation));
        let bytes = extent.k * extent.n * if plans[0].is_some() { 1 } else { 4 };
        candidates.push(Candidate { plans, time, bytes, errors: vec![0.0; own.len()], loss: 0.0 });
    }
    candidates
}

/// The sites of a layer as one product: each row of the activation meets all of their columns.
fn extent(m: &Model, own: &[&SitePlan]) -> Product {
    let shapes = own.iter().filter_map(|it| {
        let tensor = m.constant(it.site.weight).ok()?;
        let shape = rows(&it.site, tensor).shape;
        Some((shape[0] as u64, shape[1..].iter().product::<usize>() as u64))
    });
    shapes.fold(Product { k: 0, n: 0 }, |sum, (n, k)| Product { k, n: sum.n + n })
}
