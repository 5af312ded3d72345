//! Folders by the clients that load them.

use super::{ImportedModel, folder::Folder, genai, hf, plain};
use crate::{Error, import::Warning};
use onnxq_formats::{Architecture, Checkpoint, Form};
use onnxq_ir::onnx::{DataEnding, ExternalData};

/// Writes files of its own into a folder that has the models; what to say of the result.
type Finish = fn(&mut Folder, &Checkpoint, &[ImportedModel]) -> Result<Vec<Warning>, Error>;

/// How a client expects a model.
#[derive(Debug)]
pub struct Layout {
    pub name: &'static str,
    pub help: &'static str,
    /// How attention is computed.
    pub(super) form: fn(&Architecture) -> Form,
    pub(super) decoders_only: bool,
    /// Whether weights lie in a file of their own.
    pub(super) external: ExternalData,
    pub(super) ending: DataEnding,
    /// What the vectors of tokens are called, of encoders that also have one for the text.
    pub(super) vectors: &'static str,
    /// The place of a model by its recipe, and by how many models there are.
    pub(super) file: fn(&str, usize) -> String,
    /// Writes what else the client reads.
    pub(super) finish: Finish,
}

/// In alphabetical order.
pub const LAYOUTS: &[&Layout] = &[&genai::GENAI, &hf::HF, &plain::PLAIN];
