//! LSTMs with int8 weights in ONNX Runtime: close to the float ones, in every form they come in.

use std::{fs, path::Path, process::Command};

use crate::common::{for_this_cpu, models::*};

const STEPS: i64 = 7;
const BATCH: i64 = 3;
const INPUTS: i64 = 32;
const HIDDEN: i64 = 24;

fn scaled(name: &str, dims: &[i64], by: f32) -> TensorProto {
    let count = dims.iter().product::<i64>() as usize;
    // Noise of an own seed each: W and R must not be alike.
    let skip = name.bytes().map(usize::from).sum::<usize>() * 7;
    let values: Vec<f32> = noise(count + skip)[skip..].iter().map(|it| it * by).collect();
    floats(name, dims, &values)
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: value, ..attr(name, AttributeType::INT) }
}

/// An LSTM with all optional inputs that `names` gives.
fn lstm(op: &str, direction: &str, names: &[&str], more: &[AttributeProto]) -> ModelProto {
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    // Others have no state of cells.
    let count = if op == "LSTM" { 3 } else { 2 };
    let mut it = node(op, names, &["y", "y_h", "y_c"][..count]);
    let direction = AttributeProto {
        s: direction.as_bytes().to_vec(),
        ..attr("direction", AttributeType::STRING)
    };
    for it_attr in [int("hidden_size", HIDDEN), direction].iter().chain(more) {
        it = with_attr(it, it_attr.clone());
    }
    let state = [directions, BATCH, HIDDEN];
    let outputs = [
        info("y", FLOAT, &[STEPS, directions, BATCH, HIDDEN]),
        info("y_h", FLOAT, &state),
        info("y_c", FLOAT, &state),
    ];
    let mut graph = graph("lstm", vec![it], outputs[..count].to_vec());
    graph.input = vec![info("x", FLOAT, &[STEPS, BATCH, INPUTS])];
    let rows = if op == "LSTM" { 4 * HIDDEN } else { 3 * HIDDEN };
    let all = [
        scaled("w", &[directions, rows, INPUTS], 0.4),
        scaled("r", &[directions, rows, HIDDEN], 0.4),
        scaled("b", &[directions, 2 * rows], 0.2),
        scaled("h0", &state, 0.5),
        scaled("c0", &state, 0.5),
        scaled("p", &[directions, 3 * HIDDEN], 0.2),
    ];
    graph.initializer = all.into_iter().filter(|it| names.contains(&&*it.name)).collect();
    model(graph)
}

fn npy(path: &Path) {
    let shape = format!("({STEPS}, {BATCH}, {INPUTS})");
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    header += &" ".repeat((64 - (header.len() + 11) % 64) % 64);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16 + 1).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(bytes_of(&noise((STEPS * BATCH * INPUTS) as usize)));
    fs::write(path, bytes).unwrap();
}

/// Quantizes and compares in ONNX Runtime; what the command printed, and what it wrote.
#[track_caller]
fn quantized(model: &ModelProto, recipe: &str) -> (i32, String, Option<ModelProto>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("in.onnx"), model);
    npy(&at("x.npy"));
    let output = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .current_dir(folder.path())
        .args(["quantize", "in.onnx", "-r", recipe, "-o", "out.onnx"])
        // A relative error of 5 %.
        .args(["--validate=x.npy", "--gate", "sqnr_db>=26"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let written = at("out.onnx").exists().then(|| read(&at("out.onnx")));
    (output.status.code().unwrap(), text.into_owned(), written)
}

#[test]
fn quantized_ones_are_close_to_the_float_ones() {
    let clip = AttributeProto { f: 2.0, ..attr("clip", AttributeType::FLOAT) };
    let plain: &[&str] = &["x", "w", "r", "b"];
    let all: &[&str] = &["x", "w", "r", "b", "", "h0", "c0", "p"];
    for (direction, names, more, recipe) in [
        ("forward", &plain[..3], vec![], "avx512_vnni"),
        ("reverse", plain, vec![clip, int("input_forget", 1)], "avx512_vnni"),
        ("bidirectional", all, vec![int("layout", 0)], "avx512_vnni"),
        ("bidirectional", plain, vec![], "avx2"),
    ] {
        let recipe = for_this_cpu(recipe);
        let (code, text, written) = quantized(&lstm("LSTM", direction, names, &more), recipe);
        assert_eq!(code, 0, "{direction} {recipe}: {text}");
        let graph = written.unwrap().graph;
        let ops: Vec<&str> = graph.node.iter().map(|it| &*it.op_type).collect();
        assert_eq!(ops, ["DynamicQuantizeLSTM"], "{direction} {recipe}");
        let weight = graph.initializer.iter().find(|it| it.name.contains("w_codes")).unwrap();
        let directions = if direction == "bidirectional" { 2 } else { 1 };
        assert_eq!(weight.dims, [directions, INPUTS, 4 * HIDDEN]);
        assert!(text.contains("executes as declared"), "{text}");
    }
}

#[test]
fn what_stays_in_float_says_why() {
    let plain = ["x", "w", "r", "b"];
    // ONNX Runtime runs none with the batch first, so this is not validated.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    write(&path, &lstm("LSTM", "forward", &plain, &[int("layout", 1)]));
    let output = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .args(["plan", path.to_str().unwrap(), "-r", "avx2"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("layout = 1") && text.contains("stored"), "{text}");
    for recipe in ["avx512_vnni", "avx2", "int4"] {
        let (code, text, written) = quantized(&lstm("GRU", "forward", &plain, &[]), recipe);
        assert_eq!(code, 0, "{text}");
        let graph = written.unwrap().graph;
        let ops: Vec<&str> = graph.node.iter().map(|it| &*it.op_type).collect();
        assert_eq!(ops, ["Cast", "Mul", "Cast", "Mul", "GRU"], "{recipe}");
        assert!(text.contains("no quantized GRU or RNN") || recipe == "int4", "{text}");
    }
}
