//! Edits that happen together or not at all: what a rule returns.

use std::collections::BTreeSet;

use super::{Attrs, Def, Model, NodeId, Op, ValueId};
use crate::tensor::Tensor;

/// A value that exists already, or one that the patch will create.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ref {
    Old(ValueId),
    New(usize),
    /// An optional input that is left out.
    None,
}

impl From<ValueId> for Ref {
    fn from(id: ValueId) -> Ref {
        Ref::Old(id)
    }
}

enum New {
    Const(String, Tensor),
    Node {
        name: String,
        op: Op,
        inputs: Vec<Ref>,
        attrs: Attrs,
        outputs: Vec<String>,
    },
    /// Output `index` of the node that was pushed at `node`.
    Output {
        node: usize,
        index: usize,
    },
}

/// A list of edits around one node.
pub struct Patch {
    before: NodeId,
    new: Vec<New>,
    replace: Vec<(ValueId, Ref)>,
    rewire: Vec<(NodeId, usize, Ref)>,
}

impl Patch {
    /// New nodes go right before `node`, so they see everything it sees.
    pub fn before(node: NodeId) -> Patch {
        Patch { before: node, new: Vec::new(), replace: Vec::new(), rewire: Vec::new() }
    }

    /// A new constant; `name` is a stem that is made unique when the model is written.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Ref {
        self.push(New::Const(name.to_owned(), tensor))
    }

    /// A new node with one output, called `name`.
    pub fn node(
        &mut self,
        name: &str,
        op: &str,
        inputs: impl IntoIterator<Item = Ref>,
        attrs: Attrs,
    ) -> Ref {
        self.named(name, name, op, inputs, attrs)
    }

    /// A new node without a name of its own: a step that nobody selects or asks for.
    pub fn step(
        &mut self,
        output: &str,
        op: &str,
        inputs: impl IntoIterator<Item = Ref>,
        attrs: Attrs,
    ) -> Ref {
        self.named("", output, op, inputs, attrs)
    }

    /// A new node called `name`, with one output called `output`.
    pub fn named(
        &mut self,
        name: &str,
        output: &str,
        op: &str,
        inputs: impl IntoIterator<Item = Ref>,
        attrs: Attrs,
    ) -> Ref {
        let inputs = inputs.into_iter().collect();
        let (name, op, outputs) = (name.to_owned(), Op::new(op), vec![output.to_owned()]);
        self.push(New::Node { name, op, inputs, attrs, outputs })
    }

    /// A new node without a name, with an output for each of `outputs`.
    pub fn step_with_outputs<const N: usize>(
        &mut self,
        outputs: [&str; N],
        op: &str,
        inputs: impl IntoIterator<Item = Ref>,
        attrs: Attrs,
    ) -> [Ref; N] {
        self.named_outputs("", outputs, op, inputs, attrs)
    }

    /// A new node called `name`, with an output for each of `outputs`.
    pub fn named_outputs<const N: usize>(
        &mut self,
        name: &str,
        outputs: [&str; N],
        op: &str,
        inputs: impl IntoIterator<Item = Ref>,
        attrs: Attrs,
    ) -> [Ref; N] {
        let name = name.to_owned();
        let inputs = inputs.into_iter().collect();
        let list = outputs.iter().map(|it| (*it).to_owned()).collect();
        let node = self.new.len();
        self.push(New::Node { name, op: Op::new(op), inputs, attrs, outputs: list });
        std::array::from_fn(|index| match index {
            0 => Ref::New(node),
            _ => self.push(New::Output { node, index }),
        })
    }

    /// A new node called `name`, with an output for each of `outputs`, however many.
    pub fn named_list(
        &mut self,
        name: &str,
        outputs: &[String],
        op: &str,
        inputs: impl IntoIterator<Item = Ref>,
        attrs: Attrs,
    ) -> Vec<Ref> {
        let name = name.to_owned();
        let inputs = inputs.into_iter().collect();
        let node = self.new.len();
        self.push(New::Node { name, op: Op::new(op), inputs, attrs, outputs: outputs.to_vec() });
        let rest = (1..outputs.len()).map(|index| New::Output { node, index });
        std::iter::once(Ref::New(node)).chain(rest.map(|it| self.push(it))).collect()
    }

    /// Everyone who used `old` will use `new`; what only `old` needed goes.
    pub fn replace(mut self, old: ValueId, new: Ref) -> Patch {
        self.replace.push((old, new));
        self
    }

    /// Only input `index` of `node` will be `new`.
    pub fn rewire(mut self, node: NodeId, index: usize, new: Ref) -> Patch {
        self.rewire.push((node, index, new));
        self
    }

    /// Whether nobody uses what it replaces, while other outputs keep those nodes.
    pub fn replaces_unused(&self, m: &Model) -> bool {
        let is_unused = |old: ValueId| {
            let value = m.value(old);
            let kept = matches!(value.def, Def::Node(node) if m.node(node).outputs.len() > 1);
            kept && value.uses.is_empty()
        };
        !self.replace.is_empty() && self.replace.iter().all(|(old, _)| is_unused(*old))
    }

    /// Whether a new node needs what the patch replaces: it would wait for itself.
    pub fn needs_what_it_replaces(&self, m: &Model) -> bool {
        let old = |it: &Ref| match it {
            Ref::Old(id) => Some(*id),
            _ => None,
        };
        let nodes = self.new.iter().filter_map(|it| match it {
            New::Node { inputs, .. } => Some(inputs),
            _ => None,
        });
        let operands: Vec<ValueId> = nodes.flatten().filter_map(old).collect();
        let replaced: Vec<ValueId> = self.replace.iter().map(|it| it.0).collect();
        m.depends(&operands, &replaced)
    }

    fn push(&mut self, new: New) -> Ref {
        self.new.push(new);
        Ref::New(self.new.len() - 1)
    }

    /// Carries the edits out. Returns the values behind each `Ref::New`.
    pub fn apply(self, model: &mut Model) -> Made {
        let graph = model.node(self.before).graph;
        let root = model.root(graph);
        let mut made: Vec<ValueId> = Vec::new();
        let resolve = |made: &[ValueId], it: Ref| match it {
            Ref::Old(id) => Some(id),
            Ref::New(index) => Some(made[index]),
            Ref::None => None,
        };
        for new in self.new {
            made.push(match new {
                // Weights of subgraphs become initializers of the graph around them.
                New::Const(name, tensor) => model.add_constant(root, &name, tensor),
                New::Node { name, op, inputs, attrs, outputs } => {
                    let inputs = inputs.into_iter().map(|it| resolve(&made, it)).collect();
                    let outputs: Vec<ValueId> = outputs
                        .iter()
                        .map(|it| model.add_value(it, None, Def::Input(graph, None)))
                        .collect();
                    let output = outputs[0];
                    // Whoever makes a node of a domain means an operator set of it.
                    if !op.domain.is_empty() && model.opset(&op.domain) == 0 {
                        model.set_opset(&op.domain, 1);
                    }
                    let name = (op, name.as_str().into());
                    model.add_node(graph, Some(self.before), name, inputs, attrs, outputs);
                    output
                }
                New::Output { node, index } => {
                    let Def::Node(node) = model.value(made[node]).def else { unreachable!() };
                    model.node(node).outputs[index]
                }
            });
        }
        for &value in &made {
            if let Def::Node(node) = model.value(value).def {
                model.settle_node(node);
            }
        }
        let mut touched = made.clone();
        for (node, index, new) in self.rewire {
            let old = model.node(node).inputs.get(index).copied().flatten();
            let new = resolve(&made, new);
            model.set_input(node, index, new);
            model.settle_node(node);
            touched.extend(old.into_iter().chain(new));
            drop_if_unused(model, old);
        }
        let mut fresh: BTreeSet<ValueId> = made.iter().copied().collect();
        for (old, new) in self.replace {
            let new = resolve(&made, new).expect("a value is replaced by a value");
            // Those that the new value has already come after it.
            let users = model.value(old).uses.clone();
            model.replace_all_uses(old, new);
            model.settle(new, &users);
            if fresh.remove(&new) {
                model.inherit(old, new);
            }
            touched.push(new);
            drop_if_unused(model, Some(old));
        }
        Made { values: made, touched }
    }
}

/// The values that a patch made.
pub struct Made {
    values: Vec<ValueId>,
    /// All values whose definition or uses changed.
    pub touched: Vec<ValueId>,
}

impl Made {
    pub fn value(&self, it: Ref) -> ValueId {
        match it {
            Ref::Old(id) => id,
            Ref::New(index) => self.values[index],
            Ref::None => unreachable!("a missing input has no value"),
        }
    }
}

fn drop_if_unused(model: &mut Model, value: Option<ValueId>) {
    if let Some(value) = value
        && let Def::Node(producer) = model.value(value).def
    {
        model.remove_dead(producer);
    }
}
