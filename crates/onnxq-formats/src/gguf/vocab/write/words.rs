//! The tokens of a vocabulary by their numbers, and what kind each is.

use std::collections::{BTreeMap, HashMap};

use onnxq_ir::untrusted::Untrusted;
use serde_json::Value as Json;

use super::{
    super::{Kind, SPACE},
    CONFIG_FILE, Files, MODEL_FILE, TOKENIZER_FILE, sentencepiece, short, wrong, wrong_in,
};
use crate::CheckpointError;

/// A token of a file.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) kind: Kind,
    /// Whether it was added to those of the model, and is found in texts before these.
    pub(super) added: bool,
}

/// Tokens by their numbers, and how many there are at most.
pub(super) struct Words {
    found: BTreeMap<usize, Word>,
    size: usize,
}

/// Every number that a model of so many tokens has. Those without a token are unused.
///
/// # Errors
/// E121 of numbers that the model does not have, and of tokens that have two.
pub(super) fn of_tokenizer(tokenizer: &Json, size: usize) -> Result<Vec<Word>, CheckpointError> {
    let model = &tokenizer["model"];
    let vocab = model["vocab"].as_object();
    let vocab = vocab.ok_or_else(|| wrong("model.vocab", "must be an object"))?;
    let has_bytes = model["byte_fallback"].as_bool().unwrap_or(false);
    let mut words = Words { found: BTreeMap::new(), size };
    for (text, id) in vocab {
        let kind = match byte(text) {
            Some(_) if has_bytes => Kind::Byte,
            _ => Kind::Normal,
        };
        let id = words.place(TOKENIZER_FILE, "model.vocab", id)?;
        let word = Word { text: text.clone(), kind, added: false };
        if let Some(before) = words.found.insert(id, word) {
            let problem =
                format!("has `{}` and `{}` as {id}", Untrusted(text), Untrusted(&before.text));
            return Err(wrong("model.vocab", problem));
        }
    }
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let id = words.place(TOKENIZER_FILE, "added_tokens", &token["id"])?;
        match words.found.get(&id).filter(|it| token["content"] != *it.text) {
            None => words.add(id, token)?,
            Some(before) => {
                let problem = format!(
                    "has {} as {id}, which is `{}`",
                    short(&token["content"]),
                    Untrusted(&before.text)
                );
                return Err(wrong("added_tokens", problem));
            }
        }
    }
    // One that was not added is no other than those that are merged.
    let is_unknown = |word: &&mut Word| {
        has_bytes && word.kind == Kind::Control && model["unk_token"] == *word.text
    };
    words.found.values_mut().filter(is_unknown).for_each(|word| word.kind = Kind::Unknown);
    words.all(TOKENIZER_FILE)
}

/// The same of a folder without `tokenizer.json`.
pub(super) fn of_pieces(
    model: &sentencepiece::Model,
    files: &Files,
    size: usize,
) -> Result<Vec<Word>, CheckpointError> {
    let mut words = Words { found: BTreeMap::new(), size };
    for (id, piece) in model.pieces.iter().enumerate() {
        let id = words.place(MODEL_FILE, "pieces", &id.into())?;
        let kind = piece.kind;
        let text = match kind {
            Kind::UserDefined => piece.text.replace(SPACE, " "),
            _ => piece.text.clone(),
        };
        words.found.insert(id, Word { text, kind, added: kind == Kind::UserDefined });
    }
    for (text, id) in files.added.as_object().into_iter().flatten() {
        let id = words.place("added_tokens.json", text, id)?;
        words.add(id, &serde_json::json!({"content": text}))?;
    }
    for (id, token) in files.config["added_tokens_decoder"].as_object().into_iter().flatten() {
        let id = id.parse::<u64>().map_or(Json::Null, Json::from);
        let id = words.place(CONFIG_FILE, "added_tokens_decoder", &id)?;
        words.add(id, token)?;
    }
    words.all(MODEL_FILE)
}

impl Words {
    fn place(&self, file: &str, field: &str, id: &Json) -> Result<usize, CheckpointError> {
        let fits = id.as_u64().and_then(|it| usize::try_from(it).ok());
        let fits = fits.filter(|it| *it < self.size);
        let problem = || format!("has token {}, but the model has {}", short(id), self.size);
        fits.ok_or_else(|| wrong_in(file, field, problem()))
    }

    /// A token that is found in texts as it is written.
    fn add(&mut self, id: usize, token: &Json) -> Result<(), CheckpointError> {
        let text = token["content"].as_str().filter(|it| !it.is_empty());
        let text = text.ok_or_else(|| wrong("added_tokens", format!("has no text for {id}")))?;
        let before = self.found.get(&id).filter(|it| it.text == text).map(|it| it.kind);
        let steers = token["special"].as_bool().unwrap_or(false) || looks_special(text);
        let (text, kind) = match before {
            Some(kind @ (Kind::Unknown | Kind::Control | Kind::Byte)) => (text.to_owned(), kind),
            _ if steers => (text.to_owned(), Kind::Control),
            _ => (text.replace(SPACE, " "), Kind::UserDefined),
        };
        self.found.insert(id, Word { text, kind, added: true });
        Ok(())
    }

    fn all(mut self, file: &str) -> Result<Vec<Word>, CheckpointError> {
        let unused =
            |id: usize| Word { text: format!("[PAD{id}]"), kind: Kind::Unused, added: false };
        let words: Vec<Word> =
            (0..self.size).map(|id| self.found.remove(&id).unwrap_or_else(|| unused(id))).collect();
        let mut ids = HashMap::new();
        for (id, word) in words.iter().enumerate() {
            if let Some(before) = ids.insert(&word.text, id) {
                let problem = format!("are the same as {before} and as {id}");
                return Err(wrong_in(file, "tokens", problem));
            }
        }
        Ok(words)
    }
}

/// Tokens that steer, but are not always marked so.
fn looks_special(token: &str) -> bool {
    let within = |open: &str, close: &str| token.starts_with(open) && token.ends_with(close);
    within("<|", "|>")
        || within("<\u{ff5c}", "\u{ff5c}>")
        || within("<unused", ">")
        || ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&token)
}

/// The byte that a token such as `<0x0A>` stands for.
pub(super) fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_digit = |it: u8| it.is_ascii_digit() || (b'A'..=b'F').contains(&it);
    let digits = Some(digits).filter(|it| it.len() == 2 && it.bytes().all(is_digit));
    u8::from_str_radix(digits?, 16).ok()
}
