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
    /// Digits are apart from what is none; each is a piece of its own if this is true.
    Digits(bool),
    /// The expression of GPT-2, which has no name but is what the byte level does.
    Gpt2,
    /// Marks in a row are a piece.
    Punctuation,
    /// Matches are pieces, and so is what lies between them.
    Split(&'static str),
}

const BLOOM: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";
/// Chinese and Korean, as DeepSeek has them.
const DEEPSEEK_HAN: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
/// Letters of scripts with two cases.
const DEEPSEEK_LETTERS: &str = "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\
    \u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\
    \u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\
    \u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\
    \u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\
    \u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\
    \u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\
    \u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\
    \u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\
    \u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\
    \u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\
    \u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\
    \u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\
    \u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\
    \u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+";
const DEEPSEEK_MARKS: &str =
    "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+";
const DEEPSEEK_3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const DEEPSEEK_3_HAN: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TIKTOKEN_1: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TIKTOKEN_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Expressions that leave nothing between their matches, so that to keep matches only is the same.
const COVERING: [&str; 6] = [GPT_4O, QWEN_35, SEED_CODER, TEKKEN, TIKTOKEN_1, TIKTOKEN_3];

const PLAIN: Pre = Pre { names: &[], steps: &[], composed: false, whole: false, begins: false };

/// In alphabetical order of the first name.
pub(super) const PRES: &[Pre] = &[
    Pre { names: &["bloom", "gpt3-finnish", "poro-chat"], steps: &[Step::Split(BLOOM)], ..PLAIN },
    Pre {
        names: &["command-r"],
        steps: &[Step::Digits(true), Step::Gpt2],
        composed: true,
        ..PLAIN
    },
    Pre {
        names: &["dbrx", "chatglm-bpe", "glm4", "smaug-bpe"],
        steps: &[Step::Split(TIKTOKEN_3)],
        ..PLAIN
    },
    Pre {
        names: &["deepseek-coder"],
        steps: &[
            Step::Split(r"[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split(DEEPSEEK_HAN),
            Step::Digits(true),
        ],
        ..PLAIN
    },
    Pre {
        names: &["deepseek-llm"],
        steps: &[
            Step::Split(r"[\r\n]"),
            Step::Split(DEEPSEEK_LETTERS),
            Step::Split(DEEPSEEK_MARKS),
            Step::Split(r"\s+$"),
            Step::Split(DEEPSEEK_HAN),
            Step::Digits(true),
        ],
        ..PLAIN
    },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        steps: &[Step::Split(r"\p{N}{1,3}"), Step::Split(DEEPSEEK_3_HAN), Step::Split(DEEPSEEK_3)],
        ..PLAIN
    },
    Pre {
        names: &["falcon"],
        steps: &[
            Step::Punctuation,
            Step::Gpt2,
            Step::Digits(false),
            Step::Split("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
    Pre {
        names: &[
            "gpt-2",
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "mellum",
            "mpt",
            "olmo",
            "phi-2",
            "trillion",
        ],
        steps: &[Step::Gpt2],
        ..PLAIN
    },
    Pre {
        names: &["gpt-4o", "kanana2", "llama4", "minimax-m2"],
        steps: &[Step::Split(GPT_4O)],
        ..PLAIN
    },
    Pre {
        names: &[
            "llama-bpe",
            "falcon-h1",
            "falcon3",
            "lfm2",
            "llama-v3",
            "llama3",
            "midm-2.0",
            "pixtral",
        ],
        steps: &[Step::Split(TIKTOKEN_3)],
        whole: true,
        begins: true,
        ..PLAIN
    },
    Pre { names: &["qwen2"], steps: &[Step::Split(TIKTOKEN_1)], composed: true, ..PLAIN },
    Pre { names: &["qwen35"], steps: &[Step::Split(QWEN_35)], composed: true, ..PLAIN },
    Pre { names: &["seed-coder"], steps: &[Step::Split(SEED_CODER)], ..PLAIN },
    Pre {
        names: &["smollm", "codeshell", "exaone", "mellum2", "minerva-7b", "refact", "starcoder"],
        steps: &[Step::Digits(true), Step::Gpt2],
        ..PLAIN
    },
    Pre {
        names: &[
            "stablelm2",
            "deepseek-r1-qwen",
            "f2llmv2",
            "grok-2",
            "hunyuan",
            "kormo",
            "megrez",
            "solar-open",
        ],
        steps: &[Step::Split(TIKTOKEN_1)],
        ..PLAIN
    },
    Pre { names: &["tekken"], steps: &[Step::Split(TEKKEN)], whole: true, begins: true, ..PLAIN },
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

    /// The one that a `tokenizer.json` means. If none takes tokens whole as it does, another that cuts alike.
    pub(super) fn of(tokenizer: &Json) -> Option<&'static Pre> {
        let whole = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
        let (found, normalizer) =
            (steps(&tokenizer["pre_tokenizer"])?, only(&tokenizer["normalizer"]));
        let same = |it: &&Pre| it.json_steps() == found && it.normalizer() == normalizer;
        let matching = || PRES.iter().filter(same);
        matching().find(|it| it.whole == whole).or_else(|| matching().next())
    }

    pub(super) fn normalizer(&self) -> Json {
        if self.composed { json!({"type": "NFC"}) } else { Json::Null }
    }

    pub(super) fn pre_tokenizer(&self) -> Json {
        let mut steps = self.json_steps();
        if !self.steps.iter().any(|it| matches!(it, Step::Gpt2)) {
            steps.push(byte_level(false));
        }
        match &mut steps[..] {
            [only] => only.take(),
            _ => json!({"type": "Sequence", "pretokenizers": steps}),
        }
    }

    fn json_steps(&self) -> Vec<Json> {
        self.steps.iter().map(|it| it.json()).collect()
    }
}

impl Step {
    fn json(self) -> Json {
        match self {
            Step::Digits(each) => json!({"type": "Digits", "individual_digits": each}),
            Step::Gpt2 => byte_level(true),
            Step::Punctuation => json!({"type": "Punctuation", "behavior": "Contiguous"}),
            Step::Split(regex) => json!({
                "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
            }),
        }
    }
}

pub(super) fn byte_level(splits: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits})
}

/// A normalizer that is none, or the only one of a list, as it is by itself.
fn only(normalizer: &Json) -> Json {
    match normalizer["normalizers"].as_array().map(Vec::as_slice) {
        Some([]) => Json::Null,
        Some([only]) => only.clone(),
        _ => normalizer.clone(),
    }
}

/// The steps of a pre-tokenizer as [`Step::json`] writes them; `None` if none of them makes bytes.
fn steps(pre: &Json) -> Option<Vec<Json>> {
    let list = match pre["pretokenizers"].as_array() {
        Some(list) if pre["type"] == "Sequence" => list.clone(),
        Some(_) => return None,
        None => vec![pre.clone()],
    };
    let mut steps: Vec<Json> = list.into_iter().map(plain).collect();
    if steps.contains(&byte_level(true)) {
        return Some(steps);
    }
    (steps.pop()? == byte_level(false)).then_some(steps)
}

/// A step without what changes no pieces: where offsets of bytes begin, and how an expression is written.
fn plain(mut step: Json) -> Json {
    if step["type"] == "ByteLevel" {
        step["trim_offsets"] = true.into();
        if step["use_regex"].is_null() {
            step["use_regex"] = true.into();
        }
    }
    if let Some(regex) = step["pattern"]["Regex"].as_str() {
        let regex = regex.replace('\r', r"\r").replace('\n', r"\n");
        if COVERING.contains(&&*regex) && step["behavior"] == "Removed" && step["invert"] == true {
            step["behavior"] = "Isolated".into();
            step["invert"] = false.into();
        }
        step["pattern"]["Regex"] = regex.into();
    }
    step
}
