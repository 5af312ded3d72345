//! Copies nodes of a function's body to its caller.

use std::collections::HashMap;

use crate::PassError;
use onnxq_ir::{Annotation, Attr, Attrs, Def, Function, GraphId, Model, Node, NodeId, ValueId};

pub(super) struct Copier<'a> {
    model: &'a mut Model,
    /// What values of the body are at the caller; nothing, for inputs that are left out.
    values: HashMap<ValueId, Option<ValueId>>,
    attrs: Attrs,
    prefix: String,
    most: usize,
    pub made: Vec<NodeId>,
}

impl Copier<'_> {
    /// `attrs` is what references in the body stand for; `most` limits the number of new nodes.
    pub(super) fn new<'a>(
        model: &'a mut Model,
        call: NodeId,
        function: &Function,
        attrs: Attrs,
        most: usize,
    ) -> Copier<'a> {
        // Names grow with each level of calls; beyond this they are no help.
        const LONGEST_PREFIX: usize = 200;
        let it = model.node(call);
        let is_useful = !it.name.is_empty() && it.name.len() < LONGEST_PREFIX;
        let prefix = if is_useful { format!("{}/", it.name) } else { String::new() };
        let body = model.graph(function.body);
        let inputs = body.inputs.iter().enumerate();
        let values = inputs.map(|(i, value)| (*value, it.inputs.get(i).copied().flatten()));
        let (values, root) = (values.collect(), model.root(it.graph));
        let constants = body.constants.clone();
        let mut copier = Copier { model, values, attrs, prefix, most, made: Vec::new() };
        copier.constants(&constants, root);
        copier
    }

    /// Copies the nodes of `from` into `to`, right before `before` or at the end.
    pub(super) fn nodes(
        &mut self,
        from: GraphId,
        to: GraphId,
        before: Option<NodeId>,
    ) -> Result<(), PassError> {
        for node in self.model.nodes_of(from).collect::<Vec<_>>() {
            if self.made.len() >= self.most {
                return Err(PassError::TooManyNodes { limit: super::MOST_NODES });
            }
            self.node(node, to, before)?;
        }
        Ok(())
    }

    fn node(&mut self, id: NodeId, to: GraphId, before: Option<NodeId>) -> Result<(), PassError> {
        let Node { op, name, inputs, outputs, attrs, kept, .. } = self.model.node(id).clone();
        let mut copied = Attrs::default();
        for (name, value) in attrs.iter() {
            if let Some(value) = self.attr(value.clone())? {
                copied.set(name, value);
            }
        }
        let inputs = inputs.into_iter().map(|it| it.and_then(|it| self.value(it))).collect();
        let outputs = outputs.into_iter().map(|it| self.define(it, Def::Input(to, None))).collect();
        let name = if name.is_empty() { name } else { self.prefixed(&name).into() };
        let new = self.model.add_node(to, before, (op, name), inputs, copied, outputs);
        self.model.node_mut(new).kept = kept;
        self.made.push(new);
        Ok(())
    }

    /// `None` for a reference to an attribute that the caller leaves out and that has no default.
    fn attr(&mut self, value: Attr) -> Result<Option<Attr>, PassError> {
        Ok(Some(match value {
            Attr::Ref { name, .. } => match self.attrs.get(&name).cloned() {
                Some(Attr::Ref { .. }) | None => return Ok(None),
                Some(actual) => return self.attr(actual),
            },
            Attr::Graph(it) => Attr::Graph(self.graph(it)?),
            Attr::Graphs(list) => {
                Attr::Graphs(list.into_iter().map(|it| self.graph(it)).collect::<Result<_, _>>()?)
            }
            it => it,
        }))
    }

    fn graph(&mut self, from: GraphId) -> Result<GraphId, PassError> {
        let old = self.model.graph(from).clone();
        let new = self.model.add_graph();
        let it = self.model.graph_mut(new);
        (it.name, it.doc, it.metadata, it.unknown) = (old.name, old.doc, old.metadata, old.unknown);
        for &value in &old.inputs {
            let default = match &self.model.value(value).def {
                Def::Input(_, default) => default.clone(),
                _ => None,
            };
            let value = self.define(value, Def::Input(new, default));
            self.model.graph_mut(new).inputs.push(value);
        }
        self.constants(&old.constants, new);
        self.nodes(from, new, None)?;
        for value in old.outputs {
            let value = self.value(value).expect("left out inputs are not returned");
            self.model.add_output(new, value);
        }
        for it in old.annotations {
            self.annotation(new, &it);
        }
        Ok(new)
    }

    fn constants(&mut self, constants: &[ValueId], to: GraphId) {
        for &value in constants {
            let def = self.model.value(value).def.clone();
            let value = self.define(value, def);
            self.model.graph_mut(to).constants.push(value);
        }
    }

    fn annotation(&mut self, graph: GraphId, it: &Annotation) {
        let Some(value) = self.value(it.value) else { return };
        let params =
            it.params.iter().filter_map(|(key, value)| Some((key.clone(), self.value(*value)?)));
        let params = params.collect();
        self.model.add_annotation(graph, Annotation { value, params });
    }

    /// What a value of the body is at the caller.
    pub(super) fn value(&self, id: ValueId) -> Option<ValueId> {
        // A graph that the caller passed as an attribute sees the caller's values.
        self.values.get(&id).copied().unwrap_or(Some(id))
    }

    fn define(&mut self, old: ValueId, def: Def) -> ValueId {
        let it = self.model.value(old);
        let (name, ty, kept) = (it.name.clone(), it.ty.clone(), it.kept.clone());
        let name = if name.is_empty() { String::new() } else { self.prefixed(&name) };
        let new = self.model.add_value(&name, ty, def);
        self.model.value_mut(new).kept = kept;
        self.values.insert(old, Some(new));
        new
    }

    fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
