//! Names as they are written: what was imported stays, new names give way with a suffix.
//!
//! Two names clash in one graph, or in a graph and one inside it. Bodies beside each other may
//! reuse a name, and real models do.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Def, GraphId, Model, Name, ValueId};

/// A name for each value, by [`ValueId::index`].
///
/// Inputs and outputs of the main graph and of functions come first, then older values before
/// newer ones: the first to come keeps its plain name, the others become `x_1`, `x_2`. A used
/// value without a name becomes `v1`, `v2`; an unused one stays without. Values that are not
/// written (constants without a use, values of removed nodes) keep the name they have.
pub fn unique_names(model: &Model) -> Vec<Name> {
    let mut scopes = Scopes::new(model);
    let mut names: Vec<Name> = model.values().map(|(_, it)| it.name.clone()).collect();
    let graphs = graphs_of_values(model);
    let mut done = vec![false; names.len()];
    for id in interface(model).chain(model.values().map(|(id, _)| id)) {
        let Some(graph) = graphs[id.index()] else { continue };
        if std::mem::replace(&mut done[id.index()], true) {
            continue;
        }
        let value = model.value(id);
        if !value.name.is_empty() {
            names[id.index()] = scopes.claim(graph, &value.name);
        } else if !value.uses.is_empty() || matches!(value.def, Def::Input(..)) {
            names[id.index()] = scopes.claim_new(graph, "v");
        }
    }
    names
}

/// A name for each node, by [`NodeId::index`](super::NodeId::index); no name stays no name.
pub fn unique_node_names(model: &Model) -> Vec<Name> {
    let mut scopes = Scopes::new(model);
    let mut names = vec![Name::from(""); model.nodes.len()];
    for (name, node) in names.iter_mut().zip(&model.nodes) {
        if let Some(node) = node
            && !node.name.is_empty()
        {
            *name = scopes.claim(node.graph, &node.name);
        }
    }
    names
}

/// The graph that each value will be written in.
fn graphs_of_values(model: &Model) -> Vec<Option<GraphId>> {
    let live = model.graphs();
    let mut graphs = vec![None; model.value_count()];
    for &graph in &live {
        for &id in &model.graph(graph).constants {
            if !model.value(id).uses.is_empty() {
                graphs[id.index()] = Some(graph);
            }
        }
        for &id in &model.graph(graph).inputs {
            graphs[id.index()] = Some(graph);
        }
        for node in model.nodes_of(graph) {
            for id in &model.node(node).outputs {
                graphs[id.index()] = Some(graph);
            }
        }
    }
    graphs
}

fn interface(model: &Model) -> impl Iterator<Item = ValueId> {
    let roots = std::iter::once(model.main).chain(model.functions.iter().map(|it| it.body));
    roots.flat_map(|it| model.graph(it).inputs.iter().chain(&model.graph(it).outputs).copied())
}

/// The names taken so far, per graph.
struct Scopes {
    /// The graph around each live graph.
    around: Vec<Option<GraphId>>,
    here: Vec<HashSet<Name>>,
    /// Names of the graphs inside, at any depth.
    inside: Vec<HashSet<Name>>,
    /// The last number tried after a prefix: keeps many equal names from being quadratic.
    last: HashMap<Name, usize>,
}

impl Scopes {
    fn new(model: &Model) -> Scopes {
        let count = model.graphs.len();
        let mut around = vec![None; count];
        for graph in model.graphs() {
            around[graph.index()] = model.graph(graph).parent.map(|it| model.node(it).graph);
        }
        let (here, inside) = (vec![HashSet::new(); count], vec![HashSet::new(); count]);
        Scopes { around, here, inside, last: HashMap::new() }
    }

    fn claim(&mut self, graph: GraphId, name: &Name) -> Name {
        if !self.is_taken(graph, name) {
            self.take(graph, name.clone());
            return name.clone();
        }
        self.claim_new(graph, &format!("{name}_"))
    }

    /// The first free name of `prefix1`, `prefix2`, …
    fn claim_new(&mut self, graph: GraphId, prefix: &str) -> Name {
        let mut number = self.last.get(prefix).copied().unwrap_or(0);
        loop {
            number += 1;
            let name: Name = Arc::from(format!("{prefix}{number}"));
            if !self.is_taken(graph, &name) {
                self.take(graph, name.clone());
                self.last.insert(prefix.into(), number);
                return name;
            }
        }
    }

    fn is_taken(&self, graph: GraphId, name: &str) -> bool {
        self.inside[graph.index()].contains(name)
            || self.outward(graph).any(|it| self.here[it.index()].contains(name))
    }

    fn take(&mut self, graph: GraphId, name: Name) {
        let outer: Vec<GraphId> = self.outward(graph).skip(1).collect();
        for it in outer {
            self.inside[it.index()].insert(name.clone());
        }
        self.here[graph.index()].insert(name);
    }

    /// `graph` and those around it.
    fn outward(&self, graph: GraphId) -> impl Iterator<Item = GraphId> {
        std::iter::successors(Some(graph), |it| self.around[it.index()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::{Attr, Attrs, Op},
        tensor::Tensor,
    };

    fn node(model: &mut Model, graph: GraphId, name: &str, input: ValueId) -> ValueId {
        let output = model.add_value(name, None, Def::Input(graph, None));
        let op = (Op::new("Relu"), name.into());
        model.add_node(graph, None, op, vec![Some(input)], Attrs::default(), vec![output]);
        output
    }

    #[test]
    fn the_first_to_come_keeps_its_name_but_outputs_come_before() {
        let mut model = Model::empty();
        let main = model.main;
        let x = model.add_input(model.main, "x", None);
        let a = node(&mut model, main, "y", x);
        let b = node(&mut model, main, "y", a);
        let c = node(&mut model, main, "", b);
        let y = node(&mut model, main, "y", c);
        let unused = node(&mut model, main, "", y);
        model.add_output(model.main, y);
        let names = unique_names(&model);
        let shown = [x, a, b, c, y, unused].map(|it| &*names[it.index()]);
        assert_eq!(shown, ["x", "y_1", "y_2", "v1", "y", ""]);
        let nodes: Vec<String> =
            unique_node_names(&model).iter().map(|it| it.to_string()).collect();
        assert_eq!(nodes, ["y", "y_1", "", "y_2", ""]);
    }

    #[test]
    fn an_unused_constant_takes_no_name() {
        let mut model = Model::empty();
        let main = model.main;
        let old = model.add_constant(model.main, "w", Tensor::scalar(1.0));
        let new = model.add_constant(model.main, "w", Tensor::scalar(2.0));
        node(&mut model, main, "y", new);
        let names = unique_names(&model);
        assert_eq!((&*names[old.index()], &*names[new.index()]), ("w", "w"));
    }

    #[test]
    fn bodies_beside_each_other_share_names_but_not_with_the_graph_around() {
        let mut model = Model::empty();
        let main = model.main;
        let x = model.add_input(model.main, "x", None);
        let bodies = [model.add_graph(), model.add_graph()];
        let inner = bodies.map(|it| node(&mut model, it, "t", x));
        let attrs = Attrs::default()
            .with("then_branch", Attr::Graph(bodies[0]))
            .with("else_branch", Attr::Graph(bodies[1]));
        let y = model.add_value("y", None, Def::Input(model.main, None));
        model.add_node(model.main, None, (Op::new("If"), "".into()), vec![Some(x)], attrs, vec![y]);
        let clash = node(&mut model, main, "t", y);
        let names = unique_names(&model);
        let shown = [inner[0], inner[1], clash].map(|it| &*names[it.index()]);
        assert_eq!(shown, ["t", "t", "t_1"]);
    }
}
