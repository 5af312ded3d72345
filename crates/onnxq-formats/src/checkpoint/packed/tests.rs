//! What other programs make of the same tensors, and what is refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use onnxq_ir::{
    diag::{Code, Diagnostic},
    onnx::ExternalPolicy,
    tensor::{Arranged, Inputs, QShape, Tensor, ZeroPoints},
};

use crate::{Checkpoint, CheckpointError, Config, arch::Param};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/quantized").join(name)
}

fn weight(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Tensor {
    let (name, shape) = (name.to_owned(), shape.to_vec());
    checkpoint.weights.get(&Param { name, shape, rows: None, plus: 0.0 })
}

/// What `fixtures/generate/quantized.py` got from others.
fn expected(name: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(folder(name).join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |it: &[u8]| it.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let own = file.iter();
    own.map(|(name, it)| (name.to_owned(), it.shape().to_vec(), floats(it.data()))).collect()
}

#[test]
fn weights_are_those_of_other_programs() {
    let cases = [
        ("auto-round", "AutoRound 8 bits", 8, false, true),
        ("awq", "AWQ 4 bits", 4, false, true),
        ("gptq", "GPTQ 4 bits", 4, true, true),
        ("gptq-order", "GPTQ 4 bits, inputs in an order of their own", 4, true, false),
        ("gptq-v2-3bit", "GPTQ 3 bits", 4, false, true),
        ("int8-channel", "compressed-tensors 8 bits", 8, true, true),
        ("packed", "compressed-tensors 4 bits", 4, false, true),
    ];
    for (name, kind, bits, is_symmetric, is_kept) in cases {
        let checkpoint = Checkpoint::open(&folder(name), ExternalPolicy::Contained).unwrap();
        let all = expected(name);
        assert_eq!(all.len(), 2);
        for (tensor, shape, values) in all {
            let own = weight(&checkpoint, &tensor, &shape);
            assert_eq!(own.shape, shape);
            assert_eq!(own.to_f32().unwrap(), values, "{name}: {tensor}");
            let turned = own.transposed();
            let lines = turned.rows_f32(1..3).unwrap();
            assert!((0..shape[0]).all(|it| lines[it] == values[it * shape[1] + 1]));
            let origin = own.origin().unwrap();
            let QShape { bits: own_bits, zero_points, .. } = origin.grid;
            assert_eq!((&*origin.kind, own_bits), (kind, bits));
            assert_eq!(zero_points == ZeroPoints::Symmetric, is_symmetric, "{name}");
            assert_eq!(origin.integers.is_some(), is_kept, "{name}");
            if let Some(it) = origin.integers {
                let whole = it.solve(0..shape[0]).unwrap();
                assert!(whole.quantized.iter().all(|it| u32::from(*it) < 1 << bits));
                assert_eq!(whole.dequantize().as_slice().unwrap(), values, "{name}");
                let part = it.solve(2..5).unwrap().dequantize();
                assert_eq!(part.as_slice().unwrap(), &values[2 * shape[1]..5 * shape[1]]);
            }
            assert_eq!(origin.arranged.is_some(), !is_kept, "{name}");
            if let Some(Arranged { inputs: Inputs::Ordered(order), integers }) = origin.arranged {
                let made = integers.solve(0..shape[0]).unwrap().dequantize();
                let at = |(row, column): (usize, usize)| values[row * shape[1] + order[column]];
                assert!(made.indexed_iter().all(|(place, value)| *value == at(place)), "{name}");
            }
        }
    }
}

fn method(json: &str) -> Result<(), CheckpointError> {
    let text = format!(r#"{{"quantization_config": {json}}}"#);
    super::config::method(&Config::parse("config.json", text.as_bytes()).unwrap()).map(drop)
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let cases = [
        (
            "{}",
            "`quantization_config.quant_method` ``, which is not implemented; read are auto-round, awq, ",
        ),
        (
            r#"{"quant_method": "bitsandbytes"}"#,
            "`bitsandbytes`, which is not implemented; read are auto-round",
        ),
        (r#"{"quant_method": "gptq"}"#, "`quantization_config.bits` is missing"),
        (r#"{"quant_method": "gptq", "bits": 5}"#, "`quantization_config.bits` is 5, which is"),
        (
            r#"{"quant_method": "gptq", "bits": 4, "group_size": 0}"#,
            "`quantization_config.group_size`",
        ),
        (r#"{"quant_method": "gptq", "bits": 4, "group_size": 1e300}"#, "must be a number"),
        (r#"{"quant_method": "gptq", "bits": 4, "dynamic": {"a": {}}}"#, "settings of their own"),
        (
            r#"{"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}"#,
            "checkpoint_format",
        ),
        (
            r#"{"quant_method": "awq", "bits": 4, "version": "gemv"}"#,
            "`quantization_config.version`",
        ),
        (r#"{"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp"}"#, "data_type"),
        (r#"{"quant_method": "compressed-tensors", "format": "float-quantized"}"#, "read are int-"),
        (r#"{"quant_method": "compressed-tensors", "format": "int-quantized"}"#, "config_groups"),
    ];
    for (json, problem) in cases {
        let error = method(json).unwrap_err();
        assert!(error.to_string().contains(problem), "{json}: {error}");
        assert!(matches!(error.code(), Code::E121 | Code::E122));
    }
    assert!(method("null").is_ok());
}

/// A folder with one value of its configuration replaced.
fn spoilt(name: &str, from: &str, to: &str) -> Result<Checkpoint, CheckpointError> {
    let copy = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder(name).join("config.json")).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(copy.path().join("config.json"), text.replace(from, to)).unwrap();
    let weights = "model.safetensors";
    fs::copy(folder(name).join(weights), copy.path().join(weights)).unwrap();
    Checkpoint::open(copy.path(), ExternalPolicy::Contained)
}

#[test]
fn settings_that_the_tensors_contradict_are_refused() {
    let cases = [
        (
            "gptq",
            "\"bits\": 4",
            "\"bits\": 8",
            "qzeros` is int32[3, 8], but by the configuration it must be of [2, 16]",
        ),
        ("gptq", "\"bits\": 4", "\"bits\": 3", "it must be of"),
        ("gptq", "\"group_size\": 32", "\"group_size\": 64", "it must be of ["),
        ("gptq", "\"group_size\": 32", "\"group_size\": -1", "it must be of ["),
        ("awq", "\"group_size\": 32", "\"group_size\": 7", "it must be of"),
        ("packed", "\"num_bits\": 4", "\"num_bits\": 8", "weight_shape"),
        ("packed", "pack-quantized", "naive-quantized", "not implemented"),
        ("int8-channel", "int-quantized", "pack-quantized", "must be a float of"),
        ("gptq", "\"quant_method\": \"gptq\"", "\"quant_method\": \"awq\"", "it must be"),
    ];
    for (name, from, to, problem) in cases {
        match spoilt(name, from, to) {
            Ok(_) => panic!("{name}: {to}"),
            Err(error) => assert!(error.to_string().contains(problem), "{name}: {to}: {error}"),
        }
    }
}

/// Whatever the integers are, and whatever a header says of them, nothing panics.
#[test]
fn no_changed_byte_is_a_panic() {
    let (copy, file) = (tempfile::tempdir().unwrap(), "model.safetensors");
    for name in ["gptq-order", "awq", "packed"] {
        let text = fs::read(folder(name).join("config.json")).unwrap();
        fs::write(copy.path().join("config.json"), text).unwrap();
        let bytes = fs::read(folder(name).join(file)).unwrap();
        let header = 8 + usize::from(bytes[0]) + 256 * usize::from(bytes[1]);
        let places = (8..header).step_by(5).chain((header..bytes.len()).step_by(701));
        for at in places {
            let mut changed = bytes.clone();
            changed[at] ^= 0x81;
            fs::write(copy.path().join(file), changed).unwrap();
            let Ok(checkpoint) = Checkpoint::open(copy.path(), ExternalPolicy::Contained) else {
                continue;
            };
            for param in checkpoint.architecture.params() {
                let own = checkpoint.weights.get(param);
                own.to_f32().unwrap();
                if let Some(it) = own.origin().and_then(|it| it.integers) {
                    it.solve(0..own.shape[0]).unwrap();
                }
            }
        }
    }
}
