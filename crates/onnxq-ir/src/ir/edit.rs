//! The only mutators, used by the readers and by `Patch::apply`.

use std::collections::BTreeMap;

use super::{
    Annotation, Attrs, Def, Graph, GraphId, KeptModel, Model, Name, Node, NodeId, Op, Use, User,
    Value, ValueId,
};
use crate::tensor::{Tensor, TensorType};

impl Model {
    /// A model with an empty main graph and no operator sets.
    pub fn empty() -> Model {
        Model {
            ir_version: 8,
            opsets: Vec::new(),
            producer_name: String::new(),
            producer_version: String::new(),
            domain: String::new(),
            model_version: 0,
            doc: String::new(),
            metadata: Vec::new(),
            late: None,
            functions: Vec::new(),
            main: GraphId(0),
            kept: KeptModel::default(),
            graphs: vec![Graph::default()],
            nodes: Vec::new(),
            values: Vec::new(),
        }
    }

    pub fn graph_mut(&mut self, id: GraphId) -> &mut Graph {
        &mut self.graphs[id.index()]
    }

    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].as_mut().expect("the node was removed")
    }

    /// Sets what is known of a value's type.
    pub fn set_type(&mut self, id: ValueId, ty: TensorType) {
        self.value_mut(id).ty = Some(ty);
    }

    pub fn set_opset(&mut self, domain: &str, version: i64) {
        match self.opsets.iter_mut().find(|(it, _)| **it == *domain) {
            Some((_, it)) => *it = version,
            None => self.opsets.push((domain.into(), version)),
        }
    }

    pub fn set_attr(&mut self, node: NodeId, name: &str, value: super::Attr) {
        self.node_mut(node).attrs.set(name, value);
    }

    pub fn add_graph(&mut self) -> GraphId {
        self.graphs.push(Graph::default());
        GraphId(self.graphs.len() as u32 - 1)
    }

    pub fn add_value(&mut self, name: &str, ty: Option<TensorType>, def: Def) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        let (uses, kept) = (Vec::new(), None);
        self.values.push(Value { name: name.into(), ty, declared: false, def, uses, kept });
        id
    }

    /// An input of a graph, after those it has.
    pub fn add_input(&mut self, graph: GraphId, name: &str, ty: Option<TensorType>) -> ValueId {
        let id = self.add_value(name, ty, Def::Input(graph, None));
        self.graph_mut(graph).inputs.push(id);
        id
    }

    /// An initializer of `graph`.
    pub fn add_constant(&mut self, graph: GraphId, name: &str, tensor: Tensor) -> ValueId {
        let ty = TensorType::new(tensor.dtype, tensor.shape.iter().copied());
        let id = self.add_value(name, Some(ty), Def::Const(tensor));
        self.graph_mut(graph).constants.push(id);
        id
    }

    pub fn add_output(&mut self, graph: GraphId, value: ValueId) {
        let index = self.graph(graph).outputs.len();
        self.graph_mut(graph).outputs.push(value);
        self.value_mut(value).uses.push(Use { user: User::Output(graph), index });
    }

    pub fn add_annotation(&mut self, graph: GraphId, annotation: Annotation) {
        let index = self.graph(graph).annotations.len();
        for &(_, value) in &annotation.params {
            self.value_mut(value).uses.push(Use { user: User::Annotation(graph), index });
        }
        self.graph_mut(graph).annotations.push(annotation);
    }

    /// A node at the end of `graph`, or right before `before`. The outputs become its own; if there
    /// are none, it gets one without a name, because every node has a first output.
    pub fn add_node(
        &mut self,
        graph: GraphId,
        before: Option<NodeId>,
        (op, name): (Op, Name),
        inputs: Vec<Option<ValueId>>,
        attrs: Attrs,
        mut outputs: Vec<ValueId>,
    ) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        if outputs.is_empty() {
            outputs.push(self.add_value("", None, Def::Node(id)));
        }
        let mut places = vec![0; inputs.len()];
        for (index, value) in inputs.iter().enumerate() {
            if let Some(value) = value {
                let uses = &mut self.value_mut(*value).uses;
                places[index] = uses.len() as u32;
                uses.push(Use { user: User::Node(id), index });
            }
        }
        for &value in &outputs {
            self.value_mut(value).def = Def::Node(id);
        }
        for inner in attrs.graphs().collect::<Vec<_>>() {
            self.graph_mut(inner).parent = Some(id);
        }
        let (kept, prev, next, rank) = (None, None, None, 0);
        let node = Node { op, name, inputs, outputs, attrs, graph, kept, places, prev, next, rank };
        self.nodes.push(Some(node));
        self.link(id, graph, before);
        id
    }

    pub(super) fn link(&mut self, id: NodeId, graph: GraphId, before: Option<NodeId>) {
        let prev = match before {
            Some(next) => self.node(next).prev,
            None => self.graph(graph).last,
        };
        let rank = self.rank_between(prev, before);
        let node = self.node_mut(id);
        (node.prev, node.next, node.rank) = (prev, before, rank);
        match prev {
            Some(prev) => self.node_mut(prev).next = Some(id),
            None => self.graph_mut(graph).first = Some(id),
        }
        match before {
            Some(next) => self.node_mut(next).prev = Some(id),
            None => self.graph_mut(graph).last = Some(id),
        }
    }

    pub(super) fn unlink(&mut self, id: NodeId) {
        let (graph, prev, next) = {
            let node = self.node(id);
            (node.graph, node.prev, node.next)
        };
        match prev {
            Some(prev) => self.node_mut(prev).next = next,
            None => self.graph_mut(graph).first = next,
        }
        match next {
            Some(next) => self.node_mut(next).prev = prev,
            None => self.graph_mut(graph).last = prev,
        }
    }

    /// Puts the nodes of a graph in the given order, which names each of them once.
    pub fn reorder(&mut self, graph: GraphId, order: &[NodeId]) {
        (self.graph_mut(graph).first, self.graph_mut(graph).last) = (None, None);
        for &id in order {
            self.link(id, graph, None);
        }
    }

    pub fn set_input(&mut self, node: NodeId, index: usize, value: Option<ValueId>) {
        let it = Use { user: User::Node(node), index };
        let inputs = &mut self.node_mut(node).inputs;
        if inputs.len() <= index {
            inputs.resize(index + 1, None);
        }
        if let Some(old) = std::mem::replace(&mut inputs[index], value) {
            let place = self.node(node).places.get(index).copied();
            self.forget_use(old, it, place.unwrap_or(0));
        }
        if let Some(new) = value {
            self.add_use(new, it);
        }
    }

    fn add_use(&mut self, value: ValueId, it: Use) {
        let uses = &mut self.value_mut(value).uses;
        uses.push(it);
        let place = uses.len() - 1;
        self.set_place(it, place);
    }

    /// Takes `it` out of a use list in constant time if it stands at `place`: a constant may have
    /// as many uses as the model has nodes.
    fn forget_use(&mut self, value: ValueId, it: Use, place: u32) {
        let uses = &mut self.value_mut(value).uses;
        let place = match uses.get(place as usize) {
            Some(there) if *there == it => place as usize,
            _ => match uses.iter().position(|there| *there == it) {
                Some(place) => place,
                None => return,
            },
        };
        uses.swap_remove(place);
        if let Some(&moved) = uses.get(place) {
            self.set_place(moved, place);
        }
    }

    fn set_place(&mut self, it: Use, place: usize) {
        if let User::Node(node) = it.user
            && let Some(node) = self.nodes[node.index()].as_mut()
        {
            node.places.resize(node.inputs.len(), 0);
            node.places[it.index] = place as u32;
        }
    }

    /// Everyone who used `old` uses `new`.
    ///
    /// Where `old` is an output of a graph, `new` takes its name and type: callers fetch by name.
    pub fn replace_all_uses(&mut self, old: ValueId, new: ValueId) {
        // A graph may list a value twice among its outputs: both places get the same value.
        let mut outputs: BTreeMap<GraphId, ValueId> = BTreeMap::new();
        for it in std::mem::take(&mut self.value_mut(old).uses) {
            match it.user {
                User::Node(node) => {
                    self.node_mut(node).inputs[it.index] = Some(new);
                    self.add_use(new, it);
                    continue;
                }
                User::Output(graph) => {
                    let new = match outputs.get(&graph) {
                        Some(done) => *done,
                        None => {
                            let new = self.output_for(graph, new);
                            self.hand_over_name(old, new);
                            *outputs.entry(graph).or_insert(new)
                        }
                    };
                    self.graph_mut(graph).outputs[it.index] = new;
                    self.value_mut(new).uses.push(it);
                    continue;
                }
                User::Annotation(graph) => {
                    let params = &mut self.graph_mut(graph).annotations[it.index].params;
                    params.iter_mut().filter(|(_, it)| *it == old).for_each(|it| it.1 = new);
                }
            }
            self.value_mut(new).uses.push(it);
        }
        for graph in 0..self.graphs.len() {
            for annotation in &mut self.graphs[graph].annotations {
                if annotation.value == old {
                    annotation.value = new;
                }
            }
        }
    }

    /// `value`, or an `Identity` of it where it cannot take an output's name: constants, inputs,
    /// other outputs and values of graphs around have names of their own to keep.
    fn output_for(&mut self, graph: GraphId, value: ValueId) -> ValueId {
        let computed_here = match self.value(value).def {
            Def::Node(node) => self.node(node).graph == graph,
            _ => false,
        };
        if computed_here && !self.is_output(value) {
            return value;
        }
        let ty = self.value(value).ty.clone();
        let output = self.add_value("", ty, Def::Input(graph, None));
        let name = (Op::new("Identity"), "".into());
        self.add_node(graph, None, name, vec![Some(value)], Attrs::default(), vec![output]);
        output
    }

    fn hand_over_name(&mut self, old: ValueId, new: ValueId) {
        let it = self.value_mut(old);
        let (name, ty, kept) = (std::mem::take(&mut it.name), it.ty.clone(), it.kept.take());
        let it = self.value_mut(new);
        (it.name, it.ty, it.kept) = (name, ty.or(it.ty.take()), kept.or(it.kept.take()));
    }

    /// `new`, which took over the uses of `old`, is known by its name and type from now on, so
    /// that reports before and after a rewrite speak of the same values.
    pub fn inherit(&mut self, old: ValueId, new: ValueId) {
        let (is_computed, is_output) =
            (matches!(self.value(new).def, Def::Node(_)), self.is_output(new));
        let old = self.value_mut(old);
        let ty = old.ty.clone();
        let name =
            if is_computed && !is_output { std::mem::take(&mut old.name) } else { "".into() };
        let new = self.value_mut(new);
        new.ty = new.ty.take().or(ty);
        if !name.is_empty() {
            new.name = name;
        }
    }

    /// Removes `id` if nothing uses it, and then whatever only it kept alive.
    pub fn remove_dead(&mut self, id: NodeId) {
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            if !self.is_live(id) || !self.is_dead(id) {
                continue;
            }
            self.remove_subgraphs(id, &mut work);
            self.forget_inputs(id, &mut work);
            self.unlink(id);
            self.nodes[id.index()] = None;
        }
    }

    fn is_dead(&self, id: NodeId) -> bool {
        self.node(id).outputs.iter().all(|it| self.value(*it).uses.is_empty())
    }

    fn forget_inputs(&mut self, id: NodeId, work: &mut Vec<NodeId>) {
        for index in 0..self.node(id).inputs.len() {
            let Some(value) = self.node(id).inputs[index] else { continue };
            self.set_input(id, index, None);
            if let Def::Node(producer) = self.value(value).def {
                work.push(producer);
            }
        }
    }

    /// The body of a removed `If` no longer uses what it captured.
    fn remove_subgraphs(&mut self, id: NodeId, work: &mut Vec<NodeId>) {
        for graph in self.node(id).attrs.graphs().collect::<Vec<_>>() {
            self.clear_graph(graph, work);
        }
    }

    fn clear_graph(&mut self, graph: GraphId, work: &mut Vec<NodeId>) {
        for &value in &std::mem::take(&mut self.graph_mut(graph).outputs) {
            self.value_mut(value).uses.retain(|it| it.user != User::Output(graph));
        }
        for (_, value) in std::mem::take(&mut self.graph_mut(graph).annotations)
            .into_iter()
            .flat_map(|it| it.params)
        {
            self.value_mut(value).uses.retain(|it| it.user != User::Annotation(graph));
        }
        for inner in self.nodes_of(graph).collect::<Vec<_>>() {
            self.remove_subgraphs(inner, work);
            self.forget_inputs(inner, work);
            self.unlink(inner);
            self.nodes[inner.index()] = None;
        }
    }

    /// Removes the functions that `keep` does not want, which nothing may call.
    pub fn retain_functions(&mut self, keep: impl Fn(&super::Function) -> bool) {
        let all = std::mem::take(&mut self.functions);
        let (kept, gone): (Vec<super::Function>, Vec<_>) = all.into_iter().partition(keep);
        self.functions = kept;
        for function in gone {
            // A body captures nothing, so nothing outside it can die with it.
            self.clear_graph(function.body, &mut Vec::new());
        }
    }

    /// Removes every node without a use, in every graph. Returns how many went.
    pub fn remove_all_dead(&mut self) -> usize {
        let before = self.node_count();
        for id in self.nodes().into_iter().rev() {
            self.remove_dead(id);
        }
        for graph in self.graphs() {
            let kept = std::mem::take(&mut self.graph_mut(graph).constants);
            let used = |it: &ValueId| !self.value(*it).uses.is_empty();
            let kept = kept.into_iter().filter(used).collect();
            self.graph_mut(graph).constants = kept;
        }
        before - self.node_count()
    }
}
