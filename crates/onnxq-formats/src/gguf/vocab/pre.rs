//! How a tokenizer cuts texts before it merges: what the names in `tokenizer.ggml.pre` mean.
//!
//! GGUF has the name only. The expressions are those of the `tokenizer.json` that each name comes from;
//! llama.cpp writes some of them in another way, because its engine knows no `(?i:)`.

use serde_json::{Value as Json, json};

/// Names that mean the same, and what they mean.
pub(super) struct Pre {
    /// The first is the one that is written.
    pub names: &'static [&'static str],
    /// One after another, each on the pieces of those before it.
    pub steps: &'static [Step],
    /// Whether texts are composed first (NFC), which llama.cpp leaves to the caller.
    pub composed: bool,
    /// Whether a piece that is a token is taken whole, whatever the merges say.
    pub whole: bool,
    /// Whether a text begins with the token for that, if the file does not say.
    pub begins: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Each digit is a piece of its own.
    Digits,
    /// The expression of GPT-2, which has no name but is what the byte level does.
    Gpt2,
    /// Matches are pieces, and so is what lies between them.
    Split(&'static str),
}

const TIKTOKEN_1: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TIKTOKEN_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const PLAIN: Pre = Pre { names: &[], steps: &[], composed: false, whole: false, begins: false };

/// In alphabetical order of the first name.
pub(super) const PRES: &[Pre] = &[
    Pre { names: &["command-r"], steps: &[Step::Digits, Step::Gpt2], composed: true, ..PLAIN },
    Pre { names: &["dbrx", "smaug-bpe"], steps: &[Step::Split(TIKTOKEN_3)], ..PLAIN },
    Pre {
        names: &["gpt-2", "exaone4", "jais", "mpt", "olmo", "phi-2"],
        steps: &[Step::Gpt2],
        ..PLAIN
    },
    Pre {
        names: &["llama-bpe", "llama-v3", "llama3"],
        steps: &[Step::Split(TIKTOKEN_3)],
        whole: true,
        begins: true,
        ..PLAIN
    },
    Pre { names: &["qwen2"], steps: &[Step::Split(TIKTOKEN_1)], composed: true, ..PLAIN },
    Pre {
        names: &["smollm", "codeshell", "refact", "starcoder"],
        steps: &[Step::Digits, Step::Gpt2],
        ..PLAIN
    },
    Pre { names: &["stablelm2"], steps: &[Step::Split(TIKTOKEN_1)], ..PLAIN },
];

/// Names that are known, for messages.
pub(super) fn known() -> String {
    let mut names: Vec<&str> = PRES.iter().flat_map(|it| it.names).copied().collect();
    names.sort_unstable();
    names.join(", ")
}

impl Pre {
    pub(super) fn named(name: &str) -> Option<&'static Pre> {
        PRES.iter().find(|it| it.names.contains(&name))
    }

    /// The one that a `tokenizer.json` means.
    pub(super) fn of(tokenizer: &Json) -> Option<&'static Pre> {
        let (normalizer, pre) = (&tokenizer["normalizer"], &tokenizer["pre_tokenizer"]);
        let whole = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
        let found = steps(pre)?;
        let same = |it: &&Pre| it.json_steps() == found && it.normalizer() == *normalizer;
        let mut matching = PRES.iter().filter(same);
        matching.find(|it| it.whole == whole)
    }

    pub(super) fn normalizer(&self) -> Json {
        if self.composed { json!({"type": "NFC"}) } else { Json::Null }
    }

    pub(super) fn pre_tokenizer(&self) -> Json {
        match self.steps {
            [Step::Gpt2] => byte_level(true),
            [.., Step::Gpt2] => sequence(self.json_steps()),
            _ => {
                let mut steps = self.json_steps();
                steps.push(byte_level(false));
                sequence(steps)
            }
        }
    }

    fn json_steps(&self) -> Vec<Json> {
        self.steps.iter().map(|it| it.json()).collect()
    }
}

impl Step {
    fn json(self) -> Json {
        match self {
            Step::Digits => json!({"type": "Digits", "individual_digits": true}),
            Step::Gpt2 => byte_level(true),
            Step::Split(regex) => json!({
                "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
            }),
        }
    }
}

pub(super) fn byte_level(splits: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits})
}

fn sequence(steps: Vec<Json>) -> Json {
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// The steps of a pre-tokenizer as [`Step::json`] writes them; `None` if it does not end in bytes.
fn steps(pre: &Json) -> Option<Vec<Json>> {
    let list = match pre["pretokenizers"].as_array() {
        Some(list) if pre["type"] == "Sequence" => list.clone(),
        Some(_) => return None,
        None => vec![pre.clone()],
    };
    let mut steps: Vec<Json> = list.into_iter().map(plain).collect();
    match steps.last()? {
        last if *last == byte_level(true) => {}
        last if *last == byte_level(false) => drop(steps.pop()),
        _ => return None,
    }
    Some(steps)
}

/// A step without what changes no pieces: where offsets of bytes begin.
fn plain(mut step: Json) -> Json {
    if step["type"] == "ByteLevel" {
        step["trim_offsets"] = true.into();
        if step["use_regex"].is_null() {
            step["use_regex"] = true.into();
        }
    }
    step
}
