//! Activations that choose how they are quantized, and what each way takes and loses.

use std::collections::BTreeMap;

use crate::{
    ir::{GraphId, Model, NoMatch, ValueId},
    quant::{
        budget::Choice,
        cost::Product,
        ops::{Weight, rows},
        plan::{Activation, SitePlan},
    },
    recipe::AdaptSpec,
};

/// Sites that read one activation: they choose together.
pub(super) struct Unit {
    /// The activation.
    pub x: ValueId,
    /// Indices into the plan's sites.
    pub sites: Vec<usize>,
    /// The fastest first.
    pub ways: Vec<Way>,
    /// Rows of the activation in all samples.
    pub rows: u64,
    /// How many times the largest row maximum is as large as the mean of all, at most.
    pub row_ratio: f64,
}

pub(super) struct Way {
    /// For each site of the unit.
    pub plans: Vec<SitePlan>,
    /// Predicted, per row, in picoseconds.
    pub time: u64,
    /// For each site of the unit: the power of the error in proportion to that of the output,
    /// mean over rows.
    pub errors: Vec<f64>,
}

impl Unit {
    pub fn choices(&self) -> Vec<Choice> {
        let choice = |it: &Way| Choice { price: it.time * self.rows, loss: it.loss() };
        self.ways.iter().map(choice).collect()
    }

    /// The fastest way whose worst site is off by at most so much (rms); else the best.
    pub fn within(&self, limit: f64) -> usize {
        let fits = |it: &Way| it.worst().sqrt() <= limit;
        let best = || {
            let by_loss =
                |a: &usize, b: &usize| self.ways[*a].loss().total_cmp(&self.ways[*b].loss());
            (0..self.ways.len()).min_by(by_loss).unwrap_or(0)
        };
        self.ways.iter().position(fits).unwrap_or_else(best)
    }
}

impl Way {
    pub fn activation(&self) -> Option<Activation> {
        self.plans[0].activation
    }

    pub fn loss(&self) -> f64 {
        self.errors.iter().sum()
    }

    pub fn worst(&self) -> f64 {
        self.errors.iter().copied().fold(0.0, f64::max)
    }
}

/// The activations that have more than one way, in the order of their first reader.
pub(super) fn find(m: &Model, sites: &[SitePlan], spec: &AdaptSpec) -> Vec<Unit> {
    let mut groups: Vec<(ValueId, Vec<usize>)> = Vec::new();
    let mut of: BTreeMap<(GraphId, ValueId), usize> = BTreeMap::new();
    for (at, site) in sites.iter().enumerate().filter(|it| it.1.site.kind != Weight::Gather) {
        let Ok(x) = m.operand(site.site.node, 0) else { continue };
        // What looks at values sees those of the main graph.
        if m.node(site.site.node).graph != m.main {
            continue;
        }
        let is_product = site.site.kind == Weight::MatMul;
        match of.get(&(m.main, x)).filter(|_| is_product) {
            Some(group) => groups[*group].1.push(at),
            None => {
                of.insert((m.main, x), groups.len());
                groups.push((x, vec![at]));
            }
        }
    }
    let unit = |(x, group): (ValueId, Vec<usize>)| {
        let own: Vec<&SitePlan> = group.iter().map(|it| &sites[*it]).collect();
        let ways = ways(m, &own, spec);
        Unit { x, sites: group, ways, rows: 0, row_ratio: 1.0 }
    };
    groups.into_iter().map(unit).filter(|it| it.ways.len() > 1).collect()
}

fn ways(m: &Model, own: &[&SitePlan], spec: &AdaptSpec) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    for way in &spec.ways {
        let plans: Result<Vec<SitePlan>, NoMatch> = own.iter().map(|it| way.of(m, it)).collect();
        let Ok(plans) = plans else { continue };
        let known = |it: &Way| {
            let key = |it: &SitePlan| (it.activation, it.format.name);
            it.plans.iter().map(key).eq(plans.iter().map(key))
        };
        if ways.iter().any(known) {
            continue;
        }
        let time = extent(m, own).time(plans[0].activation);
        ways.push(Way { plans, time, errors: vec![0.0; own.len()] });
    }
    ways
}

/// The sites of a unit as one product: each row of the activation meets all of their columns.
fn extent(m: &Model, own: &[&SitePlan]) -> Product {
    let shapes = own.iter().filter_map(|it| {
        let tensor = m.constant(it.site.weight).ok()?;
        let shape = rows(&it.site, tensor).shape;
        Some((shape[0] as u64, shape[1..].iter().product::<usize>() as u64))
    });
    shapes.fold(Product { k: 0, n: 0 }, |sum, (n, k)| Product { k, n: sum.n + n })
}
