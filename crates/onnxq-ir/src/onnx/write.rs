//! `Model` → protobuf messages, all but the bytes of the main graph's initializers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use super::{
    SaveError,
    external::{Layout, Place, used_constants},
    proto::{
        self, AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
        SparseTensorProto, StringStringEntryProto, TensorProto, TypeProto, ValueInfoProto,
        attribute_proto::AttributeType, tensor_shape_proto, type_proto,
    },
};
use crate::{
    ir::{
        Attr, Attrs, Def, GraphId, Model, Name, Node, NodeId, Op, Sparse, ValueId, unique_names,
        unique_node_names,
    },
    tensor::{Dim, Tensor, TensorType},
};

pub(super) struct Writer<'a> {
    model: &'a Model,
    layout: &'a Layout,
    names: Vec<Name>,
    node_names: Vec<Name>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(model: &'a Model, layout: &'a Layout) -> Writer<'a> {
        let (names, node_names) = (unique_names(model), unique_node_names(model));
        Writer { model, layout, names, node_names }
    }

    /// The model with a main graph that lacks the initializers of `layout`.
    pub(super) fn model(&self) -> Result<ModelProto, SaveError> {
        let m = self.model;
        let decode = "kept messages were encoded by the reader";
        Ok(ModelProto {
            ir_version: Some(m.ir_version.max(4)),
            opset_import: opsets(&m.opsets),
            producer_name: filled(&m.producer_name),
            producer_version: filled(&m.producer_version),
            domain: filled(&m.domain),
            model_version: (m.model_version != 0).then_some(m.model_version),
            doc_string: filled(&m.doc),
            graph: Some(self.graph(m.main)?),
            metadata_props: entries(&m.metadata),
            training_info: m
                .kept
                .training_info
                .iter()
                .map(|it| proto::TrainingInfoProto::decode(it.clone()).expect(decode))
                .collect(),
            functions: m.functions.iter().map(|it| self.function(it)).collect::<Result<_, _>>()?,
            configuration: m
                .kept
                .configuration
                .iter()
                .map(|it| proto::DeviceConfigurationProto::decode(it.clone()).expect(decode))
                .collect(),
        })
    }

    fn graph(&self, id: GraphId) -> Result<GraphProto, SaveError> {
        let graph = self.model.graph(id);
        let mut out = GraphProto {
            name: Some(graph.name.clone()),
            doc_string: filled(&graph.doc),
            metadata_props: entries(&graph.metadata),
            input: graph.inputs.iter().map(|it| self.info(*it)).collect(),
            output: graph.outputs.iter().map(|it| self.info(*it)).collect(),
            ..Default::default()
        };
        let outputs: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
        let stated = |it: &&ValueId| {
            let value = self.model.value(**it);
            value.declared && !value.name.is_empty() && !outputs.contains(it)
        };
        for node in self.model.nodes_of(id) {
            out.node.push(self.node(node)?);
            let outputs = &self.model.node(node).outputs;
            out.value_info.extend(outputs.iter().filter(stated).map(|it| self.info(*it)));
        }
        let constants: Vec<ValueId> = used_constants(self.model, id).collect();
        out.value_info.extend(constants.iter().filter(stated).map(|it| self.info(*it)));
        for &value in constants.iter().filter(|it| !self.layout.is_streamed(**it)) {
            match &self.model.value(value).def {
                Def::Const(tensor) => out.initializer.push(self.tensor_of(value, tensor)?),
                Def::Sparse(sparse) => {
                    let name = &self.names[value.index()];
                    out.sparse_initializer.push(sparse_proto(name, sparse)?);
                }
                _ => unreachable!("the constants of a graph are constants"),
            }
        }
        for &value in &graph.inputs {
            if let Def::Input(_, Some(default)) = &self.model.value(value).def {
                out.initializer.push(self.tensor_of(value, default)?);
            }
        }
        out.quantization_annotation =
            graph.annotations.iter().map(|it| self.annotation(it)).collect();
        Ok(out)
    }

    fn annotation(&self, it: &crate::ir::Annotation) -> proto::TensorAnnotation {
        let name = |it: ValueId| self.names[it.index()].to_string();
        proto::TensorAnnotation {
            tensor_name: Some(name(it.value)),
            quant_parameter_tensor_names: it
                .params
                .iter()
                .map(|(key, value)| entry(key, &name(*value)))
                .collect(),
        }
    }

    /// The message of an initializer, without its bytes if they are streamed.
    pub(super) fn tensor_of(
        &self,
        value: ValueId,
        tensor: &Tensor,
    ) -> Result<TensorProto, SaveError> {
        let name = &self.names[value.index()];
        let mut out = match self.layout.place(value) {
            Some(Place::In { file, offset }) => {
                external(name, tensor, &self.layout.files[file].name, offset)
            }
            Some(Place::Streamed) => bare(name, tensor),
            None => tensor_proto(name, tensor)?,
        };
        let kept = self.model.value(value).kept.as_ref().and_then(|it| it.tensor.clone());
        if let Some(kept) = kept.and_then(|it| TensorProto::decode(it).ok()) {
            out.doc_string = kept.doc_string;
            out.metadata_props = kept.metadata_props;
        }
        Ok(out)
    }

    fn info(&self, value: ValueId) -> ValueInfoProto {
        let it = self.model.value(value);
        let name = Some(self.names[value.index()].to_string());
        let kept = it.kept.as_ref().and_then(|it| it.info.clone());
        if let Some(kept) = kept.and_then(|it| ValueInfoProto::decode(it).ok()) {
            return ValueInfoProto { name, ..kept };
        }
        ValueInfoProto { name, r#type: it.ty.as_ref().map(type_proto), ..Default::default() }
    }

    fn node(&self, id: NodeId) -> Result<NodeProto, SaveError> {
        let node = self.model.node(id);
        let value = |it: ValueId| self.names[it.index()].to_string();
        let mut out = NodeProto {
            input: node.inputs.iter().map(|it| it.map_or(String::new(), value)).collect(),
            output: node.outputs.iter().map(|it| value(*it)).collect(),
            name: filled(&self.node_names[id.index()]),
            op_type: Some(node.op.name.to_string()),
            domain: filled(&node.op.domain),
            overload: filled(&node.op.overload),
            attribute: self.attrs(&node.attrs)?,
            ..Default::default()
        };
        keep(node, &mut out);
        Ok(out)
    }

    fn attrs(&self, attrs: &Attrs) -> Result<Vec<AttributeProto>, SaveError> {
        attrs
            .entries()
            .map(|(name, doc, value)| {
                let base = AttributeProto {
                    name: Some(name.to_owned()),
                    doc_string: filled(doc),
                    ..Default::default()
                };
                self.attr(base, value)
            })
            .collect()
    }

    fn attr(&self, base: AttributeProto, value: &Attr) -> Result<AttributeProto, SaveError> {
        use AttributeType as Type;
        let tensor = |it: &Tensor| tensor_proto("", it);
        let sparse = |it: &std::sync::Arc<Sparse>| sparse_proto("", it);
        let ty = |it: &Bytes| TypeProto::decode(it.clone()).unwrap_or_default();
        let mut out = base;
        let kind = match value {
            Attr::Float(it) => (out.f = Some(*it), Type::Float).1,
            Attr::Int(it) => (out.i = Some(*it), Type::Int).1,
            Attr::String(it) => (out.s = Some(it.clone()), Type::String).1,
            Attr::Tensor(it) => (out.t = Some(tensor(it)?), Type::Tensor).1,
            Attr::Graph(it) => (out.g = Some(self.graph(*it)?), Type::Graph).1,
            Attr::Sparse(it) => (out.sparse_tensor = Some(sparse(it)?), Type::SparseTensor).1,
            Attr::Type(it) => (out.tp = Some(ty(it)), Type::TypeProto).1,
            Attr::Floats(it) => (out.floats = it.clone(), Type::Floats).1,
            Attr::Ints(it) => (out.ints = it.clone(), Type::Ints).1,
            Attr::Strings(it) => (out.strings = it.clone(), Type::Strings).1,
            Attr::Tensors(it) => {
                out.tensors = it.iter().map(tensor).collect::<Result<_, _>>()?;
                Type::Tensors
            }
            Attr::Graphs(it) => {
                out.graphs = it.iter().map(|it| self.graph(*it)).collect::<Result<_, _>>()?;
                Type::Graphs
            }
            Attr::Sparses(it) => {
                out.sparse_tensors = it.iter().map(sparse).collect::<Result<_, _>>()?;
                Type::SparseTensors
            }
            Attr::Types(it) => (out.type_protos = it.iter().map(ty).collect(), Type::TypeProtos).1,
            Attr::Ref { name, kind } => {
                out.ref_attr_name = Some(name.to_string());
                out.r#type = Some(*kind);
                return Ok(out);
            }
        };
        out.r#type = Some(kind as i32);
        Ok(out)
    }

    fn function(&self, it: &crate::ir::Function) -> Result<FunctionProto, SaveError> {
        let body = self.model.graph(it.body);
        let names = |list: &[ValueId]| -> Vec<String> {
            list.iter().map(|it| self.names[it.index()].to_string()).collect()
        };
        let mut node = Vec::new();
        // A function has no initializers.
        for value in used_constants(self.model, it.body) {
            if let Def::Const(tensor) = &self.model.value(value).def {
                node.push(constant_node(&self.names[value.index()], tensor)?);
            }
        }
        for id in self.model.nodes_of(it.body) {
            node.push(self.node(id)?);
        }
        let outputs = self.model.nodes_of(it.body).flat_map(|it| &self.model.node(it).outputs);
        let stated = body.inputs.iter().chain(outputs);
        Ok(FunctionProto {
            name: Some(it.op.name.to_string()),
            domain: filled(&it.op.domain),
            overload: filled(&it.op.overload),
            input: names(&body.inputs),
            output: names(&body.outputs),
            attribute: it.attributes.clone(),
            attribute_proto: self.attrs(&it.defaults)?,
            node,
            doc_string: filled(&it.doc),
            opset_import: opsets(&it.opsets),
            value_info: stated
                .filter(|it| self.model.value(**it).declared)
                .map(|it| self.info(*it))
                .collect(),
            metadata_props: entries(&it.metadata),
        })
    }
}

fn keep(node: &Node, out: &mut NodeProto) {
    let Some(kept) = &node.kept else { return };
    out.doc_string = filled(&kept.doc);
    out.metadata_props = entries(&kept.metadata);
    out.device_configurations = kept
        .device
        .iter()
        .filter_map(|it| proto::NodeDeviceConfigurationProto::decode(it.clone()).ok())
        .collect();
}

fn constant_node(name: &str, tensor: &Tensor) -> Result<NodeProto, SaveError> {
    Ok(NodeProto {
        output: vec![name.to_owned()],
        op_type: Some(Op::new("Constant").name.to_string()),
        attribute: vec![AttributeProto {
            name: Some("value".into()),
            r#type: Some(AttributeType::Tensor as i32),
            t: Some(tensor_proto("", tensor)?),
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// A tensor whose data is a part of a file.
fn external(name: &str, tensor: &Tensor, location: &str, offset: u64) -> TensorProto {
    TensorProto {
        data_location: Some(proto::tensor_proto::DataLocation::External as i32),
        external_data: vec![
            entry("location", location),
            entry("offset", &offset.to_string()),
            entry("length", &tensor.nbytes().to_string()),
        ],
        ..bare(name, tensor)
    }
}

/// Everything of a tensor but its data.
fn bare(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: filled(name),
        data_type: Some(tensor.dtype.number()),
        dims: tensor.shape.iter().map(|it| *it as i64).collect(),
        ..Default::default()
    }
}

fn tensor_proto(name: &str, tensor: &Tensor) -> Result<TensorProto, SaveError> {
    let mut out = bare(name, tensor);
    match tensor.string_values() {
        Some(list) => out.string_data = list.to_vec(),
        None => {
            let failed = |source| SaveError::of_tensor(name, source);
            out.raw_data = Some(tensor.bytes().map_err(failed)?);
        }
    }
    Ok(out)
}

fn sparse_proto(name: &str, sparse: &Sparse) -> Result<SparseTensorProto, SaveError> {
    Ok(SparseTensorProto {
        values: Some(tensor_proto(name, &sparse.values)?),
        indices: Some(tensor_proto("", &sparse.indices)?),
        dims: sparse.shape.iter().map(|it| *it as i64).collect(),
    })
}

fn type_proto(ty: &TensorType) -> TypeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |it: &Dim| Dimension {
        denotation: None,
        value: match it {
            Dim::Fixed(it) => Some(Value::DimValue(*it as i64)),
            Dim::Symbol(it) => Some(Value::DimParam(it.to_string())),
            Dim::Unknown => None,
        },
    };
    let shape = ty
        .shape
        .as_ref()
        .map(|dims| proto::TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: Some(ty.dtype.number()), shape };
    TypeProto { denotation: None, value: Some(type_proto::Value::TensorType(tensor)) }
}

fn opsets(list: &[(Name, i64)]) -> Vec<OperatorSetIdProto> {
    // One entry per domain: `ai.onnx` and `` may both have been listed.
    let mut seen = BTreeMap::new();
    list.iter()
        .filter(|(domain, version)| seen.insert(domain.clone(), *version).is_none())
        .map(|(domain, version)| OperatorSetIdProto {
            domain: filled(domain),
            version: Some(*version),
        })
        .collect()
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn entries(list: &[(String, String)]) -> Vec<StringStringEntryProto> {
    list.iter().map(|(key, value)| entry(key, value)).collect()
}

pub(super) fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}
