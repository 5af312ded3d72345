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
//! Without padding and past the attention itself masks (`is_causal`), without a mask.

mod build;
mod probe;

pub(crate) use self::build::build;
use self::probe::Probe;
use crate::{Pass, PassError, nodes_in_main, trace};
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
        let Ok(mask) = model.operand(node, 3) else { continue };
        if tried.contains(&mask) {
            continue;
        }
        tried.push(mask);
        match Site::of(model, node).and_then(|it| Ok((it.prove(model)?, it))) {
            Ok((nodes, site)) if nodes > build::NODES || site.needs_no_mask() => {
                build(model, &site);
                done += 1;
            }
            Ok((nodes, _)) => {
                let what = format!("the mask takes only {nodes} nodes");
                trace(ctx, SIMPLIFY_MASK.name, &model.node_label(node), &what);
            }
            Err(reason) => trace(ctx, SIMPLIFY_MASK.name, &model.node_label(node), &reason.0),
        }
    }
    Ok(done)
}

/// A mask and those who use it.
pub(crate) struct Site {
    pub mask: ValueId,
    /// In execution order.
    pub users: Vec<NodeId>,
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
        let (q, mask) = (m.operand(node, 0)?, m.operand(node, 3)?);
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
        let users = m.value(mask).uses.iter().filter_map(|it| match it.user {
            User::Node(it) => Some(it),
            _ => None,
        });
        let alike = |it: &NodeId| {
            let dim = |value: Result<ValueId, NoMatch>, axis: usize| {
                m.shape(value.ok()?).ok()?.get(axis).cloned()
            };
            m.node(*it).op.is("Attention")
                && m.node(*it).graph == m.node(node).graph
                && m.operand(*it, 3) == Ok(mask)
                && dim(m.operand(*it, 0), axis).as_ref() == Some(&length)
                && m.operand(*it, 4).is_ok() == past.is_some()
                && dim(m.operand(*it, 4), 2) == past.and_then(|it| dim(Ok(it), 2))
        };
        let mut users: Vec<NodeId> = users.filter(alike).collect();
        users.sort_by_key(|it| *it != node);
        let query = (q, axis);
        Site { mask, users, batch, length, query, past, padding: None }.with_padding(m)
    }

    /// Finds the one input whose values matter.
    fn with_padding(mut self, m: &Model) -> Result<Site, NoMatch> {
        let inputs = probe::inputs(m, self.mask)?;
        self.padding = match inputs[..] {
            [] => None,
            [it] => Some(it),
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

/// The node that computes `value`.
fn producer(m: &Model, value: ValueId) -> Option<NodeId> {
    match m.value(value).def {
        Def::Node(it) => Some(it),
        _ => None,
    }
}
