//! The way through the graphs: nodes in order, bodies with their inputs, functions at each call.

use std::collections::BTreeMap;

use super::{
    call::{Call, Types},
    control,
    data::{self, Data, MAX_COMPUTED},
    dims,
    expr::Expr,
    ops,
};
use crate::{
    ir::{Attr, Attrs, Function, GraphId, Model, Name, NodeId, ValueId},
    tensor::{Dim, TensorType},
};

/// Types of the outputs of nodes and of the inputs of bodies, as far as they can be told.
pub(super) fn types(model: &Model) -> BTreeMap<ValueId, TensorType> {
    let scope = Scope { opsets: &model.opsets, attrs: Attrs::default() };
    // Functions are walked at each call; calls of calls may be far more than nodes.
    let budget = model.node_count().saturating_mul(4).saturating_add(100_000);
    let mut walk = Walk::new(model, scope, budget);
    walk.spellings = spellings(model);
    walk.graph(model.main, 0);
    walk.types
}

pub(super) struct Walk<'a> {
    pub model: &'a Model,
    pub scope: Scope<'a>,
    pub types: BTreeMap<ValueId, TensorType>,
    pub data: BTreeMap<ValueId, Data>,
    /// How the model spells an expression: our spelling → that of its inputs and outputs.
    spellings: BTreeMap<Name, Name>,
    /// Nodes that may still be visited.
    budget: usize,
}

/// What holds inside the main graph, or inside a function at one call.
pub(super) struct Scope<'a> {
    pub opsets: &'a [(Name, i64)],
    pub attrs: Attrs,
}

const MAX_DEPTH: usize = 64;

impl<'a> Walk<'a> {
    fn new(model: &'a Model, scope: Scope<'a>, budget: usize) -> Walk<'a> {
        let (types, data, spellings) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Walk { model, scope, types, data, spellings, budget }
    }

    fn graph(&mut self, id: GraphId, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        for node in self.model.nodes_of(id) {
            if self.budget == 0 {
                return;
            }
            self.budget -= 1;
            self.node(node, depth);
        }
    }

    fn node(&mut self, id: NodeId, depth: usize) {
        let node = self.model.node(id);
        for (name, attr) in node.attrs.iter() {
            match attr {
                Attr::Graph(body) => self.body(id, name, *body, depth),
                Attr::Graphs(list) => list.iter().for_each(|it| self.graph(*it, depth + 1)),
                _ => {}
            }
        }
        let (types, data) = match self.model.function(&node.op) {
            Some(function) => self.function(id, function, depth),
            None => {
                let call = Call::new(self, node);
                let types = ops::row(&node.op).map(|row| row(&call)).unwrap_or_default();
                (types, vec![data::propagate(&call)])
            }
        };
        let mut data = data.into_iter();
        let mut types = types.into_iter();
        for &output in &node.outputs {
            self.record(output, types.next().flatten(), data.next().flatten());
        }
    }

    fn body(&mut self, node: NodeId, attr: &str, body: GraphId, depth: usize) {
        let seeds = control::body_inputs(&Call::new(self, self.model.node(node)), attr);
        for (&input, ty) in self.model.graph(body).inputs.iter().zip(seeds) {
            self.record(input, ty, None);
        }
        self.graph(body, depth + 1);
    }

    /// The results of a call, by walking the body with the types of its arguments.
    fn function(
        &mut self,
        id: NodeId,
        function: &'a Function,
        depth: usize,
    ) -> (Types, Vec<Option<Data>>) {
        let body = self.model.graph(function.body);
        let mut inner = {
            let call = Call::new(self, self.model.node(id));
            let scope = Scope { opsets: &function.opsets, attrs: arguments(&call, function) };
            let mut inner = Walk::new(self.model, scope, self.budget);
            for (index, &input) in body.inputs.iter().enumerate() {
                inner.record(input, call.ty(index), call.data(index));
            }
            inner
        };
        inner.graph(function.body, depth + 1);
        self.budget = inner.budget;
        let types = body.outputs.iter().map(|it| inner.types.get(it).cloned()).collect();
        (types, body.outputs.iter().map(|it| inner.data.get(it).cloned()).collect())
    }

    fn record(&mut self, id: ValueId, inferred: Option<TensorType>, data: Option<Data>) {
        let inferred = inferred.map(|it| self.spell(it));
        let ty = match (&self.model.value(id).ty, inferred) {
            (Some(declared), Some(it)) => Some(dims::refine(declared, &it)),
            (declared, it) => it.or_else(|| declared.clone()),
        };
        if let Some(ty) = ty {
            self.types.insert(id, ty);
        }
        if let Some(data) = data
            && data.items.len() <= MAX_COMPUTED
        {
            self.data.insert(id, data);
        }
    }

    fn spell(&self, mut ty: TensorType) -> TensorType {
        for dim in ty.shape.iter_mut().flatten() {
            if let Dim::Symbol(it) = dim
                && let Some(own) = self.spellings.get(it)
            {
                *dim = Dim::Symbol(own.clone());
            }
        }
        ty
    }
}

/// Attributes of a call with the defaults of the function.
fn arguments(call: &Call, function: &Function) -> Attrs {
    let mut attrs = function.defaults.clone();
    for (name, _) in call.node.attrs.iter() {
        if let Some(value) = call.attr(name) {
            attrs.set(name, value.clone());
        }
    }
    attrs
}

fn spellings(model: &Model) -> BTreeMap<Name, Name> {
    let graph = model.graph(model.main);
    let mut spellings = BTreeMap::new();
    for &id in graph.inputs.iter().chain(&graph.outputs) {
        let shape = model.value(id).ty.as_ref().and_then(|it| it.shape.as_ref());
        for dim in shape.into_iter().flatten() {
            let Dim::Symbol(own) = dim else { continue };
            match Expr::of(dim).map(|it| it.dim()) {
                Some(Dim::Symbol(ours)) if ours != *own => {
                    spellings.entry(ours).or_insert_with(|| own.clone());
                }
                _ => {}
            }
        }
    }
    spellings
}
