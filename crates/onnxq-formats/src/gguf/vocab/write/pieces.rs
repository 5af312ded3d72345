//! Pieces of SentencePiece: llama.cpp joins the two neighbours whose piece has the highest score.

use std::collections::{HashMap, HashSet};

use onnxq_ir::untrusted::Untrusted;
use serde_json::Value as Json;

use super::{
    super::{Kind, LONGEST, MODEL, PRE, REMOVE_SPACES, SCORES, SPACE, SPACE_PREFIX},
    Files, MODEL_FILE, TOKENIZER_FILE, Written, merges,
    merging::{Left, Merging},
    sentencepiece::Model,
    short, unsayable,
    words::{self, Word},
    wrong,
};
use crate::{CheckpointError, gguf::Array};

/// What llama.cpp's converter gives to tokens that were added, and to numbers without a token.
const ADDED: f32 = -1000.0;
const UNUSED: f32 = -10000.0;
/// As many whole numbers has float32, in which scores are.
const MOST_RANKS: usize = 1 << 24;

/// The keys of `tokenizer.json` with merges of pieces; scores are those of `tokenizer.model` where it is there
/// and orders pieces alike.
pub(super) fn of_tokenizer(
    files: &Files,
    tokenizer: &Json,
    size: usize,
    out: &mut Written,
) -> Result<Vec<Word>, CheckpointError> {
    let spaces = Spaces::of(tokenizer)?;
    let words = words::of_tokenizer(tokenizer, size)?;
    all_bytes(&words, TOKENIZER_FILE)?;
    let left = left(&tokenizer["model"], &words, spaces.splits)?;
    let model = files.sentencepiece.as_deref().map(Model::read).transpose()?;
    let theirs = model.as_ref().and_then(|model| by_model(model, &words, &left));
    let scores = match theirs {
        Some(scores) => {
            out.notes.extend(unmade(&words, &left));
            scores
        }
        None => by_rank(&words, &left)?,
    };
    out.notes.extend(spaces.note);
    write(&words, scores, spaces.prefix, out);
    Ok(words)
}

/// The keys of a folder that has `tokenizer.model` only.
pub(super) fn of_model(
    files: &Files,
    model: &Model,
    size: usize,
    out: &mut Written,
) -> Result<Vec<Word>, CheckpointError> {
    let words = words::of_pieces(model, files, size)?;
    all_bytes(&words, MODEL_FILE)?;
    let prefix = files.config["add_prefix_space"].as_bool().unwrap_or(model.prefix());
    write(&words, scores(model, &words), prefix, out);
    if model.removes_spaces() {
        out.set(REMOVE_SPACES, true);
        out.notes.push("llama.cpp keeps spaces of which SentencePiece makes one".into());
    }
    if let Some(name) = model.charsmap() {
        out.notes.push(format!(
            "llama.cpp does not normalize texts by `{}`, as SentencePiece does",
            Untrusted(name)
        ));
    }
    Ok(words)
}

fn write(words: &[Word], scores: Vec<f32>, prefix: bool, out: &mut Written) {
    out.set(MODEL, "llama");
    out.set(PRE, "default");
    out.tokens(words);
    out.set(SCORES, scores.into_iter().collect::<Array>());
    out.set(SPACE_PREFIX, prefix);
}

/// What stands for spaces.
struct Spaces {
    /// Whether one is put before a text.
    prefix: bool,
    /// Whether texts are cut before each.
    splits: bool,
    note: Option<String>,
}

impl Spaces {
    fn of(tokenizer: &Json) -> Result<Spaces, CheckpointError> {
        let pre = &tokenizer["pre_tokenizer"];
        let steps = steps(&tokenizer["normalizer"], "normalizers");
        let steps = steps.iter().map(|step| step_name(step)).collect::<Option<Vec<_>>>();
        let whole = |prefix| Some(Spaces { prefix, splits: false, note: None });
        let found = match steps.as_deref() {
            Some([]) => Spaces::meta(pre),
            Some(["Replace"]) if cuts_nothing(pre) => whole(false),
            Some(["Prepend", "Replace"]) if cuts_nothing(pre) => whole(true),
            Some(_) => None,
            None => {
                let problem = format!("is {}", short(&tokenizer["normalizer"]));
                return Err(unsayable(TOKENIZER_FILE, "normalizer", problem));
            }
        };
        let problem = || format!("is {} with such a normalizer", short(pre));
        found.ok_or_else(|| unsayable(TOKENIZER_FILE, "pre_tokenizer", problem()))
    }

    /// A space before the first piece, if it has none.
    fn meta(pre: &Json) -> Option<Spaces> {
        let steps = steps(pre, "pretokenizers");
        let [step] = steps[..] else { return None };
        if step["type"] != "Metaspace" || step["replacement"] != SPACE {
            return None;
        }
        let splits = step["split"].as_bool().unwrap_or(true);
        let is_first = match step["prepend_scheme"].as_str() {
            None if step["add_prefix_space"] != false => false,
            None | Some("never") => return Some(Spaces { prefix: false, splits, note: None }),
            Some("always") => false,
            Some("first") => true,
            Some(_) => return None,
        };
        let behind = if is_first { ", and before texts behind a token that steers" } else { "" };
        let note = format!("llama.cpp puts a space also before texts that begin with one{behind}");
        Some(Spaces { prefix: true, splits, note: Some(note) })
    }
}

fn steps<'a>(step: &'a Json, list: &str) -> Vec<&'a Json> {
    match step[list].as_array() {
        Some(list) if step["type"] == "Sequence" => list.iter().collect(),
        _ if step.is_null() => Vec::new(),
        _ => vec![step],
    }
}

/// A step that puts spaces of SentencePiece into a text.
fn step_name(step: &Json) -> Option<&str> {
    let is_known = match step["type"].as_str()? {
        "Prepend" => step["prepend"] == SPACE,
        "Replace" => step["pattern"]["String"] == " " && step["content"] == SPACE,
        _ => false,
    };
    step["type"].as_str().filter(|_| is_known)
}

/// Whether a text in which no spaces are left stays whole.
fn cuts_nothing(pre: &Json) -> bool {
    let at_spaces = |step: &&Json| step["type"] == "Split" && step["pattern"]["String"] == " ";
    steps(pre, "pretokenizers").iter().all(at_spaces)
}

/// llama.cpp makes bytes of characters that are no token, and stops where it lacks one.
fn all_bytes(words: &[Word], file: &str) -> Result<(), CheckpointError> {
    let texts: HashSet<&str> = words.iter().map(|word| &*word.text).collect();
    let is_there = |byte: &u8| {
        let plain = char::from(*byte).to_string();
        texts.contains(&*format!("<0x{byte:02X}>")) || byte.is_ascii() && texts.contains(&*plain)
    };
    match (0..=u8::MAX).find(|byte| !is_there(byte)) {
        Some(byte) => Err(unsayable(file, "tokens", format!("lack one for the byte {byte}"))),
        None => Ok(()),
    }
}

/// Whether a token comes of merges and is not found in texts before.
fn is_piece(word: &Word) -> bool {
    word.kind == Kind::Normal && !word.added
}

/// What merges leave of each piece; `None` for other tokens.
fn left(model: &Json, words: &[Word], splits: bool) -> Result<Vec<Option<Left>>, CheckpointError> {
    let number = |id: &Json| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let vocab = model["vocab"].as_object().into_iter().flatten();
    let ids: HashMap<&str, u32> =
        vocab.filter_map(|(text, id)| Some((text.as_str(), number(id)?))).collect();
    let merges = merges(model)?;
    if merges.len() > MOST_RANKS {
        return Err(unsayable(TOKENIZER_FILE, "model.merges", "are more than 16 million"));
    }
    for pair in &merges {
        if let Some(part) = [pair.0, pair.1].into_iter().find(|it| words::byte(it).is_some()) {
            let problem = format!("join `{}`, which is a byte", Untrusted(part));
            return Err(unsayable(TOKENIZER_FILE, "model.merges", problem));
        }
    }
    let merging = Merging::new(ids, &merges, splits);
    let merging = merging
        .map_err(|at| wrong("model.merges", format!("have no tokens for the merge {at}")))?;
    let of = |word: &Word| {
        if !is_piece(word) {
            return Ok(None);
        }
        if word.text.len() > LONGEST {
            let problem = format!("has a token of more than {LONGEST} bytes");
            return Err(wrong("model.vocab", problem));
        }
        Ok(Some(merging.of(&word.text)))
    };
    words.iter().map(of).collect()
}

/// Whether merges make every token, so that it is the same to take tokens whole.
pub(super) fn all_made(model: &Json, words: &[Word]) -> Result<(), CheckpointError> {
    let left = left(model, words, false)?;
    let is_left = |it: &&Option<Left>| matches!(it, Some(Left::Pair(..) | Left::More));
    match left.iter().position(|it| is_left(&it)) {
        Some(id) => {
            let flag = model["ignore_merges"].as_bool().unwrap_or(false);
            let problem = format!("is {flag}, and no merges make `{}`", Untrusted(&words[id].text));
            Err(unsayable(TOKENIZER_FILE, "model.ignore_merges", problem))
        }
        None => Ok(()),
    }
}

/// Scores in the order in which merges make pieces.
fn by_rank(words: &[Word], left: &[Option<Left>]) -> Result<Vec<f32>, CheckpointError> {
    let mut ranks = Vec::new();
    for (id, (word, left)) in words.iter().zip(left).enumerate() {
        // Runs of spaces that are found in texts are no pieces any more.
        let is_run = |it: &Word| it.added && it.text.contains(' ');
        let part = |part: u32| words.get(part as usize).is_some_and(is_run);
        let problem = match left {
            Some(Left::Token { rank, parts }) if !part(parts.0) && !part(parts.1) => {
                ranks.push((*rank, id));
                continue;
            }
            Some(Left::Token { .. }) => "of a token that was added".to_owned(),
            Some(Left::Pair(one, other)) => {
                format!("no token of `{}` and `{}`", Untrusted(one), Untrusted(other))
            }
            Some(Left::Character | Left::More) | None => continue,
        };
        let problem = format!("make `{}` {problem}", Untrusted(&word.text));
        return Err(unsayable(TOKENIZER_FILE, "model.merges", problem));
    }
    ranks.sort_unstable();
    let mut scores: Vec<f32> =
        words.iter().map(|word| other(word).unwrap_or(-(ranks.len() as f32))).collect();
    ranks.iter().enumerate().for_each(|(place, (_, id))| scores[*id] = -(place as f32));
    Ok(scores)
}

/// The scores of tokens that no merge makes.
fn other(word: &Word) -> Option<f32> {
    match word.kind {
        Kind::Normal if !word.added => None,
        Kind::Byte => Some(0.0),
        Kind::Unused if !word.added => Some(UNUSED),
        _ => Some(ADDED),
    }
}

/// The scores of `tokenizer.model`, if they order what merges make as these do.
fn by_model(model: &Model, words: &[Word], left: &[Option<Left>]) -> Option<Vec<f32>> {
    let mut ranks = Vec::new();
    for (id, (word, left)) in words.iter().zip(left).enumerate() {
        let Some(left) = left else { continue };
        let piece = model.pieces.get(id).filter(|piece| piece.text == word.text)?;
        if let Left::Token { rank, .. } = left {
            ranks.push((*rank, piece.score));
        }
    }
    ranks.sort_unstable_by_key(|it| it.0);
    ranks.windows(2).all(|pair| pair[0].1 > pair[1].1).then(|| scores(model, words))
}

fn scores(model: &Model, words: &[Word]) -> Vec<f32> {
    let score = |(id, word): (usize, &Word)| match model.pieces.get(id) {
        Some(piece) if !word.added => piece.score,
        _ => other(word).unwrap_or(ADDED),
    };
    words.iter().enumerate().map(score).collect()
}

/// A remark on pieces that SentencePiece makes, but `tokenizer.json` does not.
fn unmade(words: &[Word], left: &[Option<Left>]) -> Option<String> {
    let pairs = words.iter().zip(left).filter(|it| matches!(it.1, Some(Left::Pair(..))));
    let texts: Vec<&str> = pairs.map(|it| &*it.0.text).collect();
    let first = Untrusted(texts.first()?);
    Some(format!(
        "llama.cpp makes {} pieces such as `{first}` as SentencePiece does, and tokenizer.json does not",
        texts.len()
    ))
}
