//! Wire format, amplification, wide models and functions.

use super::probes::{NOTHING, OK, Probe, Want, good, refused, seed, warned};
use crate::common::models::*;

/// Rows 1, 2, 6 and 7 of the table.
pub(super) fn wire() -> Vec<Probe> {
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
        Probe::new(
            "a negative opset",
            ModelProto { opset_import: vec![opset("", i64::MIN)], ..good() },
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
pub(super) fn bombs() -> Vec<Probe> {
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
    list
}

fn encode_tensor(tensor: &TensorProto) -> Vec<u8> {
    tensor.write_to_bytes().unwrap()
}

/// Wide models, each with a trap for an algorithm that is quadratic.
pub(super) fn wide() -> Vec<Probe> {
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
pub(super) fn functions() -> Vec<Probe> {
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
