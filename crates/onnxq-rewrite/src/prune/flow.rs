//! Which values of the main graph are computed from which. The size of a value is no part of what it
//! holds: what only asks for a shape does not count.

use std::collections::{BTreeSet, HashMap};

use onnxq_ir::{Def, Model, NodeId, User, ValueId, ops::Traits};

/// The nodes of the main graph and their order; bodies belong to the node that runs them.
pub(super) struct Flow<'a> {
    pub m: &'a Model,
    place: HashMap<NodeId, usize>,
    /// How many nodes before each place multiply.
    products: Vec<usize>,
}

/// Nodes of one block at most; an exporter's has some hundreds. A hostile model cannot ask for more.
const MOST_NODES: usize = 2048;

/// What stands between two values, in order of execution.
pub(super) type Region = Vec<NodeId>;

impl<'a> Flow<'a> {
    pub(super) fn of(m: &'a Model) -> Flow<'a> {
        let place = m.nodes_of(m.main).enumerate().map(|(at, node)| (node, at)).collect();
        let mut flow = Flow { m, place, products: vec![0] };
        for node in m.nodes_of(m.main) {
            let before = flow.products[flow.products.len() - 1];
            flow.products.push(before + usize::from(flow.multiplies(node)));
        }
        flow
    }

    /// Whether any product stands after what computes one value, and before what computes another.
    pub(super) fn has_product_between(&self, from: ValueId, to: ValueId) -> bool {
        let place = |it: ValueId| self.producer(it).map_or(0, |it| self.place(it) + 1);
        let count = |at: usize| self.products.get(at).copied().unwrap_or(0);
        count(place(to)) > count(place(from))
    }

    /// Where a node of the main graph stands.
    pub(super) fn place(&self, node: NodeId) -> usize {
        self.place.get(&node).copied().unwrap_or(usize::MAX)
    }

    /// The node of the main graph that computes a value.
    pub(super) fn producer(&self, value: ValueId) -> Option<NodeId> {
        match self.m.value(value).def {
            Def::Node(node) if self.m.node(node).graph == self.m.main => Some(node),
            _ => None,
        }
    }

    pub(super) fn is_constant(&self, value: ValueId) -> bool {
        self.m.constant(value).is_ok()
    }

    /// Asks for a size, and for nothing else.
    pub(super) fn asks_size(&self, node: NodeId) -> bool {
        let op = &self.m.node(node).op;
        op.is("Shape") || op.is("Size")
    }

    /// The nodes of the main graph that read what a value holds.
    pub(super) fn readers(&self, value: ValueId) -> BTreeSet<NodeId> {
        let users = self.m.value(value).uses.iter().filter_map(|it| match it.user {
            User::Node(node) => self.owner(node),
            User::Output(graph) => self.owner(self.m.graph(graph).parent?),
            User::Annotation(_) => None,
        });
        users.filter(|it| !self.asks_size(*it)).collect()
    }

    /// The node of the main graph that a node is, or whose body it is in.
    fn owner(&self, mut node: NodeId) -> Option<NodeId> {
        while self.m.node(node).graph != self.m.main {
            node = self.m.graph(self.m.node(node).graph).parent?;
        }
        Some(node)
    }

    /// The nodes through which `to` depends on `from`; empty if it does not, or through too many.
    pub(super) fn between(&self, from: ValueId, to: ValueId) -> Region {
        let first = self.producer(from).map(|it| self.place(it));
        let is_after = |node: NodeId| first.is_none_or(|it| self.place(node) > it);
        let (mut before, mut work) = (BTreeSet::new(), vec![to]);
        while let Some(value) = work.pop() {
            if before.len() > MOST_NODES {
                return Region::new();
            }
            if value != from
                && let Some(node) = self.producer(value)
                && is_after(node)
                && !self.asks_size(node)
                && before.insert((self.place(node), node))
            {
                work.extend(self.m.needs(node));
            }
        }
        let mut reached = BTreeSet::from([from]);
        let mut region = Region::new();
        for (_, node) in before {
            if self.m.needs(node).iter().any(|it| reached.contains(it)) {
                reached.extend(self.m.node(node).outputs.iter().copied());
                region.push(node);
            }
        }
        if reached.contains(&to) && from != to { region } else { Region::new() }
    }

    /// What is computed from `from`, without what is computed from `until`.
    pub(super) fn forward(&self, from: ValueId, until: ValueId) -> BTreeSet<NodeId> {
        let (mut found, mut work) = (BTreeSet::new(), vec![from]);
        while let Some(value) = work.pop() {
            for node in self.readers(value) {
                if found.insert(node) {
                    let outputs = self.m.node(node).outputs.iter();
                    work.extend(outputs.copied().filter(|it| *it != until));
                }
            }
        }
        found
    }

    /// Sums products, of weights or of two activations.
    pub(super) fn multiplies(&self, node: NodeId) -> bool {
        self.m.node(node).op.has(Traits::CONTRACTION.union(Traits::ATTENTION))
    }

    /// Whether the nodes of a region weigh some of its values by others, as attention does.
    pub(super) fn attends(&self, region: &Region) -> bool {
        let made: BTreeSet<ValueId> =
            region.iter().flat_map(|it| self.m.node(*it).outputs.iter().copied()).collect();
        region.iter().any(|it| {
            let node = self.m.node(*it);
            let own = |at: usize| {
                node.inputs.get(at).copied().flatten().is_some_and(|it| made.contains(&it))
            };
            node.op.has(Traits::ATTENTION) || (self.multiplies(*it) && own(0) && own(1))
        })
    }
}
