//! Casts where a value has another type than its user wants, one for each value, graph and type.

use std::collections::{BTreeMap, BTreeSet};

use onnxq_ir::{Attrs, Def, GraphId, Model, NodeId, Op, Use, User, ValueId, tensor::DType};

pub(super) struct Caster {
    pub dtype: DType,
    keep_io: bool,
    pub casts: usize,
    made: BTreeMap<(GraphId, ValueId, DType), ValueId>,
    /// Values that were float32: a mixed model has narrow ones of its own.
    changed: BTreeSet<ValueId>,
}

impl Caster {
    pub(super) fn new(dtype: DType, keep_io: bool) -> Caster {
        let (made, changed) = (BTreeMap::new(), BTreeSet::new());
        Caster { dtype, keep_io, casts: 0, made, changed }
    }

    /// A value becomes narrow; what the file says of it beyond its type is dropped.
    pub(super) fn narrow(&mut self, m: &mut Model, value: ValueId) {
        let it = m.value_mut(value);
        if let Some(ty) = &mut it.ty {
            ty.dtype = self.dtype;
        }
        // An encoded description would state the old type.
        if let Some(kept) = &mut it.kept {
            kept.info = None;
        }
        self.changed.insert(value);
    }

    /// Whether a value has the other one of the two types.
    fn differs(&self, m: &Model, value: ValueId, wanted: DType) -> bool {
        match m.dtype(value) {
            Some(DType::F32) => wanted == self.dtype,
            Some(it) => it == self.dtype && wanted == DType::F32 && self.changed.contains(&value),
            None => false,
        }
    }

    /// Inputs of the model take the narrow type, unless they keep theirs. Those with a default are
    /// the caller's to override, and stay as they are.
    pub(super) fn interface(&mut self, m: &mut Model) {
        if self.keep_io {
            return;
        }
        for value in m.graph(m.main).inputs.clone() {
            let is_plain = matches!(m.value(value).def, Def::Input(_, None));
            if is_plain && m.dtype(value) == Some(DType::F32) {
                self.narrow(m, value);
            }
        }
    }

    /// `value` as node input of the wanted type. Types other than these two are left alone.
    pub(super) fn input(
        &mut self,
        m: &mut Model,
        node: NodeId,
        value: ValueId,
        wanted: DType,
    ) -> ValueId {
        if !self.differs(m, value, wanted) {
            return value;
        }
        let graph = m.node(node).graph;
        if let Some(it) = self.made.get(&(graph, value, wanted)) {
            return *it;
        }
        let new = self.cast(m, graph, Some(node), value, wanted);
        self.made.insert((graph, value, wanted), new);
        new
    }

    /// Outputs of graphs get the type that their users expect: bodies and, if kept, the model.
    pub(super) fn outputs(&mut self, m: &mut Model) {
        for graph in m.graphs() {
            if !m.in_main(graph) {
                continue;
            }
            let is_main = graph == m.main;
            let wanted = if is_main && !self.keep_io { self.dtype } else { DType::F32 };
            for index in 0..m.graph(graph).outputs.len() {
                let value = m.graph(graph).outputs[index];
                if self.differs(m, value, wanted) {
                    self.output(m, graph, index, value, wanted);
                }
            }
        }
    }

    /// A Cast takes the place and the name of output `index`.
    fn output(
        &mut self,
        m: &mut Model,
        graph: GraphId,
        index: usize,
        value: ValueId,
        wanted: DType,
    ) {
        let new = self.cast(m, graph, None, value, wanted);
        let place = Use { user: User::Output(graph), index };
        m.value_mut(value).uses.retain(|it| *it != place);
        m.value_mut(new).uses.push(place);
        m.graph_mut(graph).outputs[index] = new;
        // Inputs and constants keep the name that they are known by, and so the output cannot be
        // called as before: that is what an Identity was there for.
        let is_computed = matches!(m.value(value).def, Def::Node(_));
        if is_computed && !m.is_output(value) {
            let stem = m.value(new).name.clone();
            let name = std::mem::replace(&mut m.value_mut(value).name, stem);
            let declared = std::mem::take(&mut m.value_mut(value).declared);
            (m.value_mut(new).name, m.value_mut(new).declared) = (name, declared);
        }
    }

    fn cast(
        &mut self,
        m: &mut Model,
        graph: GraphId,
        before: Option<NodeId>,
        value: ValueId,
        to: DType,
    ) -> ValueId {
        let name = format!("{}_{to}", m.value(value).name);
        let mut ty = m.value(value).ty.clone();
        if let Some(ty) = &mut ty {
            ty.dtype = to;
        }
        let new = m.add_value(&name, ty, Def::Input(graph, None));
        let attrs = Attrs::default().with("to", i64::from(to.number()));
        let op = (Op::new("Cast"), "".into());
        m.add_node(graph, before, op, vec![Some(value)], attrs, vec![new]);
        self.casts += 1;
        new
    }
}
