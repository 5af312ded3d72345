//! Running a graph: values by id, captured values from the graphs around, dead values freed.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    EvalError,
    call::{Call, wrong},
    index, table, values,
};
use crate::{
    ir::{
        Attr, Attrs, Def, Function, GraphId, Model, Name, NodeId, Sparse, ValueId, normal_domain,
    },
    tensor::Tensor,
    untrusted::Untrusted,
};

/// Graphs in graphs and functions in functions, so that a cycle of calls ends.
const MAX_DEPTH: usize = 48;

/// The values of one run of one graph.
pub(super) struct Scope<'a> {
    pub model: &'a Model,
    /// The graph around, whose values this one may use.
    outer: Option<&'a Scope<'a>>,
    opsets: &'a [(Name, i64)],
    /// The attributes of the call, if this is a function body.
    arguments: Option<&'a Attrs>,
    /// `None` is an optional input of a function that the call leaves out.
    values: BTreeMap<ValueId, Option<Tensor>>,
    depth: usize,
}

impl<'a> Scope<'a> {
    pub(super) fn main(model: &'a Model) -> Scope<'a> {
        let values = BTreeMap::new();
        Scope { model, outer: None, opsets: &model.opsets, arguments: None, values, depth: 0 }
    }

    /// An empty scope for nodes of `graph`.
    pub(super) fn of(model: &'a Model, graph: GraphId) -> Scope<'a> {
        let root = model.root(graph);
        let function = model.functions.iter().find(|it| it.body == root);
        let opsets = function.map_or(&model.opsets, |it| &it.opsets);
        Scope { opsets, ..Scope::main(model) }
    }

    /// Binds the inputs of `graph`, in order.
    pub(super) fn with(
        mut self,
        graph: GraphId,
        inputs: Vec<Option<Tensor>>,
    ) -> Result<Scope<'a>, EvalError> {
        let names = &self.model.graph(graph).inputs;
        if inputs.len() > names.len() {
            let what = format!("{} inputs for a graph of {}", inputs.len(), names.len());
            return Err(EvalError::Shape { what });
        }
        let mut inputs = inputs.into_iter();
        for &name in names {
            match inputs.next().flatten() {
                Some(it) => drop(self.values.insert(name, Some(it))),
                None if self.arguments.is_some() => drop(self.values.insert(name, None)),
                // A default or an error when it is used.
                None => {}
            }
        }
        Ok(self)
    }

    /// Runs the nodes of `graph` and returns its outputs.
    pub(super) fn run(mut self, graph: GraphId) -> Result<Vec<Tensor>, EvalError> {
        let nodes: Vec<NodeId> = self.model.nodes_of(graph).collect();
        let dead = self.dead_after(graph, &nodes);
        for (&node, dead) in nodes.iter().zip(dead) {
            self.step(node).map_err(|source| self.at(node, source))?;
            for value in dead {
                self.values.remove(&value);
            }
        }
        let outputs = &self.model.graph(graph).outputs;
        outputs.iter().map(|it| self.find(*it)?.ok_or_else(|| self.missing(*it))).collect()
    }

    /// Runs a body of a control-flow node, which sees the values of this scope.
    pub(super) fn body(
        &self,
        graph: GraphId,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvalError> {
        let scope = Scope {
            model: self.model,
            outer: Some(self),
            opsets: self.opsets,
            arguments: self.arguments,
            values: BTreeMap::new(),
            depth: self.deeper()?,
        };
        scope.with(graph, inputs.into_iter().map(Some).collect())?.run(graph)
    }

    /// Evaluates one node on given inputs.
    pub(super) fn evaluate(
        &self,
        node: NodeId,
        inputs: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, EvalError> {
        for input in inputs.iter().flatten() {
            index::elements(&input.shape)?;
        }
        let node = self.model.node(node);
        let attrs = self.resolve(&node.attrs)?;
        let unknown =
            || EvalError::Unsupported { op: format!("`{}`", Untrusted(&node.op.to_string())) };
        let mut outputs = match self.model.function(&node.op) {
            Some(function) => self.call(function, &attrs, inputs)?,
            None => table::find(&node.op).ok_or_else(unknown)?(&Call {
                op: &node.op,
                attrs: &attrs,
                inputs,
                outputs: node.outputs.len(),
                opset: self.opset(&node.op.domain),
                scope: self,
            })?,
        };
        if outputs.len() < node.outputs.len() {
            let op = format!("output {} of `{}`", outputs.len(), Untrusted(&node.op.to_string()));
            return Err(EvalError::Unsupported { op });
        }
        outputs.truncate(node.outputs.len());
        Ok(outputs)
    }

    fn step(&mut self, node: NodeId) -> Result<(), EvalError> {
        let it = self.model.node(node);
        let inputs = it.inputs.iter().map(|it| match it {
            Some(value) => self.find(*value),
            None => Ok(None),
        });
        let outputs = self.evaluate(node, &inputs.collect::<Result<Vec<_>, _>>()?)?;
        for (&value, tensor) in it.outputs.iter().zip(outputs) {
            if !self.model.value(value).uses.is_empty() {
                self.values.insert(value, Some(tensor));
            }
        }
        Ok(())
    }

    fn find(&self, value: ValueId) -> Result<Option<Tensor>, EvalError> {
        if let Some(it) = self.values.get(&value) {
            return Ok(it.clone());
        }
        if let Some(outer) = self.outer {
            return outer.find(value);
        }
        match &self.model.value(value).def {
            Def::Const(tensor) | Def::Input(_, Some(tensor)) => Ok(Some(tensor.clone())),
            Def::Sparse(it) => dense(it).map(Some),
            Def::Input(_, None) | Def::Node(_) => Err(self.missing(value)),
        }
    }

    fn call(
        &self,
        function: &Function,
        attrs: &Attrs,
        inputs: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, EvalError> {
        let mut attrs = attrs.clone();
        for (name, value) in function.defaults.iter() {
            if attrs.get(name).is_none() {
                attrs.set(name, value.clone());
            }
        }
        let scope = Scope {
            model: self.model,
            outer: None,
            opsets: &function.opsets,
            arguments: Some(&attrs),
            values: BTreeMap::new(),
            depth: self.deeper()?,
        };
        scope.with(function.body, inputs.to_vec())?.run(function.body)
    }

    /// Attributes with those of the function's caller in place of references.
    fn resolve<'b>(&self, attrs: &'b Attrs) -> Result<Cow<'b, Attrs>, EvalError> {
        if !attrs.iter().any(|(_, it)| matches!(it, Attr::Ref { .. })) {
            return Ok(Cow::Borrowed(attrs));
        }
        let mut resolved = Attrs::default();
        for (name, value) in attrs.iter() {
            match (value, self.arguments) {
                (Attr::Ref { .. }, None) => return Err(wrong(name, "depends on the caller")),
                (Attr::Ref { name: from, .. }, Some(arguments)) => {
                    if let Some(value) = arguments.get(from) {
                        resolved.set(name, value.clone());
                    }
                }
                _ => resolved.set(name, value.clone()),
            }
        }
        Ok(Cow::Owned(resolved))
    }

    fn opset(&self, domain: &str) -> i64 {
        let domain = normal_domain(domain);
        self.opsets.iter().find(|(it, _)| **it == *domain).map_or(0, |(_, version)| *version)
    }

    fn deeper(&self) -> Result<usize, EvalError> {
        if self.depth < MAX_DEPTH { Ok(self.depth + 1) } else { Err(EvalError::TooDeep) }
    }

    fn missing(&self, value: ValueId) -> EvalError {
        let name = Untrusted(&self.model.value(value).name).to_string();
        EvalError::MissingInput { name }
    }

    fn at(&self, node: NodeId, source: EvalError) -> EvalError {
        let node = Untrusted(&self.model.node_label(node)).to_string();
        EvalError::Node { node, source: Box::new(source) }
    }

    /// For each node, the values that no later node of `graph` reads.
    fn dead_after(&self, graph: GraphId, nodes: &[NodeId]) -> Vec<Vec<ValueId>> {
        let mut last = BTreeMap::new();
        let mut reads = Vec::new();
        for (step, &node) in nodes.iter().enumerate() {
            reads_of(self.model, node, &mut reads);
            last.extend(reads.drain(..).map(|it| (it, step)));
        }
        for output in &self.model.graph(graph).outputs {
            last.remove(output);
        }
        let mut dead = vec![Vec::new(); nodes.len()];
        for (value, step) in last {
            dead[step].push(value);
        }
        dead
    }
}

/// What a node and its bodies read.
fn reads_of(model: &Model, node: NodeId, reads: &mut Vec<ValueId>) {
    let it = model.node(node);
    reads.extend(it.inputs.iter().flatten());
    for graph in it.attrs.graphs() {
        reads.extend(&model.graph(graph).outputs);
        for inner in model.nodes_of(graph) {
            reads_of(model, inner, reads);
        }
    }
}

/// The tensor that a sparse one stands for.
pub(super) fn dense(sparse: &Sparse) -> Result<Tensor, EvalError> {
    let Sparse { values, indices, shape } = sparse;
    let (size, strides) = (index::elements(shape)?, index::strides(shape));
    let count = index::elements(&values.shape)?;
    index::elements(&indices.shape)?;
    let numbers = values::ints(indices)?;
    let width = if indices.shape.len() == 2 { shape.len() } else { 1 };
    if numbers.len() != count * width {
        let what = format!("{count} sparse values have indices {:?}", indices.shape);
        return Err(EvalError::Shape { what });
    }
    let mut from = vec![(1, 0); size];
    for value in 0..count {
        let at = match &numbers[value * width..(value + 1) * width] {
            [it] if indices.shape.len() == 1 => index::position(*it, size)?,
            tuple => {
                let mut at = 0;
                for (axis, it) in tuple.iter().enumerate() {
                    at += index::position(*it, shape[axis])? * strides[axis] as usize;
                }
                at
            }
        };
        from[at] = (0, value);
    }
    index::pick_from(&[values, &index::zero(values.dtype)], shape, from.into_iter())
}
