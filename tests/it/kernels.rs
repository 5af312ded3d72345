//! What a sampler sees of models in ONNX Runtime: integer dot products where there are some.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use crate::common::{inputs, quantized, runtime};
use onnxq_ir::{Model, onnx, tensor::Tensor, text};
use onnxq_quant::recipe;
use onnxq_run::engine::{Cpu, KernelSamples, SessionOptions};

const PRODUCT: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[32,512] x) => (float[32,512] y) <float[512,512] w> { y = MatMul (x, w) }"#;

/// The whole process is sampled, so these tests run in a process of their own, one at a time.
const ALONE: &str = "ONNXQ_TEST_ALONE";

/// Runs `test`, the body of the test of this name, in such a process.
fn alone(name: &str, test: fn()) {
    if env::var_os(ALONE).is_some() {
        return test();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([&*format!("kernels::{name}"), "--exact", "--nocapture"]).env(ALONE, "1");
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let ran = out.contains("1 passed");
    assert!(ran, "{out}{}", String::from_utf8_lossy(&output.stderr));
}

fn sampled(model: &Model) -> Option<KernelSamples> {
    let runtime = runtime();
    let bytes = onnx::to_bytes(model).unwrap();
    let options = SessionOptions::default();
    let mut session = runtime.open_bytes(&bytes, None, &options).unwrap();
    let inputs = inputs(model, 1);
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    if !session.sample() {
        return None;
    }
    let start = Instant::now();
    // Others may be using the processor.
    while session.sampled()?.taken < 200 && start.elapsed() < Duration::from_secs(20) {
        (0..50).try_for_each(|_| session.run(&inputs).map(drop)).unwrap();
    }
    session.sampled()
}

fn of_recipe(name: &str) -> Option<KernelSamples> {
    sampled(&quantized(&text::parse(PRODUCT).unwrap(), &recipe::load(name).unwrap()))
}

fn is_supported() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64"))
}

/// VNNI or AMX ran.
fn has_dot_product(it: &KernelSamples) -> bool {
    it.verdict().contains(" executed (") && !it.verdict().starts_with("no ")
}

/// What a product of integers must show on this CPU.
fn check(it: Option<KernelSamples>) {
    assert_eq!(it.is_some(), is_supported());
    let Some(it) = it else { return };
    assert!(it.samples > 30, "{it:?}");
    let cpu = Cpu::of_process();
    let dots = cpu.has("avx512vnni") || cpu.has("avxvnni") || cpu.has("amx_int8");
    assert_eq!(has_dot_product(&it), dots, "{it:?}");
    if cpu.has("avx512vnni") && !cpu.has("amx_int8") {
        assert!(it.avx512_vnni * 10 > it.samples, "{it:?}");
        assert!(it.verdict().starts_with("AVX-512 VNNI executed ("), "{it:?}");
    }
    if !cpu.has("avx512vnni") {
        assert_eq!(it.avx512_vnni, 0, "{it:?}");
    }
    if !dots && cpu.has("avx2") {
        assert!(it.vpmaddubsw > 0, "{it:?}");
    }
}

#[test]
fn a_product_of_int8_shows_its_kernel() {
    alone("a_product_of_int8_shows_its_kernel", || check(of_recipe("avx512_vnni")));
}

#[test]
fn a_product_of_int4_shows_its_kernel() {
    alone("a_product_of_int4_shows_its_kernel", || check(of_recipe("int4")));
}

#[test]
fn a_product_of_floats_shows_none() {
    alone("a_product_of_floats_shows_none", floats_show_none);
}

fn floats_show_none() {
    let it = sampled(&text::parse(PRODUCT).unwrap());
    assert_eq!(it.is_some(), is_supported());
    let Some(it) = it else { return };
    assert!(it.samples > 30 && !has_dot_product(&it), "{it:?}");
    assert_eq!((it.avx512_vnni, it.avx_vnni, it.amx), (0, 0, 0));
    assert!(it.verdict().starts_with("no int8 dot product executed (0 of "), "{it:?}");
}

#[test]
fn doctor_shows_both_kernels() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxq"));
    let output = command.args(["doctor", "--kernels", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let doctor: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs = doctor["kernels"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for (run, operator) in runs.iter().zip(["MatMulInteger", "MatMulNBits"]) {
        assert_eq!(run["operator"], operator);
        assert_eq!(run["samples"].is_null(), !is_supported());
        let verdict = run["verdict"].as_str().unwrap();
        let dots = Cpu::of_process().has("avx512vnni");
        assert!(!dots || !is_supported() || verdict.contains("VNNI executed"), "{verdict}");
    }
}
