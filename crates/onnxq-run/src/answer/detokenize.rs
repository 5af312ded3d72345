//! Tokens become text while they come: whole characters only, and the same text as of all at once.

use crate::data::Vocabulary;

/// What stands for bytes that are no character yet, or never become one.
const INCOMPLETE: char = '\u{fffd}';

/// The text of tokens that come one by one.
pub(super) struct Detokenizer<'a> {
    vocabulary: &'a Vocabulary,
    ids: Vec<u32>,
    /// Where the tokens begin that the next text is decoded with: what a token is depends on whether
    /// others stand before it.
    window: usize,
    /// Tokens of whole characters, which others may be decoded behind.
    done: usize,
    /// Bytes of the text from there that are out.
    shown: usize,
    /// Bytes of text that are out.
    length: usize,
}

impl Detokenizer<'_> {
    pub(super) fn new(vocabulary: &Vocabulary) -> Detokenizer<'_> {
        Detokenizer { vocabulary, ids: Vec::new(), window: 0, done: 0, shown: 0, length: 0 }
    }

    /// Bytes of text that are out.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// One more token, and the text that is whole with it.
    pub(super) fn push(&mut self, id: u32) -> String {
        // As if it were not there: bytes before and after it may be one character.
        if self.vocabulary.is_special(id) {
            return String::new();
        }
        self.ids.push(id);
        // The next byte may make all before it invalid.
        if self.vocabulary.is_byte(id) {
            return String::new();
        }
        let all = self.vocabulary.decode(&self.ids[self.window..]);
        // Only the last one may still become a character.
        let whole = all.strip_suffix(INCOMPLETE);
        let text = whole.unwrap_or(&all).get(self.shown..).unwrap_or_default().to_owned();
        (self.shown, self.length) = (self.shown + text.len(), self.length + text.len());
        if whole.is_none() {
            self.advance();
        }
        text
    }

    /// All tokens so far are whole characters.
    fn advance(&mut self) {
        // Tokens without a text would not show the next one that it is not the first.
        if !self.vocabulary.decode(&self.ids[self.done..]).is_empty() {
            self.window = self.done;
            self.shown = self.vocabulary.decode(&self.ids[self.window..]).len();
        }
        self.done = self.ids.len();
    }

    /// What is left when no more tokens come.
    pub(super) fn finish(&mut self) -> String {
        let all = self.vocabulary.decode(&self.ids);
        // Not `length` bytes of anything: what is out stays as it is.
        let text = all.get(self.length..).unwrap_or_default().to_owned();
        self.length += text.len();
        text
    }
}

#[cfg(all(test, feature = "text"))]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    fn open(json: &str) -> Vocabulary {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, json).unwrap();
        Vocabulary::open(&file).unwrap()
    }

    /// As Llama's: words with the space before them, and bytes for what is no word.
    fn llama() -> Vocabulary {
        let words = ["<unk>", "▁", "▁a", "b", "▁▁", "ä", "▁中"];
        let bytes = (0..=255).map(|it| format!("<0x{it:02X}>"));
        let tokens = words.iter().map(|it| (*it).to_owned()).chain(bytes).chain(["<s>".to_owned()]);
        let vocab: serde_json::Map<String, serde_json::Value> =
            (0..).zip(tokens).map(|(id, it)| (it, json!(id))).collect();
        let special = json!({"id": 263, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true});
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": []},
        });
        open(&json.to_string())
    }

    fn fixture() -> Vocabulary {
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/slm-fixture/tokenizer.json");
        Vocabulary::open(file.as_ref()).unwrap()
    }

    fn bert() -> Vocabulary {
        open(
            r###"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"?": 0, "a": 1, "##b": 2, ".": 3, "ä": 4, "##'s": 5}}}"###,
        )
    }

    fn streamed(vocabulary: &Vocabulary, ids: &[u32]) -> Vec<String> {
        let mut tokens = Detokenizer::new(vocabulary);
        let mut pieces: Vec<String> = ids.iter().map(|id| tokens.push(*id)).collect();
        pieces.push(tokens.finish());
        assert_eq!(tokens.length(), pieces.concat().len());
        pieces
    }

    fn check(vocabulary: &Vocabulary, ids: &[u32]) {
        let pieces = streamed(vocabulary, ids);
        assert_eq!(pieces.concat(), vocabulary.decode(ids), "{ids:?} {pieces:?}");
    }

    #[test]
    fn a_character_waits_until_it_is_whole() {
        let llama = llama();
        let byte = |it: u32| it + 7;
        let ids = [2, byte(0xE4), byte(0xB8), byte(0xAD), 2, 1, 263, 3];
        assert_eq!(streamed(&llama, &ids), ["a", "", "", "", "中 a", " ", "", "b", ""]);
        // A byte that does not belong there makes none of them a character.
        check(&llama, &[2, byte(0xE4), byte(0xB8), byte(0xAD), byte(0xFF), 3]);
        check(&llama, &[byte(0xE4), 2, byte(0xC3)]);
        // What never becomes a character is shown one token later.
        let fixture = fixture();
        let half = fixture.encode("中", false).unwrap()[0];
        assert_eq!(streamed(&fixture, &[half; 3]), ["", "\u{fffd}", "\u{fffd}", "\u{fffd}"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_are_the_text_of_all(ids in vec(0u32..264, 0..24), words in vec(prop_oneof![0u32..7, 263u32..264], 0..24)) {
            let llama = llama();
            check(&llama, &ids);
            check(&llama, &words);
        }

        #[test]
        fn pieces_are_the_text_of_all_bytes(ids in vec(0u32..1024, 0..40), letters in vec(130u32..262, 0..24)) {
            let fixture = fixture();
            check(&fixture, &ids);
            check(&fixture, &letters);
        }

        #[test]
        fn pieces_are_the_text_of_all_words(ids in vec(0u32..6, 0..24)) {
            check(&bert(), &ids);
        }
    }
}
