//! GPT-2: products with inputs in rows, learnt places, a head that older files repeat.

use std::fs;

use onnxq_ir::{
    diag::{Code, Diagnostic},
    onnx::ExternalPolicy,
    tensor::{DType, Tensor},
};

use super::{super::super::Checkpoint, case, fixture, written};
use crate::{
    Activation, Architecture,
    gguf::{GgmlType, Writer},
};

/// What a tensor of GPT-2 is called there, with and without what newer checkpoints begin names with.
pub(super) fn theirs(name: &str) -> Option<String> {
    let name = name.strip_prefix("transformer.").unwrap_or(name);
    let (stem, end) = name.rsplit_once('.')?;
    let top = [("wte", "token_embd"), ("wpe", "position_embd"), ("ln_f", "output_norm")];
    if let Some((_, theirs)) = top.iter().find(|(ours, _)| *ours == stem) {
        return Some(format!("{theirs}.{end}"));
    }
    let (layer, part) = stem.strip_prefix("h.")?.split_once('.')?;
    let part = match part {
        "ln_1" => "attn_norm",
        "attn.c_attn" => "attn_qkv",
        "attn.c_proj" => "attn_output",
        "ln_2" => "ffn_norm",
        "mlp.c_fc" => "ffn_up",
        "mlp.c_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.{end}"))
}

#[test]
fn another_activation_function_is_not_written() {
    let mut checkpoint = Checkpoint::open(&fixture("gpt2"), ExternalPolicy::Contained).unwrap();
    checkpoint.architecture.blocks[0].mlp.body.activation = Activation::Relu;
    let error = checkpoint.export().err().expect("llama.cpp would compute GELU");
    assert_eq!(error.code(), Code::E121);
    assert!(
        error.to_string().ends_with("llama.cpp computes GELU by tanh in `gpt2`, not ReLU"),
        "{error}"
    );
    // The exact function is near to what it computes.
    checkpoint.architecture.blocks[0].mlp.body.activation = Activation::Gelu;
    assert!(checkpoint.export().unwrap().notes[0].contains("GELU by tanh"));
}

#[test]
fn learnt_places_stay_floats_of_four_bytes() {
    let checkpoint = Checkpoint::open(&fixture("gpt2-prefix"), ExternalPolicy::Contained).unwrap();
    let export = checkpoint.export().unwrap();
    let named = |name: &str| export.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    let places = named("position_embd.weight");
    assert_eq!((places.dtype, places.is_rounded), (DType::F32, false));
    let product = named("blk.0.ffn_up.weight");
    assert_eq!(
        (product.dtype, product.is_rounded, &*product.shape),
        (DType::F16, true, &[96, 64][..])
    );
}

#[test]
fn a_head_that_repeats_the_table_is_tied() {
    let (checkpoint, folder) = (
        Checkpoint::open(&fixture("gpt2"), ExternalPolicy::Contained).unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let export = checkpoint.export().unwrap();
    let path = folder.path().join("model.gguf");
    let opened = |raised: f32| {
        let mut to = Writer::default();
        to.value("general.architecture", "gpt2");
        export.metadata.iter().for_each(|(key, value)| to.value(key, value.clone()));
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for tensor in &export.tensors {
            tensors.push((tensor.name.clone(), tensor.floats()));
            if tensor.name == "token_embd.weight" {
                let values = tensor.floats().to_f32().unwrap().into_iter();
                let head = Tensor::from_f32(&tensor.shape, values.map(|value| value + raised));
                tensors.push(("output.weight".to_owned(), head));
            }
        }
        tensors.iter().for_each(|(name, tensor)| to.rounded(name, GgmlType::F32, tensor).unwrap());
        let mut bytes = Vec::new();
        to.write(&mut bytes).unwrap();
        fs::write(&path, bytes).unwrap();
        Checkpoint::open_gguf(&path, ExternalPolicy::Contained).unwrap().architecture
    };
    let heads =
        |architecture: &Architecture| architecture.linears().pop().unwrap().weight.name.clone();
    assert_eq!(heads(&opened(0.0)), "transformer.wte.weight");
    assert_eq!(heads(&opened(1.0)), "lm_head.weight");
}

#[test]
fn keys_without_a_field_repeat_others() {
    let case = case("gpt2-prefix", "gpt2");
    let checkpoint = Checkpoint::open(&fixture("gpt2-prefix"), ExternalPolicy::Contained).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let opened = |key: &str, value: u32| {
        fs::write(&path, written(&case, &checkpoint, &[(key, value.into())])).unwrap();
        Checkpoint::open_gguf(&path, ExternalPolicy::Contained)
    };
    for (key, right) in [("gpt2.attention.key_length", 16), ("gpt2.attention.head_count_kv", 4)] {
        opened(key, right).unwrap();
        let error = opened(key, 2).err().expect("another number");
        assert_eq!(error.code(), Code::E121);
        assert_eq!(error.to_string(), format!("model.gguf: `{key}` must be {right}"));
    }
    let error = opened("gpt2.rope.dimension_count", 8).err().expect("nothing rotates");
    assert_eq!(error.code(), Code::E122);
    assert!(error.to_string().contains("gpt2.rope.dimension_count"), "{error}");
}
