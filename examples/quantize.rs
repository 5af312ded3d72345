//! What the README's first command does, in memory: quantize a model and prove the result.
//!
//! `ORT_DYLIB_PATH=libonnxruntime.so cargo run --example quantize slm.onnx`
#![allow(clippy::print_stdout, reason = "an example prints")]

use onnxq::{Dataset, DatasetOptions, Inputs, Model, Recipe, Runtime, ValidateOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fixture = |name: &str| format!("fixtures/slm-fixture/{name}");
    let runtime = Runtime::at(std::env::var("ORT_DYLIB_PATH")?);
    let recipe = Recipe::load("avx512_vnni")?;
    let float = Model::open(fixture("model.onnx"))?;
    let quantized =
        onnxq::quantize(Model::open(fixture("model.onnx"))?, &recipe, &Inputs::default())?;
    let mut text = DatasetOptions::default();
    (text.tokenizer, text.samples) = (Some(fixture("tokenizer.json").into()), Some(64));
    let data = Dataset::open(fixture("eval.txt"), text);
    let mut options = ValidateOptions::default();
    options.runtime = runtime;
    let report = onnxq::validate(&float, quantized.model(), &data, &options)?;
    println!("KL {:.5} nats", report.figure("kl", Some("mean")).unwrap_or(f64::NAN));
    let output = std::env::args().nth(1).unwrap_or("slm.onnx".into());
    quantized.save(output, onnxq::SaveOptions::default())?;
    Ok(())
}
