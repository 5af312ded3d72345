//! Applies rules until none matches, with a work list instead of whole rescans.

use std::collections::{BTreeMap, VecDeque};

use super::{Rule, nodes_in_main, trace, verify};
use onnxq_ir::{Def, Model, NoMatch, NodeId, Patch, User, ValueId, ctx::Ctx};

/// Applies `rules` at every node outside functions until none matches or
/// [`Ctx::max_rewrites`] is reached; returns how many patches were applied.
pub fn fixpoint(model: &mut Model, rules: &[&Rule], ctx: &Ctx) -> usize {
    const CHECKED_EACH_TIME: usize = 2000;
    let nodes = model.node_count();
    let mut driver = Driver {
        rules,
        ctx,
        fired: 0,
        most: 1024 + 16 * nodes,
        verifies: cfg!(debug_assertions) && nodes < CHECKED_EACH_TIME,
        misses: BTreeMap::new(),
    };
    // The work list revisits what a patch touched. The last sweep finds nothing: it proves the
    // fixpoint, also for rules that look further than a patch's neighbours.
    while driver.sweep(model) {}
    driver.trace_misses(model);
    driver.fired
}

const UNUSED: &str = "rules replace the first output, and nothing uses it";
const CYCLE: &str = "a new node would need what it replaces";

fn accept(model: &Model, patch: Patch) -> Result<Patch, NoMatch> {
    match () {
        _ if patch.replaces_unused(model) => Err(NoMatch(UNUSED.into())),
        _ if patch.needs_what_it_replaces(model) => Err(NoMatch(CYCLE.into())),
        _ => Ok(patch),
    }
}

struct Driver<'a> {
    rules: &'a [&'a Rule],
    ctx: &'a Ctx<'a>,
    fired: usize,
    /// More patches than this mean that rules undo each other.
    most: usize,
    verifies: bool,
    /// The last reasons at each node, if traced.
    misses: BTreeMap<NodeId, Vec<(&'static str, NoMatch)>>,
}

impl Driver<'_> {
    /// Tries every node, and again those that a patch touches. Says whether any rule fired.
    fn sweep(&mut self, model: &mut Model) -> bool {
        let before = self.fired;
        let mut work: VecDeque<NodeId> =
            nodes_in_main(model).into_iter().filter(|it| self.is_root(model, *it)).collect();
        while let Some(node) = work.pop_front() {
            if self.fired == self.ctx.max_rewrites {
                return false;
            }
            if model.is_live(node) {
                self.visit(model, node, &mut work);
            }
        }
        self.fired > before
    }

    fn visit(&mut self, model: &mut Model, node: NodeId, work: &mut VecDeque<NodeId>) {
        self.misses.remove(&node);
        // They would fire forever: another output keeps the node after each patch.
        let it = model.node(node);
        let replaceable = it.outputs.len() < 2 || !model.value(it.output()).uses.is_empty();
        for rule in self.rules.iter().filter(|it| model.node(node).op.is(it.root)) {
            let found = match replaceable {
                true => (rule.apply)(model, node),
                false => Err(NoMatch(UNUSED.into())),
            };
            let found = found.and_then(|patch| accept(model, patch));
            match found {
                Ok(patch) => {
                    if self.ctx.trace.is_some() {
                        trace(self.ctx, rule.name, &model.node_label(node), "fired");
                    }
                    let touched = patch.apply(model).touched;
                    self.fired += 1;
                    assert!(self.fired <= self.most, "{} never ends", rule.name);
                    if self.verifies {
                        verify(model, rule.name);
                    }
                    return self.revisit(model, &touched, work);
                }
                Err(reason) if self.ctx.trace.is_some() => {
                    self.misses.entry(node).or_default().push((rule.name, reason));
                }
                Err(_) => {}
            }
        }
    }

    /// Whoever defines or uses a touched value may match now.
    fn revisit(&self, model: &Model, touched: &[ValueId], work: &mut VecDeque<NodeId>) {
        // A value with many users is touched often; the next sweep visits them once.
        const FEW: usize = 64;
        for value in touched.iter().map(|it| model.value(*it)) {
            let producer = match value.def {
                Def::Node(it) => Some(it),
                _ => None,
            };
            let users = value.uses.iter().filter(|_| value.uses.len() <= FEW);
            let users = users.filter_map(|it| match it.user {
                User::Node(it) => Some(it),
                _ => None,
            });
            work.extend(producer.into_iter().chain(users).filter(|it| self.is_root(model, *it)));
        }
    }

    fn is_root(&self, model: &Model, node: NodeId) -> bool {
        model.is_live(node) && self.rules.iter().any(|it| model.node(node).op.is(it.root))
    }

    fn trace_misses(&self, model: &Model) {
        for (node, reasons) in &self.misses {
            if model.is_live(*node) {
                let label = model.node_label(*node);
                reasons.iter().for_each(|(rule, it)| trace(self.ctx, rule, &label, &it.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Instant};

    use super::*;
    use crate::{Step, testing::Builder};
    use onnxq_ir::ctx::Silent;

    #[test]
    fn stops_after_the_given_number_of_patches() {
        let mut b = Builder::new();
        let mut x = b.input("x", "2");
        for _ in 0..4 {
            x = b.node("Identity", &[x]);
        }
        let y = b.node("Relu", &[x]);
        b.output(y, "y");
        let ctx = Ctx { max_rewrites: 3, ..Ctx::silent() };
        let done = crate::run(&mut b.model, &["remove-identity"; 2], &ctx).unwrap();
        assert_eq!(done.iter().map(|it| it.1).collect::<Vec<_>>(), [3, 0]);
        assert_eq!(b.model.node_count(), 2);
    }

    #[test]
    fn names_cannot_forge_lines_of_the_trace() {
        let mut b = Builder::new();
        let x = b.input("x\nremove-identity: `y`: fired", "2");
        let y = b.node("Identity", &[x]);
        b.output(y, "y");
        let lines = Mutex::new(Vec::new());
        let ctx = Ctx { progress: &Silent, trace: Some(&lines), max_rewrites: usize::MAX };
        crate::run(&mut b.model, &["remove-identity"], &ctx).unwrap();
        let lines = lines.into_inner().unwrap();
        assert_eq!(lines, ["remove-identity: `Identity → y`: `y` is an output of the graph"]);
    }

    #[test]
    fn two_hundred_thousand_nodes_take_a_moment() {
        let mut b = Builder::new();
        let (w, c) = (b.floats("w", &[4, 4], &[0.5; 16]), b.floats("c", &[4], &[1.0; 4]));
        let mut x = b.input("x", "2,4");
        for i in 0..50_000 {
            let w = b.floats("w", &[4, 4], &[i as f32; 16]);
            x = b.node("Gemm", &[x, w, c]);
            x = b.node("Identity", &[x]);
            x = b.node("Add", &[x, x]);
            x = b.node("Relu", &[x]);
        }
        let y = b.node("MatMul", &[x, w]);
        b.output(y, "y");
        let start = Instant::now();
        // Without the verification after each step, which would take most of the time.
        for it in [
            "remove-identity",
            "fold-constants",
            "gemm-to-matmul",
            "dedupe-constants",
            "dedupe-nodes",
            "sum-before-layernorm",
            "remove-dead",
        ] {
            match crate::find(it) {
                Some(Step::Rule(it)) => drop(fixpoint(&mut b.model, &[it], &Ctx::silent())),
                Some(Step::Pass(it)) => drop((it.run)(&mut b.model, &Ctx::silent())),
                None => panic!("{it} is no step"),
            }
        }
        // The development build takes a tenth of this; a quadratic step takes minutes.
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
        assert_eq!(b.model.node_count(), 200_001);
    }
}
