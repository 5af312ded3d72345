//! A model with every part of the format, and what of it may change.

use std::{fs, path::Path};

use onnx_protobuf::{TensorAnnotation, TrainingInfoProto};

use crate::common::models::*;

/// Bytes of a message that the independent library does not know.
fn unknown(number: u32, body: &[u8]) -> protobuf::SpecialFields {
    let mut out = protobuf::SpecialFields::new();
    out.mut_unknown_fields().add_length_delimited(number, body.to_vec());
    out
}

pub(super) fn everything() -> ModelProto {
    let mut out = model(main_graph());
    out.ir_version = 13;
    out.producer_name = "a maker".into();
    out.producer_version = "1.2".into();
    out.domain = "com.example".into();
    out.model_version = 7;
    out.doc_string = "A doc.\nOf two lines.".into();
    out.metadata_props = vec![entry("k", "v"), entry("empty", "")];
    out.opset_import =
        vec![opset("ai.onnx", 21), opset("com.acme", 3), opset("f", 1), opset("ai.onnx.ml", 4)];
    out.functions = vec![scaled(), FunctionProto { overload: "other".into(), ..scaled() }];
    out.training_info = vec![training_info()];
    // ModelProto.configuration: a device with a name and a count.
    out.special_fields = unknown(26, &[field(1, b"two"), vec![2 << 3, 2]].concat());
    out
}

fn main_graph() -> GraphProto {
    let mut multiply = node("MatMul", &["x", "W"], &["a"]);
    multiply.name = "multiply".into();
    multiply.doc_string = "of a node".into();
    multiply.metadata_props = vec![entry("pkg.torch.stack", "line 1")];
    // NodeProto.device_configurations.
    multiply.special_fields = unknown(10, &field(1, b"two"));
    let alpha = AttributeProto { f: 0.5, ..attr("alpha", AttributeType::FLOAT) };
    let call = with_attr(of_domain("f", node("Scaled", &["l"], &["d"])), alpha);
    let nodes = vec![
        multiply,
        branch(),
        looped(),
        NodeProto { overload: "other".into(), ..call },
        of_domain("ai.onnx", node("Identity", &["d"], &["d2"])),
        custom(),
    ];
    let mut out = graph("main", nodes, vec![info("e", FLOAT, &[]), info("O", FLOAT, &[2])]);
    out.doc_string = "of a graph".into();
    out.metadata_props = vec![entry("g", "1")];
    out.input = inputs();
    out.value_info = vec![described("a"), info("b", FLOAT, &[-1, 64])];
    let mut noted = floats("B", &[2], &[1.0, 2.0]);
    noted.doc_string = "of a tensor".into();
    noted.metadata_props = vec![entry("t", "1")];
    let strings = vec![b"text".to_vec(), vec![0xff, 0xfe], vec![]];
    let mut default = floats("D", &[1], &[3.0]);
    default.doc_string = "of a default".into();
    out.initializer = vec![
        weight("W"),
        floats("V", &[256, 256], &noise(65536)),
        noted,
        floats("O", &[2], &[5.0, 6.0]),
        TensorProto { string_data: strings, ..tensor("S", STRING, &[3], vec![]) },
        tensor("n", I64, &[], 4i64.to_le_bytes().to_vec()),
        tensor("q", 22, &[3], vec![0x21, 0x0f]),
        default,
    ];
    out.sparse_initializer = vec![sparse("P")];
    out.quantization_annotation = vec![TensorAnnotation {
        tensor_name: "a".into(),
        quant_parameter_tensor_names: vec![
            entry("SCALE_TENSOR", "B"),
            entry("ZERO_POINT_TENSOR", "n"),
        ],
        ..Default::default()
    }];
    out
}

fn inputs() -> Vec<ValueInfoProto> {
    let ty = |value| Some(TypeProto { value: Some(value), ..Default::default() }).into();
    let element = || ty(info("", FLOAT, &[-1, 2]).type_.unwrap().value.unwrap());
    let sequence = type_proto::Sequence { elem_type: element(), ..Default::default() };
    let optional = type_proto::Value::SequenceType(sequence.clone());
    let optional = type_proto::Optional { elem_type: ty(optional), ..Default::default() };
    let map = type_proto::Map { key_type: I64, value_type: element(), ..Default::default() };
    let mut shaped = type_proto::SparseTensor { elem_type: FLOAT, ..Default::default() };
    shaped.shape =
        Some(TensorShapeProto { dim: vec![Dimension::new()], ..Default::default() }).into();
    let mut x = described("x");
    let tensor = x.type_.as_mut().unwrap();
    tensor.denotation = "TENSOR".into();
    let rankless = type_proto::Tensor { elem_type: FLOAT, ..Default::default() };
    vec![
        x,
        info("c", 9, &[]),
        of_type("seq", type_proto::Value::SequenceType(sequence)),
        of_type("opt", type_proto::Value::OptionalType(optional)),
        of_type("map", type_proto::Value::MapType(map)),
        of_type("sp", type_proto::Value::SparseTensorType(shaped)),
        of_type("any", type_proto::Value::TensorType(rankless)),
        info("D", FLOAT, &[1]),
    ]
}

/// A value with all that can be said of one.
fn described(name: &str) -> ValueInfoProto {
    let mut out = info(name, FLOAT, &[-1, 64]);
    out.doc_string = "of a value".into();
    out.metadata_props = vec![entry("v", "1")];
    let Some(type_proto::Value::TensorType(tensor)) = &mut out.type_.as_mut().unwrap().value else {
        unreachable!()
    };
    tensor.shape.as_mut().unwrap().dim[0].denotation = "DATA_BATCH".into();
    out
}

/// Two bodies that reuse a name, capture values and have initializers.
fn branch() -> NodeProto {
    let body = |op: &str| {
        let nodes = vec![node(op, &["a", "k"], &["t"]), node("Add", &["t", "B"], &["r"])];
        let mut out = graph(op, nodes, vec![info("r", FLOAT, &[-1, 64])]);
        out.initializer = vec![floats("k", &[1], &[2.0])];
        out.value_info = vec![info("t", FLOAT, &[-1, 64])];
        out.metadata_props = vec![entry("body", op)];
        out
    };
    let out = with_attr(node("If", &["c"], &["b"]), graph_attr("then_branch", body("Mul")));
    with_attr(out, graph_attr("else_branch", body("Add")))
}

fn looped() -> NodeProto {
    let nodes = vec![
        node("Identity", &["go"], &["on"]),
        node("MatMul", &["acc", "W"], &["next"]),
        branch_in("next"),
    ];
    let outputs = vec![info("on", 9, &[]), info("inner", FLOAT, &[-1, 64])];
    let mut body = graph("body", nodes, outputs);
    body.input = vec![info("i", I64, &[]), info("go", 9, &[]), info("acc", FLOAT, &[-1, 64])];
    with_attr(node("Loop", &["n", "", "b"], &["l"]), graph_attr("body", body))
}

/// A body in a body, capturing from both around it.
fn branch_in(value: &str) -> NodeProto {
    let body = |op: &str| {
        graph(op, vec![node(op, &[value, "B"], &["deep"])], vec![info("deep", FLOAT, &[-1, 64])])
    };
    let out = with_attr(node("If", &["go"], &["inner"]), graph_attr("then_branch", body("Mul")));
    with_attr(out, graph_attr("else_branch", body("Sub")))
}

/// An operator that nobody knows, with every kind of attribute.
fn custom() -> NodeProto {
    use AttributeType::{
        FLOATS, GRAPHS, INT, INTS, SPARSE_TENSOR, SPARSE_TENSORS, STRINGS, TENSORS, TYPE_PROTO,
        TYPE_PROTOS,
    };
    let inputs = ["d2", "", "seq", "opt", "map", "sp", "any", "D", "V", "S", "P", "q", "x", ""];
    let mut out = of_domain("com.acme", node("Everything", &inputs, &["e", "", "f"]));
    let inner = |name: &str| {
        let out = graph(name, vec![node("Relu", &["a"], &["s"])], vec![info("s", FLOAT, &[])]);
        GraphProto { doc_string: "inner".into(), ..out }
    };
    let value = || floats("", &[2], &[1.0, -0.0]);
    let text = |it: &[u8]| it.to_vec();
    let ty = |dims: &[i64]| info("", 10, dims).type_.unwrap();
    out.attribute = vec![
        AttributeProto {
            f: f32::INFINITY,
            doc_string: "of an attribute".into(),
            ..attr("f", AttributeType::FLOAT)
        },
        AttributeProto { i: i64::MIN, ..attr("i", INT) },
        AttributeProto { s: text(b"\xff bytes"), ..attr("s", AttributeType::STRING) },
        tensor_attr("t", value()),
        graph_attr("g", inner("one")),
        AttributeProto { sparse_tensor: Some(sparse("")).into(), ..attr("st", SPARSE_TENSOR) },
        AttributeProto { tp: Some(ty(&[-1])).into(), ..attr("tp", TYPE_PROTO) },
        AttributeProto { floats: vec![1.0, -2.5], ..attr("fs", FLOATS) },
        AttributeProto { ints: vec![-1, 1 << 40], ..attr("is", INTS) },
        AttributeProto {
            strings: vec![text(b"a"), text(b""), text(b"\xfe")],
            ..attr("ss", STRINGS)
        },
        AttributeProto {
            tensors: vec![value(), tensor("", I64, &[0], vec![])],
            ..attr("ts", TENSORS)
        },
        AttributeProto { graphs: vec![inner("two"), inner("three")], ..attr("gs", GRAPHS) },
        AttributeProto { sparse_tensors: vec![sparse("")], ..attr("sts", SPARSE_TENSORS) },
        AttributeProto { type_protos: vec![ty(&[1]), ty(&[])], ..attr("tps", TYPE_PROTOS) },
        attr("no_ints", INTS),
    ];
    out
}

fn sparse(name: &str) -> SparseTensorProto {
    let indices: Vec<u8> = [1i64, 7].iter().flat_map(|it| it.to_le_bytes()).collect();
    SparseTensorProto {
        values: Some(floats(name, &[2], &[1.5, -2.5])).into(),
        indices: Some(tensor("", I64, &[2], indices)).into(),
        dims: vec![2, 4],
        ..Default::default()
    }
}

/// A function with an attribute, a default, and types and notes of its own.
fn scaled() -> FunctionProto {
    let of_attr = |name: &str, from: &str| AttributeProto {
        ref_attr_name: from.into(),
        ..attr(name, AttributeType::FLOAT)
    };
    let nodes = vec![
        with_attr(node("Constant", &[], &["k"]), of_attr("value_float", "alpha")),
        with_attr(node("LeakyRelu", &["x"], &["r"]), of_attr("alpha", "beta")),
        node("Mul", &["r", "k"], &["y"]),
    ];
    FunctionProto {
        attribute: vec!["alpha".into()],
        attribute_proto: vec![AttributeProto { f: 0.25, ..attr("beta", AttributeType::FLOAT) }],
        doc_string: "of a function".into(),
        opset_import: vec![opset("ai.onnx", 21), opset("com.acme", 3)],
        metadata_props: vec![entry("fn", "1")],
        value_info: vec![info("r", FLOAT, &[-1, 64])],
        ..function("Scaled", &["x"], nodes)
    }
}

fn training_info() -> TrainingInfoProto {
    let step = vec![node("Sub", &["W", "rate"], &["W_new"])];
    let mut algorithm = graph("step", step, vec![info("W_new", FLOAT, &[64, 64])]);
    algorithm.initializer = vec![floats("rate", &[], &[0.1])];
    let initialization = graph("start", vec![], vec![]);
    TrainingInfoProto {
        algorithm: Some(algorithm).into(),
        initialization: Some(initialization).into(),
        update_binding: vec![entry("W", "W_new")],
        ..Default::default()
    }
}

/// What a model means, whatever form it is stored in: the documented liberties of the writer.
///
/// IR version 4 at least, `ai.onnx` is the empty domain, no external data, and no order of
/// initializers and types.
pub(super) fn normalized(model: &ModelProto, folder: &Path) -> ModelProto {
    let mut out = model.clone();
    out.ir_version = out.ir_version.max(4);
    normalize_opsets(&mut out.opset_import);
    normalize_graph(out.graph.as_mut().unwrap(), folder);
    for it in &mut out.functions {
        normalize_opsets(&mut it.opset_import);
        it.node.iter_mut().for_each(|it| normalize_node(it, folder));
    }
    out
}

fn normalize_opsets(list: &mut [OperatorSetIdProto]) {
    for it in list.iter_mut().filter(|it| it.domain == "ai.onnx") {
        it.domain.clear();
    }
}

fn normalize_graph(graph: &mut GraphProto, folder: &Path) {
    graph.node.iter_mut().for_each(|it| normalize_node(it, folder));
    for it in graph.initializer.iter_mut().filter(|it| !it.external_data.is_empty()) {
        let place = |key: &str| {
            let found = it.external_data.iter().find(|it| it.key == key);
            found.map(|it| it.value.clone())
        };
        let data = fs::read(folder.join(place("location").unwrap())).unwrap();
        let offset: usize = place("offset").map_or(0, |it| it.parse().unwrap());
        let length = place("length").map_or(data.len() - offset, |it| it.parse().unwrap());
        it.raw_data = data[offset..offset + length].to_vec();
        it.external_data.clear();
        it.data_location = DataLocation::DEFAULT.into();
    }
    graph.initializer.sort_by(|a, b| a.name.cmp(&b.name));
    graph.value_info.sort_by(|a, b| a.name.cmp(&b.name));
}

fn normalize_node(node: &mut NodeProto, folder: &Path) {
    if node.domain == "ai.onnx" {
        node.domain.clear();
    }
    for it in &mut node.attribute {
        it.g.as_mut().into_iter().chain(&mut it.graphs).for_each(|it| normalize_graph(it, folder));
    }
}

/// Equality that shows where it fails.
pub(super) fn assert_same(expected: &ModelProto, actual: &ModelProto) {
    if expected == actual {
        return;
    }
    let (left, right) = (format!("{expected:#?}"), format!("{actual:#?}"));
    let lines = left.lines().zip(right.lines()).enumerate();
    let cut = |it: &str| it.chars().take(120).collect::<String>();
    let differences = lines.filter(|(_, it)| it.0 != it.1).take(12);
    let shown: String = differences
        .map(|(at, (left, right))| format!("{at}: {}\n   → {}\n", cut(left), cut(right)))
        .collect();
    let counts = [&left, &right].map(|it| it.lines().count());
    panic!("the models differ, of {counts:?} lines:\n{shown}");
}
