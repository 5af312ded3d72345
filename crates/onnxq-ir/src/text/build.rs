//! A parsed text becomes a model: names become ids, scope by scope.

use std::collections::{HashMap, HashSet};

use super::{
    elements::Filler,
    lex::{Fail, Ident, Result, fail},
    tree::{self, Data, File, Header, Typed, Value},
    types::Type,
};
use crate::{
    ir::{Attr, Attrs, Def, Function, GraphId, KeptValue, Model, Name, Op, ValueId, normal_domain},
    tensor::TensorType,
    untrusted::Untrusted,
};

const IR_VERSION: i64 = 10;
const OPSETS: [(&str, i64); 2] = [("", 21), ("com.microsoft", 1)];

pub(super) fn build(file: File, filler: Filler) -> Result<Model> {
    let mut builder = Builder { model: Model::empty(), filler, scopes: Vec::new() };
    builder.header(file.header);
    builder.graph(file.graph, builder.model.main)?;
    for function in file.functions {
        builder.function(function)?;
    }
    Ok(builder.model)
}

struct Builder {
    model: Model,
    filler: Filler,
    /// Names of the graph being built and of those around it, outermost first.
    scopes: Vec<HashMap<Name, ValueId>>,
}

impl Builder {
    fn header(&mut self, header: Header) {
        let default = || OPSETS.map(|(domain, version)| (domain.into(), version)).to_vec();
        self.model.ir_version = header.ir_version.unwrap_or(IR_VERSION);
        self.model.opsets = header.opsets.unwrap_or_else(default);
        self.model.producer_name = header.producer_name;
        self.model.producer_version = header.producer_version;
        self.model.domain = header.domain;
        self.model.model_version = header.model_version;
        self.model.doc = header.doc;
        self.model.metadata = header.metadata;
    }

    fn function(&mut self, it: tree::Function) -> Result<()> {
        let header = it.header;
        let op = Op {
            domain: normal_domain(&header.domain).into(),
            name: it.graph.name.clone(),
            overload: header.overload.into(),
        };
        let defaults = self.attrs(it.defaults)?;
        let body = self.model.add_graph();
        self.graph(it.graph, body)?;
        self.model.functions.push(Function {
            op,
            body,
            opsets: header.opsets.unwrap_or_default(),
            attributes: it.attributes,
            defaults,
            doc: header.doc,
            metadata: header.metadata,
        });
        Ok(())
    }

    fn graph(&mut self, it: tree::Graph, id: GraphId) -> Result<()> {
        self.scopes.push(HashMap::new());
        self.model.graph_mut(id).name = it.name.to_string();
        for input in it.inputs {
            self.input(input, id)?;
        }
        let mut types = self.locals(it.locals, &it.nodes, id)?;
        for node in it.nodes {
            self.node(node, &mut types, id)?;
        }
        for output in it.outputs {
            let value = self.lookup(&output.name)?;
            // What has data has the type of its data.
            let def = &self.model.value(value).def;
            let has_data = matches!(def, Def::Const(_) | Def::Sparse(_) | Def::Input(_, Some(_)));
            let is_own = self.scope().get(&output.name.text) == Some(&value);
            if let Some(ty) = output.ty.filter(|_| is_own && !has_data) {
                self.set_type(value, ty);
            }
            self.model.add_output(id, value);
        }
        self.scopes.pop();
        Ok(())
    }

    fn input(&mut self, input: Typed, graph: GraphId) -> Result<()> {
        let id = self.model.add_input(graph, &input.name.text, None);
        self.define(&input.name, id)?;
        match input.data {
            None => {}
            Some(Data::Dense(it)) => self.model.value_mut(id).def = Def::Input(graph, Some(it)),
            Some(Data::Sparse(_)) => return Err(fail(input.name.at, "a default is never sparse")),
        }
        if let Some(ty) = input.ty {
            self.set_type(id, ty);
        }
        Ok(())
    }

    /// Makes the constants; returns the types of the values that nodes compute.
    fn locals(
        &mut self,
        locals: Vec<Typed>,
        nodes: &[tree::Node],
        graph: GraphId,
    ) -> Result<HashMap<Name, Type>> {
        let outputs = nodes.iter().flat_map(|it| &it.outputs);
        let computed: HashSet<Name> = outputs.map(|it| it.text.clone()).collect();
        let mut types = HashMap::new();
        for Typed { name, ty, data } in locals {
            let Some(ty) = ty else { return Err(bad(&name, "has no type")) };
            match (data, self.input_named(&name)) {
                (None, _) if computed.contains(&name.text) => {
                    types.insert(name.text, ty);
                }
                (None, Some(_)) => {}
                // An initializer of the same name is the default of an input.
                (Some(Data::Dense(it)), Some((id, false))) => {
                    self.model.value_mut(id).def = Def::Input(graph, Some(it));
                }
                (data, _) => {
                    let id = self.constant(&name, ty, data, graph)?;
                    self.define(&name, id)?;
                }
            }
        }
        Ok(types)
    }

    /// The input of the graph being built with that name, and whether it has a default.
    fn input_named(&self, name: &Ident) -> Option<(ValueId, bool)> {
        let id = *self.scope().get(&name.text)?;
        match &self.model.value(id).def {
            Def::Input(_, default) => Some((id, default.is_some())),
            _ => None,
        }
    }

    fn constant(
        &mut self,
        name: &Ident,
        ty: Type,
        data: Option<Data>,
        graph: GraphId,
    ) -> Result<ValueId> {
        let tensor = match data {
            Some(Data::Dense(it)) => it,
            Some(Data::Sparse(it)) => {
                let ty = TensorType::new(it.values.dtype, it.shape.iter().copied());
                let def = Def::Sparse(it.into());
                let id = self.model.add_value(&name.text, Some(ty), def);
                self.model.graph_mut(graph).constants.push(id);
                return Ok(id);
            }
            None => {
                let Type::Tensor(ty) = ty else { return Err(bad(name, "is not computed")) };
                let Some(shape) = ty.fixed_shape() else {
                    return Err(bad(name, "is not computed, and its shape is not fixed"));
                };
                let filler = self.filler.tensor(ty.dtype, &shape);
                filler.ok_or_else(|| bad(name, "is too large"))?
            }
        };
        Ok(self.model.add_constant(graph, &name.text, tensor))
    }

    fn node(
        &mut self,
        node: tree::Node,
        types: &mut HashMap<Name, Type>,
        graph: GraphId,
    ) -> Result<()> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            let is_absent = input.text.is_empty();
            inputs.push(if is_absent { None } else { Some(self.lookup(input)?) });
        }
        let attrs = self.attrs(node.attrs)?;
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            let id = self.model.add_value(&output.text, None, Def::Input(graph, None));
            if let Some(ty) = types.remove(&output.text) {
                self.set_type(id, ty);
            }
            if !output.text.is_empty() {
                self.define(output, id)?;
            }
            outputs.push(id);
        }
        self.model.add_node(graph, None, (node.op, node.name), inputs, attrs, outputs);
        Ok(())
    }

    fn attrs(&mut self, list: Vec<(Ident, Value)>) -> Result<Attrs> {
        let mut attrs = Attrs::default();
        for (name, value) in list {
            if attrs.get(&name.text).is_some() {
                return Err(bad(&name, "is given twice"));
            }
            let value = match value {
                Value::Plain(it) => it,
                // No node would be the parent of the default of a function's attribute.
                _ if self.scopes.is_empty() => return Err(bad(&name, "cannot be a graph")),
                Value::Graph(it) => Attr::Graph(self.subgraph(it)?),
                Value::Graphs(list) => {
                    let list = list.into_iter().map(|it| self.subgraph(it));
                    Attr::Graphs(list.collect::<Result<_>>()?)
                }
            };
            attrs.push(name.text, String::new(), value);
        }
        Ok(attrs)
    }

    fn subgraph(&mut self, it: tree::Graph) -> Result<GraphId> {
        let id = self.model.add_graph();
        self.graph(it, id)?;
        Ok(id)
    }

    fn set_type(&mut self, id: ValueId, ty: Type) {
        let value = self.model.value_mut(id);
        match ty {
            Type::Tensor(ty) => value.ty = Some(ty),
            ty => {
                let info = Some(ty.value_info(&value.name).into());
                value.kept = Some(Box::new(KeptValue { info, tensor: None }));
            }
        }
    }

    fn define(&mut self, name: &Ident, id: ValueId) -> Result<()> {
        let scope = self.scopes.last_mut().expect("a graph is being built");
        match scope.insert(name.text.clone(), id) {
            None => Ok(()),
            Some(_) => Err(bad(name, "is defined twice")),
        }
    }

    fn lookup(&self, name: &Ident) -> Result<ValueId> {
        let id = self.scopes.iter().rev().find_map(|it| it.get(&name.text));
        id.copied().ok_or_else(|| bad(name, "is not defined before its use"))
    }

    fn scope(&self) -> &HashMap<Name, ValueId> {
        self.scopes.last().expect("a graph is being built")
    }
}

fn bad(name: &Ident, what: &str) -> Fail {
    fail(name.at, format!("`{}` {what}", Untrusted(&name.text)))
}
