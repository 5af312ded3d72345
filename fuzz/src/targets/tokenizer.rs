//! Files of tokenizers of Hugging Face: as keys of GGUF files, and as a tokenizer again.

use onnxq_formats::gguf::vocab::Files;
use serde_json::{Value as Json, json};

use super::{Outcome, Target, unnamed, vocab};
use crate::{corpus, mutate::Grammar};

pub(super) const TARGET: Target = Target {
    name: "tokenizer",
    about: "tokenizer.json and tokenizer.model: their keys in GGUF files mean the same tokenizer",
    run,
    grammar: Grammar::Json,
    seeds,
    words: &[
        "BPE",
        "Unigram",
        "byte_fallback",
        "ignore_merges",
        "Sequence",
        "ByteLevel",
        "Metaspace",
        "Prepend",
        "Replace",
        "Split",
        "String",
        "Regex",
        "NFC",
        "first",
        "always",
        "never",
        "vocab",
        "merges",
        "a b",
        "a",
        "b",
        "ab",
        "\u{2581}",
        "\u{2581}a",
        "<0x0A>",
        "<s>",
        "<|x|>",
        "[PAD3]",
        "special",
        "lstrip",
        "content",
        "id",
        "null",
        "",
    ],
};

/// Tokens of a model whose files are `tokenizer.model` only.
const SIZE: usize = 600;
/// More would only be padding.
const MOST: usize = 4096;

fn run(bytes: &[u8]) -> Outcome {
    let Ok(input) = serde_json::from_slice::<Json>(bytes) else {
        let files = Files { sentencepiece: Some(bytes.to_vec()), ..Files::default() };
        let written = files.keys(SIZE).map_err(|it| unnamed(&it))?;
        let read = vocab::read_back(written.keys);
        vocab::library(&read.tokenizer).expect("pieces are a tokenizer");
        return Ok(format!("pieces {}", written.notes.len()));
    };
    let size = input["size"].as_u64().map_or(SIZE, |it| usize::try_from(it).unwrap_or(MOST));
    let files = Files {
        tokenizer: Some(input["tokenizer"].clone()),
        config: input["config"].clone(),
        added: input["added"].clone(),
        models: input["models"].as_array().cloned().unwrap_or_default(),
        template: input["template"].as_str().map(str::to_owned),
        sentencepiece: None,
    };
    let written = files.keys(size.min(MOST)).map_err(|it| unnamed(&it))?;
    let read = vocab::read_back(written.keys);
    let again = vocab::library(&read.tokenizer).expect("keys say a tokenizer");
    let Ok(first) = vocab::library(&input["tokenizer"]) else {
        return Ok("what the library does not take".into());
    };
    let same = written.notes.is_empty() && is_simple(&input["tokenizer"], &first);
    if same {
        assert_alike(&first, &again);
    }
    Ok(format!("{same} {}", again.get_vocab_size(true) > 300))
}

/// Whether nothing stands in a tokenizer that GGUF files have no words for, and llama.cpp's converter leaves out
/// without a remark: tokens that are found in normalized texts, and what stands for unknown characters.
/// The library numbers added tokens itself.
fn is_simple(tokenizer: &Json, library: &tokenizers::Tokenizer) -> bool {
    let added = tokenizer["added_tokens"].as_array();
    let is_plain = |it: &Json| {
        let id = it["content"].as_str().and_then(|text| library.token_to_id(text));
        it["special"] == true && it["normalized"] == false && id.is_some_and(|id| it["id"] == id)
    };
    let folds = tokenizer["model"]["byte_fallback"] == true;
    added.is_none_or(|it| it.iter().all(is_plain))
        && tokenizer["truncation"].is_null()
        && tokenizer["padding"].is_null()
        && (folds || tokenizer["model"]["unk_token"].is_null())
}

fn assert_alike(one: &tokenizers::Tokenizer, other: &tokenizers::Tokenizer) {
    for text in vocab::TEXTS {
        let ids = |it: &tokenizers::Tokenizer| {
            it.encode(text, false).ok().map(|it| it.get_ids().to_vec())
        };
        assert_eq!(ids(one), ids(other), "{text:?}");
    }
}

/// The fixtures, as files of their own and all in one.
fn seeds() -> Vec<Vec<u8>> {
    let folders = ["fixtures/tokenizers/gemma", "fixtures/tokenizers/llama"];
    let files: Vec<Vec<u8>> = folders.iter().flat_map(|it| corpus::files(it)).collect();
    let of = |file: &Vec<u8>| -> Option<Vec<u8>> {
        let tokenizer: Json = serde_json::from_slice(file).ok()?;
        let config =
            json!({"bos_token": "<s>", "chat_template": [{"name": "default", "template": "t"}]});
        let models = json!([{"eos_token_id": [1, 2]}]);
        let input =
            json!({"tokenizer": tokenizer, "config": config, "models": models, "size": 520});
        tokenizer["model"].is_object().then(|| input.to_string().into_bytes())
    };
    let models = files.iter().filter(|it| serde_json::from_slice::<Json>(it).is_err()).cloned();
    let whole = files.iter().filter_map(of);
    whole.chain(models).chain(small()).collect()
}

/// Merges of bytes and of pieces that are few, of which mutations reach all.
fn small() -> Vec<Vec<u8>> {
    let every: serde_json::Map<String, Json> =
        (0..=255u8).map(|it| (format!("<0x{it:02X}>"), json!(u32::from(it) + 8))).collect();
    let words = ["<unk>", "<s>", "a", "b", "\u{2581}", "ab", "\u{2581}a", "bab"];
    let mut vocab = every;
    words.iter().zip(0u32..).for_each(|(it, id)| drop(vocab.insert((*it).into(), json!(id))));
    let metaspace = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "never", "split": false,
    });
    let pieces = json!({"size": 264, "tokenizer": {
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": metaspace,
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true,
            "vocab": vocab, "merges": [["a", "b"], ["\u{2581}", "a"], ["b", "ab"]]},
    }});
    let level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let bytes = json!({"size": 6, "tokenizer": {
        "version": "1.0", "normalizer": null, "pre_tokenizer": level, "post_processor": null,
        "decoder": level, "added_tokens": [{"id": 4, "content": "<s>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "\u{120}": 2, "ab": 3},
            "merges": ["a b"]},
    }});
    [pieces, bytes].iter().map(|it| it.to_string().into_bytes()).collect()
}
