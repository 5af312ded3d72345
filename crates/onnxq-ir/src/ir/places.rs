//! Taking an input or an output away; what stands behind it moves up by one place.

use super::{Def, GraphId, Model, Name, NodeId, Use, User, ValueId};

impl Model {
    /// Takes input `index` of a node away.
    pub fn take_input(&mut self, node: NodeId, index: usize) {
        let last = self.node(node).inputs.len() - 1;
        for at in index..last {
            let next = self.node(node).inputs[at + 1];
            self.set_input(node, at, next);
        }
        self.set_input(node, last, None);
        self.node_mut(node).inputs.truncate(last);
    }

    /// Takes output `index` of a node away, which nothing uses.
    pub fn take_output(&mut self, node: NodeId, index: usize) {
        let value = self.node_mut(node).outputs.remove(index);
        assert!(self.value(value).uses.is_empty(), "an output that is used was taken away");
    }

    /// Takes an input of a graph away, which nothing uses.
    pub fn take_graph_input(&mut self, graph: GraphId, value: ValueId) {
        assert!(self.value(value).uses.is_empty(), "an input that is used was taken away");
        self.graph_mut(graph).inputs.retain(|it| *it != value);
    }

    /// Makes constants of the model's inputs that have a default. Returns their names.
    pub fn inputs_to_constants(&mut self) -> Vec<Name> {
        let main = self.main;
        let is_given = |m: &Model, it: ValueId| matches!(m.value(it).def, Def::Input(_, Some(_)));
        let (given, rest): (Vec<ValueId>, Vec<ValueId>) =
            self.graph(main).inputs.iter().partition(|it| is_given(self, **it));
        self.graph_mut(main).inputs = rest;
        for &value in &given {
            let input = self.value_mut(value);
            if let Def::Input(_, Some(tensor)) = &input.def {
                input.def = Def::Const(tensor.clone());
                input.declared = false;
            }
        }
        self.graph_mut(main).constants.extend(&given);
        given.into_iter().map(|it| self.value(it).name.clone()).collect()
    }

    /// Takes output `index` of a graph away.
    pub fn take_graph_output(&mut self, graph: GraphId, index: usize) {
        let place = |value: ValueId, index| (value, Use { user: User::Output(graph), index });
        let value = self.graph_mut(graph).outputs.remove(index);
        let (value, gone) = place(value, index);
        self.value_mut(value).uses.retain(|it| *it != gone);
        for at in index..self.graph(graph).outputs.len() {
            let (value, old) = place(self.graph(graph).outputs[at], at + 1);
            let uses = &mut self.value_mut(value).uses;
            uses.iter_mut().filter(|it| **it == old).for_each(|it| it.index = at);
        }
    }
}
