//! A model and the shapes of its inputs become a program.
//!
//! What depends on weights goes onto the tape; all else (positions, masks, shapes) is evaluated by the
//! reference evaluator: once, if it is the same for all inputs of these shapes, or in each run.

use std::collections::{BTreeMap, BTreeSet};

use onnxq_ir::{
    Def, Model, NoMatch, Node, NodeId, ValueId,
    diag::{Code, Diagnostic},
    eval::{self, EvalError},
    no_match,
    tensor::{DType, Tensor, TensorError},
    untrusted::Untrusted,
};

use crate::{
    ops::Table,
    params::{LeafId, Weights, is_weight},
    real::Real,
    tape::{HostStep, Program, Slot, SlotId, Source, Step, plan_of},
};

/// Why a model cannot be trained.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    #[error("node `{}` has no gradient here: {reason}", Untrusted(node))]
    Node { node: String, reason: NoMatch },
    #[error("the model has no output `{}`", Untrusted(name))]
    NoOutput { name: String },
    #[error("output `{}` depends on no weight that could be trained", Untrusted(name))]
    Fixed { name: String },
    #[error("input `{}` is needed, and the data does not have it", Untrusted(name))]
    NoInput { name: String },
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Diagnostic for LowerError {
    fn code(&self) -> Code {
        match self {
            LowerError::Node { .. } => Code::E640,
            LowerError::NoOutput { .. } | LowerError::Fixed { .. } => Code::E641,
            LowerError::NoInput { .. } => Code::E607,
            LowerError::Eval(it) => it.code(),
            LowerError::Tensor(it) => it.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        let LowerError::Node { .. } = self else { return None };
        Some("`onnxq explain E640` lists the operators that can be trained through".into())
    }
}

/// Where a value of the model is.
#[derive(Clone)]
enum Place {
    /// Evaluated by the host; `varies`: in each run.
    Host {
        tensor: Tensor,
        varies: bool,
    },
    Slot(SlotId),
}

/// What is to be made of a model.
pub struct Request<'a> {
    pub model: &'a Model,
    /// Inputs of the shapes that the program is for.
    pub inputs: &'a BTreeMap<ValueId, Tensor>,
    /// Names of outputs.
    pub outputs: &'a [String],
    /// Values whose gradients somebody wants to see.
    pub watched: &'a BTreeSet<ValueId>,
    /// Bytes that a run may take.
    pub memory: usize,
}

struct Lowering<'a, R> {
    m: &'a Model,
    weights: &'a mut Weights,
    watched: &'a BTreeSet<ValueId>,
    /// The outputs that are asked for, and all that is read on the way to them.
    read: BTreeSet<ValueId>,
    places: BTreeMap<ValueId, Place>,
    slots: Vec<Slot>,
    leaves: BTreeMap<LeafId, SlotId>,
    hosts: BTreeMap<ValueId, SlotId>,
    steps: Vec<Step<R>>,
    host_steps: Vec<HostStep>,
}

/// Makes the program of a model. Weights that it reads are added to `weights`.
pub fn lower<R: Real>(
    request: &Request<'_>,
    weights: &mut Weights,
) -> Result<Program<R>, LowerError> {
    let m = request.model;
    let outputs = named(m, request.outputs)?;
    let (nodes, read) = needed(m, outputs.values().copied());
    let mut lowering = Lowering {
        m,
        weights,
        watched: request.watched,
        read,
        places: BTreeMap::new(),
        slots: Vec::new(),
        leaves: BTreeMap::new(),
        hosts: BTreeMap::new(),
        steps: Vec::new(),
        host_steps: Vec::new(),
    };
    for (id, tensor) in request.inputs {
        lowering.places.insert(*id, Place::Host { tensor: tensor.clone(), varies: true });
    }
    for node in nodes {
        lowering.node(node)?;
    }
    lowering.finish(outputs, request.memory / size_of::<R>())
}

fn named(m: &Model, names: &[String]) -> Result<BTreeMap<String, ValueId>, LowerError> {
    let all = &m.graph(m.main).outputs;
    let find = |name: &String| {
        let id = all.iter().find(|it| *m.value(**it).name == **name);
        let id = id.ok_or_else(|| LowerError::NoOutput { name: name.clone() })?;
        Ok((name.clone(), *id))
    };
    names.iter().map(find).collect()
}

/// The nodes of the main graph that some values are computed by, in order, without those behind weights,
/// and the values that these nodes read.
fn needed(m: &Model, values: impl Iterator<Item = ValueId>) -> (Vec<NodeId>, BTreeSet<ValueId>) {
    let mut open: Vec<ValueId> = values.collect();
    let (mut found, mut read) = (BTreeSet::new(), BTreeSet::new());
    while let Some(value) = open.pop() {
        read.insert(value);
        let Def::Node(node) = m.value(value).def else { continue };
        if is_weight(m, value) {
            continue;
        }
        if found.insert(node) {
            open.extend(m.node(node).inputs.iter().flatten());
        }
    }
    (m.nodes_of(m.main).filter(|it| found.contains(it)).collect(), read)
}

impl<R: Real> Lowering<'_, R> {
    fn node(&mut self, id: NodeId) -> Result<(), LowerError> {
        let m = self.m;
        let node = m.node(id);
        if node.op.is("Shape") && self.on_tape(node.inputs[0]) {
            return self.shape(id);
        }
        // Read where its values are dequantized.
        let through = node.op.is("DynamicQuantizeLinear") && self.on_tape(node.inputs[0]);
        if through {
            return Ok(());
        }
        if !self.is_of_tape(id) {
            return self.host(id);
        }
        let reason = |reason| LowerError::Node { node: m.node_label(id), reason };
        let row = Table::<R>::find(&node.op);
        let row = row.ok_or_else(|| reason(no_match!("{} has no gradient", node.op)))?;
        for index in 0..node.outputs.len() {
            // A cache that the model gives out besides is no part of the loss.
            if !self.read.contains(&node.outputs[index]) {
                continue;
            }
            let lowered = (row.lower)(&mut Site { lowering: self, id, output: index });
            let lowered = lowered.map_err(reason)?;
            self.push(id, index, lowered);
        }
        Ok(())
    }

    fn push(&mut self, node: NodeId, index: usize, lowered: crate::ops::Lowered<R>) {
        let value = self.m.node(node).outputs[index];
        let is_wanted = |it: &SlotId| self.slots[it.0].wanted;
        let wanted = lowered.inputs.iter().any(is_wanted) || self.watched.contains(&value);
        let source = Source::Step(self.steps.len());
        let output = self.slot(Slot { shape: lowered.shape, source, wanted, value });
        self.steps.push(Step { node, op: lowered.op, inputs: lowered.inputs, output });
        self.places.insert(value, Place::Slot(output));
    }

    fn slot(&mut self, slot: Slot) -> SlotId {
        self.slots.push(slot);
        SlotId(self.slots.len() - 1)
    }

    fn on_tape(&self, value: Option<ValueId>) -> bool {
        value.is_some_and(|it| matches!(self.places.get(&it), Some(Place::Slot(_))))
    }

    /// Whether a node computes something of weights: it reads a value of the tape, or it has a weight.
    fn is_of_tape(&self, id: NodeId) -> bool {
        let node = self.m.node(id);
        let reads = node.inputs.iter().any(|it| self.on_tape(*it) || self.is_pending(*it));
        let trains = || node.inputs.iter().flatten().any(|it| self.weights.trains(self.m, *it));
        reads || trains() || self.weights.is_weight_of(self.m, id)
    }

    /// Whether a value is what `DynamicQuantizeLinear` makes of a value of the tape.
    fn is_pending(&self, value: Option<ValueId>) -> bool {
        let Some(Def::Node(made)) = value.map(|it| &self.m.value(it).def) else { return false };
        let made = self.m.node(*made);
        made.op.is("DynamicQuantizeLinear") && self.on_tape(made.inputs[0])
    }

    /// The shape of a value of the tape is known.
    fn shape(&mut self, id: NodeId) -> Result<(), LowerError> {
        let node = self.m.node(id);
        let Some(Place::Slot(slot)) = node.inputs[0].and_then(|it| self.places.get(&it)) else {
            return Ok(());
        };
        let shape = self.slots[slot.0].shape.clone();
        let stand_in = Tensor::lazy(DType::F32, shape, || Ok(bytes_of_nothing()));
        let outputs = eval::node(self.m, id, &[Some(stand_in)])?;
        self.keep(node, outputs, false);
        Ok(())
    }

    fn host(&mut self, id: NodeId) -> Result<(), LowerError> {
        let node = self.m.node(id);
        let mut varies = false;
        let mut operands = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            let Some(value) = *input else {
                operands.push(None);
                continue;
            };
            let (tensor, own) = self.host_value(value)?;
            varies |= own;
            operands.push(Some(tensor));
        }
        let outputs = eval::node(self.m, id, &operands)?;
        if varies {
            self.host_steps.push(HostStep { node: id });
        }
        self.keep(node, outputs, varies);
        Ok(())
    }

    fn keep(&mut self, node: &Node, outputs: Vec<Tensor>, varies: bool) {
        for (value, tensor) in node.outputs.iter().zip(outputs) {
            self.places.insert(*value, Place::Host { tensor, varies });
        }
    }

    /// A value that the host knows, and whether it varies.
    fn host_value(&mut self, value: ValueId) -> Result<(Tensor, bool), LowerError> {
        if let Some(Place::Host { tensor, varies }) = self.places.get(&value) {
            return Ok((tensor.clone(), *varies));
        }
        let own = self.m.value(value);
        match &own.def {
            Def::Const(tensor) | Def::Input(_, Some(tensor)) => {
                let place = Place::Host { tensor: tensor.clone(), varies: false };
                self.places.insert(value, place);
                Ok((tensor.clone(), false))
            }
            _ => Err(LowerError::NoInput { name: own.name.to_string() }),
        }
    }

    fn finish(
        self,
        outputs: BTreeMap<String, ValueId>,
        memory: usize,
    ) -> Result<Program<R>, LowerError> {
        let mut found = BTreeMap::new();
        for (name, value) in outputs {
            match self.places.get(&value) {
                Some(Place::Slot(slot)) => drop(found.insert(name, *slot)),
                _ => return Err(LowerError::Fixed { name }),
            }
        }
        let constants = self.places.into_iter().filter_map(|(id, place)| match place {
            Place::Host { tensor, varies: false } => Some((id, tensor)),
            _ => None,
        });
        let roots: Vec<SlotId> = found.values().copied().collect();
        let plan = plan_of(&self.slots, &self.steps, &roots, memory);
        Ok(Program {
            slots: self.slots,
            steps: self.steps,
            hosts: self.host_steps,
            constants: constants.collect(),
            outputs: found,
            plan,
        })
    }
}

fn bytes_of_nothing() -> bytes::Bytes {
    bytes::Bytes::new()
}

/// A node that is being lowered, as rows see it.
pub struct Site<'l, 'a, R> {
    lowering: &'l mut Lowering<'a, R>,
    pub id: NodeId,
    /// Which output of the node.
    pub output: usize,
}

impl<R: Real> Site<'_, '_, R> {
    pub fn model(&self) -> &Model {
        self.lowering.m
    }

    pub fn node(&self) -> &Node {
        self.lowering.m.node(self.id)
    }

    pub fn float(&self, name: &str, default: f32) -> f64 {
        self.model().float_attr(self.id, name, default).into()
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.model().int_attr(self.id, name, default)
    }

    pub fn has_input(&self, index: usize) -> bool {
        self.node().inputs.get(index).is_some_and(|it| it.is_some())
    }

    fn input(&self, index: usize) -> Result<ValueId, NoMatch> {
        self.model().operand(self.id, index)
    }

    /// Whether an input is known to the host, so that it has no gradient.
    pub fn is_host(&self, index: usize) -> bool {
        let Some(Some(value)) = self.node().inputs.get(index) else { return false };
        !self.lowering.on_tape(Some(*value)) && !self.lowering.weights.is_known(*value)
    }

    /// An input that must be the same in each run, as a tensor.
    pub fn constant(&mut self, index: usize) -> Result<Tensor, NoMatch> {
        let value = self.input(index)?;
        match self.lowering.host_value(value) {
            Ok((tensor, false)) => Ok(tensor),
            Ok((_, true)) => Err(no_match!("input {index} depends on the model's inputs")),
            Err(err) => Err(no_match!("input {index}: {err}")),
        }
    }

    pub fn ints(&mut self, index: usize) -> Result<Vec<i64>, NoMatch> {
        self.constant(index)?.to_i64().map_err(|err| no_match!("input {index}: {err}"))
    }

    /// Axes that were an attribute and became an input in a later version.
    pub fn axes(&mut self, index: usize) -> Result<Option<Vec<i64>>, NoMatch> {
        if let Some(list) = self.model().ints_attr(self.id, "axes") {
            return Ok(Some(list.to_vec()));
        }
        if self.has_input(index) { self.ints(index).map(Some) } else { Ok(None) }
    }

    /// An input as a slot: a value of the tape, a weight, or what the host computes.
    pub fn slot(&mut self, index: usize) -> Result<SlotId, NoMatch> {
        let value = self.input(index)?;
        self.slot_of(value)
    }

    pub fn slot_of(&mut self, value: ValueId) -> Result<SlotId, NoMatch> {
        let lowering = &mut *self.lowering;
        if let Some(Place::Slot(slot)) = lowering.places.get(&value) {
            return Ok(*slot);
        }
        let leaf = lowering.weights.leaf(lowering.m, value);
        if let Some(leaf) = leaf.map_err(|err| no_match!("{err}"))? {
            return Ok(self.leaf(leaf, value));
        }
        if let Some(slot) = lowering.hosts.get(&value) {
            return Ok(*slot);
        }
        let (tensor, _) = lowering.host_value(value).map_err(|err| no_match!("{err}"))?;
        let source = Source::Host(value);
        let slot = lowering.slot(Slot { shape: tensor.shape, source, wanted: false, value });
        lowering.hosts.insert(value, slot);
        Ok(slot)
    }

    fn leaf(&mut self, leaf: LeafId, value: ValueId) -> SlotId {
        let lowering = &mut *self.lowering;
        if let Some(slot) = lowering.leaves.get(&leaf) {
            return *slot;
        }
        let (shape, wanted) = (lowering.weights.shape(leaf), lowering.weights.is_trained(leaf));
        let slot = lowering.slot(Slot { shape, source: Source::Leaf(leaf), wanted, value });
        lowering.leaves.insert(leaf, slot);
        slot
    }

    /// What a value was before `DynamicQuantizeLinear`, if it comes from there.
    pub fn before_quantizing(&mut self, index: usize) -> Option<ValueId> {
        let value = self.input(index).ok()?;
        if !self.lowering.is_pending(Some(value)) {
            return None;
        }
        let made = self.model().producer(value, "DynamicQuantizeLinear").ok()?;
        self.model().node(made).inputs[0]
    }

    pub fn shape(&self, slot: SlotId) -> Vec<usize> {
        self.lowering.slots[slot.0].shape.clone()
    }

    /// The element type of what the host knows.
    pub fn host_type(&mut self, index: usize) -> Result<DType, NoMatch> {
        let value = self.input(index)?;
        let known = self.lowering.host_value(value).map_err(|err| no_match!("{err}"))?;
        Ok(known.0.dtype)
    }

    /// Whether a gradient of a slot is of use.
    pub fn wanted(&self, slot: SlotId) -> bool {
        self.lowering.slots[slot.0].wanted
    }
}
