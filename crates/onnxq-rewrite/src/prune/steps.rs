//! The residual stream: a chain of sums, each of the stream and of something that is computed from it.
//!
//! ```text
//! pre-norm      s' = s + f(norm(s))
//! post-norm     s' = norm(s + f(s))
//! ```
//!
//! Between a sum and the next value of the stream no weight is multiplied; inside of `f` some are.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{Flow, Region};
use onnxq_ir::{NoMatch, NodeId, ValueId, no_match, tensor::Dim};

/// One sum of the chain.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The stream before it.
    pub from: ValueId,
    pub sum: ValueId,
    /// The stream after it: the sum, or its norm.
    pub to: ValueId,
    /// What is added to the stream.
    pub terms: Vec<ValueId>,
    pub attends: bool,
}

/// Nodes after a sum that are looked at for its norm; one that an exporter took apart has 9.
const LONGEST_NORM: usize = 32;

/// Values that one sum adds to the stream, and the stream itself.
const MOST_TERMS: usize = 8;

/// The chain with attention in it, in order.
pub(super) fn steps(flow: &Flow) -> Result<Vec<Step>, NoMatch> {
    let found: Vec<Step> = flow.m.nodes_of(flow.m.main).filter_map(|it| step(flow, it)).collect();
    if !found.iter().any(|it| it.attends) {
        return Err(no_match!("no sum adds an attention to what the attention reads"));
    }
    let mut chain = longest(flow, &found);
    let within = inside(flow, &chain);
    let outside = |it: &&Step| it.attends && !within.contains(&flow.producer(it.sum));
    if let Some(other) = found.iter().find(outside) {
        let name = &flow.m.value(other.sum).name;
        return Err(no_match!("the sum `{name}` with attention is outside of the longest chain"));
    }
    finish(flow, &mut chain)?;
    Ok(chain)
}

/// A sum of values of one shape, of which exactly one is what the others are computed from.
fn step(flow: &Flow, sum: NodeId) -> Option<Step> {
    if !is_sum(flow, sum) {
        return None;
    }
    let output = flow.m.node(sum).output();
    if flow.m.rank(output)? < 2 || absorbed(flow, output) {
        return None;
    }
    let mut terms = terms(flow, sum)?;
    let from = *terms.iter().find(|from| {
        let mut others = terms.iter().filter(|it| it != from);
        let follows = |it: &ValueId| {
            flow.has_product_between(**from, *it) && !flow.between(**from, *it).is_empty()
        };
        terms.len() > 1 && others.all(follows)
    })?;
    terms.retain(|it| *it != from);
    if !is_stream(flow, from, output) || !terms.iter().all(|it| is_stream(flow, *it, output)) {
        return None;
    }
    let regions: Vec<Region> = terms.iter().map(|it| flow.between(from, *it)).collect();
    let multiplied = regions.iter().all(|it| it.iter().any(|node| flow.multiplies(*node)));
    let attends = regions.iter().any(|it| flow.attends(it));
    multiplied.then_some(Step { from, sum: output, to: output, terms, attends })
}

/// The sums of a chain, and what is computed for them.
fn inside(flow: &Flow, chain: &[Step]) -> BTreeSet<Option<NodeId>> {
    let sums = chain.iter().map(|it| flow.producer(it.sum));
    let terms = chain.iter().flat_map(|step| step.terms.iter().map(|it| (step.from, *it)));
    let regions = terms.flat_map(|(from, term)| flow.between(from, term));
    sums.chain(regions.map(Some)).collect()
}

/// Whether a value can be of the stream that the sum is of: as wide, and of no other size.
pub(super) fn is_stream(flow: &Flow, value: ValueId, sum: ValueId) -> bool {
    let (Ok(a), Ok(b)) = (flow.m.shape(value), flow.m.shape(sum)) else { return false };
    let fits = |(a, b): (&Dim, &Dim)| a == b || a.fixed().is_none() || b.fixed().is_none();
    let width = |it: &[Dim]| it.last().and_then(Dim::fixed);
    a.len() == b.len() && width(a).is_some() && width(a) == width(b) && a.iter().zip(b).all(fits)
}

fn is_sum(flow: &Flow, node: NodeId) -> bool {
    let op = &flow.m.node(node).op;
    op.is("Add") || op.is("Sum")
}

/// Whether a sum is no more than a term of another one.
fn absorbed(flow: &Flow, sum: ValueId) -> bool {
    let Ok(user) = flow.m.only_use(sum) else { return false };
    let whole = || flow.m.shape(sum).ok() == flow.m.shape(flow.m.node(user).output()).ok();
    is_sum(flow, user) && flow.m.node(user).graph == flow.m.main && whole()
}

/// What a sum adds, those of sums that are its terms included; `None` if that is too much.
fn terms(flow: &Flow, sum: NodeId) -> Option<Vec<ValueId>> {
    let (mut terms, mut work) = (Vec::new(), vec![sum]);
    while let Some(node) = work.pop() {
        for value in flow.m.node(node).inputs.iter().copied().flatten() {
            match flow.producer(value) {
                Some(inner) if is_sum(flow, inner) && absorbed(flow, value) => work.push(inner),
                _ if flow.is_constant(value) => {}
                _ => terms.push(value),
            }
        }
        if terms.len() > MOST_TERMS || work.len() > MOST_TERMS {
            return None;
        }
    }
    Some(terms)
}

/// The chain with the most attention, then with the most sums.
fn longest(flow: &Flow, found: &[Step]) -> Vec<Step> {
    let at: BTreeMap<ValueId, usize> =
        found.iter().enumerate().map(|(at, it)| (it.sum, at)).collect();
    let before: Vec<Option<usize>> = found.iter().map(|it| previous(flow, it.from, &at)).collect();
    let mut length = vec![(0, 0); found.len()];
    for (index, it) in found.iter().enumerate() {
        let (attention, sums) = before[index].map_or((0, 0), |it| length[it]);
        length[index] = (attention + usize::from(it.attends), sums + 1);
    }
    let last = (0..found.len()).max_by_key(|it| length[*it]);
    let mut chain: Vec<usize> = std::iter::successors(last, |it| before[*it]).collect();
    chain.reverse();
    let mut chain: Vec<Step> = chain.into_iter().map(|it| found[it].clone()).collect();
    for at in 1..chain.len() {
        chain[at - 1].to = chain[at].from;
    }
    chain
}

/// The sum that a value of the stream is, or is the norm of: nothing is multiplied in between.
fn previous(flow: &Flow, from: ValueId, sums: &BTreeMap<ValueId, usize>) -> Option<usize> {
    let (mut found, mut seen, mut work) = (None, Vec::new(), vec![from]);
    while let Some(value) = work.pop() {
        if let Some(&at) = sums.get(&value) {
            if found.is_some_and(|it| it != at) {
                return None;
            }
            found = Some(at);
            continue;
        }
        let Some(node) = flow.producer(value).filter(|it| !flow.asks_size(*it)) else { continue };
        if seen.contains(&node) {
            continue;
        }
        if flow.multiplies(node) || seen.len() > LONGEST_NORM {
            return None;
        }
        seen.push(node);
        work.extend(flow.m.needs(node));
    }
    found
}

/// Says where the stream ends: after the last sum stands what stands after the others.
fn finish(flow: &Flow, chain: &mut [Step]) -> Result<(), NoMatch> {
    let [.., before, last] = chain else { return Ok(()) };
    let ops = |region: &Region| -> Vec<String> {
        region.iter().map(|it| flow.m.node(*it).op.to_string()).collect()
    };
    let norm = ops(&flow.between(before.sum, before.to));
    if norm.is_empty() {
        return Ok(());
    }
    let (mut near, mut work) = (Vec::new(), vec![last.sum]);
    while let Some(value) = work.pop() {
        for node in flow.readers(value) {
            if !flow.multiplies(node) && !near.contains(&node) && near.len() < LONGEST_NORM {
                near.push(node);
                work.extend(flow.m.node(node).outputs.iter().copied());
            }
        }
    }
    let mut ends = near.iter().map(|it| flow.m.node(*it).output());
    let end = ends.find(|it| ops(&flow.between(last.sum, *it)) == norm);
    last.to = end.ok_or_else(|| {
        let name = &flow.m.value(last.sum).name;
        no_match!("the last sum `{name}` is not followed by a norm as the others are")
    })?;
    Ok(())
}
