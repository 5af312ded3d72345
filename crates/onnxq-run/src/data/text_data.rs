//! Text becomes rows of token ids of equal length.

use std::path::Path;

use super::{DataError, DataOptions};
#[cfg(feature = "text")]
use super::{chat, records, tokenizer};
#[cfg(feature = "text")]
use onnxq_formats::gguf;

/// Rows of `width` ids each.
#[derive(Debug, PartialEq)]
pub(super) struct Tokens {
    pub width: usize,
    pub ids: Vec<u32>,
}

impl Tokens {
    pub(super) fn rows(&self) -> usize {
        self.ids.len() / self.width.max(1)
    }
}

/// Tokenizes the whole text and cuts it into rows of `width`; a short tail is dropped unless it
/// is all there is. Each row gets the special tokens that the tokenizer puts around a text, or what
/// its chat template does.
#[cfg(feature = "text")]
pub(super) fn read(
    text: &Path,
    (tokenizer, options): (&Path, &DataOptions),
    width: usize,
) -> Result<Tokens, DataError> {
    let bytes = onnxq_ir::fs::read_file(text).map_err(DataError::io(text))?;
    let content = String::from_utf8(bytes)
        .map_err(|it| DataError::format(text, format!("is not UTF-8: {}", it.utf8_error())))?;
    let content = records::text(text, content)?;
    let model = load(tokenizer)?;
    let encode = |text: &str, special| -> Result<Vec<u32>, DataError> {
        let encoding = model.encode_fast(text, special);
        let failed = |it: tokenizers::Error| {
            DataError::format(tokenizer, format!("cannot encode the text: {it}"))
        };
        Ok(encoding.map_err(failed)?.get_ids().to_vec())
    };
    let chat = options.chat.as_deref().map(chat::around).transpose()?.flatten();
    let (prefix, suffix) = match chat {
        Some((before, after)) => (encode(&before, false)?, encode(&after, false)?),
        None => surrounding(encode("a", false)?, encode("a", true)?),
    };
    let mut ids = Vec::new();
    for piece in pieces(&content) {
        ids.extend(encode(piece, false)?);
    }
    Ok(cut(ids, width, &prefix, &suffix))
}

/// Bytes that are tokenized at once: the library takes a hundred times that much memory.
#[cfg(feature = "text")]
const PIECE: usize = 128 << 10;

/// A text in pieces that end with a line, or where there is none with a word, or anywhere.
#[cfg(feature = "text")]
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.len() {
            0 => return None,
            it if it <= PIECE => it,
            _ => cut_at(&rest[..rest.floor_char_boundary(PIECE)]),
        };
        let (piece, later) = rest.split_at(end);
        rest = later;
        Some(piece)
    })
}

#[cfg(feature = "text")]
fn cut_at(text: &str) -> usize {
    let line = text.rfind('\n').map(|it| it + 1);
    // A word is tokenized with the space before it.
    let word = || text.rfind(char::is_whitespace).filter(|it| *it > 0);
    line.or_else(word).unwrap_or(text.len())
}

#[cfg(feature = "text")]
pub(super) fn load(tokenizer: &Path) -> Result<tokenizers::Tokenizer, DataError> {
    let json = tokenizer_json(tokenizer)?;
    tokenizer::check(&json).map_err(|fact| DataError::format(tokenizer, fact))?;
    let rejected = |it: tokenizers::Error| {
        let fact =
            format!("is not a usable tokenizer: {}", onnxq_ir::untrusted::escape(&it.to_string()));
        DataError::format(tokenizer, fact)
    };
    let mut model = tokenizers::Tokenizer::from_bytes(&json).map_err(rejected)?;
    // A tokenizer file may cut or pad texts to the length of its model.
    model.with_truncation(None).map_err(rejected)?;
    model.with_padding(None);
    Ok(model)
}

/// What a tokenizer file holds, or the tokenizer of a GGUF file.
#[cfg(feature = "text")]
fn tokenizer_json(file: &Path) -> Result<Vec<u8>, DataError> {
    if gguf::is_gguf(file) {
        let own = gguf::vocab::open(file)?;
        let own = own.ok_or_else(|| DataError::format(file, "is GGUF without a tokenizer"))?;
        return Ok(own.tokenizer.to_string().into_bytes());
    }
    let size = std::fs::metadata(file).map_err(DataError::io(file))?.len();
    if size > tokenizer::MOST_BYTES {
        let fact = format!("has {size} bytes, more than a tokenizer has");
        return Err(DataError::size(file, fact));
    }
    onnxq_ir::fs::read_file(file).map_err(DataError::io(file))
}

#[cfg(not(feature = "text"))]
pub(super) fn read(text: &Path, _: (&Path, &DataOptions), _: usize) -> Result<Tokens, DataError> {
    Err(DataError::NoText { file: text.into() })
}

/// What the tokenizer puts before and after a text.
#[cfg(feature = "text")]
pub(super) fn surrounding(plain: Vec<u32>, full: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
    if plain.is_empty() {
        return Default::default();
    }
    match full.windows(plain.len()).position(|it| it == plain) {
        Some(at) => (full[..at].to_vec(), full[at + plain.len()..].to_vec()),
        None => Default::default(),
    }
}

#[cfg(feature = "text")]
fn cut(ids: Vec<u32>, width: usize, prefix: &[u32], suffix: &[u32]) -> Tokens {
    let around = prefix.len() + suffix.len();
    let inner = width.saturating_sub(around).max(1);
    let row = |it: &[u32]| [prefix, it, suffix].concat();
    if !ids.is_empty() && ids.len() < inner {
        let ids = row(&ids);
        return Tokens { width: ids.len(), ids };
    }
    Tokens { width: inner + around, ids: ids.chunks_exact(inner).flat_map(row).collect() }
}

#[cfg(all(test, feature = "text"))]
mod tests {
    use std::fs;

    use super::*;
    use onnxq_ir::diag::{Code, Diagnostic};

    const PLAIN: &str = r#"{"version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
        "strategy": "LongestFirst", "stride": 0}, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel",
        "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, "[": 4, "]": 5}, "unk_token": "?"}}"#;

    fn tokens(text: &[u8], tokenizer: &str, width: usize) -> Result<Tokens, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let (data, json) = (folder.path().join("t.txt"), folder.path().join("tokenizer.json"));
        fs::write(&data, text).unwrap();
        fs::write(&json, tokenizer).unwrap();
        read(&data, (&json, &DataOptions::default()), width)
    }

    #[test]
    fn rows_are_full_and_the_tail_is_dropped() {
        let got = tokens(b"a b c a b c a", PLAIN, 3).unwrap();
        assert_eq!(got, Tokens { width: 3, ids: vec![1, 2, 3, 1, 2, 3] });
        assert_eq!(got.rows(), 2);
    }

    #[test]
    fn long_texts_are_tokenized_in_pieces() {
        let long = |it: &str| it.repeat(PIECE * 5 / 2 / it.len());
        for text in [long("a b c\n"), long("a b c "), long("ä"), "a\n".into(), String::new()] {
            let parts: Vec<&str> = pieces(&text).collect();
            assert_eq!(parts.concat(), text);
            assert!(parts.iter().all(|it| !it.is_empty() && it.len() <= PIECE));
            assert_eq!(parts.len(), text.len().div_ceil(PIECE));
        }
        assert!(pieces(&long("a b c\n")).all(|it| it.ends_with('\n')));
        assert!(pieces(&long("a b c ")).skip(1).all(|it| it.starts_with(' ')));
        let text = long("a b c\n");
        assert_eq!(tokens(text.as_bytes(), PLAIN, 3).unwrap().rows(), text.len() / 6);
    }

    #[test]
    fn hostile_tokenizers_are_refused_before_they_are_used() {
        let grows = r#"{"type": "Replace", "pattern": {"String": ""}, "content": "xx"}"#;
        let hostile = PLAIN.replace(r#""normalizer": null"#, &format!(r#""normalizer": {grows}"#));
        let error = tokens(b"a", &hostile, 3).unwrap_err();
        assert_eq!(error.code(), Code::E601);
        assert!(error.to_string().contains("replaces nothing"), "{error}");
    }

    #[test]
    fn a_tail_that_is_all_there_is_stays() {
        assert_eq!(tokens(b"a b", PLAIN, 3).unwrap(), Tokens { width: 2, ids: vec![1, 2] });
        assert_eq!(tokens(b"", PLAIN, 3).unwrap().rows(), 0);
    }

    #[test]
    fn special_tokens_surround_each_row() {
        let processor =
            r#""post_processor": {"type": "BertProcessing", "sep": ["]", 5], "cls": ["[", 4]}"#;
        let tokenizer = PLAIN.replace(r#""post_processor": null"#, processor);
        let got = tokens(b"a b c a b", &tokenizer, 4).unwrap();
        assert_eq!(got, Tokens { width: 4, ids: vec![4, 1, 2, 5, 4, 3, 1, 5] });
    }

    #[test]
    fn files_that_are_something_else_are_refused() {
        assert_eq!(tokens(b"\xff\xfe", PLAIN, 3).unwrap_err().code(), Code::E601);
        assert_eq!(tokens(b"a", "{}", 3).unwrap_err().code(), Code::E601);
    }
}
