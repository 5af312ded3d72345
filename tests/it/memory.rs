//! Peak memory is the graph and a part of one weight, whatever the size of the model.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::common::models::*;

const SIDE: i64 = 2048;
const WEIGHTS: u64 = 4;
/// 16 MiB.
const WEIGHT_BYTES: u64 = (SIDE * SIDE * 4) as u64;
const MOST_MIB: u64 = 40;

#[test]
fn quantizing_64_mib_takes_a_fraction_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    write(&input, &chain());
    // A sparse file: the disk holds only the pages with numbers.
    let data = File::create(folder.path().join("w.bin")).unwrap();
    data.set_len(WEIGHTS * WEIGHT_BYTES).unwrap();
    for at in 0..WEIGHTS {
        // Equal weights would be stored once.
        data.write_all_at(&bytes_of(&noise(1024 + at as usize)), at * WEIGHT_BYTES).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .arg("quantize")
        .arg(&input)
        .args(["-r", "int4", "--threads", "2", "-o"])
        .arg(&output)
        .env("RAYON_NUM_THREADS", "2")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let peak = peak_anonymous_kib(&mut child) / 1024;
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(peak < MOST_MIB, "{peak} MiB");
    let written: u64 =
        fs::read_dir(folder.path()).unwrap().map(|it| size_of_output(&it.unwrap().path())).sum();
    assert!(written > WEIGHTS * WEIGHT_BYTES / 8, "{written} bytes are too few for 4 bits");
}

fn size_of_output(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    if name.starts_with("out") { fs::metadata(path).unwrap().len() } else { 0 }
}

/// Products in a row, weights in one data file.
fn chain() -> ModelProto {
    let (mut nodes, mut weights) = (Vec::new(), Vec::new());
    for at in 0..WEIGHTS {
        let (from, to) = (format!("t{at}"), format!("t{}", at + 1));
        let name = format!("w{at}");
        nodes.push(node("MatMul", &[&from, &name], &[&to]));
        let offset = (at * WEIGHT_BYTES).to_string();
        let length = WEIGHT_BYTES.to_string();
        weights.push(TensorProto {
            name,
            dims: vec![SIDE, SIDE],
            ..external(&[("location", "w.bin"), ("offset", &offset), ("length", &length)])
        });
    }
    let mut graph = graph("g", nodes, vec![info(&format!("t{WEIGHTS}"), FLOAT, &[1, SIDE])]);
    graph.input = vec![info("t0", FLOAT, &[1, SIDE])];
    graph.initializer = weights;
    model(graph)
}

/// What the process allocates at most, pages of files aside; looked at while it runs.
fn peak_anonymous_kib(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|it| it.strip_prefix("RssAnon:"));
        let now = line.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(now.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(peak > 0, "RssAnon was never seen");
    peak
}
