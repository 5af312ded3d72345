//! The place of nodes in their graph: which comes first, and how one is moved before its users.
//!
//! A rule puts its node where one operand is. In a file whose order is another than the exporter's
//! (one that a tool saved after sorting it anew), other operands may come later; what the new node
//! needs then moves before it.

use std::collections::BTreeSet;

use super::{Def, GraphId, Model, NodeId, Use, User, ValueId};

/// The distance between nodes that are added at the end: so often can nodes be put between two
/// neighbours, each time in the middle, before all are counted anew.
const GAP: u64 = 1 << 32;

impl Model {
    /// Whether `a` stands before `b`; both lie in one graph.
    pub(super) fn precedes(&self, a: NodeId, b: NodeId) -> bool {
        self.node(a).rank < self.node(b).rank
    }

    /// The rank of a node between two neighbours.
    pub(super) fn rank_between(&mut self, prev: Option<NodeId>, next: Option<NodeId>) -> u64 {
        let rank = |model: &Model, it: Option<NodeId>| it.map(|it| model.node(it).rank);
        let Some(next) = next else {
            return rank(self, prev).map_or(GAP, |it| it + GAP);
        };
        let ends = |model: &Model| (rank(model, prev).unwrap_or(0), model.node(next).rank);
        let (mut low, mut high) = ends(self);
        if high - low < 2 {
            self.count_anew(self.node(next).graph);
            (low, high) = ends(self);
        }
        low + (high - low) / 2
    }

    fn count_anew(&mut self, graph: GraphId) {
        let nodes: Vec<NodeId> = self.nodes_of(graph).collect();
        for (at, node) in nodes.into_iter().enumerate() {
            self.node_mut(node).rank = (at as u64 + 1) * GAP;
        }
    }

    /// The node of `graph` that is `node` or holds it in a body.
    fn holder(&self, node: NodeId, graph: GraphId) -> Option<NodeId> {
        let mut at = node;
        while self.node(at).graph != graph {
            at = self.graph(self.node(at).graph).parent?;
        }
        Some(at)
    }

    /// Sees to it that `value` is computed before these users of it.
    pub(super) fn settle(&mut self, value: ValueId, users: &[Use]) {
        let Def::Node(producer) = self.value(value).def else { return };
        for place in users {
            if let User::Node(user) = place.user {
                self.settle_user(producer, user);
            }
        }
    }

    /// Sees to it that what `node` reads is computed before.
    pub(super) fn settle_node(&mut self, node: NodeId) {
        for value in self.node(node).inputs.clone().into_iter().flatten() {
            if let Def::Node(producer) = self.value(value).def {
                self.settle_user(producer, node);
            }
        }
    }

    fn settle_user(&mut self, producer: NodeId, user: NodeId) {
        let graph = self.node(producer).graph;
        if let Some(user) = self.holder(user, graph)
            && !self.precedes(producer, user)
        {
            self.hoist(producer, user);
        }
    }

    /// Moves `node`, and first what it needs, before `before`. A node that needs `before` itself
    /// stays: that is a cycle, which [`Model::verify`] names.
    fn hoist(&mut self, node: NodeId, before: NodeId) {
        let graph = self.node(before).graph;
        let mut stack = vec![node];
        let mut waiting = BTreeSet::new();
        while let Some(&at) = stack.last() {
            let late = self.late(at, graph, before);
            if late.contains(&before) || late.iter().any(|it| waiting.contains(it)) {
                return;
            }
            if !late.is_empty() {
                waiting.insert(at);
                stack.extend(late);
                continue;
            }
            stack.pop();
            waiting.remove(&at);
            if !self.precedes(at, before) {
                self.unlink(at);
                self.link(at, graph, Some(before));
            }
        }
    }

    /// What a node needs of `graph` that does not stand before `before` yet.
    fn late(&self, node: NodeId, graph: GraphId, before: NodeId) -> Vec<NodeId> {
        let needs = self.needs(node).into_iter();
        let producers = needs.filter_map(|it| self.producer_in(it, graph));
        producers.filter(|it| !self.precedes(*it, before)).collect()
    }

    fn producer_in(&self, value: ValueId, graph: GraphId) -> Option<NodeId> {
        match self.value(value).def {
            Def::Node(it) if self.node(it).graph == graph => Some(it),
            _ => None,
        }
    }

    /// What a node reads: its inputs, and what its bodies read.
    pub fn needs(&self, node: NodeId) -> Vec<ValueId> {
        let mut needs: Vec<ValueId> = self.node(node).inputs.iter().copied().flatten().collect();
        let mut bodies: Vec<GraphId> = self.node(node).attrs.graphs().collect();
        while let Some(body) = bodies.pop() {
            needs.extend(&self.graph(body).outputs);
            for inner in self.nodes_of(body) {
                needs.extend(self.node(inner).inputs.iter().copied().flatten());
                bodies.extend(self.node(inner).attrs.graphs());
            }
        }
        needs
    }

    /// Whether one of `operands` is computed from one of `values`. Only what stands after the
    /// first of these can be.
    pub(super) fn depends(&self, operands: &[ValueId], values: &[ValueId]) -> bool {
        let node_of = |it: &ValueId| match self.value(*it).def {
            Def::Node(node) => Some(node),
            _ => None,
        };
        let Some(first) = values.iter().filter_map(node_of).min_by_key(|it| self.node(*it).rank)
        else {
            return false;
        };
        let graph = self.node(first).graph;
        let mut work: Vec<ValueId> = operands.to_vec();
        let mut seen = BTreeSet::new();
        while let Some(value) = work.pop() {
            if values.contains(&value) {
                return true;
            }
            if let Some(node) = self.producer_in(value, graph)
                && self.precedes(first, node)
                && seen.insert(node)
            {
                work.extend(self.needs(node));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::Patch;
    use crate::text;

    fn ops(text: &str) -> (super::Model, Vec<super::NodeId>) {
        let model = text::parse(text).unwrap();
        let nodes = model.nodes_of(model.main).collect();
        (model, nodes)
    }

    #[test]
    fn what_a_new_node_needs_moves_before_it() {
        let (mut m, nodes) = ops(r#"
main (float[2] x) => (float[2] y) {
   a = Neg (x)
   b = Abs (a)
   c = Exp (x)
   d = Add (c, b)
   y = Mul (a, d)
}"#);
        let output = m.node(nodes[1]).outputs[0];
        let (c, d) = (m.node(nodes[2]).outputs[0], m.node(nodes[3]).outputs[0]);
        let mut patch = Patch::before(nodes[1]);
        let new = patch.node("new", "Max", [c.into()], Default::default());
        assert!(!patch.needs_what_it_replaces(&m));
        patch.replace(output, new).apply(&mut m);
        m.verify().unwrap();
        let mut patch = Patch::before(nodes[0]);
        let new = patch.node("new", "Min", [d.into()], Default::default());
        assert!(patch.replace(c, new).needs_what_it_replaces(&m), "d is computed from c");
    }

    #[test]
    fn many_nodes_fit_between_two() {
        let (mut m, nodes) = ops("main (float[2] x) => (float[2] y) { y = Neg (x) }");
        let x = m.graph(m.main).inputs[0];
        for at in 0..200 {
            let mut patch = Patch::before(nodes[0]);
            patch.node(&format!("n{at}"), "Abs", [x.into()], Default::default());
            patch.apply(&mut m);
        }
        m.verify().unwrap();
        let ranks: Vec<u64> = m.nodes_of(m.main).map(|it| m.node(it).rank).collect();
        assert!(ranks.len() == 201 && ranks.is_sorted_by(|a, b| a < b));
    }
}
