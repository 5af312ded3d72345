//! Keys of a GGUF file as the files of a tokenizer of Hugging Face.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::{
    ADD_BOS, ADD_EOS, ENDS, Kind, LONGEST, MERGES, MODEL, PRE, SCORES, SPACE, SPACE_PREFIX,
    SPECIAL, TEMPLATE, TOKENS, TYPES, Vocab, has_tokenizer,
    pre::{self, Pre},
};
use crate::{
    CheckpointError,
    gguf::{File, Value},
};

/// Models that are known.
const MODELS: &str = "gpt2, llama";

/// The tokenizer of a file, which is called `name` in errors; `None` if it has none.
///
/// # Errors
/// E121 of keys that contradict each other, E122 of a tokenizer that is not known.
pub fn read(file: &File, name: &str) -> Result<Option<Vocab>, CheckpointError> {
    let Some(model) = file.value(MODEL).filter(|_| has_tokenizer(file)) else { return Ok(None) };
    let keys = Keys { file, name };
    let words = Words::read(keys)?;
    let model = model.text().ok_or_else(|| keys.wrong(MODEL, "must be a text"))?;
    let (mut tokenizer, begins) = match model {
        "gpt2" => bytes(keys, &words)?,
        "llama" => pieces(keys, &words)?,
        other => return Err(keys.unknown(MODEL, other, MODELS.to_owned())),
    };
    let (begins, ends) = (keys.flag(ADD_BOS)?.unwrap_or(begins), keys.flag(ADD_EOS)?);
    let ends = ends.unwrap_or(false);
    tokenizer["post_processor"] = around(keys, &words, begins, ends)?;
    Ok(Some(Vocab {
        tokenizer,
        tokenizer_config: config(keys, &words, begins, ends)?,
        generation_config: generation(keys, &words)?,
    }))
}

#[derive(Clone, Copy)]
struct Keys<'a> {
    file: &'a File,
    name: &'a str,
}

impl<'a> Keys<'a> {
    fn wrong(self, key: &str, problem: impl Into<String>) -> CheckpointError {
        let (file, field) = (self.name.to_owned(), key.to_owned());
        CheckpointError::Field { file, field, problem: problem.into() }
    }

    fn unknown(self, key: &str, value: &str, known: String) -> CheckpointError {
        let (file, field) = (self.name.to_owned(), key.to_owned());
        CheckpointError::Tokenizer { file, field, value: value.to_owned(), known }
    }

    fn texts(self, key: &str) -> Result<Vec<&'a str>, CheckpointError> {
        let array = self.file.value(key).and_then(Value::array);
        let texts = array.and_then(|it| Some(it.texts()?.collect()));
        texts.ok_or_else(|| self.wrong(key, "must be a list of texts"))
    }

    fn flag(self, key: &str) -> Result<Option<bool>, CheckpointError> {
        let Some(value) = self.file.value(key) else { return Ok(None) };
        value.bool().map(Some).ok_or_else(|| self.wrong(key, "must be true or false"))
    }

    /// The number of a token, if the file has the key.
    fn token(self, key: &str, words: &Words) -> Result<Option<usize>, CheckpointError> {
        let Some(value) = self.file.value(key) else { return Ok(None) };
        let id = value.integer().ok_or_else(|| self.wrong(key, "must be a whole number"))?;
        let known = usize::try_from(id).ok().filter(|it| *it < words.tokens.len());
        let problem = || format!("is {id}, but there are {} tokens", words.tokens.len());
        known.map(Some).ok_or_else(|| self.wrong(key, problem()))
    }
}

/// Tokens by their numbers.
struct Words<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<Kind>,
    ids: HashMap<&'a str, usize>,
}

impl<'a> Words<'a> {
    fn read(keys: Keys<'a>) -> Result<Words<'a>, CheckpointError> {
        let tokens = keys.texts(TOKENS)?;
        let kinds = kinds(keys, tokens.len())?;
        let mut ids = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(before) = ids.insert(*token, id) {
                return Err(keys.wrong(TOKENS, format!("has one text as {before} and as {id}")));
            }
        }
        Ok(Words { tokens, kinds, ids })
    }

    fn vocab(&self) -> Map<String, Json> {
        self.tokens.iter().zip(0..).map(|(it, id)| ((*it).to_owned(), json!(id as u64))).collect()
    }

    /// Tokens that are found in texts as they are written, before anything else.
    fn added(&self) -> Vec<Json> {
        let own = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = own.filter(|it| {
            matches!(it.1.1, Kind::Control | Kind::UserDefined | Kind::Unknown)
                && !it.1.0.is_empty()
        });
        let json = |(id, (token, kind)): (usize, (&&str, &Kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": token.contains(SPACE), "special": *kind != Kind::UserDefined,
            })
        };
        added.map(json).collect()
    }
}

fn kinds(keys: Keys, count: usize) -> Result<Vec<Kind>, CheckpointError> {
    let Some(value) = keys.file.value(TYPES) else { return Ok(vec![Kind::Normal; count]) };
    let array = value.array().ok_or_else(|| keys.wrong(TYPES, "must be a list"))?;
    if array.len() != count {
        let problem = format!("has {} values for {count} tokens", array.len());
        return Err(keys.wrong(TYPES, problem));
    }
    let kinds =
        array.values().map(|it| Kind::numbered(it.integer()?)).collect::<Option<Vec<Kind>>>();
    kinds.ok_or_else(|| keys.wrong(TYPES, "must be numbers from 1 to 6"))
}

/// Merges of bytes, as GPT-2 has them.
fn bytes(keys: Keys, words: &Words) -> Result<(Json, bool), CheckpointError> {
    let name = match keys.file.value(PRE) {
        Some(it) => it.text().ok_or_else(|| keys.wrong(PRE, "must be a text"))?,
        None => return Err(keys.wrong(PRE, "is missing: nothing says how texts are cut")),
    };
    let pre = Pre::named(name).ok_or_else(|| keys.unknown(PRE, name, pre::known()))?;
    let mut merges = Vec::new();
    for (at, merge) in keys.texts(MERGES)?.into_iter().enumerate() {
        let pair = merge.split_once(' ').filter(|(left, right)| {
            let known = |it: &str| words.ids.contains_key(it);
            known(left) && known(right) && known(&format!("{left}{right}"))
        });
        let (left, right) =
            pair.ok_or_else(|| keys.wrong(MERGES, format!("has no two tokens at {at}")))?;
        merges.push(json!([left, right]));
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": words.added(),
        "normalizer": pre.normalizer(),
        "pre_tokenizer": pre.pre_tokenizer(),
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.whole, "vocab": words.vocab(), "merges": merges,
        },
    });
    Ok((tokenizer, pre.begins))
}

/// Pieces of SentencePiece: the two neighbours are merged whose piece has the highest score.
fn pieces(keys: Keys, words: &Words) -> Result<(Json, bool), CheckpointError> {
    let merges = merges(keys, words)?;
    let prefix = keys.flag(SPACE_PREFIX)?.unwrap_or(true);
    let unknown = keys.token("tokenizer.ggml.unknown_token_id", words)?;
    let unknown = unknown.map(|it| words.tokens[it]);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let mut normalizers = vec![spaces];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": words.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": words.vocab(), "merges": merges,
        },
    });
    Ok((tokenizer, true))
}

/// Each cut of a piece into two others, those of the highest score first. Pieces of one score come by
/// their numbers, where SentencePiece takes what stands first in the text.
fn merges(keys: Keys, words: &Words) -> Result<Vec<Json>, CheckpointError> {
    let scores = scores(keys, words.tokens.len())?;
    let is_piece = |id: usize| matches!(words.kinds[id], Kind::Normal | Kind::UserDefined);
    let find = |text: &str| words.ids.get(text).copied().filter(|it| is_piece(*it));
    let mut order: Vec<usize> = (0..words.tokens.len()).filter(|it| is_piece(*it)).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut merges = Vec::new();
    for id in order {
        let piece = words.tokens[id];
        if piece.len() > LONGEST {
            return Err(keys.wrong(TOKENS, format!("has more than {LONGEST} bytes at {id}")));
        }
        let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let mut found: Vec<_> =
            cuts.filter_map(|(left, right)| Some((find(left)?, find(right)?))).collect();
        found.sort_unstable();
        let pairs = found.into_iter().map(|it| json!([words.tokens[it.0], words.tokens[it.1]]));
        merges.extend(pairs);
    }
    Ok(merges)
}

fn scores(keys: Keys, count: usize) -> Result<Vec<f64>, CheckpointError> {
    let array = keys.file.value(SCORES).and_then(Value::array).filter(|it| it.len() == count);
    let scores =
        array.and_then(|it| it.values().map(|it| it.float()).collect::<Option<Vec<f64>>>());
    let scores = scores.filter(|it| it.iter().all(|it| it.is_finite()));
    scores.ok_or_else(|| keys.wrong(SCORES, format!("must be {count} numbers, one for each token")))
}

/// What stands before and after a text.
fn around(keys: Keys, words: &Words, begins: bool, ends: bool) -> Result<Json, CheckpointError> {
    if !begins && !ends {
        return Ok(Json::Null);
    }
    let mut special = Map::new();
    let mut token = |key: &str, wanted: bool| -> Result<Option<Json>, CheckpointError> {
        if !wanted {
            return Ok(None);
        }
        let id = keys.token(key, words)?;
        let id = id.ok_or_else(|| keys.wrong(key, "is missing, but stands around texts"))?;
        let text = words.tokens[id];
        let entry = json!({"id": text, "ids": [id], "tokens": [text]});
        special.insert(text.to_owned(), entry);
        Ok(Some(json!({"SpecialToken": {"id": text, "type_id": 0}})))
    };
    let (before, after) = (token(SPECIAL[0].1, begins)?, token(SPECIAL[1].1, ends)?);
    let mut single: Vec<Json> = before.into_iter().collect();
    single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    single.extend(after);
    let mut pair = single.clone();
    pair.extend(single.iter().map(|it| {
        let mut second = it.clone();
        match second.get_mut("Sequence") {
            Some(text) => *text = json!({"id": "B", "type_id": 1}),
            None => second["SpecialToken"]["type_id"] = 1.into(),
        }
        second
    }));
    Ok(json!({
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special,
    }))
}

fn config(keys: Keys, words: &Words, begins: bool, ends: bool) -> Result<Json, CheckpointError> {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": begins,
        "add_eos_token": ends,
        "clean_up_tokenization_spaces": false,
    });
    for (field, key) in SPECIAL {
        if let Some(id) = keys.token(key, words)? {
            config[*field] = words.tokens[id].into();
        }
    }
    if let Some(template) = keys.file.value(TEMPLATE) {
        let text = template.text().ok_or_else(|| keys.wrong(TEMPLATE, "must be a text"))?;
        config["chat_template"] = text.into();
    }
    Ok(config)
}

fn generation(keys: Keys, words: &Words) -> Result<Json, CheckpointError> {
    let mut config = json!({});
    for (field, key) in [SPECIAL[0], SPECIAL[2]] {
        if let Some(id) = keys.token(key, words)? {
            config[format!("{field}_id")] = id.into();
        }
    }
    let mut ends: Vec<usize> = Vec::new();
    for key in ENDS {
        let new = keys.token(key, words)?.filter(|it| !ends.contains(it));
        ends.extend(new);
    }
    match ends[..] {
        [] => {}
        [only] => config["eos_token_id"] = only.into(),
        _ => config["eos_token_id"] = ends.into(),
    }
    Ok(config)
}
