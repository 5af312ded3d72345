//! A table and a head that are one weight stay one weight on the disk, and ONNX Runtime runs it.

use std::{fs, path::Path, process::Command};

use crate::common::models::*;

const ROWS: i64 = 512;
const WIDTH: i64 = 256;
/// One byte per weight.
const CODES: u64 = (ROWS * WIDTH) as u64;

/// `y = table[ids] · tableᵀ`, as exporters write a tied head.
fn tied() -> ModelProto {
    let table = floats("table", &[ROWS, WIDTH], &noise(CODES as usize));
    let perm = AttributeProto { ints: vec![1, 0], ..attr("perm", AttributeType::INTS) };
    let transpose = with_attr(node("Transpose", &["table"], &["head"]), perm);
    let nodes = vec![
        node("Gather", &["table", "ids"], &["e"]),
        transpose,
        node("MatMul", &["e", "head"], &["y"]),
    ];
    let mut graph = graph("tied", nodes, vec![info("y", FLOAT, &[1, 8, ROWS])]);
    graph.input = vec![info("ids", I64, &[1, 8])];
    graph.initializer = vec![table];
    model(graph)
}

fn npy(path: &Path, ids: &[i64]) {
    let shape = format!("(1, {})", ids.len());
    let mut header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}");
    header += &" ".repeat((64 - (header.len() + 11) % 64) % 64);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16 + 1).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(ids.iter().flat_map(|it| it.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

#[test]
fn one_copy_is_written_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("in.onnx"), &tied());
    npy(&at("ids.npy"), &[3, 1, 4, 1, 5, 92, 65, 358]);
    let output = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .current_dir(folder.path())
        .args(["quantize", "in.onnx", "-r", "int8_weights", "-o", "out.onnx"])
        .args(["--external-data", "always", "--validate=ids.npy", "--gate", "sqnr_db>=30"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let data = fs::metadata(at("out.onnx.data")).unwrap().len();
    assert!((CODES..CODES * 3 / 2).contains(&data), "{data} bytes for {CODES} quantized values");
    let written = read(&at("out.onnx"));
    let places: Vec<_> = written
        .graph
        .initializer
        .iter()
        .filter(|it| !it.external_data.is_empty())
        .map(|it| it.external_data.iter().map(|it| it.value.clone()).collect::<Vec<_>>())
        .collect();
    assert_eq!(places.len(), 2, "{places:?}");
    assert_eq!(places[0], places[1], "two tensors, one range");
}
