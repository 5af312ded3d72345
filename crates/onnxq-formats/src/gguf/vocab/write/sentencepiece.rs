//! `tokenizer.model`: what SentencePiece stores of a tokenizer, as its `sentencepiece_model.proto` numbers it.

use prost::Message;

use super::{super::Kind, MODEL_FILE, unsayable, wrong_in};
use crate::CheckpointError;

/// Bytes of a file that is read; published ones have at most 5 MB.
const MOST: usize = 32 << 20;
/// `trainer_spec.model_type` of merges; 1 is Unigram, which is also the default.
const BPE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(message, repeated, tag = "1")]
    pub(super) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Piece {
    #[prost(string, tag = "1")]
    pub(super) text: String,
    #[prost(float, tag = "2")]
    pub(super) score: f32,
    #[prost(int32, optional, tag = "3")]
    piece_type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(int32, optional, tag = "40")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42")]
    eos_id: Option<i32>,
    #[prost(int32, optional, tag = "43")]
    pad_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    precompiled_charsmap: Vec<u8>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

impl Piece {
    /// As GGUF numbers kinds, which is how SentencePiece does.
    pub(super) fn kind(&self) -> Option<Kind> {
        Kind::numbered(self.piece_type.unwrap_or(Kind::Normal as i32).into())
    }
}

impl Model {
    /// # Errors
    /// E121 of bytes that are no such file, E122 of a model that is not made of merges.
    pub(super) fn read(bytes: &[u8]) -> Result<Model, CheckpointError> {
        let broken = |problem: String| wrong_in(MODEL_FILE, "pieces", problem);
        if bytes.len() > MOST {
            return Err(broken(format!("are in {} bytes, more than a tokenizer has", bytes.len())));
        }
        let model = Model::decode(bytes);
        let model = model.map_err(|it| broken(format!("are not those of SentencePiece: {it}")))?;
        let faulty = |it: &&Piece| it.kind().is_none() || !it.score.is_finite();
        if model.pieces.is_empty() {
            return Err(broken("are missing".into()));
        }
        if let Some(piece) = model.pieces.iter().find(faulty) {
            let known = "no kind that is known, or no score";
            return Err(broken(format!("have `{}` with {known}", piece.text.escape_debug())));
        }
        let trainer = model.trainer();
        if trainer.model_type != Some(BPE) {
            let kind = trainer.model_type.unwrap_or(1);
            let problem = format!("is {kind}, and not {BPE}, which are merges");
            return Err(unsayable(MODEL_FILE, "trainer_spec.model_type", problem));
        }
        if trainer.treat_whitespace_as_suffix == Some(true) {
            let field = "trainer_spec.treat_whitespace_as_suffix";
            return Err(unsayable(MODEL_FILE, field, "is true"));
        }
        if model.normalizer().escape_whitespaces == Some(false) {
            return Err(unsayable(MODEL_FILE, "normalizer_spec.escape_whitespaces", "is false"));
        }
        Ok(model)
    }

    fn trainer(&self) -> Trainer {
        self.trainer.clone().unwrap_or_default()
    }

    fn normalizer(&self) -> Normalizer {
        self.normalizer.clone().unwrap_or_default()
    }

    /// Whether a space stands before texts that begin without one.
    pub(super) fn prefix(&self) -> bool {
        self.normalizer().add_dummy_prefix.unwrap_or(true)
    }

    /// Whether several spaces are one.
    pub(super) fn removes_spaces(&self) -> bool {
        self.normalizer().remove_extra_whitespaces.unwrap_or(true)
    }

    /// The name of a table that characters go through first.
    pub(super) fn charsmap(&self) -> Option<String> {
        let normalizer = self.normalizer();
        (!normalizer.precompiled_charsmap.is_empty()).then_some(normalizer.name)
    }

    /// The number of a token that configurations have a field for.
    pub(super) fn token(&self, field: &str) -> Option<u32> {
        let trainer = self.trainer();
        let id = match field {
            "bos_token" => trainer.bos_id.unwrap_or(1),
            "eos_token" => trainer.eos_id.unwrap_or(2),
            "pad_token" => trainer.pad_id.unwrap_or(-1),
            "unk_token" => trainer.unk_id.unwrap_or(0),
            _ => return None,
        };
        u32::try_from(id).ok().filter(|it| (*it as usize) < self.pieces.len())
    }
}
