//! A tokenizer in both directions: texts as numbers of tokens, and numbers as text again.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::{
    DataError,
    text_data::{load, pieces, surrounding},
};

/// The tokens of a text, and where they lie in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    /// Bytes of the text; empty for tokens that stand for none.
    pub places: Vec<(usize, usize)>,
    /// The number of the word that a token is of; `None` for special tokens.
    pub words: Vec<Option<u32>>,
}

/// A tokenizer file that was read.
pub struct Vocabulary {
    file: PathBuf,
    model: Tokenizer,
    /// A token that stands for plain text, before which others are decoded as in the middle of one.
    anchor: Option<(u32, String)>,
}

impl Vocabulary {
    pub fn open(file: &Path) -> Result<Vocabulary, DataError> {
        let model = load(file)?;
        let anchor = model.encode_fast("a", false).ok().and_then(|it| it.get_ids().last().copied());
        let anchor = anchor.and_then(|id| Some((id, model.decode(&[id], false).ok()?)));
        Ok(Vocabulary { file: file.to_owned(), model, anchor })
    }

    /// The file that it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Numbers of tokens; `special` ones stand around the text if the tokenizer wants them.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, DataError> {
        let mut parts = pieces(text);
        let first = parts.next().unwrap_or_default();
        let Some(second) = parts.next() else { return self.whole(first, special) };
        let (before, after) = match special {
            true => self.around()?,
            false => Default::default(),
        };
        let mut ids = before;
        for part in [first, second].into_iter().chain(parts) {
            ids.extend(self.whole(part, false)?);
        }
        ids.extend(after);
        Ok(ids)
    }

    /// The special tokens that the tokenizer puts before and after a text.
    pub fn around(&self) -> Result<(Vec<u32>, Vec<u32>), DataError> {
        Ok(surrounding(self.whole("a", false)?, self.whole("a", true)?))
    }

    /// The beginning of a longer text: special tokens stand before it only.
    pub fn begin(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let (mut ids, _) = self.around()?;
        ids.extend(self.encode(text, false)?);
        Ok(ids)
    }

    fn whole(&self, text: &str, special: bool) -> Result<Vec<u32>, DataError> {
        let encoding = self.model.encode_fast(text, special).map_err(|it| self.failed(&it))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a text and where they lie, with the special ones around it.
    pub fn places(&self, text: &str) -> Result<Encoded, DataError> {
        let encoding = self.model.encode(text, true).map_err(|it| self.failed(&it))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            places: encoding.get_offsets().to_vec(),
            words: encoding.get_word_ids().to_vec(),
        })
    }

    /// The text of tokens, without the special ones; unknown numbers have none.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.model.decode(ids, true).unwrap_or_default()
    }

    /// The text of tokens, special ones too. `None` if an id is none of the tokenizer's.
    pub fn text(&self, ids: &[i64]) -> Option<String> {
        let ids: Vec<u32> = ids.iter().map(|it| u32::try_from(*it).ok()).collect::<Option<_>>()?;
        let known = ids.iter().all(|it| self.model.id_to_token(*it).is_some());
        known.then(|| self.model.decode(&ids, false).ok())?
    }

    /// The text of one token in the middle of others.
    pub fn piece(&self, id: u32) -> String {
        let behind = self.anchor.as_ref().and_then(|(anchor, text)| {
            let both = self.model.decode(&[*anchor, id], false).ok()?;
            Some(both.strip_prefix(text.as_str())?.to_owned())
        });
        behind.or_else(|| self.model.decode(&[id], false).ok()).unwrap_or_default()
    }

    /// The number of a token by how it is written.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.model.token_to_id(token)
    }

    /// Whether a token steers and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.model.get_added_tokens_decoder();
        added.get(&id).is_some_and(|it| it.special)
    }

    /// Whether a token is one byte, which may be a part of a character.
    pub fn is_byte(&self, id: u32) -> bool {
        let token = self.model.id_to_token(id);
        token.is_some_and(|it| it.len() == 6 && it.starts_with("<0x") && it.ends_with('>'))
    }

    fn failed(&self, error: &tokenizers::Error) -> DataError {
        DataError::format(&self.file, format!("cannot encode the text: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["<end>", 3], "cls": ["<end>", 3]},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"?": 0, "a": 1, "bc": 2}, "unk_token": "?"}}"#;

    fn vocabulary() -> Vocabulary {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, PLAIN).unwrap();
        Vocabulary::open(&file).unwrap()
    }

    #[test]
    fn texts_become_numbers_and_numbers_text() {
        let words = vocabulary();
        assert_eq!(words.encode("a bc a", false).unwrap(), [1, 2, 1]);
        assert_eq!(words.encode("a bc", true).unwrap(), [3, 1, 2, 3]);
        let long = "a bc ".repeat(100_000);
        let ids = words.encode(&long, true).unwrap();
        assert_eq!((ids.len(), ids[0], ids[200_001]), (200_002, 3, 3));
        assert_eq!(words.decode(&[3, 1, 2, 3, 99]), "a bc");
        assert_eq!(words.text(&[1, 3]).as_deref(), Some("a <end>"));
        assert_eq!((words.text(&[-1]), words.text(&[99])), (None, None));
        assert_eq!((words.piece(2), words.piece(3)), (" bc".to_owned(), " <end>".to_owned()));
        assert_eq!((words.id("bc"), words.id("x")), (Some(2), None));
        assert!(words.is_special(3) && !words.is_special(1) && !words.is_byte(1));
    }

    #[test]
    fn places_are_bytes_of_the_text() {
        let found = vocabulary().places("ä bc").unwrap();
        assert_eq!(found.ids, [3, 0, 2, 3]);
        assert_eq!(found.places, [(0, 0), (0, 2), (3, 5), (0, 0)]);
        assert_eq!(found.words, [None, Some(0), Some(1), None]);
    }
}
