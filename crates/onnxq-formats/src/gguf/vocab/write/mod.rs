//! The files of a tokenizer of Hugging Face as keys of a GGUF file, as llama.cpp's converter writes them.

mod files;
mod merging;
mod pieces;
mod protobuf;
mod sentencepiece;
#[cfg(test)]
mod tests;
mod words;

use std::{collections::HashSet, path::Path};

use onnxq_ir::untrusted::Untrusted;
use serde_json::Value as Json;

pub use self::files::Files;
use self::{sentencepiece::Model, words::Word};
use super::{
    ADD_BOS, ADD_EOS, ENDS, MERGES, MODEL, PRE, SPACE_PREFIX, SPECIAL, TEMPLATE, TOKENS, TYPES,
    pre::Pre,
};
use crate::{
    CheckpointError,
    gguf::{Array, Value},
};

const TOKENIZER_FILE: &str = "tokenizer.json";
const MODEL_FILE: &str = "tokenizer.model";
const CONFIG_FILE: &str = "tokenizer_config.json";
/// A space in a merge, whose two parts are joined by one: the letter that stands for its byte.
const BYTE_OF_SPACE: &str = "\u{120}";

/// What a GGUF file says of a tokenizer.
#[derive(Debug, Default)]
pub struct Written {
    pub keys: Vec<(String, Value)>,
    /// What llama.cpp does otherwise with some texts.
    pub notes: Vec<String>,
}

/// The keys of the tokenizer in a folder, for a model with `vocab_size` tokens.
///
/// # Errors
/// E121 of files that contradict each other, E122 of a tokenizer that GGUF cannot describe, and what reading
/// says.
pub fn keys(folder: &Path, vocab_size: usize) -> Result<Written, CheckpointError> {
    Files::read(folder)?.keys(vocab_size)
}

impl Files {
    /// The keys of the tokenizer, for a model with `vocab_size` tokens. Where both files of a tokenizer are
    /// there, `tokenizer.json` says what it does: it is what is read elsewhere.
    ///
    /// # Errors
    /// E121 of files that contradict each other, E122 of a tokenizer that GGUF cannot describe.
    pub fn keys(&self, vocab_size: usize) -> Result<Written, CheckpointError> {
        let mut out = Written::default();
        match &self.tokenizer {
            Some(tokenizer) => self.of_tokenizer(tokenizer, vocab_size, &mut out)?,
            None => self.of_pieces(vocab_size, &mut out)?,
        }
        if let Some(text) = self.template() {
            out.set(TEMPLATE, text);
        }
        Ok(out)
    }

    fn of_tokenizer(
        &self,
        tokenizer: &Json,
        size: usize,
        out: &mut Written,
    ) -> Result<(), CheckpointError> {
        let model = &tokenizer["model"];
        if model["type"] != "BPE" {
            let problem = format!("is {}, and not BPE", short(&model["type"]));
            return Err(unsayable(TOKENIZER_FILE, "model.type", problem));
        }
        for field in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
            if !matches!(&model[field], Json::Null) && model[field] != "" && model[field] != 0.0 {
                let problem = format!("is {}", short(&model[field]));
                return Err(unsayable(TOKENIZER_FILE, &format!("model.{field}"), problem));
            }
        }
        let around = around(&tokenizer["post_processor"])?;
        let words = match model["byte_fallback"].as_bool().unwrap_or(false) {
            true => pieces::of_tokenizer(self, tokenizer, size, out)?,
            false => self.bytes(tokenizer, size, out)?,
        };
        self.special(&words, None, out);
        let unknown = words.iter().position(|word| model["unk_token"] == *word.text);
        if let Some(id) = unknown.and_then(|id| u32::try_from(id).ok()) {
            out.or(SPECIAL[3].1, id);
        }
        for (token, (key, flag)) in
            around.into_iter().zip([(SPECIAL[0].1, ADD_BOS), (SPECIAL[1].1, ADD_EOS)])
        {
            out.stands(token, &words, key, flag)?;
        }
        out.notes.extend(strips(tokenizer["added_tokens"].as_array().into_iter().flatten()));
        Ok(())
    }

    /// Merges of bytes.
    fn bytes(
        &self,
        tokenizer: &Json,
        size: usize,
        out: &mut Written,
    ) -> Result<Vec<Word>, CheckpointError> {
        let problem = || format!("is {}", short(&tokenizer["pre_tokenizer"]));
        let pre = Pre::of(tokenizer)
            .ok_or_else(|| unsayable(TOKENIZER_FILE, "pre_tokenizer", problem()))?;
        let words = words::of_tokenizer(tokenizer, size)?;
        if pre.whole != tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false) {
            pieces::all_made(&tokenizer["model"], &words)?;
        }
        let merges = byte_merges(&tokenizer["model"], &words)?;
        out.set(MODEL, "gpt2");
        out.set(PRE, pre.names[0]);
        out.tokens(&words);
        out.set(MERGES, Array::of_texts(merges));
        if let Some(prefix) = self.config["add_prefix_space"].as_bool() {
            out.set(SPACE_PREFIX, prefix);
        }
        Ok(words)
    }

    fn of_pieces(&self, size: usize, out: &mut Written) -> Result<(), CheckpointError> {
        let model = Model::read(self.sentencepiece.as_deref().unwrap_or_default())?;
        let words = pieces::of_model(self, &model, size, out)?;
        self.special(&words, Some(&model), out);
        for (field, key) in [("add_bos_token", ADD_BOS), ("add_eos_token", ADD_EOS)] {
            if let Some(flag) = self.config[field].as_bool() {
                out.set(key, flag);
            }
        }
        let added = self.config["added_tokens_decoder"].as_object();
        out.notes.extend(strips(added.into_iter().flat_map(|all| all.values())));
        Ok(())
    }

    /// Tokens with a meaning: as the tokenizer's configuration names them, or else as those of the model
    /// number them, or SentencePiece.
    fn special(&self, words: &[Word], model: Option<&Model>, out: &mut Written) {
        let mut end = None;
        for (field, key) in SPECIAL {
            let token = &self.config[*field];
            let token = token.as_str().or(token["content"].as_str());
            let named = token.and_then(|text| words.iter().position(|word| word.text == text));
            let ids = self.numbers(&format!("{field}_id"), words.len());
            let id = named.and_then(|id| u32::try_from(id).ok()).or(ids.first().copied());
            let Some(id) = id.or_else(|| model?.token(field)) else { continue };
            out.set(key, id);
            if *key == ENDS[0] {
                end = ids.into_iter().find(|other| *other != id);
            }
        }
        if let Some(id) = end {
            out.set(ENDS[1], id);
        }
    }
}

impl Written {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.push((key.to_owned(), value.into()));
    }

    /// The number of a token, if the key has none; whether it is that then.
    fn or(&mut self, key: &str, id: u32) -> bool {
        match self.keys.iter().find(|known| known.0 == key) {
            Some((_, known)) => *known == Value::U32(id),
            None => {
                self.set(key, id);
                true
            }
        }
    }

    /// A token that stands before or after every text, which the key of a token with a meaning must name.
    fn stands(
        &mut self,
        token: Option<&str>,
        words: &[Word],
        key: &str,
        flag: &str,
    ) -> Result<(), CheckpointError> {
        if let Some(text) = token {
            let id = words.iter().position(|word| word.text == text);
            let id = id.and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| {
                let problem = format!("puts `{}` around texts, which is no token", Untrusted(text));
                wrong("post_processor", problem)
            })?;
            if !self.or(key, id) {
                let text = Untrusted(text);
                let problem =
                    format!("puts `{text}` around texts, which is another token than {key}");
                return Err(unsayable(TOKENIZER_FILE, "post_processor", problem));
            }
        }
        // llama.cpp begins texts of some tokenizers by default, and ends none.
        if token.is_some() || flag == ADD_BOS {
            self.set(flag, token.is_some());
        }
        Ok(())
    }

    fn tokens(&mut self, words: &[Word]) {
        self.set(TOKENS, Array::of_texts(words.iter().map(|word| &word.text)));
        self.set(TYPES, words.iter().map(|word| word.kind as i32).collect::<Array>());
    }
}

fn wrong(field: &str, problem: impl Into<String>) -> CheckpointError {
    wrong_in(TOKENIZER_FILE, field, problem)
}

fn wrong_in(file: &str, field: &str, problem: impl Into<String>) -> CheckpointError {
    CheckpointError::Field { file: file.into(), field: field.into(), problem: problem.into() }
}

/// What GGUF has no key for.
fn unsayable(file: &str, field: &str, problem: impl Into<String>) -> CheckpointError {
    CheckpointError::Unsayable { file: file.into(), field: field.into(), problem: problem.into() }
}

/// A value for a message.
fn short(value: &Json) -> String {
    format!("`{}`", Untrusted(&value.to_string()))
}

/// `a b` of each merge.
fn byte_merges(model: &Json, words: &[Word]) -> Result<Vec<String>, CheckpointError> {
    let texts: HashSet<&str> = words.iter().map(|word| &*word.text).collect();
    let joined = |(left, right): (&str, &str)| {
        let [left, right] = [left, right].map(|part| part.replace(' ', BYTE_OF_SPACE));
        let whole = format!("{left}{right}");
        let is_known = [&left, &right, &whole].iter().all(|part| texts.contains(&***part));
        let problem = || {
            let (left, right) = (Untrusted(&left), Untrusted(&right));
            format!("has `{left}` and `{right}`, which are no tokens, or not together")
        };
        is_known.then(|| format!("{left} {right}")).ok_or_else(|| wrong("model.merges", problem()))
    };
    merges(model)?.into_iter().map(joined).collect()
}

/// Pairs of tokens, whether the file has them as `a b` or apart.
fn merges(model: &Json) -> Result<Vec<(&str, &str)>, CheckpointError> {
    let list = model["merges"].as_array();
    let list = list.ok_or_else(|| wrong("model.merges", "must be a list"))?;
    let merges = list.iter().map(merge).collect::<Option<Vec<(&str, &str)>>>();
    merges.ok_or_else(|| wrong("model.merges", "must be pairs of tokens"))
}

fn merge(pair: &Json) -> Option<(&str, &str)> {
    match (pair.as_str(), pair.as_array().map(Vec::as_slice)) {
        (Some(text), _) => text.split_once(' '),
        (_, Some([left, right])) => Some((left.as_str()?, right.as_str()?)),
        _ => None,
    }
}

/// The tokens before and after every text.
///
/// # Errors
/// E122 of several, or of other places.
fn around<'a>(processor: &'a Json) -> Result<[Option<&'a str>; 2], CheckpointError> {
    let steps = match processor["processors"].as_array() {
        Some(steps) if processor["type"] == "Sequence" => steps,
        _ => std::slice::from_ref(processor),
    };
    let mut found = [None, None];
    // The byte level changes offsets only.
    for step in steps.iter().filter(|step| !step.is_null() && step["type"] != "ByteLevel") {
        let single = step["single"].as_array().filter(|_| step["type"] == "TemplateProcessing");
        let token = |part: &'a Json| part["SpecialToken"]["id"].as_str();
        let parts: Option<Vec<Option<&str>>> = single.map(|it| it.iter().map(token).collect());
        found = match parts.as_deref() {
            Some([None]) => [None, None],
            Some([before @ Some(_), None]) => [*before, None],
            Some([None, after @ Some(_)]) => [None, *after],
            Some([before @ Some(_), None, after @ Some(_)]) => [*before, *after],
            _ => {
                let problem = format!("has {}", short(step));
                return Err(unsayable(TOKENIZER_FILE, "post_processor", problem));
            }
        };
    }
    Ok(found)
}

/// A remark on tokens that take the spaces beside them, or are found as words of their own only.
fn strips<'a>(added: impl Iterator<Item = &'a Json>) -> Option<String> {
    let flags = ["lstrip", "rstrip", "single_word"];
    let differs = |token: &&Json| flags.iter().any(|flag| token[*flag] == true);
    let tokens: Vec<&Json> = added.filter(differs).collect();
    let first = short(&tokens.first()?["content"]);
    let count = tokens.len();
    Some(format!(
        "GGUF cannot say of {count} tokens such as {first} that they take the spaces beside them, or are words of \
         their own: where there are such spaces, llama.cpp makes tokens of them"
    ))
}
