//! Quantized checkpoints: `quantization_config`, headers of safetensors, and the integers that they say.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use onnxq_formats::{Checkpoint, Param};
use onnxq_ir::{onnx::ExternalPolicy, tensor::Tensor};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::{Outcome, Target, unnamed};
use crate::{corpus, mutate::Grammar};

pub(super) const TARGET: Target = Target {
    name: "packed",
    about: "quantized checkpoints: weights as a whole, by rows and columns, and their integers",
    run,
    grammar: Grammar::Json,
    seeds,
    words: &[
        "quantization_config",
        "quant_method",
        "gptq",
        "awq",
        "auto-round",
        "compressed-tensors",
        "pack-quantized",
        "int-quantized",
        "bits",
        "num_bits",
        "group_size",
        "desc_act",
        "checkpoint_format",
        "gptq_v2",
        "packing_format",
        "auto_round:auto_awq",
        "config_groups",
        "model.layers.0.self_attn.q_proj.qweight",
        "model.layers.0.self_attn.q_proj.qzeros",
        "model.layers.0.self_attn.q_proj.scales",
        "model.layers.0.self_attn.q_proj.g_idx",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.weight_packed",
        "model.layers.0.self_attn.q_proj.weight_shape",
        "model.layers.0.self_attn.q_proj.weight_scale",
        "model.layers.0.self_attn.q_proj.weight_zero_point",
        "I32",
        "I64",
        "I8",
        "U8",
        "F16",
        "F32",
        "BF16",
        "data_offsets",
        "shape",
        "-1",
    ],
};

/// Bytes of data that are made.
const MOST: u64 = 1 << 18;
/// Values of a weight that are made.
const VALUES: usize = 1 << 16;

fn run(bytes: &[u8]) -> Outcome {
    let Ok(input) = serde_json::from_slice::<Json>(bytes) else { return Err("no JSON".into()) };
    let folder = folder();
    write(folder.path(), &input);
    let checkpoint = Checkpoint::open(folder.path(), ExternalPolicy::Contained);
    let checkpoint = checkpoint.map_err(|it| unnamed(&it))?;
    let mut kinds = Vec::new();
    for param in checkpoint.architecture.params() {
        let whole = Param { rows: None, ..param.clone() };
        let tensor = checkpoint.weights.get(&whole);
        if tensor.numel() <= VALUES && tensor.shape.len() == 2 {
            kinds.extend(matrix(&tensor));
        }
    }
    kinds.dedup();
    Ok(kinds.join(", "))
}

/// A folder whose name differs from others in digits only: words are made of the letters of errors.
fn folder() -> TempDir {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let name = format!("packed-{process}-{count}");
    tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().expect("a folder")
}

/// `config`, and the header of a file whose data is as long as the header says. Small tensors of integers are the
/// `numbers` under their names, for what they say must fit.
fn write(folder: &Path, input: &Json) {
    let header = input["header"].to_string();
    let tensors = || input["header"].as_object().into_iter().flatten();
    let place = |it: &Json, at: usize| it["data_offsets"][at].as_u64();
    let length = tensors().filter_map(|it| place(it.1, 1)).max().unwrap_or(0).min(MOST);
    // As float16 and float32 these are small numbers.
    let mut data: Vec<u8> = (0..length).map(|it| ((it * 37 + it / 7) % 61) as u8).collect();
    for (name, tensor) in tensors() {
        let width = if tensor["dtype"] == "I64" { 8 } else { 4 };
        let start = place(tensor, 0).and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX);
        let numbers = input["numbers"][name.as_str()].as_array().into_iter().flatten();
        let places = data.get_mut(start..).into_iter().flat_map(|it| it.chunks_exact_mut(width));
        for (place, number) in places.zip(numbers) {
            place.copy_from_slice(&number.as_i64().unwrap_or(-1).to_le_bytes()[..width]);
        }
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(folder.join("model.safetensors"), file).expect("a file");
    fs::write(folder.join("config.json"), input["config"].to_string()).expect("a file");
}

/// The whole, the same by rows and by columns, and what the integers say; the kind of these.
fn matrix(tensor: &Tensor) -> Option<String> {
    let [rows, columns] = tensor.shape[..] else { return None };
    let bits = |it: &[f32]| it.iter().map(|it| (it + 0.0).to_bits()).collect::<Vec<_>>();
    let values = bits(&tensor.to_f32().expect("checked when it was opened"));
    let middle = rows / 2;
    let row = bits(&tensor.rows_f32(middle..middle + 1).expect("a row"));
    assert_eq!(row, values[middle * columns..(middle + 1) * columns], "a row differs");
    let turned = bits(&tensor.transposed().rows_f32(columns / 2..columns / 2 + 1).expect("one"));
    let expected: Vec<u32> = (0..rows).map(|it| values[it * columns + columns / 2]).collect();
    assert_eq!(turned, expected, "a column differs");
    let origin = tensor.origin()?;
    if let Some(integers) = origin.integers {
        let solved = integers.solve(0..rows).expect("they are there").dequantize();
        assert_eq!(bits(solved.as_slice().expect("rows")), values, "integers differ");
    }
    Some(origin.kind.to_string())
}

/// The fixtures, without most of their data.
fn seeds() -> Vec<Vec<u8>> {
    let names =
        ["auto-round", "awq", "gptq", "gptq-order", "gptq-v2-3bit", "int8-channel", "packed"];
    names.iter().filter_map(|it| seed(&corpus::folder("fixtures/quantized").join(it))).collect()
}

fn seed(folder: &Path) -> Option<Vec<u8>> {
    /// Inputs that have an order, and sizes: other tensors have more.
    const FEW: usize = 96;
    let file = fs::read(folder.join("model.safetensors")).ok()?;
    let (length, rest) = file.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Json = serde_json::from_slice(rest.get(..length)?).ok()?;
    let mut numbers = serde_json::Map::new();
    for (name, tensor) in header.as_object()? {
        let place = |at: usize| Some(tensor["data_offsets"][at].as_u64()? as usize);
        let own = place(0).zip(place(1)).and_then(|it| rest.get(length + it.0..length + it.1));
        let (own, kind) = (own.unwrap_or_default(), tensor["dtype"].as_str().unwrap_or_default());
        let values: Vec<i64> = match kind {
            "I32" => own.as_chunks().0.iter().map(|it| i32::from_le_bytes(*it).into()).collect(),
            "I64" => own.as_chunks().0.iter().map(|it| i64::from_le_bytes(*it)).collect(),
            _ => continue,
        };
        if values.len() <= FEW {
            numbers.insert(name.clone(), json!(values));
        }
    }
    let config: Json = serde_json::from_slice(&fs::read(folder.join("config.json")).ok()?).ok()?;
    let input = json!({"config": config, "header": header, "numbers": numbers});
    Some(input.to_string().into_bytes())
}
