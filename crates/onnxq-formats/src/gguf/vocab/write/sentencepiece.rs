//! `tokenizer.model`: what SentencePiece stores of a tokenizer, as its `sentencepiece_model.proto` numbers it.

use super::{
    super::Kind,
    MODEL_FILE,
    protobuf::{Field, Fields},
    unsayable, wrong_in,
};
use crate::CheckpointError;

/// Bytes of a file that is read; published ones have at most 5 MB.
const MOST: usize = 32 << 20;
/// `trainer_spec.model_type` of merges; 1 is Unigram.
const BPE: i32 = 2;

/// A tokenizer made of merges.
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    trainer: Trainer,
    normalizer: Normalizer,
}

pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    /// SentencePiece numbers kinds as GGUF does.
    pub(super) kind: Kind,
}

/// What is read of `trainer_spec`.
struct Trainer {
    model_type: i32,
    /// Whether a space belongs to the word before it.
    suffix: bool,
    unk: i32,
    bos: i32,
    eos: i32,
    pad: i32,
}

impl Default for Trainer {
    fn default() -> Trainer {
        Trainer { model_type: 1, suffix: false, unk: 0, bos: 1, eos: 2, pad: -1 }
    }
}

/// What is read of `normalizer_spec`.
struct Normalizer {
    name: String,
    has_charsmap: bool,
    adds_prefix: bool,
    removes_spaces: bool,
    escapes: bool,
}

impl Default for Normalizer {
    fn default() -> Normalizer {
        Normalizer {
            name: String::new(),
            has_charsmap: false,
            adds_prefix: true,
            removes_spaces: true,
            escapes: true,
        }
    }
}

impl Model {
    /// # Errors
    /// E121 of bytes that are no such file, E122 of a model that is not made of merges.
    pub(super) fn read(bytes: &[u8]) -> Result<Model, CheckpointError> {
        let broken = |problem: &str| wrong_in(MODEL_FILE, "pieces", problem);
        if bytes.len() > MOST {
            return Err(broken("are in more bytes than a tokenizer has"));
        }
        let model = Model::parse(bytes);
        let model = model.ok_or_else(|| broken("are not those of SentencePiece"))?;
        if model.pieces.is_empty() {
            return Err(broken("are missing"));
        }
        let trainer = &model.trainer;
        let (field, problem) = match () {
            () if trainer.model_type != BPE => {
                let problem = format!("is {}, and not {BPE}, which are merges", trainer.model_type);
                ("trainer_spec.model_type", problem)
            }
            () if trainer.suffix => ("trainer_spec.treat_whitespace_as_suffix", "is true".into()),
            () if !model.normalizer.escapes => {
                ("normalizer_spec.escape_whitespaces", "is false".into())
            }
            () => return Ok(model),
        };
        Err(unsayable(MODEL_FILE, field, problem))
    }

    fn parse(bytes: &[u8]) -> Option<Model> {
        let (trainer, normalizer) = (Trainer::default(), Normalizer::default());
        let mut model = Model { pieces: Vec::new(), trainer, normalizer };
        for field in Fields(Some(bytes)) {
            match field? {
                (1, Field::Bytes(own)) => model.pieces.push(Piece::parse(own)?),
                (2, Field::Bytes(own)) => model.trainer.take(own)?,
                (3, Field::Bytes(own)) => model.normalizer.take(own)?,
                _ => {}
            }
        }
        Some(model)
    }

    /// Whether a space stands before texts that begin without one.
    pub(super) fn prefix(&self) -> bool {
        self.normalizer.adds_prefix
    }

    /// Whether several spaces are one.
    pub(super) fn removes_spaces(&self) -> bool {
        self.normalizer.removes_spaces
    }

    /// The name of a table that characters go through first.
    pub(super) fn charsmap(&self) -> Option<&str> {
        self.normalizer.has_charsmap.then_some(&*self.normalizer.name)
    }

    /// The number of a token that configurations have a field for.
    pub(super) fn token(&self, field: &str) -> Option<u32> {
        let id = match field {
            "bos_token" => self.trainer.bos,
            "eos_token" => self.trainer.eos,
            "pad_token" => self.trainer.pad,
            "unk_token" => self.trainer.unk,
            _ => return None,
        };
        u32::try_from(id).ok().filter(|it| (*it as usize) < self.pieces.len())
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Option<Piece> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
        for field in Fields(Some(bytes)) {
            match field? {
                (1, Field::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).ok()?,
                (2, Field::Float(score)) => {
                    piece.score = Some(score).filter(|it| it.is_finite())?
                }
                (3, Field::Number(kind)) => piece.kind = Kind::numbered(kind.into())?,
                _ => {}
            }
        }
        Some(piece)
    }
}

impl Trainer {
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        for field in Fields(Some(bytes)) {
            let (number, Field::Number(value)) = field? else { continue };
            // Negative numbers have 64 bits.
            let whole = value as i32;
            match number {
                3 => self.model_type = whole,
                24 => self.suffix = value != 0,
                40 => self.unk = whole,
                41 => self.bos = whole,
                42 => self.eos = whole,
                43 => self.pad = whole,
                _ => {}
            }
        }
        Some(())
    }
}

impl Normalizer {
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        for field in Fields(Some(bytes)) {
            match field? {
                (1, Field::Bytes(name)) => self.name = String::from_utf8_lossy(name).into_owned(),
                (2, Field::Bytes(table)) => self.has_charsmap = !table.is_empty(),
                (3, Field::Number(value)) => self.adds_prefix = value != 0,
                (4, Field::Number(value)) => self.removes_spaces = value != 0,
                (5, Field::Number(value)) => self.escapes = value != 0,
                _ => {}
            }
        }
        Some(())
    }
}
