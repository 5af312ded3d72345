//! What hurts most: the loss at the outputs if one value alone were computed as in the reference.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Side,
    align::{Aligned, Pair},
    cut::{Region, maker, needed, region},
    limited,
    noise::{Noise, each, sqnr_db},
    stitched::{Runner, Stage, StitchedSession, finish},
};
use crate::{
    Error,
    search::evaluator::{Evaluator, with},
};
use onnxq_ir::{Model, NodeId, User, ValueId, ops::Traits, tensor::DType};
use onnxq_quant::{lower, raise::Weights};
use onnxq_report::document::LayerError;
use onnxq_run::calibrate::{Replacement, model_inputs};

/// Values that are tried: most have an error like all the others.
const BY_NOISE: usize = 12;
/// Further ones, where the error grows most.
const BY_GROWTH: usize = 4;
/// Outputs, which are tried in any case.
const OUTPUTS: usize = 4;

pub(super) struct Ranking<'a> {
    pub sides: &'a [Side<'a>; 2],
    pub aligned: &'a Aligned,
    pub evaluator: &'a Evaluator<'a>,
    pub noise: &'a Noise,
    /// Where each value of the reference, and of the candidate, stands among the pairs.
    known: [BTreeMap<ValueId, usize>; 2],
}

impl<'a> Ranking<'a> {
    pub(super) fn new(
        sides: &'a [Side<'a>; 2],
        aligned: &'a Aligned,
        evaluator: &'a Evaluator<'a>,
        noise: &'a Noise,
    ) -> Ranking<'a> {
        let known = [aligned.places(|it| it.reference), aligned.places(|it| it.candidate)];
        Ranking { sides, aligned, evaluator, noise, known }
    }

    /// Losses without the errors of the values that look worst.
    pub(super) fn losses(&self, loss: f64, threads: usize) -> Result<BTreeMap<usize, f64>, Error> {
        if loss <= 0.0 {
            return Ok(BTreeMap::new());
        }
        let list = self.shortlist();
        let run = |(): &mut (), at: usize| self.loss_without(list[at], &[]);
        let losses = each(threads, list.len(), || Ok(()), run)?;
        Ok(list.into_iter().zip(losses).collect())
    }

    fn shortlist(&self) -> Vec<usize> {
        let Noise { local, accumulated, feeds, .. } = self.noise;
        let mut list: Vec<usize> = (0..local.len()).filter(|it| local[*it] > 1e-12).collect();
        list.sort_by(|a, b| local[*b].total_cmp(&local[*a]).then(a.cmp(b)));
        let mut rest = list.split_off(list.len().min(BY_NOISE));
        let before = |it: usize| feeds[it].iter().map(|it| accumulated[*it]).fold(1e-12, f64::max);
        let growth = |it: usize| accumulated[it] / before(it);
        rest.sort_by(|a, b| growth(*b).total_cmp(&growth(*a)).then(a.cmp(b)));
        let outputs = self.outputs();
        let (last, rest): (Vec<usize>, Vec<usize>) =
            rest.into_iter().partition(|it| outputs.contains(it));
        list.extend(rest.into_iter().take(BY_GROWTH));
        list.extend(last);
        list
    }

    /// Outputs, the last ones: the same noise counts for more where nothing averages it any more,
    /// as in the head of a language model.
    fn outputs(&self) -> BTreeSet<usize> {
        let m = &self.sides[1].model;
        let places = m.graph(m.main).outputs.iter().filter_map(|it| self.known[1].get(it).copied());
        let all: BTreeSet<usize> = places.collect();
        all.into_iter().rev().take(OUTPUTS).collect()
    }

    /// The loss if the nodes of a pair, and only they, are the reference's, with these weights.
    pub(super) fn loss_without(&self, at: usize, replaced: &[Replacement]) -> Result<f64, Error> {
        let stitched = self.stitched(at, replaced)?;
        Ok(limited(self.evaluator.loss_in(&self.evaluator.compare_session(Box::new(stitched))?)))
    }

    /// The loss of the candidate if products of these nodes had a range for each row of their
    /// activations; `None` if no product there can.
    pub(super) fn loss_by_row(&self, region: &Region) -> Result<Option<f64>, Error> {
        let [reference, candidate] = self.sides;
        let mut model = candidate.model.clone();
        let mut weights = Weights::default();
        let mut changed = 0;
        for node in &region.nodes {
            if model.is_live(*node) && lower::by_row(&mut model, *node, &mut weights).is_ok() {
                changed += 1;
            }
        }
        if changed == 0 {
            return Ok(None);
        }
        model.remove_all_dead();
        let (files, runtime) = (candidate.files.clone(), candidate.runtime.clone());
        let side = Side { model, files, runtime };
        let inputs = model_inputs(&reference.model);
        let session = finish(&side, &[], Vec::new(), &|_| None, inputs)?;
        Ok(Some(limited(
            self.evaluator.loss_in(&self.evaluator.compare_session(Box::new(session))?),
        )))
    }

    /// The candidate up to this pair, the reference's nodes of it, the rest of the candidate.
    fn stitched(&self, at: usize, replaced: &[Replacement]) -> Result<StitchedSession, Error> {
        let [reference, candidate] = self.sides;
        let pairs = &self.aligned.pairs;
        let cut: Vec<ValueId> = pairs[..=at].iter().map(|it| it.candidate).collect();
        let feeds = self.region(at, 0).feeds;
        let mut brought = feeds.clone();
        brought.extend(needed(&candidate.model, &cut).into_iter().filter(|it| *it != at));
        let brought: Vec<usize> = brought.into_iter().collect();
        let place = |it: usize| brought.binary_search(&it).ok().map(|it| (0, it));
        let mut stages = Vec::new();
        if !brought.is_empty() {
            let wanted: Vec<ValueId> = brought.iter().map(|it| pairs[*it].candidate).collect();
            let runner = Runner::open(&candidate.model, candidate, &[], &wanted)?;
            stages.push(Stage { runner, cut: Vec::new() });
        }
        let model = with(&reference.model, replaced);
        let values: Vec<ValueId> = feeds.iter().map(|it| pairs[*it].reference).collect();
        let runner = Runner::open(&model, reference, &values, &[pairs[at].reference])?;
        let own = (stages.len(), 0);
        stages.push(Stage { runner, cut: feeds.iter().map(|it| place(*it)).collect() });
        let inputs = model_inputs(&reference.model);
        let place = |it: usize| if it == at { Some(own) } else { place(it) };
        finish(candidate, &cut, stages, &place, inputs)
    }

    /// What computes a pair in the reference (0) or the candidate (1).
    pub(super) fn region(&self, at: usize, side: usize) -> Region {
        let of = [|it: &Pair| it.reference, |it: &Pair| it.candidate][side];
        region(&self.sides[side].model, of(&self.aligned.pairs[at]), &self.known[side])
    }

    /// The rows of the report, in the order of execution.
    pub(super) fn layers(&self, losses: &BTreeMap<usize, f64>) -> Vec<LayerError> {
        let mut list: Vec<LayerError> =
            (0..self.aligned.pairs.len()).map(|at| self.layer(at, losses)).collect();
        let mut order: Vec<usize> = (0..list.len()).collect();
        let loss = |at: usize| losses.get(&at).copied().unwrap_or(f64::INFINITY);
        let local = &self.noise.local;
        order.sort_by(|a, b| {
            let by_noise = local[*b].total_cmp(&local[*a]);
            loss(*a).total_cmp(&loss(*b)).then(by_noise).then(a.cmp(b))
        });
        for (rank, at) in order.into_iter().enumerate() {
            list[at].rank = rank + 1;
        }
        list
    }

    fn layer(&self, at: usize, losses: &BTreeMap<usize, f64>) -> LayerError {
        let m = &self.sides[1].model;
        let value = self.aligned.pairs[at].candidate;
        let region = self.region(at, 1);
        let (node, op) = named(m, value, &region);
        LayerError {
            node,
            op,
            value: m.value(value).name.to_string(),
            quantized: self.is_quantized(at, &region),
            local_sqnr_db: sqnr_db(self.noise.local[at]),
            accumulated_sqnr_db: sqnr_db(self.noise.accumulated[at]),
            loss_without: losses.get(&at).copied(),
            rank: 0,
            inputs: self.noise.feeds[at].iter().copied().collect(),
            reference_range: self.noise.ranges[at][0].interval(),
            candidate_range: self.noise.ranges[at][1].interval(),
            ..LayerError::default()
        }
    }

    fn is_quantized(&self, at: usize, region: &Region) -> bool {
        let [reference, candidate] = self.sides;
        let m = &candidate.model;
        let is_half = |m: &Model, it: ValueId| {
            m.dtype(it).is_some_and(|it| matches!(it, DType::F16 | DType::BF16))
        };
        let narrower =
            |it| is_half(m, it) && !is_half(&reference.model, self.aligned.pairs[at].reference);
        let is_narrow = |it: &ValueId| {
            let bits = m.dtype(*it).map_or(0, |it| if it == DType::Bool { 0 } else { it.bits() });
            (1..=8).contains(&bits) || narrower(*it)
        };
        region.constants.iter().any(is_narrow)
            || narrower(self.aligned.pairs[at].candidate)
            || region.nodes.iter().any(|it| is_quantized_op(&m.node(*it).op.name))
    }
}

/// Operators of quantized values, by their names: every tool has some of its own.
pub(super) fn is_quantized_op(name: &str) -> bool {
    ["Quant", "QLinear", "QGemm", "QAttention", "NBits", "Integer"]
        .iter()
        .any(|it| name.contains(it))
}

/// What users call the nodes that compute a value from the `known` ones, and the operator.
pub(super) fn layer_node(
    m: &Model,
    value: ValueId,
    known: &BTreeMap<ValueId, usize>,
) -> (String, String) {
    named(m, value, &region(m, value, known))
}

fn named(m: &Model, value: ValueId, region: &Region) -> (String, String) {
    let node = main_node(m, region).map(|it| reader(m, it, region));
    let Some(node) = node.or_else(|| Some(computer(m, maker(m, value)?, region))) else {
        return Default::default();
    };
    (m.node_label(node), m.node(node).op.to_string())
}

/// What only says how numbers are stored: nobody calls a layer by that.
fn is_storage(m: &Model, node: NodeId) -> bool {
    const STORED: Traits = Traits::CAST.union(Traits::DEQUANTIZE).union(Traits::QUANTIZE);
    m.node(node).op.has(STORED.union(Traits::COPY).union(Traits::REARRANGE))
}

/// The node of the region that computes with what `node` makes of a constant.
fn reader(m: &Model, node: NodeId, region: &Region) -> NodeId {
    let next = |it: &NodeId| {
        let [only] = m.value(*m.node(*it).outputs.first()?).uses[..] else { return None };
        let User::Node(user) = only.user else { return None };
        (is_fixed(m, *it, 4) && region.nodes.contains(&user)).then_some(user)
    };
    let last = std::iter::successors(Some(node), next).last().unwrap_or(node);
    if is_fixed(m, last, 4) { node } else { last }
}

/// Whether a node unpacks a constant, maybe in several steps.
fn is_fixed(m: &Model, node: NodeId, steps: usize) -> bool {
    let mut inputs = m.node(node).inputs.iter().flatten();
    let unpacked = |it| maker(m, it).is_some_and(|it| steps > 0 && is_fixed(m, it, steps - 1));
    inputs.all(|it| m.constant(*it).is_ok() || unpacked(*it))
}

/// The node of the region whose result `node` unpacks.
fn computer(m: &Model, node: NodeId, region: &Region) -> NodeId {
    let next = |it: &NodeId| {
        let before = maker(m, m.operand(*it, 0).ok()?)?;
        (is_storage(m, *it) && region.nodes.contains(&before)).then_some(before)
    };
    let last = std::iter::successors(Some(node), next).last().unwrap_or(node);
    if is_storage(m, last) { node } else { last }
}

/// The node with the largest constant: what users call the layer.
fn main_node(m: &Model, region: &Region) -> Option<NodeId> {
    let weight = |node: &NodeId| {
        let inputs = m.node(*node).inputs.iter().flatten();
        inputs.filter_map(|it| Some(m.constant(*it).ok()?.nbytes())).max()
    };
    let nodes: BTreeSet<(usize, std::cmp::Reverse<NodeId>)> =
        region.nodes.iter().filter_map(|it| Some((weight(it)?, std::cmp::Reverse(*it)))).collect();
    nodes.last().filter(|it| it.0 > 64).map(|it| it.1.0)
}
