//! Models whose sizes depend on computed numbers: what decides is taken from the reference, and judged
//! itself, so that outputs of both models can be held against each other.

use std::collections::{BTreeMap, BTreeSet};

use super::deciders::{Decider, Decisions, decisions, maker, operands};
use crate::data::Batch;
use onnxq_ir::{
    Attrs, Model, Name, NodeId, Op, ValueId,
    diag::{Code, Warning},
    infer,
    tensor::{Dim, Tensor, TensorType},
    unique_names,
    untrusted::Untrusted,
};

/// The reference, and what in it decides sizes.
#[derive(Clone)]
pub struct Sizes {
    typed: Model,
    deciders: Vec<Decider>,
    decided: Vec<ValueId>,
    settled: Vec<ValueId>,
    /// By index of the value.
    names: Vec<Name>,
    /// Float values that are judged although they are no outputs.
    judged: Vec<ValueId>,
}

impl std::fmt::Debug for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sizes of {}", self.judged())
    }
}

/// A model in which the batch says what is decided.
pub struct Pinned {
    pub model: Model,
    /// What the reference judges and this model does not compute in the same way.
    pub unmatched: Vec<String>,
}

impl Sizes {
    /// `None` if no size depends on numbers that another model rounds otherwise.
    pub fn of(reference: &Model) -> Option<Sizes> {
        let mut typed = reference.clone();
        infer::run(&mut typed);
        let Decisions { deciders, decided, settled } = decisions(&typed);
        let outputs = &typed.graph(typed.main).outputs;
        let floats: BTreeSet<ValueId> =
            deciders.iter().flat_map(|it| &it.floats).copied().collect();
        let judged = floats.into_iter().filter(|it| !outputs.contains(it)).collect();
        let names = unique_names(&typed);
        (!deciders.is_empty()).then_some(Sizes { typed, deciders, decided, settled, names, judged })
    }

    fn name(&self, value: ValueId) -> &str {
        &self.names[value.index()]
    }

    /// The reference with what decides and what is judged among its outputs, which the first of both
    /// models runs as.
    pub fn telling(&self) -> Model {
        let mut m = self.typed.clone();
        self.drop_settled(&mut m);
        let deciding = self.deciders.iter().map(|it| it.value);
        for value in deciding.chain(self.judged.iter().copied()) {
            if !m.graph(m.main).outputs.contains(&value) {
                m.value_mut(value).name = self.names[value.index()].clone();
                m.add_output(m.main, value);
            }
        }
        m.remove_all_dead();
        m
    }

    /// What is settled is no output of `m` any more.
    fn drop_settled(&self, m: &mut Model) {
        let is_settled = |it: &ValueId, m: &Model| {
            self.settled.iter().any(|settled| *self.name(*settled) == *m.value(*it).name)
        };
        while let Some(at) = m.graph(m.main).outputs.iter().position(|it| is_settled(it, m)) {
            m.take_graph_output(m.main, at);
        }
    }

    /// Another model of the same outputs, or the reference itself, that goes on from what is decided.
    pub fn pinned(&self, other: &Model) -> Pinned {
        let mut model = other.clone();
        infer::run(&mut model);
        let partners: Vec<Option<NodeId>> =
            self.deciders.iter().map(|it| self.partner(&model, it.node)).collect();
        let floats = self.partners_of_floats(&model, &partners);
        for (decider, partner) in self.deciders.iter().zip(partners) {
            if let Some(node) = partner {
                self.pin(&mut model, decider, node);
            }
        }
        self.drop_settled(&mut model);
        let mut unmatched = Vec::new();
        for value in &self.judged {
            match floats.get(value) {
                Some(own) => show(&mut model, *own, self.name(*value)),
                None => unmatched.push(self.name(*value).to_owned()),
            }
        }
        model.remove_all_dead();
        Pinned { model, unmatched }
    }

    /// The node that does in `other` what `node` does in the reference: the one of the same result or
    /// name, or else the one at the same place among its like.
    fn partner(&self, other: &Model, node: NodeId) -> Option<NodeId> {
        let (own, of) = (&self.typed, self.typed.node(node));
        let alike = |m: &Model| -> Vec<NodeId> {
            m.nodes_of(m.main).filter(|it| m.node(*it).op == of.op).collect()
        };
        let (theirs, ours) = (alike(other), alike(own));
        let result = |m: &Model, it: NodeId| m.value(m.node(it).output()).name.clone();
        let by_result = theirs.iter().find(|it| result(other, **it) == result(own, node));
        let is_named = |it: &&NodeId| !of.name.is_empty() && other.node(**it).name == of.name;
        let by_place = || {
            let at = ours.iter().position(|it| *it == node)?;
            (ours.len() == theirs.len()).then(|| theirs[at])
        };
        by_result.or_else(|| theirs.iter().find(is_named)).copied().or_else(by_place)
    }

    /// Makes the decider an input of the model.
    fn pin(&self, m: &mut Model, decider: &Decider, node: NodeId) {
        let Some(Some(own)) = m.node(node).inputs.get(decider.input).copied() else { return };
        let name = input(self.name(decider.value));
        let inputs = &m.graph(m.main).inputs;
        let known = inputs.iter().find(|it| *m.value(**it).name == *name).copied();
        let ty = m.value(own).ty.clone().or_else(|| self.typed.value(decider.value).ty.clone());
        let value = known.unwrap_or_else(|| m.add_input(m.main, &name, ty.map(open)));
        m.set_input(node, decider.input, Some(value));
    }

    /// For each judged value that of `other`.
    fn partners_of_floats(
        &self,
        other: &Model,
        partners: &[Option<NodeId>],
    ) -> BTreeMap<ValueId, ValueId> {
        let mut found = BTreeMap::new();
        for (decider, node) in self.deciders.iter().zip(partners) {
            let value = node.and_then(|it| *other.node(it).inputs.get(decider.input)?);
            if let Some(value) = value {
                self.walk(other, (decider.value, value), &decider.floats, &mut found);
            }
        }
        let is_float = |it: ValueId| other.dtype(it).is_some_and(|it| it.is_float());
        for value in &self.judged {
            let name = self.name(*value);
            let same = || other.values().find(|it| *it.1.name == *name && is_float(it.0));
            let made = || same().map(|it| it.0).filter(|it| maker(other, *it).is_some());
            if !found.contains_key(value)
                && let Some(it) = made()
            {
                found.insert(*value, it);
            }
        }
        found
    }

    /// Goes back in both models side by side, as long as they do the same, until a float is reached.
    fn walk(
        &self,
        other: &Model,
        (own, theirs): (ValueId, ValueId),
        floats: &[ValueId],
        found: &mut BTreeMap<ValueId, ValueId>,
    ) {
        let mut work = vec![(own, theirs)];
        let mut seen = BTreeSet::new();
        while let Some((own, theirs)) = work.pop() {
            if !seen.insert((own, theirs)) || found.contains_key(&own) {
                continue;
            }
            if floats.contains(&own) {
                if other.dtype(theirs).is_some_and(|it| it.is_float()) {
                    found.insert(own, theirs);
                }
                continue;
            }
            let [Some(a), Some(b)] = [maker(&self.typed, own), maker(other, theirs)] else {
                continue;
            };
            if self.typed.node(a).op == other.node(b).op {
                let pairs = operands(&self.typed, own).into_iter().zip(operands(other, theirs));
                work.extend(pairs.filter_map(|(own, theirs)| Some((own?, theirs?))));
            }
        }
    }

    /// Takes what was decided out of the outputs of the model that tells. Returns the batch for the
    /// model that is pinned.
    pub fn tell(&self, outputs: &mut Vec<(String, Tensor)>, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        for it in &self.deciders {
            let name = self.name(it.value);
            if let Some((_, tensor)) = outputs.iter().find(|it| it.0 == name) {
                batch.insert(input(name), tensor.clone());
            }
        }
        let is_judged = |name: &str| {
            let mut judged = self.judged.iter().chain(&self.typed.graph(self.typed.main).outputs);
            judged.any(|it| self.name(*it) == name)
        };
        outputs.retain(|it| is_judged(&it.0));
        batch
    }

    /// Whether figures of that name are of no output, but of what decides.
    pub fn is_judged(&self, name: &str) -> bool {
        self.judged.iter().any(|it| self.name(*it) == name)
    }

    /// Whether an output depends on what is decided: its rows are no samples.
    pub fn is_decided(&self, name: &str) -> bool {
        self.decided.iter().any(|it| self.name(*it) == name)
    }

    /// Whether an output follows from what is decided.
    pub fn is_settled(&self, name: &str) -> bool {
        self.settled.iter().any(|it| self.name(*it) == name)
    }

    /// What is judged instead, for people.
    pub fn judged(&self) -> String {
        self.listed(&self.floats())
    }

    fn floats(&self) -> Vec<ValueId> {
        let list: BTreeSet<ValueId> =
            self.deciders.iter().flat_map(|it| &it.floats).copied().collect();
        list.into_iter().collect()
    }

    fn listed(&self, values: &[ValueId]) -> String {
        const MOST: usize = 8;
        let name = |it: &ValueId| format!("`{}`", Untrusted(self.name(*it)));
        let list: Vec<String> = values.iter().take(MOST).map(name).collect();
        let more = values.len().saturating_sub(MOST);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        list.join(", ") + &more
    }

    /// Says what is judged in place of what.
    pub fn warning(&self) -> Warning {
        let decides: BTreeSet<String> =
            self.deciders.iter().map(|it| self.typed.node_label(it.node)).collect();
        let first = decides.first().map_or("", |it| it);
        let more = match decides.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let mut text = format!(
            "sizes depend on computed numbers at `{}`{more}: both models go on from what the reference \
             decides there, and {}, which decide, are judged beside the outputs",
            Untrusted(first),
            self.judged()
        );
        if !self.settled.is_empty() {
            let list = self.listed(&self.settled);
            text += &format!("; not judged is what follows from that alone: {list}");
        }
        Warning::new(Code::W213, text)
    }
}

/// The name of the input that says what was decided.
fn input(name: &str) -> String {
    format!("{name}@reference")
}

/// What is fed may have another size.
fn open(ty: TensorType) -> TensorType {
    let shape = ty.shape.map(|it| it.iter().map(|_| Dim::Unknown).collect());
    TensorType { shape, ..ty }
}

/// Makes a value an output of that name.
fn show(m: &mut Model, value: ValueId, name: &str) {
    let is_output = m.graph(m.main).outputs.contains(&value);
    if *m.value(value).name == *name && !is_output {
        return m.add_output(m.main, value);
    }
    let taken: Vec<ValueId> = m.values().filter(|it| *it.1.name == *name).map(|it| it.0).collect();
    // New names give way to those of outputs; what was imported is a stem from now on.
    let ty = m.value(value).ty.clone();
    let shown = m.add_value(name, ty, onnxq_ir::Def::Input(m.main, None));
    for it in taken {
        m.value_mut(it).name = format!("{name}_before").into();
    }
    let op = (Op::new("Identity"), Name::from(""));
    m.add_node(m.main, None, op, vec![Some(value)], Attrs::default(), vec![shown]);
    m.add_output(m.main, shown);
}
