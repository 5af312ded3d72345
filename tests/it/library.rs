//! The library: what it promises stays small, and a quantization opens its data once.

use std::fs;

use crate::common::{
    arrays::{npy, rows},
    fixture, runtime,
};
use onnxq_ir::ctx::Ctx;
use onnxq_pipeline::{Inputs, Job, Opened, Quantized, quantize};
use onnxq_run::data::{DataOptions, Dataset};

#[test]
fn data_is_opened_once_whatever_number_of_decisions_asks_for_samples() {
    let folder = tempfile::tempdir().unwrap();
    let ids = fs::read(fixture("calibration_input_ids.npy")).unwrap();
    let path = folder.path().join("ids.npy");
    fs::write(&path, npy(&rows(&ids, &[0, 1], 16))).unwrap();
    // Digests, ranges, errors at nodes, losses at the outputs and saturation all need samples.
    let recipe = onnxq_quant::recipe::load("avx2").unwrap();
    let data = Dataset::of_path(&path, DataOptions { batch: 1, ..DataOptions::default() });
    let inputs = Inputs { data: Some(data.clone()), runtime: runtime(), ..Inputs::default() };
    let ctx = Ctx::silent();
    let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
    let model = Opened::read(&fixture("model.onnx"), &Default::default(), &ctx).unwrap();
    let Quantized::Lowered(lowered) = quantize(model, &job).unwrap() else { panic!("a no-op") };
    assert!(lowered.adapted.is_some());
    assert_eq!(data.times_opened(), 1);
}

#[test]
fn the_facade_promises_at_most_sixty_names() {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let list = text.split_once("pub use self::{").unwrap().1.split_once("\n};").unwrap().0;
    let names = list.split(['{', '}', ',', '\n']).map(str::trim);
    let names: Vec<&str> = names.filter(|it| !it.is_empty() && !it.ends_with("::")).collect();
    assert!((20..=60).contains(&names.len()), "{}: {names:?}", names.len());
}
