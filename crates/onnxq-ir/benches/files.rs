//! Reading and writing a model of 2,000 nodes and 32 MiB of weights.

use std::{fmt::Write, path::Path, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{self, ExternalData, SaveOptions},
    text,
};

const LAYERS: usize = 1000;
const WIDTH: usize = 91;

fn files(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("there is room for files");
    let path = folder.path().join("model.onnx");
    let made = model();
    write(&made, &path, ExternalData::Never);
    let mut group = c.benchmark_group("files");
    group.bench_function("read", |b| {
        b.iter(|| onnx::open(&path, &Default::default()).expect("it was just written"));
    });
    let read = onnx::open(&path, &Default::default()).expect("it was just written").model;
    for (name, external) in [("write", ExternalData::Never), ("write_data", ExternalData::Always)] {
        let output = folder.path().join(format!("{name}.onnx"));
        group.bench_function(name, |b| b.iter(|| write(&read, &output, external)));
    }
    group.finish();
}

fn write(model: &Model, path: &Path, external: ExternalData) {
    let options = SaveOptions { external, force: true, ..Default::default() };
    onnx::save(model, path, &options, None, &Ctx::silent()).expect("there is room for files");
}

/// A chain of products and activations.
fn model() -> Model {
    let (mut weights, mut nodes) = (Vec::new(), String::new());
    let mut last = "x".to_owned();
    for at in 0..LAYERS {
        weights.push(format!("float[{WIDTH},{WIDTH}] w{at}"));
        let line = format!("   m{at} = MatMul ({last}, w{at})\n   r{at} = Relu (m{at})\n");
        nodes.write_str(&line).expect("memory takes it");
        last = format!("r{at}");
    }
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 21]>\n\
         main (float[n,{WIDTH}] x) => (float[n,{WIDTH}] {last}) <{}> {{\n{nodes}}}\n",
        weights.join(", ")
    );
    text::parse(&text).expect("the text is well-formed")
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4));
    targets = files
}
criterion_main!(benches);
