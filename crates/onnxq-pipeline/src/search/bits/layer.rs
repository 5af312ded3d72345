//! Weights that choose how they are stored: what each candidate takes and how far it is off.

use std::{collections::BTreeMap, sync::Arc};

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::{Error, Inputs, Planned};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    tensor::{Packing, Part, QSource, ZeroPoints},
};
use onnxq_numerics::{
    error::{OutputError, output_error},
    scheme::{Granularity, Scales},
    solve::SolverSpec,
    stats::{InputStats, Needs},
};
use onnxq_quant::{
    budget::Choice,
    format::ggml,
    ops::{Weight, rows},
    plan::SitePlan,
    recipe::{Recipe, WeightSpec, WeightType, resolve},
    sources::Sources,
    tied,
    weight::{Input, StoreError},
    window::Operand,
};
use onnxq_run::calibrate::{Collector, Want, observable};

/// A weight, and the sites that use it: they choose together.
pub(super) struct Layer {
    /// Indices into the plan's sites.
    pub sites: Vec<usize>,
    pub nodes: Vec<String>,
    pub elements: u64,
    pub candidates: Vec<Candidate>,
}

/// A candidate: how to store a weight.
pub(super) struct Candidate {
    /// As plans show it.
    pub name: String,
    /// For each site of the layer.
    pub plans: Vec<SitePlan>,
    pub sources: Vec<Arc<dyn QSource>>,
    pub bytes: u64,
    /// The squared error of the weight's outputs in proportion to them, summed over the sites.
    pub error: f64,
}

impl Layer {
    /// The candidates whose losses are measured: that with the largest error, and, where that has
    /// so few bits that its loss says little of small errors, the same of the others.
    pub(super) fn probes(&self) -> Vec<usize> {
        let coarsest = |is_few: bool| {
            let own = |it: &usize| self.candidates[*it].has_few_bits() == is_few;
            let by_error = |a: &usize, b: &usize| {
                self.candidates[*a].error.total_cmp(&self.candidates[*b].error).then(b.cmp(a))
            };
            (0..self.candidates.len()).filter(own).max_by(by_error)
        };
        coarsest(true).into_iter().chain(coarsest(false)).collect()
    }

    /// Bytes and losses, given which candidates were measured and what they lose.
    pub(super) fn choices(&self, probes: &[(usize, f64)]) -> Vec<Choice> {
        let choice = |(at, it): (usize, &Candidate)| {
            let (probe, loss) = self.probe_of(probes, at);
            let of_probe = self.candidates[probe].error;
            let share = if of_probe > 0.0 { it.error / of_probe } else { 0.0 };
            Choice { price: it.bytes, loss: loss * share }
        };
        self.candidates.iter().enumerate().map(choice).collect()
    }

    /// The measured candidate that says what another loses, and its loss.
    pub(super) fn probe_of(&self, probes: &[(usize, f64)], candidate: usize) -> (usize, f64) {
        let has_few_bits = |at: usize| self.candidates[at].has_few_bits();
        let alike = probes.iter().find(|it| has_few_bits(it.0) == has_few_bits(candidate));
        *alike.expect("each class has its probe")
    }

    /// The candidates whose losses follow from small errors; all of them if there is none.
    pub(super) fn fine(&self) -> Vec<usize> {
        let all = 0..self.candidates.len();
        let fine: Vec<usize> =
            all.clone().filter(|it| !self.candidates[*it].has_few_bits()).collect();
        if fine.is_empty() { all.collect() } else { fine }
    }
}

/// What to choose from if the recipe does not say.
fn default_candidates() -> Vec<WeightSpec> {
    let of = |dtype, block| WeightSpec {
        dtype: Some(dtype),
        granularity: Some(Granularity::Block(block)),
        ..WeightSpec::default()
    };
    let halves = |it| WeightSpec { scales: Some(Scales::Float16), ..it };
    vec![
        of(WeightType::Uint2, 64),
        of(WeightType::Uint2, 32),
        of(WeightType::Uint4, 128),
        of(WeightType::Uint4, 32),
        of(WeightType::Uint8, 128),
        halves(of(WeightType::Uint8, 32)),
    ]
}

/// The weights of formats that leave activations in float, in the order of their nodes.
pub(super) fn find(planned: &Planned, recipe: &Recipe, external: bool) -> Vec<Layer> {
    let (m, sites) = (&planned.model, &planned.plan.sites);
    let specs = match &recipe.mixed {
        Some(it) => it.candidates.clone(),
        None => default_candidates(),
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, site) in sites.iter().enumerate().filter(|it| it.1.activation.is_none()) {
        let one = |it: &&mut Vec<usize>| Sources::share_weight(m, &sites[it[0]], site);
        match groups.iter_mut().find(one) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    let layer = |group: Vec<usize>| {
        let own: Vec<&SitePlan> = group.iter().map(|it| &sites[*it]).collect();
        let mut candidates: Vec<Candidate> = Vec::new();
        for spec in &specs {
            let Some(plans) = own.iter().map(|it| laid_over(m, it, spec)).collect() else {
                continue;
            };
            let candidate = candidate(m, plans, external);
            if candidates.iter().all(|it| !same(&it.plans, &candidate.plans)) {
                candidates.push(candidate);
            }
        }
        let nodes = own.iter().map(|it| m.node_label(it.site.node)).collect();
        let elements = m.constant(own[0].site.weight).map_or(0, |it| it.numel()) as u64;
        Layer { sites: group, nodes, elements, candidates }
    };
    groups.into_iter().map(layer).filter(|it| !it.candidates.is_empty()).collect()
}

/// The site with what the candidate says; `None` if its format cannot store that.
fn laid_over(m: &Model, site: &SitePlan, spec: &WeightSpec) -> Option<SitePlan> {
    let (wanted, scales) = spec.over(site.scheme, site.scales);
    site.format.holds(&wanted).ok()?;
    let scheme = (site.format.scheme)(wanted, None).ok()?;
    let columns = rows(&site.site, m.constant(site.site.weight).ok()?).shape[1];
    let (scheme, other) = (site.format.fitted)(scheme, columns).ok()?;
    let (scales, note) = resolve::scales(m, &site.site, site.format, &scheme, scales);
    let note = other.or(note);
    let solver = spec.solver.unwrap_or(site.solver);
    Some(SitePlan { scheme, scales, solver, note: note.or(site.note.clone()), ..site.clone() })
}

fn same(a: &[SitePlan], b: &[SitePlan]) -> bool {
    let key = |it: &SitePlan| (it.scheme, it.scales, it.solver);
    a.iter().map(key).eq(b.iter().map(key))
}

fn candidate(m: &Model, plans: Vec<SitePlan>, external: bool) -> Candidate {
    let name = plans[0].scheme_name();
    let bytes = stored(m, &plans, external);
    Candidate { name, bytes, plans, sources: Vec::new(), error: 0.0 }
}

/// Bytes of all parts that are stored for a weight: equal ones once.
fn stored(m: &Model, plans: &[SitePlan], external: bool) -> u64 {
    if let Some(ggml) = ggml(&plans[0].scheme).filter(|_| plans[0].format.is_gguf()) {
        // A table and the head that is tied to it are one tensor.
        let shape = Sources::shape(m, &plans[0]);
        return ggml.row_bytes(shape.k) * shape.n as u64;
    }
    let mut parts: Vec<(usize, Part, Packing)> = Vec::new();
    let mut total = 0;
    for (at, it) in plans.iter().enumerate() {
        let source = plans.iter().position(|other| Sources::are_one(m, other, it)).unwrap_or(at);
        let shape = Sources::shape(m, it);
        let is_table = it.site.kind == Weight::Gather;
        let packing = if is_table { Packing::Gather } else { Packing::NBits };
        // GatherBlockQuantized states its zero points even where they are in the middle.
        let zero_points = (is_table || it.scheme.zero_points == ZeroPoints::Asymmetric)
            .then_some(Part::ZeroPoints);
        for part in [Part::Quantized, Part::Scales].into_iter().chain(zero_points) {
            let (dtype, dims) = packing.layout(shape, part);
            let bytes = (dims.iter().product::<usize>() * dtype.bits()).div_ceil(8);
            let shared = part != Part::Quantized || external || bytes >= tied::WORTH;
            let key = (source, part, if shared { packing.canonical(shape, part) } else { packing });
            if !parts.contains(&key) {
                parts.push(key);
                total += bytes as u64;
            }
        }
    }
    total
}

/// Solves each weight by all its candidates, with the statistics of its input in memory, and
/// measures how far they are off.
pub(super) fn solve(
    planned: &Planned,
    layers: &mut [Layer],
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<(), Error> {
    let m = &planned.model;
    let wants = wants(m, layers);
    let mut solving = Solving { m, sources: Sources::default() };
    if !wants.is_empty() {
        let batches = inputs.batches(m)?;
        let values: Vec<Operand> = wants.iter().map(|it| it.operand.clone()).collect();
        let run = inputs.run(m, &planned.files, batches);
        let mut collector = Collector::new(run, wants, None)?;
        while let Some(inputs) = collector.next(&[], ctx)? {
            for it in inputs {
                solving.all(layers, |own| own == Some(&it.operand), it.stats.first())?;
            }
        }
        // Tables last: one that is also a head takes what the head's solver made of it.
        return solving.all(layers, |it| it.is_none_or(|it| !values.contains(it)), None);
    }
    solving.all(layers, |_| true, None)
}

fn wants(m: &Model, layers: &[Layer]) -> Vec<Want> {
    let mut wants: BTreeMap<Operand, Needs> = BTreeMap::new();
    for plan in layers.iter().flat_map(|it| &it.candidates).flat_map(|it| &it.plans) {
        let Ok(Some(operand)) = observable(m, plan) else { continue };
        // Without any need of the solver's, errors are still weighed by the inputs.
        let needs = wants.entry(operand).or_insert(Needs::Diagonal);
        *needs = plan.needs(m).max(*needs);
    }
    wants.into_iter().map(|(operand, needs)| Want::of(operand, needs)).collect()
}

struct Solving<'a> {
    m: &'a Model,
    sources: Sources,
}

impl Solving<'_> {
    /// All candidates of the sites whose input is selected.
    fn all(
        &mut self,
        layers: &mut [Layer],
        selected: impl Fn(Option<&Operand>) -> bool,
        stats: Option<&InputStats>,
    ) -> Result<(), Error> {
        let mut inputs: Vec<(SolverSpec, Arc<Input>)> = Vec::new();
        for candidate in layers.iter_mut().flat_map(|it| &mut it.candidates) {
            for at in 0..candidate.plans.len() {
                let plan = &candidate.plans[at];
                if selected(plan.operand(self.m).ok().flatten().as_ref()) {
                    let source = self.source(plan, stats, &mut inputs)?;
                    candidate.error += relative_error(self.m, plan, &*source, stats)?;
                    candidate.put(at, source);
                }
            }
        }
        Ok(())
    }

    fn source(
        &mut self,
        plan: &SitePlan,
        stats: Option<&InputStats>,
        inputs: &mut Vec<(SolverSpec, Arc<Input>)>,
    ) -> Result<Arc<dyn QSource>, Error> {
        if self.sources.contains(self.m, plan) {
            return Ok(self.sources.get(self.m, plan));
        }
        let known = inputs.iter().find(|it| it.0 == plan.solver).map(|it| it.1.clone());
        let input = match (known, stats) {
            (Some(input), _) => Some(input),
            (None, None) => None,
            (None, Some(stats)) => {
                let prepared = plan.solver.solver().prepare(stats)?;
                let input = Arc::new(Input { stats: stats.clone(), prepared });
                inputs.push((plan.solver, input.clone()));
                Some(input)
            }
        };
        Ok(self.sources.solve(self.m, plan, input.into_iter().collect())?)
    }
}

impl Candidate {
    /// Errors of two and three bits are not small: losses no longer follow their squares.
    fn has_few_bits(&self) -> bool {
        self.plans.iter().any(|it| it.scheme.bits < 4)
    }

    /// Sites come in the order of what they read, not in that of the layer.
    fn put(&mut self, at: usize, source: Arc<dyn QSource>) {
        if self.sources.is_empty() {
            self.sources = vec![source.clone(); self.plans.len()];
        }
        self.sources[at] = source;
    }
}

/// Rows that are measured at once: the same for any number of threads, so that sums are.
const TILE: usize = 128;

/// The squared error of the output in proportion to the squared output.
fn relative_error(
    m: &Model,
    plan: &SitePlan,
    source: &dyn QSource,
    stats: Option<&InputStats>,
) -> Result<f64, Error> {
    let tensor = m.constant(plan.site.weight).expect("planned weights are constant");
    let float = rows(&plan.site, tensor);
    let (n, k) = (float.shape[0], float.shape[1]);
    let starts: Vec<usize> = (0..n).step_by(TILE).collect();
    let errors = starts.par_iter().map(|&start| {
        let tile = start..(start + TILE).min(n);
        let values = float.rows_f32(tile.clone())?;
        let view = ArrayView2::from_shape((tile.len(), k), &values).expect("rows of k values");
        Ok(output_error(view, &source.solve(tile)?, stats))
    });
    let errors: Vec<OutputError> = errors.collect::<Result<_, StoreError>>()?;
    let sum = |of: fn(&OutputError) -> f64| errors.iter().map(of).sum::<f64>();
    let signal = sum(|it| it.signal);
    Ok(if signal > 0.0 { sum(|it| it.error) / signal } else { 0.0 })
}
