//! Who calls whom.

use std::collections::{BTreeMap, HashMap};

use crate::{PassError, nodes_in_main};
use onnxq_ir::{Function, GraphId, Model, Name, Node, NodeId, Op};

pub(super) struct Calls {
    /// Where each function is in the model's list.
    index: HashMap<Op, usize>,
}

impl Calls {
    pub(super) fn of(model: &Model) -> Calls {
        let functions = model.functions.iter().enumerate();
        Calls { index: functions.map(|(i, it)| (it.op.clone(), i)).collect() }
    }

    pub(super) fn callee(&self, node: &Node) -> Option<usize> {
        self.index.get(&node.op).copied()
    }

    /// Refuses cycles, and models that would not fit in memory once they are inlined.
    pub(super) fn check(&self, m: &Model, most: usize) -> Result<(), PassError> {
        let bodies: Vec<Vec<NodeId>> =
            m.functions.iter().map(|it| nodes_within(m, it.body)).collect();
        let callees: Vec<Vec<usize>> = bodies.iter().map(|it| self.callees(m, it)).collect();
        let mut callers = vec![Vec::new(); callees.len()];
        for (caller, list) in callees.iter().enumerate() {
            list.iter().for_each(|callee| callers[*callee].push(caller));
        }

        // Each function after those it calls; what is left over is in or above a cycle.
        let mut sizes: Vec<usize> = bodies.iter().map(Vec::len).collect();
        let mut waits: Vec<usize> = callees.iter().map(Vec::len).collect();
        let mut ready: Vec<usize> = (0..waits.len()).filter(|it| waits[*it] == 0).collect();
        while let Some(callee) = ready.pop() {
            for &caller in &callers[callee] {
                sizes[caller] = sizes[caller].saturating_add(sizes[callee]);
                waits[caller] -= 1;
                if waits[caller] == 0 {
                    ready.push(caller);
                }
            }
        }
        if let Some(it) = waits.iter().position(|it| *it > 0) {
            return Err(PassError::Cycle { function: m.functions[it].op.to_string() });
        }
        let calls = self.callees(m, &nodes_in_main(m));
        if calls.iter().fold(0, |sum: usize, it| sum.saturating_add(sizes[*it])) > most {
            return Err(PassError::TooManyNodes { limit: most });
        }
        Ok(())
    }

    fn callees(&self, m: &Model, nodes: &[NodeId]) -> Vec<usize> {
        nodes.iter().filter_map(|it| self.callee(m.node(*it))).collect()
    }

    /// Removes functions that the main graph no longer reaches, and the imports of their domains.
    pub(super) fn drop_unused(&self, model: &mut Model) {
        let mut used = vec![false; model.functions.len()];
        let mut work = self.callees(model, &nodes_in_main(model));
        while let Some(it) = work.pop() {
            if !std::mem::replace(&mut used[it], true) {
                work.extend(self.callees(model, &nodes_within(model, model.functions[it].body)));
            }
        }
        let gone: Vec<Name> = model
            .functions
            .iter()
            .zip(&used)
            .filter(|(_, used)| !**used)
            .map(|(it, _)| it.op.domain.clone())
            .collect();
        model.retain_functions(|it| self.index.get(&it.op).is_some_and(|at| used[*at]));
        let nodes = model.nodes();
        let live: Vec<Name> = nodes.iter().map(|it| model.node(*it).op.domain.clone()).collect();
        model.opsets.retain(|(it, _)| it.is_empty() || !gone.contains(it) || live.contains(it));
    }
}

/// The operator sets that the body of a function really uses.
pub(super) fn opsets(m: &Model, function: &Function) -> Vec<(Name, i64)> {
    let mut used: BTreeMap<Name, i64> = BTreeMap::new();
    for node in nodes_within(m, function.body) {
        let domain = &m.node(node).op.domain;
        if let Some((_, version)) = function.opsets.iter().find(|(it, _)| it == domain) {
            used.insert(domain.clone(), *version);
        }
    }
    used.into_iter().collect()
}

/// Nodes of a graph and of the graphs in it, in execution order.
fn nodes_within(m: &Model, graph: GraphId) -> Vec<NodeId> {
    let mut list = Vec::new();
    collect(m, graph, &mut list);
    list
}

fn collect(m: &Model, graph: GraphId, list: &mut Vec<NodeId>) {
    for node in m.nodes_of(graph) {
        m.node(node).attrs.graphs().for_each(|it| collect(m, it, list));
        list.push(node);
    }
}
