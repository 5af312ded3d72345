//! The order of a graph's nodes: each after what it needs.

use std::collections::{HashMap, VecDeque};

use super::{LoadError, graph_in::GraphReader};
use crate::{
    diag::{Code, Warning},
    ir::{Def, GraphId, NodeId, ValueId},
    untrusted::Untrusted,
};

impl GraphReader<'_> {
    /// Puts nodes after what they need. A file in order, as almost all are, stays as it is.
    pub(super) fn sort(
        &mut self,
        id: GraphId,
        nodes: &[NodeId],
        needs: &[Vec<ValueId>],
        graph: &str,
    ) -> Result<(), LoadError> {
        let place: HashMap<NodeId, usize> =
            nodes.iter().enumerate().map(|(at, node)| (*node, at)).collect();
        let edges: Vec<Vec<usize>> = needs
            .iter()
            .map(|list| {
                list.iter()
                    .filter_map(|value| match self.model.value(*value).def {
                        Def::Node(node) => place.get(&node).copied(),
                        _ => None,
                    })
                    .collect()
            })
            .collect();
        if edges.iter().enumerate().all(|(at, list)| list.iter().all(|it| *it < at)) {
            return Ok(());
        }
        let order = topological(&edges).map_err(|at| LoadError::Cycle {
            graph: graph.to_owned(),
            node: self.model.node_label(nodes[at]),
        })?;
        let order: Vec<NodeId> = order.into_iter().map(|at| nodes[at]).collect();
        self.model.reorder(id, &order);
        let name = Untrusted(graph);
        let text = format!("the nodes of graph `{name}` were not sorted");
        self.tensors.warnings.push(Warning::new(Code::W405, text));
        Ok(())
    }
}

/// Kahn's algorithm; among nodes that are ready, the order of the file. `Err`: one on a cycle.
fn topological(edges: &[Vec<usize>]) -> Result<Vec<usize>, usize> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    let mut missing: Vec<usize> = edges.iter().map(Vec::len).collect();
    for (at, list) in edges.iter().enumerate() {
        list.iter().for_each(|it| users[*it].push(at));
    }
    let mut ready: VecDeque<usize> = (0..edges.len()).filter(|it| missing[*it] == 0).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(at) = ready.pop_front() {
        order.push(at);
        for &user in &users[at] {
            missing[user] -= 1;
            if missing[user] == 0 {
                ready.push_back(user);
            }
        }
    }
    match missing.iter().position(|it| *it > 0) {
        Some(stuck) => Err(stuck),
        None => Ok(order),
    }
}
