//! Small tokenizers in both directions, and hostile keys.

use std::fs;

use onnxq_ir::diag::{Code, Diagnostic};
use serde_json::{Value as Json, json};

use super::{pre::PRES, *};
use crate::gguf::{Array, Value, Writer};

type Keys = Vec<(String, Value)>;

fn list(texts: &[&str]) -> Value {
    Array::of_texts(texts).into()
}

fn numbers<T>(values: &[T]) -> Value
where
    T: Copy,
    Array: FromIterator<T>,
{
    values.iter().copied().collect::<Array>().into()
}

/// Byte-level merges with two tokens that steer and one that a user added.
fn bytes() -> Keys {
    let keys: [(&str, Value); 9] = [
        (MODEL, "gpt2".into()),
        (PRE, "smollm".into()),
        (TOKENS, list(&["<s>", "a", "b", "\u{120}", "ab", "\u{120}ab", "<|end|>", " x"])),
        (TYPES, numbers(&[3, 1, 1, 1, 1, 1, 3, 4])),
        (MERGES, list(&["a b", "\u{120} ab"])),
        (SPECIAL[0].1, 0u32.into()),
        (SPECIAL[1].1, 6u32.into()),
        (ADD_BOS, true.into()),
        (TEMPLATE, "{{ messages[0].content }}".into()),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn pieces() -> Keys {
    let keys: [(&str, Value); 6] = [
        (MODEL, "llama".into()),
        (TOKENS, list(&["<unk>", "<s>", "<0x0A>", "a", "b", "ab", "\u{2581}", "\u{2581}ab"])),
        (TYPES, numbers(&[2, 3, 6, 1, 1, 1, 1, 1])),
        (SCORES, numbers(&[0.0f32, 0.0, 0.0, -9.0, -9.0, -2.0, -9.0, -1.0])),
        (SPECIAL[0].1, 1u32.into()),
        (SPECIAL[3].1, 0u32.into()),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn with(mut keys: Keys, key: &str, value: impl Into<Value>) -> Keys {
    keys.retain(|it| it.0 != key);
    keys.push((key.to_owned(), value.into()));
    keys
}

fn vocab(keys: &Keys) -> Result<Vocab, CheckpointError> {
    let mut writer = Writer::new();
    keys.iter().for_each(|(key, value)| writer.value(key, value.clone()));
    let mut out = Vec::new();
    writer.write(&mut out).unwrap();
    let file = File::parse(&out.into(), "m.gguf").unwrap();
    Ok(read(&file, "m.gguf")?.expect("a tokenizer"))
}

fn written(vocab: &Vocab, size: usize) -> Result<Keys, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("tokenizer.json", &vocab.tokenizer),
        ("tokenizer_config.json", &vocab.tokenizer_config),
        ("generation_config.json", &vocab.generation_config),
    ];
    for (name, json) in files {
        fs::write(folder.path().join(name), json.to_string()).unwrap();
    }
    Ok(super::keys(folder.path(), size)?.keys)
}

fn sorted(mut keys: Keys) -> Keys {
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    keys
}

#[test]
fn keys_survive_both_directions() {
    let there = vocab(&bytes()).unwrap();
    assert_eq!(sorted(written(&there, 8).unwrap()), sorted(bytes()));
    let padded = written(&there, 10).unwrap();
    let tokens = padded.iter().find(|it| it.0 == TOKENS).unwrap().1.array().unwrap();
    assert_eq!(tokens.texts().unwrap().last(), Some("[PAD9]"));
    assert_eq!(written(&there, 4).unwrap_err().code(), Code::E121);
}

#[test]
fn every_name_is_found_by_what_it_means() {
    for pre in PRES {
        for name in pre.names {
            let there = vocab(&with(bytes(), PRE, *name)).unwrap();
            let back = written(&there, 8).unwrap();
            let found = back.iter().find(|it| it.0 == PRE).unwrap().1.text().unwrap().to_owned();
            let again = vocab(&with(bytes(), PRE, &*found)).unwrap();
            assert_eq!(again.tokenizer, there.tokenizer, "{name}");
        }
    }
}

#[test]
fn other_spellings_of_the_same_are_found() {
    let found = |name: &str, change: &dyn Fn(&mut Json)| {
        let mut there = vocab(&with(bytes(), PRE, name)).unwrap();
        change(&mut there.tokenizer);
        let keys = written(&there, 8)?;
        Ok::<_, CheckpointError>(
            keys.iter().find(|it| it.0 == PRE).unwrap().1.text().unwrap().to_owned(),
        )
    };
    // Xenova's conversions keep the matches, of which there is nothing but.
    let kept = |it: &mut Json| {
        let step = &mut it["pre_tokenizer"]["pretokenizers"][0];
        (step["behavior"], step["invert"]) = ("Removed".into(), true.into());
    };
    assert_eq!(found("gpt-4o", &kept).unwrap(), "gpt-4o");
    assert!(found("deepseek-v3", &kept).is_err());
    let lines = |it: &mut Json| {
        let step = &mut it["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
        *step = step.as_str().unwrap().replace(r"\r", "\r").replace(r"\n", "\n").into();
    };
    assert_eq!(found("deepseek-llm", &lines).unwrap(), "deepseek-llm");
    let list = |it: &mut Json| {
        it["normalizer"] = json!({"type": "Sequence", "normalizers": [it["normalizer"]]});
    };
    assert_eq!(found("qwen35", &list).unwrap(), "qwen35");
    let none = |it: &mut Json| it["normalizer"] = json!({"type": "Sequence", "normalizers": []});
    assert_eq!(found("falcon", &none).unwrap(), "falcon");
    // Merges make every token, so that it is the same to look for tokens first.
    let whole = |it: &mut Json| it["model"]["ignore_merges"] = true.into();
    assert_eq!(found("gpt-4o", &whole).unwrap(), "gpt-4o");
    let fewer = |it: &mut Json| {
        whole(it);
        it["model"]["merges"].as_array_mut().unwrap().truncate(1);
    };
    let error = found("gpt-4o", &fewer).unwrap_err();
    assert!(error.to_string().contains("no merges make `\u{120}ab`"), "{error}");
    // Where a name says both, that one is written.
    assert_eq!(found("dbrx", &fewer).unwrap(), "llama-bpe");
}

#[test]
fn files_say_what_the_keys_say() {
    let own = with(bytes(), ENDS[1], 0u32);
    let Vocab { tokenizer, tokenizer_config, generation_config } = vocab(&own).unwrap();
    assert_eq!(tokenizer["model"]["merges"], json!([["a", "b"], ["\u{120}", "ab"]]));
    assert_eq!(tokenizer["added_tokens"][2]["special"], json!(false));
    assert_eq!(tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"], json!("<s>"));
    assert_eq!(tokenizer_config["eos_token"], json!("<|end|>"));
    assert_eq!(tokenizer_config["chat_template"], json!("{{ messages[0].content }}"));
    assert_eq!(generation_config["eos_token_id"], json!([6, 0]));
}

#[test]
fn merges_of_pieces_come_by_score() {
    let there = vocab(&pieces()).unwrap().tokenizer;
    assert_eq!(there["model"]["merges"], json!([["\u{2581}", "ab"], ["a", "b"]]));
    assert_eq!(there["model"]["unk_token"], json!("<unk>"));
    assert_eq!(there["normalizer"]["normalizers"][0]["type"], json!("Prepend"));
    assert!(!there["post_processor"].is_null());
    let bare = vocab(&with(pieces(), SPACE_PREFIX, false)).unwrap().tokenizer;
    assert_eq!(bare["normalizer"]["normalizers"].as_array().unwrap().len(), 1);
}

#[test]
fn hostile_keys_are_named() {
    let long = "a".repeat(2000);
    let cases: Vec<(Keys, &str, Code)> = vec![
        (with(bytes(), MODEL, "rwkv"), MODEL, Code::E122),
        (with(bytes(), MODEL, 1u32), MODEL, Code::E121),
        (with(bytes(), PRE, "default"), PRE, Code::E122),
        (with(bytes(), PRE, "\u{1b}[31m"), PRE, Code::E122),
        (with(bytes(), TOKENS, "a"), TOKENS, Code::E121),
        (with(bytes(), TOKENS, list(&["a"; 8])), TOKENS, Code::E121),
        (with(bytes(), TYPES, numbers(&[1])), TYPES, Code::E121),
        (with(bytes(), TYPES, numbers(&[9; 8])), TYPES, Code::E121),
        (with(bytes(), MERGES, list(&["a z"])), MERGES, Code::E121),
        (with(bytes(), MERGES, list(&["ab"])), MERGES, Code::E121),
        (with(bytes(), SPECIAL[0].1, 8u32), SPECIAL[0].1, Code::E121),
        (with(bytes(), SPECIAL[1].1, -1i32), SPECIAL[1].1, Code::E121),
        (with(bytes(), ADD_BOS, 1u32), ADD_BOS, Code::E121),
        (with(bytes(), TEMPLATE, 1u32), TEMPLATE, Code::E121),
        (with(pieces(), SCORES, numbers(&[f32::NAN; 8])), SCORES, Code::E121),
        (with(pieces(), SCORES, numbers(&[0.0f32])), SCORES, Code::E121),
        (
            with(pieces(), TOKENS, list(&["u", "s", "n", "a", "b", "c", "d", &long])),
            TOKENS,
            Code::E121,
        ),
    ];
    for (keys, key, code) in cases {
        let error = vocab(&keys).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(key), "{error}");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
}

#[test]
fn unknown_files_are_refused() {
    let refused = |change: &dyn Fn(&mut Json)| {
        let mut there = vocab(&bytes()).unwrap();
        change(&mut there.tokenizer);
        written(&there, 8).unwrap_err()
    };
    let other = refused(&|it| it["pre_tokenizer"] = json!({"type": "Whitespace"}));
    assert_eq!((other.code(), other.to_string().contains("pre_tokenizer")), (Code::E122, true));
    let folds = refused(&|it| it["model"]["byte_fallback"] = true.into());
    assert_eq!(folds.code(), Code::E122);
    let broken = refused(&|it| it["model"]["merges"] = json!([1]));
    assert_eq!(broken.code(), Code::E121);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    let only = super::keys(folder.path(), 8).unwrap_err();
    assert!(only.to_string().contains("tokenizer.model"), "{only}");
}
