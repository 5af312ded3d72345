//! Tokenizers that went through keys of GGUF make the same tokens of hard texts as before.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::{pre::PRES, *};
use crate::gguf::Value;

type Keys = Vec<(String, Value)>;

fn fixtures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn texts() -> Vec<String> {
    let file = std::fs::read_to_string(fixtures("text/hard.jsonl")).unwrap();
    let texts: Vec<String> = file
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["text"].as_str().unwrap().into())
        .collect();
    assert!(texts.len() > 200);
    texts
}

/// The files of a folder of `fixtures/tokenizers`, and how many tokens it has.
fn folder(name: &str) -> (Files, usize) {
    let path = fixtures(name);
    let json = |file: &str| serde_json::from_slice(&std::fs::read(path.join(file)).ok()?).ok();
    let files = Files {
        tokenizer: json("tokenizer.json"),
        sentencepiece: std::fs::read(path.join("tokenizer.model")).ok(),
        config: json("tokenizer_config.json").unwrap_or_default(),
        ..Files::default()
    };
    let size = files.tokenizer.as_ref().unwrap()["model"]["vocab"].as_object().unwrap().len();
    (files, size)
}

/// What a GGUF file with these keys says again.
fn again(keys: &Keys) -> Json {
    super::tests::vocab(keys).unwrap().tokenizer
}

fn library(tokenizer: &Json) -> Tokenizer {
    let text = tokenizer.to_string();
    text.parse().unwrap_or_else(|it| panic!("{it}: {}", tokenizer["pre_tokenizer"]))
}

/// Compares two tokenizers on every hard text, with what stands around texts and without. A file of GGUF finds runs of
/// spaces among the tokens that were added, and not the marks that stand for them, where `tokenizer.json` has it the
/// other way round.
fn assert_alike(one: &Json, other: &Json, name: &str) {
    let (one, other) = (library(one), library(other));
    let finds_runs = one
        .token_to_id(&SPACE.repeat(2))
        .is_some_and(|id| one.get_added_tokens_decoder().contains_key(&id));
    for text in texts().into_iter().filter(|it| !finds_runs || !it.contains(SPACE)) {
        for special in [false, true] {
            let ids = |it: &Tokenizer| it.encode(&*text, special).unwrap().get_ids().to_vec();
            assert_eq!(ids(&one), ids(&other), "{name}: {text:?}");
        }
        let ids = one.encode(&*text, false).unwrap();
        let text = |it: &Tokenizer| it.decode(ids.get_ids(), false).unwrap();
        assert_eq!(text(&one), text(&other), "{name}");
    }
}

fn find<'a>(keys: &'a Keys, key: &str) -> &'a Value {
    &keys.iter().find(|it| it.0 == key).unwrap_or_else(|| panic!("no {key}")).1
}

#[test]
fn bytes_make_the_same_tokens() {
    let (files, size) = folder("slm-fixture");
    let tokenizer = files.tokenizer.clone().unwrap();
    assert_alike(&tokenizer, &again(&files.keys(size).unwrap().keys), "as it is");
    for pre in PRES {
        let mut tokenizer = tokenizer.clone();
        tokenizer["normalizer"] = pre.normalizer();
        tokenizer["pre_tokenizer"] = pre.pre_tokenizer();
        tokenizer["model"]["ignore_merges"] = pre.whole.into();
        let files = Files { tokenizer: Some(tokenizer.clone()), ..Files::default() };
        let keys = files.keys(size).unwrap().keys;
        assert_eq!(find(&keys, PRE).text(), Some(pre.names[0]));
        assert_alike(&tokenizer, &again(&keys), pre.names[0]);
    }
}

#[test]
fn pieces_make_the_same_tokens() {
    for name in ["tokenizers/llama", "tokenizers/gemma"] {
        let (both, size) = folder(name);
        let tokenizer = both.tokenizer.clone().unwrap();
        let written = both.keys(size).unwrap();
        assert_eq!(written.notes, Vec::<String>::new());
        assert_alike(&tokenizer, &again(&written.keys), name);
        // Without the scores of SentencePiece, and without what transformers makes of them.
        let only = Files { sentencepiece: None, ..folder(name).0 };
        let ranks = only.keys(size).unwrap().keys;
        assert_ne!(find(&ranks, SCORES), find(&written.keys, SCORES));
        assert_alike(&tokenizer, &again(&ranks), name);
        let pieces = Files { tokenizer: None, ..both };
        let theirs = pieces.keys(size).unwrap().keys;
        assert_alike(&tokenizer, &again(&theirs), name);
    }
}
