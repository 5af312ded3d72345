//! Tokenizers in the keys of GGUF files: as files of Hugging Face, and as keys again.

use bytes::Bytes;
use onnxq_formats::gguf::{
    Array, File, Value, Writer,
    vocab::{self, Files, Vocab},
};

use super::{Outcome, Target, unnamed};
use crate::mutate::Grammar;

pub(super) const TARGET: Target = Target {
    name: "vocab",
    about: "tokenizers of GGUF files: what they say is a tokenizer, and says the same as keys again",
    run,
    grammar: Grammar::Gguf,
    seeds,
    words: &[
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token",
        "tokenizer.ggml.add_space_prefix",
        "tokenizer.chat_template",
        "gpt2",
        "llama",
        "default",
        "llama-bpe",
        "qwen2",
        "falcon",
        "deepseek-llm",
        "a",
        "b",
        "ab",
        "a b",
        "\u{120}",
        "\u{2581}",
        "\u{2581}\u{2581}",
        "<s>",
        "<0x0A>",
        "<0xZZ>",
        " ",
        "",
    ],
};

/// What the merges of both must cut alike.
pub(super) const TEXTS: [&str; 6] =
    ["", "a", " ab  abab\n\nb", "<s>ab</s> aab", "\u{2581}a\u{2581}\u{2581}b", "é😀\u{301}12"];

fn run(bytes: &[u8]) -> Outcome {
    let file = File::parse(&Bytes::copy_from_slice(bytes), "fuzz").map_err(|it| unnamed(&it))?;
    let read = vocab::read(&file, "fuzz").map_err(|it| unnamed(&it))?;
    let Some(Vocab { tokenizer, tokenizer_config, generation_config }) = read else {
        return Err("no tokenizer".into());
    };
    let first = library(&tokenizer).expect("what a file says is a tokenizer");
    let size = file.value("tokenizer.ggml.tokens").and_then(Value::array).map_or(0, Array::len);
    let files = Files {
        tokenizer: Some(tokenizer),
        config: tokenizer_config,
        models: vec![generation_config],
        ..Files::default()
    };
    match files.keys(size) {
        Ok(written) => {
            let again = read_back(written.keys);
            assert_alike(&first, &library(&again.tokenizer).expect("it was one before"));
            Ok("again".into())
        }
        // A file may have what files of Hugging Face cannot, such as tokens for some bytes only.
        Err(error) => Ok(unnamed(&error)),
    }
}

/// Keys in a file of their own.
pub(super) fn read_back(keys: Vec<(String, Value)>) -> Vocab {
    let file = File::parse(&file(keys).into(), "written").expect("what is written is read");
    let read = vocab::read(&file, "written");
    read.unwrap_or_else(|it| panic!("written keys are refused: {it}")).expect("there are keys")
}

fn file(keys: Vec<(String, Value)>) -> Vec<u8> {
    let mut writer = Writer::new();
    keys.into_iter().for_each(|(key, value)| writer.value(&key, value));
    let mut out = Vec::new();
    writer.write(&mut out).expect("memory takes it");
    out
}

/// The library's tokenizer.
pub(super) fn library(json: &serde_json::Value) -> Result<tokenizers::Tokenizer, String> {
    json.to_string().parse().map_err(|it: tokenizers::Error| it.to_string())
}

pub(super) fn assert_alike(one: &tokenizers::Tokenizer, other: &tokenizers::Tokenizer) {
    for text in TEXTS {
        let ids =
            |it: &tokenizers::Tokenizer| it.encode(text, true).ok().map(|it| it.get_ids().to_vec());
        assert_eq!(ids(one), ids(other), "{text:?}");
    }
}

/// Keys of both kinds of tokenizers.
fn seeds() -> Vec<Vec<u8>> {
    let bytes = |pre: &str| {
        file(vec![
            ("tokenizer.ggml.model".into(), "gpt2".into()),
            ("tokenizer.ggml.pre".into(), pre.into()),
            texts("tokens", &["<s>", "a", "b", "\u{120}", "ab", "\u{120}ab", "<|end|>", " x"]),
            numbers("token_type", &[3, 1, 1, 1, 1, 1, 3, 4]),
            texts("merges", &["a b", "\u{120} ab"]),
            ("tokenizer.ggml.bos_token_id".into(), 0u32.into()),
            ("tokenizer.ggml.eos_token_id".into(), 6u32.into()),
            ("tokenizer.ggml.add_bos_token".into(), true.into()),
            ("tokenizer.chat_template".into(), "{{ messages }}".into()),
        ])
    };
    let some = ["llama-bpe", "qwen2", "falcon", "deepseek-llm", "deepseek-v3", "tekken", "gpt-2"];
    some.iter().map(|it| bytes(it)).chain([pieces(true), pieces(false)]).collect()
}

fn pieces(prefix: bool) -> Vec<u8> {
    let every: Vec<String> = (0..=255u8).map(|it| format!("<0x{it:02X}>")).collect();
    let mut tokens = vec!["<unk>", "<s>", "</s>", "a", "b", "ab", "\u{2581}", "\u{2581}ab"];
    let mut kinds = vec![2, 3, 3, 1, 1, 1, 1, 1];
    let mut scores = vec![0.0f32, 0.0, 0.0, -9.0, -9.0, -2.0, -9.0, -1.0];
    tokens.extend(every.iter().map(String::as_str));
    kinds.resize(tokens.len(), 6);
    scores.resize(tokens.len(), 0.0);
    file(vec![
        ("tokenizer.ggml.model".into(), "llama".into()),
        texts("tokens", &tokens),
        numbers("token_type", &kinds),
        ("tokenizer.ggml.scores".into(), scores.into_iter().collect::<Array>().into()),
        ("tokenizer.ggml.add_space_prefix".into(), prefix.into()),
        ("tokenizer.ggml.bos_token_id".into(), 1u32.into()),
        ("tokenizer.ggml.eos_token_id".into(), 2u32.into()),
        ("tokenizer.ggml.unknown_token_id".into(), 0u32.into()),
    ])
}

fn texts(key: &str, values: &[&str]) -> (String, Value) {
    (format!("tokenizer.ggml.{key}"), Array::of_texts(values).into())
}

fn numbers(key: &str, values: &[i32]) -> (String, Value) {
    (format!("tokenizer.ggml.{key}"), values.iter().copied().collect::<Array>().into())
}
