//! A table and a head that are one weight stay one weight on the disk, and ONNX Runtime runs it.

use std::{fs, path::Path, process::Command};

use crate::common::{arrays, models::*};
use onnxq_ir::tensor::Tensor;

const ROWS: i64 = 4096;
const WIDTH: i64 = 256;
/// One byte per weight.
const CODES: u64 = (ROWS * WIDTH) as u64;
/// What is written must answer like the original.
const VALIDATE: [&str; 2] = ["--validate=ids.npy", "--gate=sqnr_db>=30"];

/// `y = table[ids] · tableᵀ`, as exporters write a tied head; with `copied` as those do that know
/// nothing of ties: the transpose is a matrix of its own.
fn tied(copied: bool) -> ModelProto {
    tied_of(&noise(CODES as usize), copied)
}

fn tied_of(values: &[f32], copied: bool) -> ModelProto {
    let table = floats("table", &[ROWS, WIDTH], values);
    let perm = AttributeProto { ints: vec![1, 0], ..attr("perm", AttributeType::INTS) };
    let transpose = with_attr(node("Transpose", &["table"], &["head"]), perm);
    let (rows, width) = (ROWS as usize, WIDTH as usize);
    let turned: Vec<f32> =
        (0..values.len()).map(|it| values[it % rows * width + it / rows]).collect();
    let head = floats("head", &[WIDTH, ROWS], &turned);
    let mut nodes = vec![node("Gather", &["table", "ids"], &["e"])];
    nodes.extend((!copied).then_some(transpose));
    nodes.push(node("MatMul", &["e", "head"], &["y"]));
    let mut graph = graph("tied", nodes, vec![info("y", FLOAT, &[1, 8, ROWS])]);
    graph.input = vec![info("ids", I64, &[1, 8])];
    graph.initializer = std::iter::once(table).chain(copied.then_some(head)).collect();
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

fn quantize(folder: &Path, model: &ModelProto, arguments: &[&str]) -> String {
    write(&folder.join("in.onnx"), model);
    npy(&folder.join("ids.npy"), &[3, 1, 4, 1, 5, 92, 65, 358]);
    let output = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .current_dir(folder)
        .args(["quantize", "in.onnx", "-o", "out.onnx"])
        .args(arguments)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{error}");
    error
}

#[test]
fn one_copy_is_written_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    quantize(
        folder.path(),
        &tied(false),
        &["-r", "int8_weights", "--external-data", "always", VALIDATE[0], VALIDATE[1]],
    );
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
    let first = places.iter().filter(|it| **it == places[0]).count();
    assert_eq!(first, 2, "two tensors, one range: {places:?}");
}

#[test]
fn a_table_is_a_view_of_its_head_whoever_wrote_it() {
    for model in [tied(false), tied(true)] {
        // Its products are exact only where the CPU has VNNI, so that of avx512_vnni is not run.
        for arguments in [
            &["-r", "int8_weights", VALIDATE[0], VALIDATE[1]][..],
            &["-r", "avx512_vnni"],
            &["-r", "avx512_vnni", "--external-data", "always"],
            &["-r", "avx2", VALIDATE[0], VALIDATE[1]],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let said = quantize(folder.path(), &model, arguments);
            let files = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap());
            let written = files.filter(|it| it.file_name().to_str().unwrap().starts_with("out."));
            let bytes: u64 = written.map(|it| it.metadata().unwrap().len()).sum();
            assert!(
                (CODES..CODES * 6 / 5).contains(&bytes),
                "{arguments:?}: {bytes} bytes\n{said}"
            );
        }
    }
}

#[test]
fn a_student_keeps_one_copy_and_trains_both_uses_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let other: Vec<f32> = noise(CODES as usize).iter().map(|it| it * 1.5 + 0.01).collect();
    write(&at("teacher.onnx"), &tied(false));
    write(&at("student.onnx"), &tied_of(&other, false));
    let ids = Tensor::from_i64(&[40, 8], (0..320).map(|it| it * 37 % ROWS));
    fs::write(at("ids.npy"), arrays::npy(&ids)).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .current_dir(folder.path())
        .args(["distil", "teacher.onnx", "--student", "student.onnx", "--data", "ids.npy"])
        .args(["--steps", "3", "-o", "out.onnx"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{error}");
    let bytes = fs::metadata(at("out.onnx")).unwrap().len();
    assert!((4 * CODES..4 * CODES + 10_000).contains(&bytes), "{bytes} bytes");
    let written = read(&at("out.onnx"));
    let ops: Vec<&str> = written.graph.node.iter().map(|it| &*it.op_type).collect();
    assert_eq!(ops, ["Gather", "Transpose", "MatMul"]);
}
