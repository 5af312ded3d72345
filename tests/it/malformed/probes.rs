//! A model and what must become of it; graphs, numbers and names.

use std::{fs, path::Path};

use crate::common::models::*;

/// Exit codes of `check` and `quantize`, and the code that `quantize` names.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub check: i32,
    pub quantize: i32,
    pub code: &'static str,
}

pub(super) const OK: Want = Want { check: 0, quantize: 0, code: "" };
/// Valid, but there is nothing to quantize.
pub(super) const NOTHING: Want = Want { check: 0, quantize: 6, code: "no-op" };

pub(super) fn refused(code: &'static str) -> Want {
    Want { check: 3, quantize: 3, code }
}

pub(super) fn warned(code: &'static str) -> Want {
    Want { code, ..OK }
}

pub(super) struct Probe {
    pub name: String,
    pub want: Want,
    pub flags: &'static [&'static str],
    bytes: Vec<u8>,
    setup: Box<dyn Fn(&Path)>,
}

impl Probe {
    pub(super) fn new(name: impl Into<String>, model: ModelProto, want: Want) -> Probe {
        Probe::raw(name, encode(&model), want)
    }

    pub(super) fn raw(name: impl Into<String>, bytes: Vec<u8>, want: Want) -> Probe {
        Probe { name: name.into(), want, flags: &[], bytes, setup: Box::new(|_| {}) }
    }

    /// `setup` gets the model's folder, in which `../secret.bin` holds a weight's bytes.
    pub(super) fn with(self, setup: impl Fn(&Path) + 'static) -> Probe {
        Probe { setup: Box::new(setup), ..self }
    }

    pub(super) fn flags(self, flags: &'static [&'static str]) -> Probe {
        Probe { flags, ..self }
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn build(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in");
        fs::create_dir(&input).unwrap();
        fs::write(folder.path().join("secret.bin"), bytes_of(&noise(4096))).unwrap();
        fs::write(input.join("model.onnx"), &self.bytes).unwrap();
        (self.setup)(&input);
        folder
    }
}

/// A small model with a part of everything.
pub(super) fn seed() -> ModelProto {
    let body = |op: &str| {
        let value = tensor_attr("value", floats("", &[2], &[1.0, 2.0]));
        let nodes =
            vec![with_attr(node("Constant", &[], &["c"]), value), node(op, &["A", "c"], &["s"])];
        graph("body", nodes, vec![info("s", FLOAT, &[-1, 2])])
    };
    let branch = with_attr(
        with_attr(node("If", &["b"], &["B"]), graph_attr("then_branch", body("Mul"))),
        graph_attr("else_branch", body("Add")),
    );
    let call = of_domain("f", node("Twice", &["B"], &["Y"]));
    let mut out = base(
        vec![named("mm", node("MatMul", &["X", "W"], &["A"])), branch, call],
        vec![
            floats("W", &[2, 2], &[1.0, -2.0, 0.5, 4.0]),
            TensorProto {
                raw_data: vec![],
                int64_data: vec![1, 2],
                ..tensor("I", I64, &[2], vec![])
            },
        ],
    );
    let g = out.graph.as_mut().unwrap();
    g.input = vec![info("X", FLOAT, &[-1, 2]), info("b", 9, &[])];
    g.value_info = vec![info("A", FLOAT, &[-1, 2])];
    g.sparse_initializer = vec![sparse(&[0, 3], &[2, 2])];
    g.metadata_props = vec![entry("k", "v")];
    out.opset_import.push(opset("f", 1));
    out.functions = vec![function("Twice", &["x"], vec![node("Add", &["x", "x"], &["y"])])];
    out
}

pub(super) fn sparse(indices: &[i64], dims: &[i64]) -> SparseTensorProto {
    let bytes: Vec<u8> = indices.iter().flat_map(|it| it.to_le_bytes()).collect();
    let count = indices.len();
    SparseTensorProto {
        values: Some(floats("S", &[count as i64], &vec![1.0; count])).into(),
        indices: Some(tensor("", I64, &[count as i64], bytes)).into(),
        dims: dims.into(),
        ..Default::default()
    }
}

pub(super) fn good() -> ModelProto {
    with_weight(weight("W"))
}

/// Rows 30 to 35, at the top and in a branch.
pub(super) fn graphs() -> Vec<Probe> {
    let cases = [
        (
            "two values of a name",
            vec![node("Relu", &["X"], &["Y"]), node("Relu", &["X"], &["Y"])],
            refused("E401"),
        ),
        (
            "an output called like an initializer",
            vec![node("Relu", &["X"], &["W"]), node("Relu", &["X"], &["Y"])],
            refused("E401"),
        ),
        (
            "a cycle",
            vec![
                node("MatMul", &["B", "W"], &["A"]),
                node("Relu", &["A"], &["B"]),
                node("Identity", &["A"], &["Y"]),
            ],
            refused("E404"),
        ),
        ("a node that needs itself", vec![node("Relu", &["Y"], &["Y"])], refused("E404")),
        ("a missing input", vec![node("Relu", &["Z"], &["Y"])], refused("E406")),
        ("a missing output", vec![node("Relu", &["X"], &["Z"])], refused("E406")),
        (
            "two nodes of a name",
            vec![
                named("n", node("MatMul", &["X", "W"], &["A"])),
                named("n", node("MatMul", &["A", "W"], &["Y"])),
            ],
            warned("W403"),
        ),
        (
            "nodes out of order",
            vec![node("Relu", &["A"], &["Y"]), node("MatMul", &["X", "W"], &["A"])],
            warned("W405"),
        ),
    ];
    let mut list = Vec::new();
    for (name, nodes, want) in cases {
        list.push(Probe::new(name, base(nodes.clone(), vec![weight("W")]), want));
        let mut inner = graph("b", nodes, vec![info("Y", FLOAT, &[1, 64])]);
        inner.initializer = vec![weight("W")];
        let branch = with_attr(node("If", &["X"], &["R"]), graph_attr("then_branch", inner));
        let mut model = base(vec![branch], vec![]);
        model.graph.as_mut().unwrap().output = vec![info("R", FLOAT, &[1, 64])];
        list.push(Probe::new(format!("{name}, in a branch"), model, want));
    }
    let twice = base(vec![matmul()], vec![weight("W"), weight("W")]);
    list.push(Probe::new("two initializers of a name", twice, refused("E402")));
    let own = graph("b", vec![node("Relu", &["Y"], &["s"])], vec![info("s", FLOAT, &[1])]);
    let branch = with_attr(node("If", &["X"], &["Y"]), graph_attr("then_branch", own));
    list.push(Probe::new(
        "a body that needs its node",
        base(vec![branch], vec![]),
        refused("E404"),
    ));
    let untyped = with_attr(matmul(), attr("a", AttributeType::UNDEFINED));
    list.push(Probe::new(
        "an attribute without a type",
        base(vec![untyped], vec![weight("W")]),
        Want { check: 4, quantize: 4, code: "E407" },
    ));
    list
}

/// Rows 40 to 45.
pub(super) fn numbers() -> Vec<Probe> {
    let one = |value: f32| {
        let mut values = noise(4096);
        values[77] = value;
        with_weight(floats("W", &[64, 64], &values))
    };
    let bad = Want { check: 0, quantize: 3, code: "E501]: weight `W` holds" };
    let quantized = || {
        let parameters = vec![
            tensor("q", 3, &[64, 64], vec![7; 4096]),
            floats("s", &[], &[0.05]),
            tensor("z", 3, &[], vec![0]),
        ];
        base(
            vec![
                node("DequantizeLinear", &["q", "s", "z"], &["D"]),
                node("MatMul", &["X", "D"], &["Y"]),
            ],
            parameters,
        )
    };
    let all = |value: f32| with_weight(floats("W", &[64, 64], &[value; 4096]));
    vec![
        Probe::new("all NaN", all(f32::NAN), bad),
        Probe::new("one NaN", one(f32::NAN), bad),
        Probe::new("one infinity", one(f32::INFINITY), bad),
        Probe::new("one infinity below zero", one(f32::NEG_INFINITY), bad),
        Probe::new(
            "one NaN, skipped",
            one(f32::NAN),
            Want { check: 0, quantize: 6, code: "holds NaN" },
        )
        .flags(&["--nonfinite", "skip"]),
        Probe::new("the largest number", one(f32::MAX), OK),
        Probe::new("all zero", all(0.0), OK),
        Probe::new("denormal", all(1e-42), OK),
        Probe::new("no rows", with_weight(floats("W", &[0, 64], &[])), NOTHING),
        Probe::new("no columns", with_weight(floats("W", &[64, 0], &[])), NOTHING),
        Probe::new("quantized already", quantized(), Want { code: "quantized already", ..NOTHING }),
        Probe::new(
            "only a custom operator",
            base(vec![of_domain("com.acme", node("MyOp", &["X", "W"], &["Y"]))], vec![weight("W")]),
            NOTHING,
        ),
    ]
}

/// What other tools refuse or trip over, and must be accepted.
pub(super) fn odd() -> Vec<Probe> {
    let w = || vec![weight("W")];
    let mut as_input = good();
    as_input.graph.as_mut().unwrap().input.push(info("W", FLOAT, &[64, 64]));
    let old = ModelProto { ir_version: 3, ..as_input.clone() };
    let mut as_output = good();
    as_output.graph.as_mut().unwrap().output.push(info("W", FLOAT, &[64, 64]));
    let mut half = with_weight(tensor("W", 10, &[64, 64], vec![0x3c; 8192]));
    let g = half.graph.as_mut().unwrap();
    (g.input, g.output) = (vec![info("X", 10, &[1, 64])], vec![info("Y", 10, &[1, 64])]);
    let mut tied =
        base(vec![node("Gather", &["W", "I"], &["A"]), node("MatMul", &["A", "W"], &["Y"])], w());
    tied.graph.as_mut().unwrap().input = vec![info("I", I64, &[1])];
    let shape = tensor_attr("value", tensor("", I64, &[1], (1i64 << 40).to_le_bytes().to_vec()));
    let huge = vec![
        with_attr(node("Constant", &[], &["s"]), shape),
        node("ConstantOfShape", &["s"], &["Y"]),
    ];
    let mut no_inputs = base(huge, vec![]);
    no_inputs.graph.as_mut().unwrap().output = vec![info("Y", FLOAT, &[-1])];
    let long = named(&"n".repeat(1 << 20), matmul());
    let without = NodeProto { name: String::new(), ..matmul() };
    vec![
        Probe::new("an initializer that is an input", as_input, OK),
        Probe::new("the same in IR 3", old, OK),
        Probe::new("an initializer that is an output", as_output, OK),
        Probe::new("halfs", half, OK),
        Probe::new("a tied weight", tied, OK),
        Probe::new(
            "a shared weight",
            base(
                vec![node("MatMul", &["X", "W"], &["A"]), node("MatMul", &["A", "W"], &["Y"])],
                w(),
            ),
            OK,
        ),
        Probe::new("a terabyte of zeros", no_inputs, NOTHING),
        Probe::new("a name of 1 MiB", base(vec![long], w()), OK),
        Probe::new("a node without a name", base(vec![without], w()), OK),
        Probe::new("opset 7", ModelProto { opset_import: vec![opset("", 7)], ..good() }, OK),
        Probe::new(
            "ai.onnx spelled out",
            ModelProto { opset_import: vec![opset("ai.onnx", 17)], ..good() },
            OK,
        ),
        Probe::new("a bit of everything", seed(), OK),
    ]
}

/// The same errors and tables, with names that attack a terminal or a log.
pub(super) fn hostile_names() -> Vec<Probe> {
    const EVIL: &str =
        "</script>\x1b]8;;http://evil\x07\x1b[2J\u{202e}gnp.exe\r\n::error::pwn\u{9b}2J\0";
    let evil = |tensor: TensorProto| TensorProto { name: EVIL.into(), ..tensor };
    let using = |tensor: TensorProto| {
        base(vec![named(EVIL, node("MatMul", &["X", EVIL], &["Y"]))], vec![evil(tensor)])
    };
    let in_graph = |mut model: ModelProto| {
        model.graph.as_mut().unwrap().name = EVIL.into();
        model
    };
    let relu = |input: &str, output: &str| named(EVIL, node("Relu", &[input], &[output]));
    let located = |location: &str| external(&[("location", location)]);
    let twice = external(&[("location", "w"), (EVIL, "1"), ("location", "w")]);
    let custom = of_domain(EVIL, node(EVIL, &["X", "W"], &["Y"]));
    let mut nan = noise(4096);
    nan[5] = f32::NAN;
    let mut imports = good();
    imports.opset_import.push(opset(EVIL, 3));
    imports.metadata_props.push(entry(EVIL, EVIL));
    (imports.producer_name, imports.doc_string) = (EVIL.into(), EVIL.into());
    imports.graph.as_mut().unwrap().input[0].name = EVIL.into();
    imports.graph.as_mut().unwrap().node[0].input[0] = EVIL.into();
    let mut calls = base(vec![of_domain("f", node(EVIL, &["X"], &["Y"]))], vec![]);
    calls.functions =
        vec![function(EVIL, &["x"], vec![of_domain("f", node(EVIL, &["x"], &["y"]))])];
    calls.opset_import.push(opset("f", 1));
    let strings = TensorProto { string_data: vec![vec![255]], ..tensor("", STRING, &[1], vec![]) };
    vec![
        Probe::new("a good model", in_graph(using(weight(""))), OK),
        Probe::new("everything else", in_graph(imports), OK),
        Probe::new("an operator", base(vec![custom], vec![weight("W")]), NOTHING),
        Probe::new("dimensions", using(tensor("", FLOAT, &[-1], vec![])), refused("E301")),
        Probe::new("a location", using(located(EVIL)), refused("E201")),
        Probe::new("a missing file", using(located("\u{202e}x\u{2028}")), refused("E206")),
        Probe::new("keys", using(twice), refused("E208")),
        Probe::new(
            "a number",
            using(external(&[("location", "w"), ("offset", EVIL)])),
            refused("E205"),
        ),
        Probe::new("a missing value", base(vec![relu(EVIL, "Y")], vec![]), refused("E406")),
        Probe::new("a cycle", in_graph(base(vec![relu("Y", "Y")], vec![])), refused("E404")),
        Probe::new(
            "two values",
            in_graph(base(vec![relu("X", EVIL), relu("X", EVIL)], vec![])),
            refused("E401"),
        ),
        Probe::new(
            "two initializers",
            in_graph(base(vec![], vec![evil(weight("")), evil(weight(""))])),
            refused("E402"),
        ),
        Probe::new(
            "warnings",
            in_graph(base(vec![relu("A", "Y"), relu(EVIL, "A")], vec![evil(strings)])),
            Want { code: "W309", ..NOTHING },
        ),
        Probe::new(
            "NaN",
            using(floats("", &[64, 64], &nan)),
            Want { check: 0, quantize: 3, code: "E501" },
        ),
        Probe::new(
            "NaN, skipped",
            using(floats("", &[64, 64], &nan)),
            Want { check: 0, quantize: 6, code: "" },
        )
        .flags(&["--nonfinite", "skip"]),
        Probe::new("a function", calls, refused("E105")),
        Probe::new(
            "an attribute",
            base(vec![with_attr(relu("X", "Y"), attr(EVIL, AttributeType::UNDEFINED))], vec![]),
            Want { check: 4, quantize: 4, code: "E407" },
        ),
    ]
}
