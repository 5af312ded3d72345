//! Tokenizers that went through the keys of a GGUF file make the same tokens of hard texts as before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use onnxq_formats::gguf::{
    Array, File, Value, Writer,
    vocab::{self, Files},
};
use onnxq_run::data::Vocabulary;
use serde_json::Value as Json;
use tempfile::TempDir;

type Keys = Vec<(String, Value)>;

const PRE: &str = "tokenizer.ggml.pre";
const SCORES: &str = "tokenizer.ggml.scores";
/// What stands for a space in pieces.
const SPACE: char = '\u{2581}';

fn fixtures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

fn texts() -> Vec<String> {
    let file = fs::read_to_string(fixtures("text/hard.jsonl")).unwrap();
    let text = |line: &str| serde_json::from_str::<Json>(line).unwrap()["text"].clone();
    let texts: Vec<String> =
        file.lines().map(|line| text(line).as_str().unwrap().to_owned()).collect();
    assert!(texts.len() > 200);
    texts
}

/// The files of a folder, and how many tokens it has.
fn folder(name: &str) -> (Files, usize) {
    let path = fixtures(name);
    let json = |file: &str| serde_json::from_slice::<Json>(&fs::read(path.join(file)).ok()?).ok();
    let files = Files {
        tokenizer: json("tokenizer.json"),
        sentencepiece: fs::read(path.join("tokenizer.model")).ok(),
        config: json("tokenizer_config.json").unwrap_or_default(),
        ..Files::default()
    };
    let size = files.tokenizer.as_ref().unwrap()["model"]["vocab"].as_object().unwrap().len();
    (files, size)
}

/// A tokenizer as its own file and in keys of GGUF, as the program opens both.
struct Both {
    own: Vocabulary,
    file: Vocabulary,
    _folder: TempDir,
}

fn both(tokenizer: &Json, keys: &Keys) -> Both {
    let folder = tempfile::tempdir().unwrap();
    let (json, gguf) = (folder.path().join("tokenizer.json"), folder.path().join("model.gguf"));
    fs::write(&json, tokenizer.to_string()).unwrap();
    fs::write(&gguf, bytes(keys)).unwrap();
    let open = |path: &Path| Vocabulary::open(path).unwrap();
    Both { own: open(&json), file: open(&gguf), _folder: folder }
}

fn bytes(keys: &Keys) -> Vec<u8> {
    let mut writer = Writer::new();
    keys.iter().for_each(|(key, value)| writer.value(key, value.clone()));
    let mut out = Vec::new();
    writer.write(&mut out).unwrap();
    out
}

/// Compares what both make of every text: numbers, with what stands around texts and without, and the text again.
/// Of tokens that are runs of spaces a GGUF file finds those in a text, and not the marks that stand for them.
fn assert_alike(tokenizer: &Json, keys: &Keys, name: &str) {
    let both = both(tokenizer, keys);
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let has_runs = added.iter().any(|it| it["content"].as_str().unwrap().contains(SPACE));
    for text in texts().iter().filter(|text| !has_runs || !text.contains(SPACE)) {
        for special in [false, true] {
            let ids = |from: &Vocabulary| from.encode(text, special).unwrap();
            assert_eq!(ids(&both.file), ids(&both.own), "{name}: {text:?}");
        }
        let ids = both.own.encode(text, false).unwrap();
        assert_eq!(both.file.decode(&ids), both.own.decode(&ids), "{name}: {text:?}");
    }
}

fn find<'a>(keys: &'a Keys, key: &str) -> &'a Value {
    &keys.iter().find(|entry| entry.0 == key).unwrap_or_else(|| panic!("no {key}")).1
}

#[test]
fn bytes_make_the_same_tokens() {
    let (files, size) = folder("slm-fixture");
    let keys = files.keys(size).unwrap().keys;
    assert_alike(files.tokenizer.as_ref().unwrap(), &keys, "as it is");
    for name in [
        "bloom",
        "command-r",
        "dbrx",
        "deepseek-coder",
        "deepseek-llm",
        "deepseek-v3",
        "falcon",
        "gpt-2",
        "gpt-4o",
        "llama-bpe",
        "qwen2",
        "qwen35",
        "seed-coder",
        "smollm",
        "stablelm2",
        "tekken",
    ] {
        let mut named = keys.clone();
        named.iter_mut().filter(|entry| entry.0 == PRE).for_each(|entry| entry.1 = name.into());
        let file = File::parse(&bytes(&named).into(), name).unwrap();
        let tokenizer = vocab::read(&file, name).unwrap().unwrap().tokenizer;
        let files = Files { tokenizer: Some(tokenizer.clone()), ..Files::default() };
        let again = files.keys(size).unwrap().keys;
        assert_eq!(find(&again, PRE).text(), Some(name));
        assert_alike(&tokenizer, &again, name);
    }
}

#[test]
fn pieces_make_the_same_tokens() {
    for name in ["tokenizers/llama", "tokenizers/gemma"] {
        let (files, size) = folder(name);
        let tokenizer = files.tokenizer.clone().unwrap();
        let written = files.keys(size).unwrap();
        assert_eq!(written.notes, Vec::<String>::new());
        assert_alike(&tokenizer, &written.keys, name);
        // Without the scores of SentencePiece, and without what transformers makes of them.
        let only = Files { sentencepiece: None, ..folder(name).0 };
        let ranks = only.keys(size).unwrap().keys;
        let scores = |keys: &Keys| find(keys, SCORES).array().map(Array::values).unwrap().last();
        assert_ne!(scores(&ranks), scores(&written.keys));
        assert_alike(&tokenizer, &ranks, name);
        let pieces = Files { tokenizer: None, ..files };
        assert_alike(&tokenizer, &pieces.keys(size).unwrap().keys, name);
    }
}
