//! Models for tests, written by an independent protobuf library.

use std::{fs, path::Path};

pub(crate) use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};

pub(crate) const FLOAT: i32 = 1;
pub(crate) const STRING: i32 = 8;
pub(crate) const I64: i32 = 7;

/// Pseudo-random values around zero, the same in every run.
pub(crate) fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|it| it.to_le_bytes()).collect()
}

pub(crate) fn tensor(name: &str, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), data_type, dims: dims.into(), raw_data, ..Default::default() }
}

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    tensor(name, FLOAT, dims, bytes_of(values))
}

/// The weight that most models here have.
pub(crate) fn weight(name: &str) -> TensorProto {
    floats(name, &[64, 64], &noise(4096))
}

pub(crate) fn external(entries: &[(&str, &str)]) -> TensorProto {
    TensorProto {
        raw_data: Vec::new(),
        data_location: DataLocation::EXTERNAL.into(),
        external_data: entries.iter().map(|it| entry(it.0, it.1)).collect(),
        ..weight("W")
    }
}

pub(crate) fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: key.into(), value: value.into(), ..Default::default() }
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let list = |it: &[&str]| it.iter().map(|it| it.to_string()).collect();
    NodeProto {
        op_type: op.into(),
        input: list(inputs),
        output: list(outputs),
        ..Default::default()
    }
}

pub(crate) fn named(name: &str, node: NodeProto) -> NodeProto {
    NodeProto { name: name.into(), ..node }
}

pub(crate) fn of_domain(domain: &str, node: NodeProto) -> NodeProto {
    NodeProto { domain: domain.into(), ..node }
}

pub(crate) fn with_attr(mut node: NodeProto, attr: AttributeProto) -> NodeProto {
    node.attribute.push(attr);
    node
}

pub(crate) fn attr(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), type_: kind.into(), ..Default::default() }
}

pub(crate) fn graph_attr(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph).into(), ..attr(name, AttributeType::GRAPH) }
}

pub(crate) fn tensor_attr(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(tensor).into(), ..attr(name, AttributeType::TENSOR) }
}

/// A value of a tensor type; a dimension below zero is the symbol `d`.
pub(crate) fn info(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = |it: &i64| Dimension {
        value: Some(match it {
            -1 => dimension::Value::DimParam("d".into()),
            it => dimension::Value::DimValue(*it),
        }),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let shape = Some(shape).into();
    let tensor = type_proto::Tensor { elem_type, shape, ..Default::default() };
    of_type(name, type_proto::Value::TensorType(tensor))
}

pub(crate) fn of_type(name: &str, value: type_proto::Value) -> ValueInfoProto {
    let ty = TypeProto { value: Some(value), ..Default::default() };
    ValueInfoProto { name: name.into(), type_: Some(ty).into(), ..Default::default() }
}

pub(crate) fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version, ..Default::default() }
}

pub(crate) fn graph(name: &str, nodes: Vec<NodeProto>, outputs: Vec<ValueInfoProto>) -> GraphProto {
    GraphProto { name: name.into(), node: nodes, output: outputs, ..Default::default() }
}

pub(crate) fn function(name: &str, inputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.into(),
        domain: "f".into(),
        input: inputs.iter().map(|it| it.to_string()).collect(),
        output: vec!["y".into()],
        node: nodes,
        opset_import: vec![opset("", 17), opset("f", 1)],
        ..Default::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 9,
        opset_import: vec![opset("", 17)],
        graph: Some(graph).into(),
        ..Default::default()
    }
}

/// `Y = X · W`, or the given nodes, with the given initializers.
pub(crate) fn base(nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> ModelProto {
    let mut graph = graph("g", nodes, vec![info("Y", FLOAT, &[1, 64])]);
    graph.input = vec![info("X", FLOAT, &[1, 64])];
    graph.initializer = initializers;
    model(graph)
}

pub(crate) fn matmul() -> NodeProto {
    named("mm", node("MatMul", &["X", "W"], &["Y"]))
}

pub(crate) fn with_weight(weight: TensorProto) -> ModelProto {
    base(vec![matmul()], vec![weight])
}

pub(crate) fn encode(model: &ModelProto) -> Vec<u8> {
    model.write_to_bytes().unwrap()
}

pub(crate) fn write(path: &Path, model: &ModelProto) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, encode(model)).unwrap();
}

pub(crate) fn read(path: &Path) -> ModelProto {
    ModelProto::parse_from_bytes(&fs::read(path).unwrap()).unwrap()
}

/// A field of bytes, as it stands in a protobuf message.
pub(crate) fn field(number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 12);
    varint(number << 3 | 2, &mut out);
    varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
