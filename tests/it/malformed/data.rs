//! External data and tensors.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::probes::{NOTHING, OK, Probe, Want, good, refused, sparse, warned};
use crate::common::models::*;

/// Rows 10 to 18.
pub(super) fn external_data() -> Vec<Probe> {
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
pub(super) fn tensors() -> Vec<Probe> {
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
