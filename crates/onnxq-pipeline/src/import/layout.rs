//! Folders by the clients that load them.

use super::{ImportedModel, folder::Folder, genai, hf, plain};
use crate::Error;
use onnxq_formats::{Architecture, Checkpoint, Form};
use onnxq_ir::onnx::ExternalData;

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
    /// The place of a model by its recipe, and by how many models there are.
    pub(super) file: fn(&str, usize) -> String,
    /// Writes what else the client reads.
    pub(super) finish: fn(&mut Folder, &Checkpoint, &[ImportedModel]) -> Result<(), Error>,
}

/// In alphabetical order.
pub const LAYOUTS: &[&Layout] = &[&genai::GENAI, &hf::HF, &plain::PLAIN];
