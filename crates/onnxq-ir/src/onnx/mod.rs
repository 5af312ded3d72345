//! Reading and writing ONNX files. The only place that knows protobuf.

mod attach;
mod attr_in;
mod digest;
mod error;
mod external;
mod files;
mod foreign;
mod graph_in;
mod limits;
mod order;
mod packing;
mod parts;
#[allow(clippy::enum_variant_names, reason = "the names are those of onnx.proto")]
#[allow(unreachable_pub, reason = "prost-build writes pub")]
#[rustfmt::skip]
mod proto;
mod read;
mod save;
mod scan;
#[rustfmt::skip]
mod schema;
mod tensor_data;
mod tensor_in;
mod write;

use std::path::Path;

use bytes::Bytes;

pub use self::{
    attach::{Attached, attach},
    digest::{FileDigest, combined, digest_all, digests, in_memory, sha256},
    error::{ExternalProblem, LoadError, SaveError, TensorProblem},
    files::{ExternalPolicy, Files, map_file},
    limits::{KNOWN_IR, KNOWN_OPSET, Limits, OpenOptions},
    packing::{Packing, packing},
    save::{
        DataEnding, ExternalData, SaveOptions, Saved, check_destination, check_place, is_external,
        layout_sizes, save,
    },
};
use crate::{diag::Warning, ir::Model, tensor::Tensor};

/// A model, and what its reader noticed.
pub struct Loaded {
    pub model: Model,
    /// Accepted, but the user should know.
    pub warnings: Vec<Warning>,
    pub files: Files,
}

/// Reads a model from the bytes of an `.onnx` file. `name` stands for its path in messages.
///
/// External data is refused: there is no folder that it could lie in.
pub fn open_bytes(bytes: Bytes, name: &Path, options: &OpenOptions) -> Result<Loaded, LoadError> {
    let files = Files::in_memory(name, bytes.clone());
    read::read(bytes, files, options)
}

/// Reads a model: ONNX text if the name ends with `.onnxtxt`, else protobuf.
///
/// Every rule of the format that a rewrite or ONNX Runtime relies on is checked here, before
/// anything is allocated for it.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Loaded, LoadError> {
    open_as_named(path, options).map_err(|error| foreign::explained(error, path))
}

fn open_as_named(path: &Path, options: &OpenOptions) -> Result<Loaded, LoadError> {
    if path.extension().is_some_and(|it| it == "onnxtxt") {
        let mut files = Files::new(path, options.external)?;
        let text = files.map_model()?;
        let text = std::str::from_utf8(&text).map_err(|err| LoadError::Io {
            path: path.into(),
            source: std::io::Error::other(err),
        })?;
        let model = from_text(text, options)?;
        // A runtime cannot read text: it gets the model.
        let files = files.built(path);
        return Ok(Loaded { model, warnings: Vec::new(), files });
    }
    read::open(path, options)
}

/// Reads a model from ONNX text.
pub fn from_text(text: &str, options: &OpenOptions) -> Result<Model, LoadError> {
    let model = crate::text::parse(text).map_err(LoadError::Text)?;
    read::check_text(&model, options)?;
    Ok(model)
}

/// One serialized `TensorProto`, as `test_data_set_*/input_*.pb` holds it: its name and value.
pub fn tensor_from_pb(bytes: bytes::Bytes) -> Result<(String, Tensor), LoadError> {
    tensor_in::from_pb(bytes)
}

/// A small model as the bytes of an `.onnx` file, weights inside.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>, SaveError> {
    save::to_bytes(model, &external::Layout::default())
}
