//! The models, and what must become of each.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::support::*;

/// Exit codes of `check` and `quantize`, and the code that `quantize` names.
#[derive(Clone, Copy)]
pub struct Want {
    pub check: i32,
    pub quantize: i32,
    pub code: &'static str,
}

const OK: Want = Want { check: 0, quantize: 0, code: "" };
/// Valid, but there is nothing to quantize.
const NOTHING: Want = Want { check: 0, quantize: 6, code: "no-op" };

fn refused(code: &'static str) -> Want {
    Want { check: 3, quantize: 3, code }
}

fn warned(code: &'static str) -> Want {
    Want { code, ..OK }
}

pub struct Probe {
    pub name: String,
    pub want: Want,
    pub flags: &'static [&'static str],
    bytes: Vec<u8>,
    setup: Box<dyn Fn(&Path)>,
}

impl Probe {
    fn new(name: impl Into<String>, model: ModelProto, want: Want) -> Probe {
        Probe::raw(name, encode(&model), want)
    }

    fn raw(name: impl Into<String>, bytes: Vec<u8>, want: Want) -> Probe {
        Probe { name: name.into(), want, flags: &[], bytes, setup: Box::new(|_| {}) }
    }

    /// `setup` gets the model's folder, in which `../secret.bin` holds a weight's bytes.
    fn with(self, setup: impl Fn(&Path) + 'static) -> Probe {
        Probe { setup: Box::new(setup), ..self }
    }

    fn flags(self, flags: &'static [&'static str]) -> Probe {
        Probe { flags, ..self }
    }

    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn build(&self) -> tempfile::TempDir {
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
pub fn seed() -> ModelProto {
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

fn sparse(indices: &[i64], dims: &[i64]) -> SparseTensorProto {
    let bytes: Vec<u8> = indices.iter().flat_map(|it| it.to_le_bytes()).collect();
    let count = indices.len();
    SparseTensorProto {
        values: Some(floats("S", &[count as i64], &vec![1.0; count])).into(),
        indices: Some(tensor("", I64, &[count as i64], bytes)).into(),
        dims: dims.into(),
        ..Default::default()
    }
}

fn good() -> ModelProto {
    with_weight(weight("W"))
}

/// Rows 1, 2, 6 and 7 of the table.
pub fn wire() -> Vec<Probe> {
    let bytes = encode(&good());
    let mut list = vec![
        Probe::new("good", good(), OK),
        Probe::raw("empty", vec![], refused("E102")),
        Probe::raw("one byte", vec![0], refused("E101")),
        Probe::raw("a depth bomb", depth_bomb(20_000), refused("E103")),
        Probe::raw("a group", vec![7 << 3 | 3, 7 << 3 | 4], refused("E101")),
        Probe::raw(
            "a varint without an end",
            vec![8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
            refused("E101"),
        ),
        Probe::raw(
            "a length beyond the file",
            [vec![7 << 3 | 2], vec![255; 9], vec![1]].concat(),
            refused("E101"),
        ),
        Probe::raw("a wrong wire type", [vec![7 << 3, 1], bytes.clone()].concat(), refused("E101")),
        Probe::raw(
            "a name that is not UTF-8",
            [bytes.clone(), field(2, &[0xff])].concat(),
            refused("E101"),
        ),
        Probe::raw(
            "an unknown field",
            [bytes.clone(), field(15, b"zzzz")].concat(),
            warned("W107"),
        ),
        Probe::raw(
            "an unknown field of the graph",
            [bytes.clone(), field(7, &field(99, b"z"))].concat(),
            Want { check: 4, quantize: 4, code: "E107" },
        ),
        Probe::raw("no graph", vec![8, 9], refused("E110")),
        Probe::new("no opset", ModelProto { opset_import: vec![], ..good() }, refused("E111")),
        Probe::new(
            "opset 999",
            ModelProto { opset_import: vec![opset("", 999)], ..good() },
            refused("E112"),
        ),
        Probe::new("IR 99", ModelProto { ir_version: 99, ..good() }, refused("E113")),
        Probe::new("31 nested graphs", nested(31), NOTHING),
        Probe::new("32 nested graphs", nested(32), refused("E103")),
    ];
    let random: Vec<u8> = noise(65536).iter().map(|it| (it * 127.0) as i8 as u8).collect();
    list.push(Probe::raw("random bytes", random, refused("E101")));
    let small = encode(&seed());
    for at in (1..small.len()).step_by(29) {
        // A cut between two fields of the model leaves a whole message.
        if !ends_of_fields(&small).contains(&at) {
            list.push(Probe::raw(format!("cut at {at}"), small[..at].to_vec(), refused("E101")));
        }
    }
    list
}

/// Where each field of a message without long numbers ends.
fn ends_of_fields(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (0, Vec::new());
    let varint = |at: &mut usize| {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    };
    while at < bytes.len() {
        let is_body = varint(&mut at) & 7 == 2;
        let value = varint(&mut at);
        at += if is_body { value } else { 0 };
        ends.push(at);
    }
    ends
}

fn depth_bomb(levels: usize) -> Vec<u8> {
    // From the inside out: attribute.g, node.attribute, graph.node.
    let mut reversed: Vec<u8> = Vec::new();
    let mut wrap = |number: u64| {
        let mut head = Vec::new();
        varint(number << 3 | 2, &mut head);
        varint(reversed.len() as u64, &mut head);
        reversed.extend(head.iter().rev());
    };
    for _ in 0..levels {
        [6, 5, 1].into_iter().for_each(&mut wrap);
    }
    wrap(7);
    reversed.reverse();
    reversed
}

fn nested(levels: usize) -> ModelProto {
    let body =
        |nodes, level: usize| graph("g", nodes, vec![info(&format!("o{level}"), FLOAT, &[1])]);
    let leaf = |level: usize| body(vec![node("Identity", &["X"], &[&format!("o{level}")])], level);
    let mut inner = leaf(levels);
    for level in (0..levels).rev() {
        let branch = node("If", &["c"], &[&format!("o{level}")]);
        let branch = with_attr(branch, graph_attr("then_branch", inner));
        let other = format!("e{level}");
        let other =
            graph("e", vec![node("Identity", &["X"], &[&other])], vec![info(&other, FLOAT, &[1])]);
        inner = body(vec![with_attr(branch, graph_attr("else_branch", other))], level);
    }
    inner.input = vec![info("X", FLOAT, &[1]), info("c", 9, &[])];
    model(inner)
}

/// Row 3: 1 MiB and 10 MiB of messages that cost more than they weigh; and wide models.
pub fn bombs() -> Vec<Probe> {
    let head = encode(&ModelProto { graph: None.into(), ..good() });
    let in_graph = |body: Vec<u8>| [head.clone(), field(7, &body)].concat();
    let tiny = |number: u64, count: usize| field(number, &[]).repeat(count);
    let mut list = Vec::new();
    for (what, number) in
        [("nodes", 1), ("initializers", 5), ("value infos", 13), ("inputs", 11), ("sparse", 15)]
    {
        let code = if what == "value infos" { NOTHING } else { refused("E") };
        list.push(Probe::raw(format!("1 MiB of {what}"), in_graph(tiny(number, 1 << 19)), code));
        let bomb = in_graph(tiny(number, 5_000_000));
        list.push(Probe::raw(format!("10 MB of {what}"), bomb, refused("E104")));
    }
    let strings = |count: usize| {
        let mut body = encode_tensor(&tensor("S", STRING, &[count as i64], vec![]));
        body.extend(tiny(6, count));
        in_graph(field(5, &body))
    };
    list.push(Probe::raw("1 MiB of strings", strings(1 << 19), NOTHING));
    let attributes = in_graph(field(1, &tiny(5, 1 << 19)));
    list.push(Probe::raw("1 MiB of attributes", attributes, refused("E104")));
    let outputs = in_graph(field(1, &tiny(2, 1 << 19)));
    list.push(Probe::raw("1 MiB of outputs", outputs, Want { quantize: 6, ..NOTHING }));
    let dims = in_graph(field(5, &field(1, &vec![0; 1 << 20])));
    list.push(Probe::raw("1 MiB of dimensions", dims, refused("E30")));
    let full = encode(&good());
    let appended = |number: u64, count: usize| [full.clone(), tiny(number, count)].concat();
    list.push(Probe::raw("1 MiB of opset imports", appended(8, 1 << 19), refused("E104")));
    list.push(Probe::raw("1 MiB of functions", appended(25, 1 << 19), refused("E104")));
    list.push(Probe::raw("1 MiB of metadata", appended(14, 1 << 19), OK));
    list.push(Probe::raw(
        "1 MiB of unknown fields",
        [full.clone(), [120, 0].repeat(1 << 19)].concat(),
        warned("W107"),
    ));
    list.extend(wide());
    list
}

fn encode_tensor(tensor: &TensorProto) -> Vec<u8> {
    tensor.write_to_bytes().unwrap()
}

fn wide() -> Vec<Probe> {
    let chain = |count: usize| -> Vec<NodeProto> {
        let name = |at: usize| {
            if at == 0 {
                "X".into()
            } else if at == count {
                "Y".into()
            } else {
                format!("t{at}")
            }
        };
        (0..count).map(|at| node("Relu", &[&name(at)], &[&name(at + 1)])).collect()
    };
    let body = |name: &str| {
        graph("b", vec![node("Identity", &["X"], &[name])], vec![info(name, FLOAT, &[1])])
    };
    let ifs = (0..5000).map(|at| {
        let branch = with_attr(
            node("If", &["c"], &[&format!("i{at}")]),
            graph_attr("then_branch", body("s")),
        );
        with_attr(branch, graph_attr("else_branch", body("s")))
    });
    let mut branches = base(ifs.chain(chain(10_000)).collect(), vec![]);
    branches.graph.as_mut().unwrap().input.push(info("c", 9, &[]));
    let mut outputs = base(chain(15_000), vec![]);
    let g = outputs.graph.as_mut().unwrap();
    g.value_info = (1..15_000).map(|at| info(&format!("t{at}"), FLOAT, &[1])).collect();
    g.output.extend(g.value_info.clone());
    let same_name = chain(30_000).into_iter().map(|it| named("n", it)).collect();
    let many = (0..50_000).map(|at| floats(&format!("w{at}"), &[1], &[1.0])).collect();
    vec![
        Probe::new("200k nodes", base(chain(200_000), vec![]), NOTHING),
        Probe::new("5k branches", branches, NOTHING),
        Probe::new("15k outputs", outputs, NOTHING),
        Probe::new(
            "30k nodes of one name",
            base(same_name, vec![]),
            Want { code: "W403", ..NOTHING },
        ),
        Probe::new("50k initializers", base(chain(1), many), NOTHING),
    ]
}

/// Rows 4 and 5.
pub fn functions() -> Vec<Probe> {
    let call = |name: &str, from: &str, to: &str| of_domain("f", node(name, &[from], &[to]));
    let with = |functions: Vec<FunctionProto>, first: &str| {
        let mut out = base(vec![call(first, "X", "Y")], vec![]);
        out.opset_import.push(opset("f", 1));
        out.functions = functions;
        out
    };
    let chain = |length: usize, calls: &dyn Fn(usize) -> Vec<NodeProto>| {
        let list = (0..length).map(|at| function(&format!("F{at}"), &["x"], calls(at))).collect();
        with(list, "F0")
    };
    let twice = |at: usize| match at {
        39 => vec![node("Relu", &["x"], &["y"])],
        _ => vec![call(&format!("F{}", at + 1), "x", "a"), call(&format!("F{}", at + 1), "a", "y")],
    };
    // Each call lies in 20 nested graphs: the recursion is deep without a cycle.
    let buried = |at: usize| {
        let last = node("Relu", &["x"], &["y"]);
        let inner = if at == 511 { last } else { call(&format!("F{}", at + 1), "x", "y") };
        let bury = |inner: NodeProto, _| {
            let body = graph("b", vec![inner], vec![info("y", FLOAT, &[1])]);
            with_attr(node("If", &["x"], &["y"]), graph_attr("then_branch", body))
        };
        vec![(0..20).fold(inner, bury)]
    };
    let cycle = |at: usize| vec![call(&format!("F{}", (at + 1) % 3), "x", "y")];
    let relu = || function("A", &["x"], vec![node("Relu", &["x"], &["y"])]);
    let linear = function("Lin", &["x", "w"], vec![node("MatMul", &["x", "w"], &["y"])]);
    let mut used = with_weight(weight("W"));
    used.graph.as_mut().unwrap().node = vec![of_domain("f", node("Lin", &["X", "W"], &["Y"]))];
    used.opset_import.push(opset("f", 1));
    used.functions = vec![linear];
    vec![
        Probe::new("calls itself", chain(1, &|_| vec![call("F0", "x", "y")]), refused("E105")),
        Probe::new("a cycle of three", chain(3, &cycle), refused("E105")),
        Probe::new("2^40 nodes", chain(40, &twice), refused("E106")),
        Probe::new("512 functions in 20 graphs each", chain(512, &buried), refused("E106")),
        Probe::new("two of a name", with(vec![relu(), relu()], "A"), refused("E401")),
        Probe::new("one that is missing", with(vec![relu()], "B"), NOTHING),
        Probe::new(
            "one with an opset too new",
            with(vec![FunctionProto { opset_import: vec![opset("", 99)], ..relu() }], "A"),
            refused("E112"),
        ),
        Probe::new(
            "an output that nothing defines",
            with(vec![FunctionProto { output: vec!["z".into()], ..relu() }], "A"),
            refused("E406"),
        ),
        Probe::new("a MatMul", used, OK),
    ]
}

/// Rows 10 to 18.
pub fn external_data() -> Vec<Probe> {
    let at = |location: &str, offset: &str, length: &str| {
        with_weight(external(&[("location", location), ("offset", offset), ("length", length)]))
    };
    let whole = |location: &str| at(location, "0", "16384");
    let data = |folder: &Path| fs::write(folder.join("w.bin"), bytes_of(&noise(4096))).unwrap();
    let at_place = |name: &str, offset: &str, length: &str, want| {
        Probe::new(name, at("w.bin", offset, length), want).with(data)
    };
    let keys = |entries: &[(&str, &str)]| with_weight(external(entries));
    let mut list = vec![
        Probe::new("beside the model", whole("w.bin"), OK).with(data),
        Probe::new("no offset or length", keys(&[("location", "./w.bin")]), OK).with(data),
        Probe::new("policy none", whole("w.bin"), Want { check: 0, ..refused("E201") })
            .with(data)
            .flags(&["--external-policy", "none"]),
        Probe::new("no location", keys(&[("offset", "0")]), refused("E201")),
        Probe::new("a missing file", whole("nope.bin"), refused("E206")),
        at_place("a negative offset", "-4", "16384", refused("E205")),
        at_place("a negative length", "0", "-1", refused("E205")),
        at_place("a huge length", "0", "1125899906842624", refused("E205")),
        at_place("an offset that overflows", "9223372036854775807", "16384", refused("E205")),
        at_place("a number of 30 digits", "0", "100000000000000000000000000000", refused("E205")),
        at_place("no number", "zero", "16384", refused("E205")),
        at_place("a length unlike the shape", "0", "8192", refused("E205")),
        Probe::new("a short file", whole("w.bin"), refused("E205"))
            .with(|it| fs::write(it.join("w.bin"), [0; 8000]).unwrap()),
        Probe::new("an empty file", whole("w.bin"), refused("E205"))
            .with(|it| fs::write(it.join("w.bin"), []).unwrap()),
        Probe::new("a folder", whole("w.bin"), refused("E204"))
            .with(|it| fs::create_dir(it.join("w.bin")).unwrap()),
        Probe::new("a pipe", whole("w.bin"), refused("E204")).with(|it| fifo(&it.join("w.bin"))),
        Probe::new("a link out", whole("w.bin"), refused("E202"))
            .with(|it| symlink("../secret.bin", it.join("w.bin")).unwrap()),
        Probe::new("a link to a device", whole("w.bin"), refused("E202"))
            .with(|it| symlink("/dev/zero", it.join("w.bin")).unwrap()),
        Probe::new("a folder that links out", whole("sub/secret.bin"), refused("E202"))
            .with(|it| symlink("..", it.join("sub")).unwrap()),
        Probe::new(
            "a link to itself",
            whole("w.bin"),
            Want { check: 5, quantize: 5, code: "E902" },
        )
        .with(|it| symlink("w.bin", it.join("w.bin")).unwrap()),
        Probe::new("a link inside", whole("w.bin"), OK).with(link_inside),
        Probe::new("a link inside, strictly", whole("w.bin"), Want { check: 0, ..refused("E203") })
            .with(link_inside)
            .flags(&["--untrusted"]),
        Probe::new("a hard link", whole("w.bin"), OK).with(hard_link),
        Probe::new("a hard link, strictly", whole("w.bin"), Want { check: 0, ..refused("E203") })
            .with(hard_link)
            .flags(&["--external-policy", "strict"]),
        Probe::new("a Hugging Face cache", whole("w.bin"), OK).with(hugging_face_cache),
        Probe::new(
            "a location twice",
            keys(&[("location", "w.bin"), ("location", "v.bin")]),
            refused("E208"),
        )
        .with(data),
        Probe::new(
            "an offset twice",
            keys(&[("location", "w.bin"), ("offset", "0"), ("offset", "0")]),
            refused("E208"),
        )
        .with(data),
        Probe::new(
            "an unknown key",
            keys(&[("location", "w.bin"), ("color", "red")]),
            warned("W208"),
        )
        .with(data),
        Probe::new(
            "a wrong checksum",
            keys(&[("location", "w.bin"), ("checksum", &"0".repeat(40))]),
            refused("E209"),
        )
        .with(data),
        Probe::new("a right checksum", keys(&[("location", "w.bin"), ("checksum", &sha1())]), OK)
            .with(data),
        Probe::new("overlapping tensors", overlapping(1024), warned("W210")).with(double_data),
        Probe::new("tensors side by side", overlapping(16384), OK).with(double_data),
    ];
    for bad in [
        "../secret.bin",
        "junk/../../secret.bin",
        "/dev/zero",
        "a\\..\\..\\secret.bin",
        "C:w.bin",
        "\\\\host\\w",
        "w.bin:ads",
        "nul",
        "com1.bin",
        "a\0b",
        "*/_ORT_MEM_ADDR_/*",
        "",
    ] {
        list.push(Probe::new(format!("location {bad:?}"), whole(bad), refused("E201")));
    }
    list.push(Probe::new("a long location", whole(&"x/".repeat(600)), refused("E201")));
    for (name, holder) in holders() {
        list.push(Probe::new(
            format!("a path out in {name}"),
            holder(external(&[("location", "../secret.bin")])),
            refused("E201"),
        ));
    }
    list
}

fn link_inside(folder: &Path) {
    fs::rename(folder.parent().unwrap().join("secret.bin"), folder.join("real.bin")).unwrap();
    symlink("real.bin", folder.join("w.bin")).unwrap();
}

fn hard_link(folder: &Path) {
    fs::hard_link(folder.parent().unwrap().join("secret.bin"), folder.join("w.bin")).unwrap();
}

/// `snapshots/x/model.onnx → ../../blobs/abc`, and the data file likewise.
fn hugging_face_cache(folder: &Path) {
    let blobs = folder.parent().unwrap().join("blobs");
    fs::create_dir(&blobs).unwrap();
    fs::rename(folder.join("model.onnx"), blobs.join("abc")).unwrap();
    fs::rename(folder.parent().unwrap().join("secret.bin"), blobs.join("def")).unwrap();
    symlink("../blobs/abc", folder.join("model.onnx")).unwrap();
    symlink("../blobs/def", folder.join("w.bin")).unwrap();
}

fn fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

/// Of the data file, as the format asks for.
fn sha1() -> String {
    use sha1::{Digest, Sha1};
    Sha1::digest(bytes_of(&noise(4096))).iter().map(|it| format!("{it:02x}")).collect()
}

fn double_data(folder: &Path) {
    fs::write(folder.join("w.bin"), bytes_of(&noise(8192))).unwrap();
}

fn overlapping(offset: usize) -> ModelProto {
    let at = |name: &str, offset: usize| TensorProto {
        name: name.into(),
        ..external(&[("location", "w.bin"), ("offset", &offset.to_string()), ("length", "16384")])
    };
    let nodes = vec![node("MatMul", &["X", "W"], &["A"]), node("MatMul", &["A", "V"], &["Y"])];
    base(nodes, vec![at("W", 0), at("V", offset)])
}

type Holder = (&'static str, fn(TensorProto) -> ModelProto);

/// Places other than the main graph where a tensor can be.
fn holders() -> Vec<Holder> {
    fn constant(tensor: TensorProto) -> NodeProto {
        with_attr(node("Constant", &[], &["W"]), tensor_attr("value", tensor))
    }
    fn branch(inner: GraphProto) -> ModelProto {
        base(vec![with_attr(node("If", &["X"], &["Y"]), graph_attr("then_branch", inner))], vec![])
    }
    vec![
        ("a Constant", |it| base(vec![constant(it), matmul()], vec![])),
        ("a function", |it| {
            let mut out = base(vec![of_domain("f", node("F", &["X"], &["Y"]))], vec![]);
            out.functions = vec![function(
                "F",
                &["x"],
                vec![constant(it), node("MatMul", &["x", "W"], &["y"])],
            )];
            out.opset_import.push(opset("f", 1));
            out
        }),
        ("a subgraph", |it| {
            let mut inner = graph("b", vec![matmul()], vec![info("Y", FLOAT, &[1, 64])]);
            inner.output[0].name = "s".into();
            inner.node[0].output[0] = "s".into();
            inner.initializer = vec![it];
            branch(inner)
        }),
        ("sparse values", |it| {
            let mut out = base(vec![node("Identity", &["X"], &["Y"])], vec![]);
            let values = Some(TensorProto { dims: vec![4096], ..it }).into();
            let sparse = SparseTensorProto { values, ..sparse(&[0], &[64, 64]) };
            out.graph.as_mut().unwrap().sparse_initializer = vec![sparse];
            out
        }),
        ("training info", |it| {
            let mut out = good();
            let algorithm = graph("a", vec![constant(it)], vec![]);
            let info = onnx_protobuf::TrainingInfoProto {
                algorithm: Some(algorithm).into(),
                ..Default::default()
            };
            out.training_info = vec![info];
            out
        }),
    ]
}

/// Rows 20 to 29.
pub fn tensors() -> Vec<Probe> {
    let w = |data_type, dims: &[i64], raw: Vec<u8>| with_weight(tensor("W", data_type, dims, raw));
    let typed = |tensor: TensorProto| {
        with_weight(TensorProto { raw_data: vec![], name: "W".into(), ..tensor })
    };
    let full = bytes_of(&noise(4096));
    let with_sparse = |it: SparseTensorProto| {
        let mut out = base(vec![node("MatMul", &["X", "S"], &["Y"])], vec![]);
        out.graph.as_mut().unwrap().sparse_initializer = vec![it];
        out
    };
    let strings = |list: &[&[u8]]| {
        let tensor = TensorProto {
            string_data: list.iter().map(|it| it.to_vec()).collect(),
            ..tensor("S", STRING, &[2], vec![])
        };
        let mut out = base(vec![node("Identity", &["S"], &["Y"])], vec![tensor]);
        out.graph.as_mut().unwrap().output = vec![info("Y", STRING, &[2])];
        out
    };
    let extra = |tensor: TensorProto, want| {
        let used = base(
            vec![matmul(), named("keep", node("Shape", &["Q"], &["Z"]))],
            vec![weight("W"), TensorProto { name: "Q".into(), ..tensor }],
        );
        let mut used = used;
        used.graph.as_mut().unwrap().output.push(info("Z", I64, &[1]));
        (used, want)
    };
    let mut list = vec![
        Probe::new("a negative dimension", w(FLOAT, &[-64, 64], full.clone()), refused("E301")),
        Probe::new(
            "dimensions that overflow",
            w(FLOAT, &[1 << 32, 1 << 32], vec![]),
            refused("E302"),
        ),
        Probe::new(
            "huge dimensions, no data",
            w(FLOAT, &[1 << 20, 1 << 20], vec![]),
            refused("E302"),
        ),
        Probe::new(
            "a huge shape with a zero",
            w(FLOAT, &[1 << 40, 1 << 40, 0], vec![]),
            refused("E302"),
        ),
        Probe::new("rank 1000", w(FLOAT, &[1; 1000], vec![0; 4]), refused("E302")),
        Probe::new(
            "raw data too short",
            w(FLOAT, &[64, 64], full[..100].to_vec()),
            refused("E303"),
        ),
        Probe::new(
            "raw data too long",
            w(FLOAT, &[64, 64], [full.clone(), vec![0; 4]].concat()),
            refused("E303"),
        ),
        Probe::new(
            "a part of an element",
            w(FLOAT, &[64, 64], full[..16383].to_vec()),
            refused("E303"),
        ),
        Probe::new(
            "too few typed values",
            typed(TensorProto { float_data: vec![1.0; 9], ..weight("W") }),
            refused("E303"),
        ),
        Probe::new(
            "raw and typed",
            with_weight(TensorProto { float_data: vec![1.0; 4096], ..weight("W") }),
            refused("E304"),
        ),
        Probe::new(
            "two typed fields",
            typed(TensorProto { float_data: vec![1.0; 4096], int32_data: vec![1], ..weight("W") }),
            refused("E304"),
        ),
        Probe::new(
            "external and raw",
            with_weight(TensorProto {
                raw_data: full.clone(),
                ..external(&[("location", "w.bin")])
            }),
            refused("E304"),
        ),
        Probe::new("no element type", w(0, &[64, 64], full.clone()), refused("E305")),
        Probe::new("element type 999", w(999, &[64, 64], full.clone()), refused("E305")),
        Probe::new(
            "floats for int8",
            typed(TensorProto { float_data: vec![1.0; 4096], ..tensor("W", 3, &[64, 64], vec![]) }),
            refused("E306"),
        ),
        Probe::new(
            "128 for int8",
            typed(TensorProto { int32_data: vec![128; 4096], ..tensor("W", 3, &[64, 64], vec![]) }),
            refused("E306"),
        ),
        Probe::new("int4 of the wrong size", w(22, &[3], vec![1]), refused("E307")),
        Probe::new(
            "an index out of range",
            with_sparse(sparse(&[0, 4096], &[64, 64])),
            refused("E308"),
        ),
        Probe::new("a negative index", with_sparse(sparse(&[-1, 9], &[64, 64])), refused("E308")),
        Probe::new("unsorted indices", with_sparse(sparse(&[9, 0], &[64, 64])), refused("E308")),
        Probe::new("an index twice", with_sparse(sparse(&[9, 9], &[64, 64])), refused("E308")),
        Probe::new(
            "4 TiB if dense",
            with_sparse(sparse(&[0, 9], &[1 << 20, 1 << 20])),
            refused("E308"),
        ),
        Probe::new(
            "indices of the wrong shape",
            with_sparse(SparseTensorProto {
                indices: Some(tensor("", I64, &[1, 2], vec![0; 16])).into(),
                ..sparse(&[0, 9], &[64, 64])
            }),
            refused("E308"),
        ),
        Probe::new(
            "no indices",
            with_sparse(SparseTensorProto { indices: None.into(), ..sparse(&[0, 9], &[64, 64]) }),
            refused("E308"),
        ),
        Probe::new("a sparse initializer", with_sparse(sparse(&[0, 9], &[64, 64])), NOTHING),
        Probe::new(
            "strings that are not UTF-8",
            strings(&[b"a", b"\xff\xfe"]),
            Want { code: "W309", ..NOTHING },
        ),
        Probe::new("too few strings", strings(&[b"a"]), refused("E303")),
        Probe::new(
            "a segment",
            with_weight(TensorProto { segment: Some(Default::default()).into(), ..weight("W") }),
            Want { check: 4, quantize: 4, code: "E407" },
        ),
        Probe::new(
            "a declared shape that overflows",
            declared(&[1 << 62, 1 << 62]),
            refused("E302"),
        ),
        Probe::new("a declared dimension below zero", declared(&[-5, 64]), refused("E301")),
    ];
    let (model, want) = extra(tensor("Q", 21, &[3], vec![0x21, 0xf3]), warned("W307"));
    list.push(Probe::new("padding bits", model, want));
    let (model, want) = extra(tensor("Q", 1, &[0, 7], vec![]), OK);
    list.push(Probe::new("no elements", model, want));
    list
}

fn declared(dims: &[i64]) -> ModelProto {
    let mut out = good();
    out.graph.as_mut().unwrap().value_info = vec![info("Y", FLOAT, dims)];
    out
}

/// Rows 30 to 35, at the top and in a branch.
pub fn graphs() -> Vec<Probe> {
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
pub fn numbers() -> Vec<Probe> {
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
pub fn odd() -> Vec<Probe> {
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
        Probe::new("an initializer that is an input", as_input, NOTHING),
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
pub fn hostile_names() -> Vec<Probe> {
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
