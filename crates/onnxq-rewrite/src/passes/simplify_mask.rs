//! A causal mask with padding, however an exporter computes it, becomes a few nodes.
//!
//! Exporters write 15 to 40 small nodes for the same mask, each in another way, so its nodes say
//! little. What it *is* shows in what it computes: the part of the graph between the model's
//! inputs and the mask is evaluated for batches, lengths and pasts, longer than any number in it,
//! and for paddings on both sides and in between. Only if every element that a query with any key
//! sees is as expected, the mask is replaced:
//!
//! ```text
//! query i of n after a past of p sees key j      if j ≤ p + i and the padding mask has 1 at j
//! ```
//!
//! The mask may be added to a bias: then each number must be that of the new mask.
//! Without padding and past the attention itself masks (`is_causal`), without a mask.

mod build;
mod probe;

pub(crate) use self::build::build;
use self::probe::Probe;
use crate::{
    Pass, PassError, nodes_in_main,
    rules::{pair, sized},
    trace,
};
use onnxq_ir::{
    Def, Model, NoMatch, NodeId, User, ValueId,
    ctx::Ctx,
    no_match,
    tensor::{DType, Dim},
};

pub(super) const SIMPLIFY_MASK: Pass = Pass {
    name: "simplify-mask",
    help: "compute the causal mask of Attention, if it is one, in the fewest nodes",
    limited: true,
    run,
};

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut done = 0;
    let mut tried: Vec<ValueId> = Vec::new();
    for node in nodes_in_main(model) {
        if done == ctx.max_rewrites || !model.is_live(node) || !model.node(node).op.is("Attention")
        {
            continue;
        }
        for mask in masks(model, node) {
            if tried.contains(&mask) {
                continue;
            }
            tried.push(mask);
            match simplify(model, node, mask) {
                Ok(()) => {
                    done += 1;
                    break;
                }
                Err(reason) => trace(ctx, SIMPLIFY_MASK.name, &model.node_label(node), &reason.0),
            }
        }
    }
    Ok(done)
}

/// The mask of an attention, and if it is a sum its terms, one of which may be a bias.
fn masks(m: &Model, node: NodeId) -> Vec<ValueId> {
    let Ok(mask) = m.operand(node, 3) else { return Vec::new() };
    let terms = m.producer(mask, "Add").and_then(|it| pair(m, it));
    std::iter::once(mask).chain(terms.into_iter().flat_map(|(a, b)| [a, b])).collect()
}

fn simplify(m: &mut Model, node: NodeId, mask: ValueId) -> Result<(), NoMatch> {
    let site = Site::of_mask(m, node, mask)?;
    let nodes = site.prove(m)?;
    if nodes <= build::NODES && !site.needs_no_mask() {
        return Err(no_match!("the mask takes only {nodes} nodes"));
    }
    build(m, &site);
    Ok(())
}

/// A mask and those who use it.
pub(crate) struct Site {
    pub mask: ValueId,
    /// Attentions, or the sums of which the mask is a term.
    pub users: Vec<NodeId>,
    /// Each number must stay as it is: what else is in the sum is not known.
    pub is_term: bool,
    pub batch: Dim,
    pub length: Dim,
    /// The query, whose axis 0 is the batch, and its axis of the length.
    pub query: (ValueId, usize),
    /// Keys of earlier tokens, `[batch, groups, past, size]`.
    pub past: Option<ValueId>,
    /// The input whose values the mask depends on, `[batch, total]`.
    pub padding: Option<ValueId>,
}

impl Site {
    pub(crate) fn of(m: &Model, node: NodeId) -> Result<Site, NoMatch> {
        Site::of_mask(m, node, m.operand(node, 3)?)
    }

    /// Of the mask of `node`, or of a term of it.
    fn of_mask(m: &Model, node: NodeId, mask: ValueId) -> Result<Site, NoMatch> {
        let q = m.operand(node, 0)?;
        let (batch, length, axis) = match &m.shape(q)?[..] {
            [batch, length, _] => (batch.clone(), length.clone(), 1),
            [batch, _, length, _] => (batch.clone(), length.clone(), 2),
            _ => return Err(no_match!("the query has no length")),
        };
        if m.dtype(mask) != Some(DType::F32) {
            return Err(no_match!("the mask is not of floats"));
        }
        if m.int_attr(node, "is_causal", 0) != 0 {
            return Err(no_match!("the attention is causal by itself"));
        }
        let past = m.operand(node, 4).ok();
        let is_term = m.operand(node, 3)? != mask;
        let users = if is_term { sums(m, node, mask) } else { attentions(m, node, mask, axis) };
        let query = (q, axis);
        // Sums may come before the query.
        if is_term && sized(m, &length, query) == query {
            return Err(no_match!("no input has the length of the query"));
        }
        Site { mask, users, is_term, batch, length, query, past, padding: None }.with_padding(m)
    }

    /// Finds the one input whose values matter.
    fn with_padding(mut self, m: &Model) -> Result<Site, NoMatch> {
        let inputs = probe::inputs(m, self.mask)?;
        self.padding = match inputs[..] {
            [it] => Some(it),
            // It would have two dimensions, and the sum perhaps fewer than before.
            [] if self.is_term => return Err(no_match!("the term of the mask has no padding")),
            [] => None,
            _ => return Err(no_match!("the mask depends on {} inputs", inputs.len())),
        };
        if let Some(it) = self.padding {
            let rows = m.shape(it)?.first();
            if m.rank(it) != Some(2) || rows != Some(&self.batch) {
                let name = &m.value(it).name;
                return Err(no_match!("the mask depends on `{name}`, which is no padding mask"));
            }
        }
        Ok(self)
    }

    fn needs_no_mask(&self) -> bool {
        self.padding.is_none() && self.past.is_none()
    }

    /// How many nodes compute the mask, if it is what a causal mask with padding is.
    pub(crate) fn prove(&self, m: &Model) -> Result<usize, NoMatch> {
        let longest = probe::longest(m, self.mask)?;
        for case in self.cases(longest)? {
            Probe::of(m, self, case)?.check()?;
        }
        probe::nodes(m, self.mask)
    }

    /// Batch, length and past of each trial.
    fn cases(&self, longest: usize) -> Result<Vec<[usize; 3]>, NoMatch> {
        // Elements of a mask that is computed in a moment.
        const MOST: usize = 1 << 22;
        let beyond = longest + 2;
        let mut cases = match self.past {
            None => vec![[1, 1, 0], [2, 5, 0], [3, 8, 0], [1, beyond, 0]],
            Some(_) => vec![[1, 1, 0], [2, 5, 0], [2, 1, 4], [2, 3, 6], [1, 3, beyond]],
        };
        if cases.iter().any(|[batch, length, past]| batch * length * (length + past) > MOST) {
            return Err(no_match!("the mask depends on the number {longest}, too long to try"));
        }
        if let Some(fixed) = self.batch.fixed() {
            cases.iter_mut().for_each(|it| it[0] = fixed);
        }
        if self.length.fixed().is_some() {
            return Err(no_match!("the length is fixed"));
        }
        Ok(cases)
    }
}

/// Attentions of the same lengths as `node`, which is the first, that have the mask.
fn attentions(m: &Model, node: NodeId, mask: ValueId, axis: usize) -> Vec<NodeId> {
    let dim = |node: NodeId, index: usize, axis: usize| {
        m.shape(m.operand(node, index).ok()?).ok()?.get(axis).cloned()
    };
    let alike = |it: &NodeId| {
        m.node(*it).op.is("Attention")
            && m.node(*it).graph == m.node(node).graph
            && m.operand(*it, 3) == Ok(mask)
            && dim(*it, 0, axis) == dim(node, 0, axis)
            && m.operand(*it, 4).is_ok() == m.operand(node, 4).is_ok()
            && dim(*it, 4, 2) == dim(node, 4, 2)
    };
    let mut users: Vec<NodeId> = users(m, mask).filter(alike).collect();
    users.sort_by_key(|it| *it != node);
    users
}

/// Sums that have the mask as a term.
fn sums(m: &Model, node: NodeId, mask: ValueId) -> Vec<NodeId> {
    let is_sum = |it: &NodeId| m.node(*it).op.is("Add") && m.node(*it).graph == m.node(node).graph;
    users(m, mask).filter(is_sum).collect()
}

fn users(m: &Model, value: ValueId) -> impl Iterator<Item = NodeId> {
    m.value(value).uses.iter().filter_map(|it| match it.user {
        User::Node(it) => Some(it),
        _ => None,
    })
}

/// The node that computes `value`.
fn producer(m: &Model, value: ValueId) -> Option<NodeId> {
    match m.value(value).def {
        Def::Node(it) => Some(it),
        _ => None,
    }
}
