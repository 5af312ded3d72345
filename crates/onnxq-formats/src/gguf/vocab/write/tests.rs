//! Files of tokenizers that GGUF cannot describe, and what is said of those that it describes nearly.

use std::path::Path;

use onnxq_ir::diag::{Code, Diagnostic};
use serde_json::{Value as Json, json};

use super::{
    super::{ADD_BOS, REMOVE_SPACES, SCORES, SPACE_PREFIX, TYPES},
    *,
};

const SIZE: usize = 512;

fn fixture() -> Files {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizers/llama");
    Files::read(&folder).unwrap()
}

/// A change of `tokenizer.json` alone.
fn changed(change: &dyn Fn(&mut Json)) -> Result<Written, CheckpointError> {
    let mut files = Files { sentencepiece: None, ..fixture() };
    change(files.tokenizer.as_mut().unwrap());
    files.keys(SIZE)
}

fn value<'a>(written: &'a Written, key: &str) -> Option<&'a Value> {
    written.keys.iter().find(|it| it.0 == key).map(|it| &it.1)
}

/// A message of Protobuf: numbers of fields, and bytes or whole numbers.
enum Part<'a> {
    Bytes(u8, &'a [u8]),
    Number(u16, u8),
    Float(u8, f32),
}

fn message(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Bytes(field, bytes) => {
                out.extend([field << 3 | 2, u8::try_from(bytes.len()).unwrap()]);
                out.extend(*bytes);
            }
            Part::Number(field, number) => {
                let key = field << 3;
                out.extend([key as u8 & 0x7f | 0x80, (key >> 7) as u8, *number]);
            }
            Part::Float(field, number) => {
                out.push(field << 3 | 5);
                out.extend(number.to_le_bytes());
            }
        }
    }
    out
}

/// `tokenizer.model` of every byte and two more pieces, with a trainer and a normalizer.
fn model(trainer: &[Part], normalizer: &[Part]) -> Result<Written, CheckpointError> {
    let mut bytes = Vec::new();
    let mut piece = |text: &str, score: f32, kind: u8| {
        let own = message(&[
            Part::Bytes(1, text.as_bytes()),
            Part::Float(2, score),
            Part::Number(3, kind),
        ]);
        bytes.extend(message(&[Part::Bytes(1, &own)]));
    };
    piece("<unk>", 0.0, 2);
    (0..=255u8).for_each(|it| piece(&format!("<0x{it:02X}>"), 0.0, 6));
    ["a", "b", "ab"].iter().for_each(|it| piece(it, -1.0, 1));
    let (trainer, normalizer) = (message(trainer), message(normalizer));
    bytes.extend(message(&[Part::Bytes(2, &trainer), Part::Bytes(3, &normalizer)]));
    Files { sentencepiece: Some(bytes), ..Files::default() }.keys(SIZE)
}

#[test]
fn what_gguf_cannot_say_is_named() {
    type Change = fn(&mut Json);
    let cases: [(&str, Code, Change); 15] = [
        ("model.type", Code::E122, |it| it["model"]["type"] = "Unigram".into()),
        ("model.dropout", Code::E122, |it| it["model"]["dropout"] = 0.5.into()),
        ("model.end_of_word_suffix", Code::E122, |it| {
            it["model"]["end_of_word_suffix"] = "</w>".into();
        }),
        ("normalizer", Code::E122, |it| it["normalizer"] = json!({"type": "NFKC"})),
        ("pre_tokenizer", Code::E122, |it| it["pre_tokenizer"] = json!({"type": "Whitespace"})),
        ("pre_tokenizer", Code::E122, |it| it["model"]["byte_fallback"] = false.into()),
        ("byte 10", Code::E122, |it| {
            it["model"]["vocab"].as_object_mut().unwrap().remove("<0x0A>");
        }),
        ("`<0x0A>`, which is a byte", Code::E122, |it| {
            it["model"]["merges"].as_array_mut().unwrap().push(json!(["<0x0A>", "a"]));
        }),
        // The piece is there, and so are its parts, but nothing joins them.
        ("no token of `t` and `h`", Code::E122, |it| {
            it["model"]["merges"].as_array_mut().unwrap().retain(|pair| *pair != json!(["t", "h"]));
        }),
        ("model.merges", Code::E121, |it| it["model"]["merges"] = json!([["a", "\u{1}"]])),
        ("model.merges", Code::E121, |it| it["model"]["merges"] = json!([1])),
        ("model.vocab", Code::E121, |it| it["model"]["vocab"]["x"] = 5.into()),
        ("model.vocab", Code::E121, |it| it["model"]["vocab"]["x"] = 512.into()),
        ("as 1, which is `<s>`", Code::E121, |it| it["added_tokens"][1]["content"] = "<t>".into()),
        ("added_tokens", Code::E121, |it| it["added_tokens"] = json!([{"id": 1, "content": ""}])),
    ];
    for (at, (what, code, change)) in cases.into_iter().enumerate() {
        let error = changed(&change).unwrap_err();
        assert_eq!(error.code(), code, "{at}: {error}");
        assert!(error.to_string().contains(what), "{at}: {error}");
        assert_eq!(error.hint().is_some(), code == Code::E122, "{error}");
    }
    let around = changed(&|it| {
        let single = it["post_processor"]["single"].as_array_mut().unwrap();
        single.insert(0, single[0].clone());
    });
    assert!(around.unwrap_err().to_string().contains("`post_processor` has"));
    let other = changed(&|it| {
        it["post_processor"]["single"][0]["SpecialToken"]["id"] = "</s>".into();
    });
    assert!(other.unwrap_err().to_string().contains("another token than"));
    let twice = changed(&|it| {
        it["model"]["vocab"].as_object_mut().unwrap().remove("<0x00>");
        let token = json!({"id": 3, "content": "a", "special": true});
        it["added_tokens"].as_array_mut().unwrap().push(token);
    });
    assert!(twice.unwrap_err().to_string().contains("are the same as 3 and as"));
    let hostile = changed(&|it| {
        it["added_tokens"][1]["content"] = "\u{1b}[31m\u{9b}x\n".into();
    });
    let hostile = hostile.unwrap_err().to_string();
    assert!(!hostile.contains(['\u{1b}', '\u{9b}', '\n']), "{hostile:?}");
    let long = changed(&|it| it["model"]["vocab"]["x".repeat(2000)] = 511.into());
    assert_eq!(long.unwrap_err().code(), Code::E121);
}

#[test]
fn scores_are_those_of_sentencepiece_where_they_order_alike() {
    let theirs = fixture().keys(SIZE).unwrap();
    let score = |written: &Written, id: usize| {
        let all = value(written, SCORES).unwrap().array().unwrap().values();
        all.map(|it| it.float().unwrap()).nth(id).unwrap()
    };
    // The third piece: `▁t`, `he`, then `▁a`.
    assert_eq!((score(&theirs, 259), score(&theirs, 261)), (-0.0, -2.0));
    let mut files = fixture();
    let merges = files.tokenizer.as_mut().unwrap()["model"]["merges"].as_array_mut().unwrap();
    merges.swap(0, 1);
    let ranks = files.keys(SIZE).unwrap();
    assert_eq!((score(&ranks, 259), score(&ranks, 260)), (-1.0, -0.0));
    // Where it lacks a merge that SentencePiece does, that is said.
    let mut files = fixture();
    let merges = files.tokenizer.as_mut().unwrap()["model"]["merges"].as_array_mut().unwrap();
    merges.retain(|pair| *pair != json!(["t", "h"]));
    let notes = files.keys(SIZE).unwrap().notes;
    assert!(notes[0].contains("such as `th`"), "{notes:?}");
}

#[test]
fn what_stands_for_unknown_characters_may_be_a_piece() {
    let kind = |written: &Written, id: usize| {
        let kinds = value(written, TYPES).unwrap().array().unwrap();
        kinds.values().nth(id).unwrap().integer().unwrap()
    };
    assert_eq!(kind(&changed(&|_| {}).unwrap(), 0), 2);
    let piece = changed(&|it| it["model"]["unk_token"] = "th".into()).unwrap();
    assert_eq!((kind(&piece, 0), kind(&piece, 262)), (3, 1));
    // The configuration of the fixture names another.
    assert_eq!(value(&piece, SPECIAL[3].1), Some(&0u32.into()));
}

#[test]
fn spaces_are_where_the_files_put_them() {
    let meta = |scheme: &str, split: bool| {
        changed(&|it| {
            it["normalizer"] = Json::Null;
            it["pre_tokenizer"] = json!({
                "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split,
            });
        })
    };
    let never = meta("never", false).unwrap();
    assert_eq!((value(&never, SPACE_PREFIX), never.notes.len()), (Some(&false.into()), 0));
    let first = meta("first", false).unwrap();
    assert_eq!(value(&first, SPACE_PREFIX), Some(&true.into()));
    assert!(first.notes[0].contains("behind a token that steers"), "{:?}", first.notes);
    assert!(meta("last", false).is_err());
    // A piece with a space inside is then never made.
    let cut = |it: &mut Json| {
        it["normalizer"] = Json::Null;
        it["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "\u{2581}"});
        it["model"]["vocab"]["a\u{2581}"] = 511.into();
        it["model"]["vocab"]
            .as_object_mut()
            .unwrap()
            .retain(|text, id| *id != 511 || text.starts_with('a'));
        it["model"]["merges"].as_array_mut().unwrap().push(json!(["a", "\u{2581}"]));
    };
    let error = changed(&cut).unwrap_err();
    assert!(error.to_string().contains("no token of `a` and `\u{2581}`"), "{error}");
    let strips = changed(&|it| it["added_tokens"][1]["rstrip"] = true.into()).unwrap();
    assert!(strips.notes[0].contains("1 tokens such as `\"<s>\"`"), "{:?}", strips.notes);
}

#[test]
fn sentencepiece_alone_is_a_tokenizer() {
    let merges = Part::Number(3, 2);
    let plain = model(&[merges], &[Part::Number(3, 0), Part::Number(4, 0)]).unwrap();
    assert_eq!((value(&plain, SPACE_PREFIX), plain.notes.len()), (Some(&false.into()), 0));
    assert_eq!((value(&plain, REMOVE_SPACES), value(&plain, ADD_BOS)), (None, None));
    let kinds = value(&plain, TYPES).unwrap().array().unwrap();
    let kinds: Vec<i128> = kinds.values().filter_map(|it| it.integer()).collect();
    assert_eq!((kinds[0], kinds[1], kinds[257], kinds[300]), (2, 6, 1, 5));
    // By default texts are changed in ways that llama.cpp does not know.
    let usual =
        model(&[Part::Number(3, 2)], &[Part::Bytes(1, b"nmt_nfkc"), Part::Bytes(2, b"table")]);
    let usual = usual.unwrap();
    assert_eq!(value(&usual, REMOVE_SPACES), Some(&true.into()));
    assert_eq!(value(&usual, SPACE_PREFIX), Some(&true.into()));
    assert!(usual.notes.len() == 2 && usual.notes[1].contains("nmt_nfkc"), "{:?}", usual.notes);
}

#[test]
fn other_models_of_sentencepiece_are_refused() {
    let named = |result: Result<Written, CheckpointError>, code: Code, what: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    named(model(&[], &[]), Code::E122, "trainer_spec.model_type");
    named(model(&[Part::Number(3, 1)], &[]), Code::E122, "is 1, and not 2");
    let suffix = [Part::Number(3, 2), Part::Number(24, 1)];
    named(model(&suffix, &[]), Code::E122, "treat_whitespace_as_suffix");
    let spaces = [Part::Number(5, 0)];
    named(model(&[Part::Number(3, 2)], &spaces), Code::E122, "escape_whitespaces");
    let only =
        |bytes: &[u8]| Files { sentencepiece: Some(bytes.to_vec()), ..Files::default() }.keys(SIZE);
    named(only(b""), Code::E121, "are missing");
    named(only(b"version https://git-lfs"), Code::E121, "are not those of SentencePiece");
    let faulty = message(&[Part::Bytes(1, &message(&[Part::Bytes(1, b"a"), Part::Number(3, 9)]))]);
    named(only(&faulty), Code::E121, "are not those of SentencePiece");
    let small = Files { tokenizer: None, ..fixture() }.keys(100);
    named(small, Code::E121, "the model has 100");
    let folder = tempfile::tempdir().unwrap();
    named(keys(folder.path(), SIZE), Code::E905, "tokenizer.json");
}
