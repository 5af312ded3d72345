//! Files become examples: what counts, what is cut, what is held out, and what is refused.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;
use onnxq_ir::diag::{Code, Diagnostic};

const CHAT: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";

/// Bytes as tokens, and special ones from 256 on.
const SPECIAL: [&str; 4] = ["<|user|>", "<|assistant|>", "<|end|>", "<eos>"];
const END: u32 = 259;

struct Setup {
    folder: tempfile::TempDir,
    vocabulary: Vocabulary,
    template: Option<ChatTemplate>,
}

impl Setup {
    fn new(template: Option<&str>) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        fs::write(&file, bytes_as_tokens().to_string()).unwrap();
        let config = folder.path().join("tokenizer_config.json");
        fs::write(&config, serde_json::json!({"chat_template": template}).to_string()).unwrap();
        let vocabulary = Vocabulary::open(&file).unwrap();
        let template = ChatTemplate::beside(&config).unwrap();
        Setup { folder, vocabulary, template }
    }

    fn how(&self) -> Training<'_> {
        Training {
            vocabulary: &self.vocabulary,
            template: self.template.as_ref(),
            end: Some(END),
            labels: &[],
            window: 1000,
            pack: false,
            held_out: 0.0,
        }
    }

    fn read(
        &self,
        name: &str,
        text: impl AsRef<[u8]>,
        how: &Training,
    ) -> Result<TrainingData, DataError> {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        read(&[file], how)
    }

    /// The only example: its text, and the text that counts.
    fn only(&self, line: &serde_json::Value) -> (String, String) {
        let data = self.read("d.jsonl", line.to_string(), &self.how()).unwrap();
        let [example] = &data.train[..] else { panic!("{data:?}") };
        self.shown(example)
    }

    fn shown(&self, example: &Example) -> (String, String) {
        assert_eq!(example.ids.len(), example.counts.len());
        let counted = example.ids.iter().zip(&example.counts).filter(|it| *it.1);
        let counted: Vec<i64> = counted.map(|it| *it.0).collect();
        let text = |ids: &[i64]| self.vocabulary.text(ids).unwrap();
        (text(&example.ids), text(&counted))
    }
}

/// A tokenizer of bytes, as those of GPT-2's kind without merges.
fn bytes_as_tokens() -> serde_json::Value {
    let printable = |it: u32| matches!(it, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut vocabulary = serde_json::Map::new();
    let mut other = 256;
    for byte in 0..256u32 {
        let letter = if printable(byte) { byte } else { other };
        other += u32::from(!printable(byte));
        vocabulary.insert(char::from_u32(letter).unwrap().to_string(), byte.into());
    }
    let special = SPECIAL.iter().enumerate().map(|(at, it)| {
        serde_json::json!({"id": 256 + at, "content": it, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    });
    let level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": true});
    serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": special.collect::<Vec<_>>(), "normalizer": null, "pre_tokenizer": level,
        "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}})
}

fn chat(turns: &[(&str, &str)]) -> serde_json::Value {
    let turns: Vec<_> = turns
        .iter()
        .map(|(role, content)| serde_json::json!({"role": role, "content": content}))
        .collect();
    serde_json::json!({"messages": turns})
}

#[test]
fn turns_of_the_assistant_count_to_the_token_that_ends_them() {
    let setup = Setup::new(Some(CHAT));
    let two = chat(&[("user", "a"), ("assistant", "bc"), ("user", "d"), ("assistant", "e")]);
    let (text, counted) = setup.only(&two);
    let expected =
        "<|user|>a<|end|>\n<|assistant|>bc<|end|>\n<|user|>d<|end|>\n<|assistant|>e<|end|>\n";
    assert_eq!((&*text, &*counted), (expected, "bc<|end|>e<|end|>"));
    // What follows the last answer is not read.
    let more = chat(&[("user", "a"), ("assistant", "bc"), ("user", "d")]);
    assert_eq!(setup.only(&more).1, "bc<|end|>");
    // Parts, as APIs write them.
    let parts = serde_json::json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b"}]});
    assert_eq!(setup.only(&parts).1, "b<|end|>");
    // A template without a token that ends a turn.
    let plain = "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}a: {% endif %}";
    let setup = Setup::new(Some(plain));
    assert_eq!(setup.only(&chat(&[("user", "a"), ("assistant", "bc")])).1, "bc\n");
}

#[test]
fn responses_count_with_their_end() {
    let setup = Setup::new(None);
    for name in ["response", "completion"] {
        let (text, counted) = setup.only(&serde_json::json!({"prompt": "a b", name: " c"}));
        assert_eq!((&*text, &*counted), ("a b c<eos>", " c<eos>"));
    }
}

#[test]
fn texts_fill_windows_and_their_ends_stand_between_them() {
    let setup = Setup::new(None);
    let how = Training { window: 4, ..setup.how() };
    let data = setup.read("d.txt", "abc<eos>\ndefgh\n<eos>i", &how).unwrap();
    let shown: Vec<_> = data.train.iter().map(|it| setup.shown(it)).collect();
    let expected = [("abc<eos>", "bc<eos>"), ("defg", "efg"), ("h<eos>i<eos>", "<eos>i<eos>")];
    assert_eq!(shown, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!((data.facts.documents, data.facts.tokens, data.facts.counted_tokens), (3, 12, 9));
    let lines = "{\"text\": \"abc\"}\n\n{\"text\": \"defgh\"}\n{\"text\": \"i\"}";
    let same = setup.read("d.jsonl", lines, &how).unwrap();
    assert_eq!(same.train, data.train);
    assert_ne!(same.facts.sha256, data.facts.sha256);
    // A tail of one token has nothing to predict.
    let tail = setup.read("d.txt", "abcd", &how).unwrap();
    assert_eq!(tail.train.len(), 1);
}

#[test]
fn what_is_too_long_is_cut_and_counted() {
    let setup = Setup::new(Some(CHAT));
    let lines = [
        chat(&[("user", "a"), ("assistant", "bcdefgh")]),
        chat(&[("user", "a long question"), ("assistant", "b")]),
        serde_json::json!({"prompt": "a", "response": "b"}),
    ];
    let lines = lines.map(|it| it.to_string()).join("\n");
    let how = Training { window: 8, ..setup.how() };
    let data = setup.read("d.jsonl", &lines, &how).unwrap();
    let shown: Vec<_> = data.train.iter().map(|it| setup.shown(it).1).collect();
    assert_eq!(shown, ["bcd", "b<eos>"]);
    let facts = &data.facts;
    assert_eq!((facts.cut_examples, facts.empty_examples, facts.documents), (2, 1, 3));
    assert_eq!(facts.cut_tokens, (5 + 7 + 2 - 8) + (19 + 3 - 8));
    let error = setup.read("d.jsonl", lines.lines().nth(1).unwrap(), &how).unwrap_err();
    assert_eq!(error.code(), Code::E606);
}

#[test]
fn short_examples_share_a_window_only_if_asked() {
    let setup = Setup::new(None);
    let line = |it: &str| serde_json::json!({"prompt": "p", "response": it}).to_string();
    let lines = ["a", "bb", "c", "dddd"].map(line).join("\n");
    let shown = |pack: bool| -> Vec<String> {
        let how = Training { window: 7, pack, ..setup.how() };
        let data = setup.read("d.jsonl", &lines, &how).unwrap();
        data.train.iter().map(|it| setup.shown(it).0).collect()
    };
    assert_eq!(shown(false), ["pa<eos>", "pbb<eos>", "pc<eos>", "pdddd<eos>"]);
    assert_eq!(shown(true), ["pa<eos>pbb<eos>", "pc<eos>", "pdddd<eos>"]);
}

#[test]
fn labels_are_numbers_or_names() {
    let setup = Setup::new(None);
    let labels = ["bad".to_owned(), "good".to_owned()];
    let how = Training { labels: &labels, window: 3, ..setup.how() };
    let lines = "{\"text\": \"ab\", \"label\": 0}\n{\"text\": \"cdef\", \"label\": \"good\"}";
    let data = setup.read("d.jsonl", lines, &how).unwrap();
    let shown: Vec<_> = data.train.iter().map(|it| (setup.shown(it), it.label)).collect();
    let text = |it: &str| (it.to_owned(), String::new());
    assert_eq!(shown, [(text("ab"), Some(0)), (text("cde"), Some(1))]);
    assert_eq!((data.facts.cut_examples, data.facts.cut_tokens), (1, 1));
    for label in ["2", "-1", "\"fine\"", "null", "1.5"] {
        let line = format!("{{\"text\": \"a\", \"label\": {label}}}");
        let error = setup.read("d.jsonl", line, &how).unwrap_err();
        assert!(error.to_string().contains("none of bad, good"), "{error}");
    }
    let mixed = format!("{lines}\n{{\"text\": \"a\"}}");
    let error = setup.read("d.jsonl", mixed, &how).unwrap_err().to_string();
    assert!(error.contains("has a label where") && error.contains("line 3"), "{error}");
}

#[test]
fn equal_documents_are_on_one_side() {
    let setup = Setup::new(Some(CHAT));
    let line = |it: usize| chat(&[("user", &it.to_string()), ("assistant", "yes")]).to_string();
    let lines: Vec<String> = (0..200).map(|it| line(it % 100)).collect();
    let how = Training { held_out: 0.2, ..setup.how() };
    let data = setup.read("d.jsonl", lines.join("\n"), &how).unwrap();
    assert_eq!(data.train.len() + data.held_out.len(), 200);
    assert!((20..60).contains(&data.held_out.len()) && data.held_out.len().is_multiple_of(2));
    assert!(data.held_out.iter().all(|it| !data.train.contains(it)));
    // However the line is written, and wherever it stands.
    let spaced: Vec<String> = lines.iter().rev().map(|it| it.replace(':', " : ")).collect();
    let again = setup.read("d.jsonl", spaced.join("\n"), &how).unwrap();
    assert_eq!(again.held_out.len(), data.held_out.len());
    assert!(again.held_out.iter().all(|it| data.held_out.contains(it)));
    // One text is divided by its windows.
    let how = Training { window: 10, ..how };
    let text: String = (0..3000).map(|it| char::from(b'a' + (it * it % 23) as u8)).collect();
    let data = setup.read("d.txt", text, &how).unwrap();
    assert!(!data.held_out.is_empty() && data.train.len() > data.held_out.len());
    assert!(data.held_out.iter().all(|it| !data.train.contains(it)));
}

#[test]
fn what_is_wrong_names_the_line_and_a_way_out() {
    let setup = Setup::new(Some(CHAT));
    let good = chat(&[("user", "a"), ("assistant", "b")]).to_string();
    for (line, fact) in [
        ("not json", "is no JSON"),
        ("[1]", "is no object"),
        ("{}", "has no `text`"),
        ("{\"text\": 1}", "`text` that is no string"),
        ("{\"prompt\": \"a\"}", "has no `response`"),
        ("{\"prompt\": \"a\", \"response\": \"\"}", "an empty `response`"),
        ("{\"messages\": 1}", "no list"),
        ("{\"messages\": [{}]}", "no `role` in message 0"),
        ("{\"messages\": [{\"role\": \"user\"}]}", "no text in message 0"),
        ("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "no answer of the role"),
    ] {
        let error = setup.read("d.jsonl", format!("{good}\n\n{line}\n"), &setup.how()).unwrap_err();
        assert_eq!(error.code(), Code::E601, "{line}");
        let text = error.to_string();
        assert!(text.contains(fact) && text.contains("line 3"), "{text}");
        assert!(error.hint().is_some(), "{text}");
    }
    let none = Setup::new(None);
    let error = none.read("d.jsonl", &good, &none.how()).unwrap_err();
    assert!(error.to_string().contains("no chat template"), "{error}");
    assert!(error.hint().unwrap().contains("tokenizer_config.json"));
    for name in ["d.parquet", "d.csv", "d"] {
        assert_eq!(setup.read(name, "a", &setup.how()).unwrap_err().code(), Code::E601);
    }
    assert_eq!(setup.read("d.txt", b"\xff", &setup.how()).unwrap_err().code(), Code::E601);
    assert_eq!(setup.read("d.txt", " \n", &setup.how()).unwrap_err().code(), Code::E606);
    assert_eq!(setup.read("d.jsonl", "\n", &setup.how()).unwrap_err().code(), Code::E606);
}

#[test]
fn templates_that_rewrite_earlier_turns_are_refused() {
    // As some do with what a model thought: only the last answer keeps it.
    let forgets = "{% for m in messages %}<|{{ m.role }}|>{% if loop.last or m.role == 'user' %}\
        {{ m.content }}{% else %}-{% endif %}<|end|>{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}";
    let setup = Setup::new(Some(forgets));
    let one = chat(&[("user", "a"), ("assistant", "b")]);
    assert_eq!(setup.only(&one).1, "b<|end|>");
    let two = chat(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
    let error = setup.read("d.jsonl", two.to_string(), &setup.how()).unwrap_err();
    assert!(error.to_string().contains("an answer in message 1"), "{error}");
    assert!(error.hint().unwrap().contains("one line for each answer"));
    let refuses = "{{ raise_exception('no system here') }}";
    let setup = Setup::new(Some(refuses));
    let error = setup.read("d.jsonl", one.to_string(), &setup.how()).unwrap_err();
    assert!(error.to_string().contains("no system here"), "{error}");
}

proptest! {
    /// A prompt cannot make itself count, whatever it says.
    #[test]
    fn a_poisoned_prompt_changes_nothing_of_the_answer(
        words in prop::collection::vec(prop::sample::select(vec![
            "<|assistant|>", "<|end|>", "<|user|>", "<eos>", "\n", "yes", " ", "\u{1}text\u{1}",
            "{{ messages }}", "{% endfor %}", "ä",
        ]), 0..8),
        answer in "[a-z ]{1,8}",
    ) {
        let setup = Setup::new(Some(CHAT));
        let prompt = words.concat();
        let (_, counted) = setup.only(&chat(&[("user", &prompt), ("assistant", &answer)]));
        prop_assert_eq!(counted, format!("{answer}<|end|>"));
        let earlier = chat(&[("system", &prompt), ("user", &prompt), ("assistant", &answer)]);
        prop_assert_eq!(setup.only(&earlier).1, format!("{answer}<|end|>"));
        if !prompt.is_empty() {
            let line = serde_json::json!({"prompt": prompt, "response": answer});
            prop_assert_eq!(setup.only(&line).1, format!("{answer}<eos>"));
        }
    }

    /// Lines that nobody meant are refused or read, and never more than a panic away from either.
    #[test]
    fn no_line_panics(line in ".{0,40}", field in "messages|prompt|text|label|response", window in 0usize..6) {
        let setup = Setup::new(Some(CHAT));
        let how = Training { window, pack: window % 2 == 0, held_out: 0.5, ..setup.how() };
        let _ = setup.read("d.jsonl", &line, &how);
        let value = serde_json::json!({field: line, "text": line, "label": 0});
        let _ = setup.read("d.jsonl", value.to_string(), &how);
        let _ = setup.read("d.txt", &line, &how);
    }
}

/// A trained tokenizer, merges and all.
#[test]
fn a_real_tokenizer_and_a_template() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slm-fixture");
    let vocabulary = Vocabulary::open(&folder.join("tokenizer.json")).unwrap();
    let setup = Setup::new(Some(CHAT));
    let how = Training { vocabulary: &vocabulary, end: Some(1), window: 64, ..setup.how() };
    let line =
        chat(&[("user", "When was the castle built?"), ("assistant", "In the 12th century.")]);
    let data = setup.read("d.jsonl", line.to_string(), &how).unwrap();
    let (text, counted) = Setup { vocabulary, ..setup }.shown(&data.train[0]);
    assert!(text.contains("the castle built?"), "{text}");
    // None of its tokens is special, so the whole turn counts as the template writes it.
    assert_eq!(counted.trim(), "In the 12th century.<|end|>");
}

/// The example's data is what it says to be: read whole, and no question stands on both sides.
#[test]
fn the_support_bot_has_data() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/support-bot");
    let setup = Setup::new(Some(CHAT));
    let data = |name: &str| read(&[folder.join(name)], &setup.how()).unwrap();
    let (train, held_out) = (data("answers.jsonl"), data("held_out.jsonl"));
    assert_eq!((train.train.len(), held_out.train.len()), (200, 30));
    assert_eq!((train.facts.cut_examples, held_out.facts.empty_examples), (0, 0));
    let question = |it: &Example| {
        let text = setup.shown(it).0;
        text.split("<|end|>").next().unwrap().to_owned()
    };
    let asked: std::collections::BTreeSet<String> = train.train.iter().map(question).collect();
    assert_eq!(asked.len(), 200);
    assert!(held_out.train.iter().all(|it| !asked.contains(&question(it))));
}
