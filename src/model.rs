//! A model in memory, and where it came from.

use std::{fmt, path::Path};

use onnxq_ir::{
    ctx::Ctx,
    onnx::{self, ExternalData, Files, Loaded, OpenOptions},
    text,
};
use onnxq_pipeline::Opened;

use super::Error;

/// An ONNX model: its graph, and its weights, which stay mapped from their files until they are
/// needed.
pub struct Model {
    pub(crate) loaded: Loaded,
    pub(crate) options: OpenOptions,
    /// Its file says the same; otherwise the runtime must be given the model as it is here.
    pub(crate) is_as_filed: bool,
}

/// How a model is written.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SaveOptions {
    /// Where weights go.
    pub storage: Storage,
    /// Replace files that exist.
    pub force: bool,
}

/// Where the weights of a written model go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// Beside the model if the input had external data, or if they are larger than 1.5 GiB.
    #[default]
    Auto,
    /// Into the model file.
    Inline,
    /// Into one file beside it.
    External,
    /// Into files beside it of at most so many bytes each.
    Shards(u64),
}

impl SaveOptions {
    pub(crate) fn inner(self) -> onnx::SaveOptions {
        let external = match self.storage {
            Storage::Auto => ExternalData::Auto,
            Storage::Inline => ExternalData::Never,
            Storage::External => ExternalData::Always,
            Storage::Shards(bytes) => ExternalData::Shards(bytes),
        };
        onnx::SaveOptions { external, force: self.force, ..Default::default() }
    }
}

impl Model {
    /// Reads `.onnx` (with its external data, which must lie beside it) or `.onnxtxt`, or makes the
    /// graph of a checkpoint: a folder with a `config.json` and safetensors.
    ///
    /// # Errors
    /// E1xx to E4xx: what is wrong with the file; E902 if it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        let options = OpenOptions::default();
        let loaded = onnxq_formats::open(path.as_ref(), &options).map_err(Error::of)?;
        let is_as_filed = loaded.files.hold_model();
        Ok(Model { loaded, options, is_as_filed })
    }

    /// Reads the bytes of an `.onnx` file. `name` stands for its path in messages and metadata.
    /// External data is refused (E201), there being no folder that it could lie in.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>, name: &str) -> Result<Model, Error> {
        let options = OpenOptions::default();
        let loaded = onnx::open_bytes(bytes.into().into(), Path::new(name), &options);
        Ok(Model { loaded: loaded.map_err(Error::of)?, options, is_as_filed: false })
    }

    /// Reads the ONNX text syntax, as `onnx.parser` does.
    ///
    /// # Errors
    /// E408 with line and column.
    pub fn from_text(text: &str, name: &str) -> Result<Model, Error> {
        let model = text::parse(text).map_err(onnx::LoadError::Text).map_err(Error::of)?;
        let files = Files::in_memory(Path::new(name), Default::default());
        Ok(Model::made(Loaded { model, warnings: Vec::new(), files }))
    }

    /// Writes the model, and its weights beside it if `options` say so. Nothing exists at `path`
    /// until everything was written.
    ///
    /// # Errors
    /// E901 if the disk is full, E903 if the file exists, E904 if it is one that the model is read
    /// from.
    pub fn save(&self, path: impl AsRef<Path>, options: SaveOptions) -> Result<(), Error> {
        let (model, files) = (&self.loaded.model, Some(&self.loaded.files));
        onnx::save(model, path.as_ref(), &options.inner(), files, &Ctx::silent())
            .map_err(Error::of)?;
        Ok(())
    }

    /// The bytes of an `.onnx` file, weights inside.
    ///
    /// # Errors
    /// E902 if a mapped weight can no longer be read; E901 if it is larger than 2 GiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        onnx::to_bytes(&self.loaded.model).map_err(Error::of)
    }

    /// The ONNX text syntax.
    pub fn to_text(&self) -> String {
        text::print(&self.loaded.model)
    }

    /// Its nodes, subgraphs included.
    pub fn node_count(&self) -> usize {
        self.loaded.model.nodes().len()
    }

    /// Entries of its metadata, as `onnxq.recipe`.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.loaded.model.metadata.iter().map(|(key, value)| (&**key, &**value))
    }

    /// A model that no file holds.
    pub(crate) fn made(loaded: Loaded) -> Model {
        Model { loaded, options: OpenOptions::default(), is_as_filed: false }
    }

    pub(crate) fn opened(self, ctx: &Ctx) -> Opened {
        Opened::of(self.loaded, &self.options, ctx)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.loaded.files.model
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("path", &self.path()).finish_non_exhaustive()
    }
}
