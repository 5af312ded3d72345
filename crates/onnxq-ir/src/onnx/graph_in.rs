//! `GraphProto` → `Graph`: names become ids, order and scopes are checked.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use prost::Message;

use super::{
    LoadError,
    proto::{self, GraphProto, NodeProto, ValueInfoProto, type_proto},
    tensor_in::TensorReader,
};
use crate::{
    diag::{Code, Warning},
    ir::{Annotation, Attrs, Def, GraphId, KeptNode, Model, NodeId, Op, ValueId, normal_domain},
    tensor::{DType, Dim, TensorType},
    untrusted::Untrusted,
};

pub(super) struct GraphReader<'a> {
    pub model: Model,
    pub tensors: TensorReader,
    /// Names in scope, the innermost graph last. For look-ups only: order never comes from it.
    scopes: Vec<HashMap<&'a str, ValueId>>,
    /// Values from graphs around it that the subgraphs of the current node use.
    captured: Vec<BTreeSet<ValueId>>,
    ir_version: i64,
}

impl<'a> GraphReader<'a> {
    pub(super) fn new(tensors: TensorReader, ir_version: i64) -> GraphReader<'a> {
        let (scopes, captured) = (Vec::new(), Vec::new());
        GraphReader { model: Model::empty(), tensors, scopes, captured, ir_version }
    }

    /// Fills `id`, which exists and is empty.
    pub(super) fn graph(&mut self, id: GraphId, proto: &'a GraphProto) -> Result<(), LoadError> {
        self.scopes.push(HashMap::new());
        self.captured.push(BTreeSet::new());
        let graph = self.model.graph_mut(id);
        graph.name = proto.name().to_owned();
        graph.doc = proto.doc_string().to_owned();
        graph.metadata = pairs(&proto.metadata_props);
        self.inputs(id, proto)?;
        self.constants(id, proto)?;
        self.nodes(id, &proto.node, proto.name())?;
        self.types(&proto.value_info)?;
        let mut listed = HashSet::new();
        for output in &proto.output {
            let value = self.lookup(output.name()).ok_or_else(|| LoadError::Missing {
                user: format!("output of {}", proto.name()),
                name: output.name().to_owned(),
            })?;
            self.model.add_output(id, value);
            // A value has one type: of an output that is listed twice or is an input, the first.
            let is_input = matches!(self.model.value(value).def, Def::Input(it, _) if it == id);
            if listed.insert(value) && !is_input {
                self.info(value, output)?;
            }
        }
        for annotation in &proto.quantization_annotation {
            self.annotation(id, annotation);
        }
        self.scopes.pop();
        let captured = self.captured.pop().unwrap_or_default();
        if let Some(outer) = self.captured.last_mut() {
            outer.extend(captured);
        }
        Ok(())
    }

    /// The body of a model-local function.
    pub(super) fn function(
        &mut self,
        id: GraphId,
        proto: &'a proto::FunctionProto,
    ) -> Result<(), LoadError> {
        self.scopes.push(HashMap::new());
        self.captured.push(BTreeSet::new());
        for name in &proto.input {
            let value = self.model.add_input(id, name, None);
            self.define(name, value, proto.name())?;
        }
        self.nodes(id, &proto.node, proto.name())?;
        self.types(&proto.value_info)?;
        for name in &proto.output {
            let value = self.lookup(name).ok_or_else(|| LoadError::Missing {
                user: format!("output of function {}", proto.name()),
                name: name.clone(),
            })?;
            self.model.add_output(id, value);
        }
        self.scopes.pop();
        self.captured.pop();
        Ok(())
    }

    fn inputs(&mut self, id: GraphId, proto: &'a GraphProto) -> Result<(), LoadError> {
        // Before IR version 4 every initializer had to be listed as an input.
        let listed: BTreeSet<&str> = match self.ir_version {
            ..4 => proto.initializer.iter().map(|it| it.name()).collect(),
            _ => BTreeSet::new(),
        };
        for input in proto.input.iter().filter(|it| !listed.contains(it.name())) {
            let value = self.model.add_input(id, input.name(), None);
            self.define(input.name(), value, proto.name())?;
            self.info(value, input)?;
        }
        Ok(())
    }

    fn constants(&mut self, id: GraphId, proto: &'a GraphProto) -> Result<(), LoadError> {
        let mut seen = BTreeSet::new();
        let sparse = proto.sparse_initializer.iter().filter_map(|it| it.values.as_ref());
        for name in proto.initializer.iter().chain(sparse).map(|it| it.name()) {
            if !seen.insert(name) {
                let (graph, name) = (proto.name().to_owned(), name.to_owned());
                return Err(LoadError::DuplicateInitializer { graph, name });
            }
        }
        for it in &proto.initializer {
            let tensor = self.tensors.tensor(it)?;
            let here = self.scopes.last().and_then(|scope| scope.get(it.name()).copied());
            if let Some(input) = here {
                self.model.value_mut(input).def = Def::Input(id, Some(tensor));
                self.keep_tensor_header(input, it);
                continue;
            }
            let value = self.model.add_constant(id, it.name(), tensor);
            self.keep_tensor_header(value, it);
            self.define(it.name(), value, proto.name())?;
        }
        for it in &proto.sparse_initializer {
            let sparse = Arc::new(self.tensors.sparse(it)?);
            let name = it.values.as_ref().map_or("", |it| it.name());
            let ty = TensorType::new(sparse.values.dtype, sparse.shape.iter().copied());
            let value = self.model.add_value(name, Some(ty), Def::Sparse(sparse));
            self.model.graph_mut(id).constants.push(value);
            self.define(name, value, proto.name())?;
        }
        Ok(())
    }

    fn keep_tensor_header(&mut self, value: ValueId, proto: &proto::TensorProto) {
        if proto.doc_string.is_none() && proto.metadata_props.is_empty() {
            return;
        }
        let header = proto::TensorProto {
            doc_string: proto.doc_string.clone(),
            metadata_props: proto.metadata_props.clone(),
            ..Default::default()
        };
        let kept = self.model.value_mut(value).kept.get_or_insert_default();
        kept.tensor = Some(header.encode_to_vec().into());
    }

    fn nodes(&mut self, id: GraphId, list: &'a [NodeProto], graph: &str) -> Result<(), LoadError> {
        // Names first: a node may use what a later node defines.
        let mut outputs: Vec<Vec<ValueId>> = Vec::with_capacity(list.len());
        for node in list {
            let mut ids = Vec::with_capacity(node.output.len());
            for name in &node.output {
                let value = self.model.add_value(name, None, Def::Input(id, None));
                if !name.is_empty() {
                    self.define(name, value, graph)?;
                }
                ids.push(value);
            }
            outputs.push(ids);
        }
        let mut needs: Vec<Vec<ValueId>> = Vec::with_capacity(list.len());
        let mut ids: Vec<NodeId> = Vec::with_capacity(list.len());
        for (proto, outputs) in list.iter().zip(outputs) {
            let (node, captured) = self.node(id, proto, outputs)?;
            let inputs = self.model.node(node).inputs.iter().flatten().copied();
            needs.push(inputs.chain(captured).collect());
            ids.push(node);
        }
        self.notice_names(list, graph);
        self.sort(id, &ids, &needs, graph)
    }

    /// Equal names of nodes mean nothing to us; the writer makes them unique.
    fn notice_names(&mut self, list: &[NodeProto], graph: &str) {
        let mut seen = HashSet::new();
        let named = list.iter().map(|it| it.name()).filter(|it| !it.is_empty());
        if let Some(name) = { named }.find(|it| !seen.insert(*it)) {
            let (graph, name) = (Untrusted(graph), Untrusted(name));
            let text = format!("two nodes of graph `{graph}` are called `{name}`");
            self.tensors.warnings.push(Warning::new(Code::W403, text));
        }
    }

    fn node(
        &mut self,
        id: GraphId,
        proto: &'a NodeProto,
        outputs: Vec<ValueId>,
    ) -> Result<(NodeId, BTreeSet<ValueId>), LoadError> {
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            inputs.push(match &**name {
                "" => None,
                name => Some(self.lookup(name).ok_or_else(|| LoadError::Missing {
                    user: label(proto),
                    name: name.to_owned(),
                })?),
            });
        }
        self.captured.push(BTreeSet::new());
        let mut attrs = Attrs::default();
        let mut seen = BTreeSet::new();
        for it in &proto.attribute {
            if !seen.insert(it.name()) {
                let (node, attribute) = (label(proto), it.name().to_owned());
                return Err(LoadError::DuplicateAttribute { node, attribute });
            }
            let value = self.attr(it)?.ok_or_else(|| LoadError::Attribute {
                node: label(proto),
                attribute: it.name().to_owned(),
            })?;
            attrs.push(it.name().into(), it.doc_string().to_owned(), value);
        }
        let captured = self.captured.pop().unwrap_or_default();
        if let Some(outer) = self.captured.last_mut() {
            outer.extend(&captured);
        }
        let op = Op {
            domain: normal_domain(proto.domain()).into(),
            name: proto.op_type().into(),
            overload: proto.overload().into(),
        };
        let name = (op, proto.name().into());
        let node = self.model.add_node(id, None, name, inputs, attrs, outputs);
        let kept = KeptNode {
            doc: proto.doc_string().to_owned(),
            metadata: pairs(&proto.metadata_props),
            device: proto
                .device_configurations
                .iter()
                .map(|it| it.encode_to_vec().into())
                .collect(),
        };
        if kept != KeptNode::default() {
            self.model.node_mut(node).kept = Some(Box::new(kept));
        }
        Ok((node, captured))
    }

    fn types(&mut self, list: &'a [ValueInfoProto]) -> Result<(), LoadError> {
        for info in list {
            // The type of a value that no longer exists says nothing.
            if let Some(value) = self.scopes.last().and_then(|it| it.get(info.name()).copied()) {
                self.info(value, info)?;
            }
        }
        Ok(())
    }

    fn info(&mut self, value: ValueId, info: &ValueInfoProto) -> Result<(), LoadError> {
        let (ty, complete) = tensor_type(info)?;
        let plain = info.doc_string.is_none() && info.metadata_props.is_empty();
        let it = self.model.value_mut(value);
        it.declared |= ty.is_some();
        it.ty = ty.or(it.ty.take());
        if !(complete && plain) {
            it.kept.get_or_insert_default().info = Some(info.encode_to_vec().into());
        }
        Ok(())
    }

    fn annotation(&mut self, id: GraphId, proto: &'a proto::TensorAnnotation) {
        let Some(value) = self.lookup(proto.tensor_name()) else { return };
        let params = proto
            .quant_parameter_tensor_names
            .iter()
            .filter_map(|it| Some((it.key().to_owned(), self.lookup(it.value())?)))
            .collect();
        self.model.add_annotation(id, Annotation { value, params });
    }

    fn define(&mut self, name: &'a str, value: ValueId, graph: &str) -> Result<(), LoadError> {
        let scope = self.scopes.last_mut().expect("a graph is being read");
        if scope.insert(name, value).is_some() {
            let (graph, name) = (graph.to_owned(), name.to_owned());
            return Err(LoadError::DuplicateValue { graph, name });
        }
        Ok(())
    }

    fn lookup(&mut self, name: &str) -> Option<ValueId> {
        for (depth, scope) in self.scopes.iter().enumerate().rev() {
            if let Some(&value) = scope.get(name) {
                if depth + 1 < self.scopes.len()
                    && let Some(captured) = self.captured.last_mut()
                {
                    captured.insert(value);
                }
                return Some(value);
            }
        }
        None
    }
}

/// The type, and whether it says all that the message says.
fn tensor_type(info: &ValueInfoProto) -> Result<(Option<TensorType>, bool), LoadError> {
    let Some(ty) = &info.r#type else { return Ok((None, true)) };
    let Some(type_proto::Value::TensorType(tensor)) = &ty.value else { return Ok((None, false)) };
    let Some(dtype) = DType::from_number(tensor.elem_type()) else { return Ok((None, false)) };
    let mut complete = ty.denotation.is_none();
    let Some(shape) = &tensor.shape else {
        return Ok((Some(TensorType { dtype, shape: None }), complete));
    };
    let mut dims = Vec::with_capacity(shape.dim.len());
    for dim in &shape.dim {
        use proto::tensor_shape_proto::dimension::Value;
        complete &= dim.denotation.is_none();
        dims.push(match &dim.value {
            Some(Value::DimValue(it)) => {
                Dim::Fixed(usize::try_from(*it).map_err(|_| LoadError::NegativeDim {
                    value: info.name().to_owned(),
                    dim: *it,
                })?)
            }
            Some(Value::DimParam(it)) if !it.is_empty() => Dim::Symbol(it.as_str().into()),
            _ => Dim::Unknown,
        });
    }
    // Inference multiplies dimensions; what no tensor can have stops here.
    let fixed = dims.iter().map(|it| if let Dim::Fixed(it) = it { *it } else { 1 });
    if dtype.nbytes_of(&fixed.collect::<Vec<_>>()).is_none() {
        return Err(LoadError::TypeOverflow { value: info.name().to_owned() });
    }
    Ok((Some(TensorType { dtype, shape: Some(dims) }), complete))
}

pub(super) fn pairs(list: &[proto::StringStringEntryProto]) -> Vec<(String, String)> {
    list.iter().map(|it| (it.key().to_owned(), it.value().to_owned())).collect()
}

fn label(node: &NodeProto) -> String {
    match node.name() {
        "" => node.op_type().to_owned(),
        name => name.to_owned(),
    }
}
