//! A session of a model, by its packed form where that can be used.

use std::path::{Path, PathBuf};

use super::{
    super::{EngineError, Runtime, Session, SessionOptions},
    Choice, NotUsed, choose,
};
use onnxq_ir::onnx::{self, LoadError, OpenOptions};

/// A session, and what it was made of.
pub struct Loaded {
    pub session: Box<dyn Session>,
    pub path: PathBuf,
    pub is_prepacked: bool,
    /// Why the packed form is not used, if there is one.
    pub not_used: Option<NotUsed>,
}

/// Loads the model at `path`; if it lies in a package, by its packed form unless something is against it.
///
/// `path` was read by our own reader, as always. The packed form is too, here.
///
/// # Errors
/// The plain model cannot be loaded.
pub fn open(
    path: &Path,
    runtime: &Runtime,
    options: &SessionOptions,
) -> Result<Loaded, EngineError> {
    let Choice { path: chosen, is_prepacked, mut not_used } = choose(path, runtime, options);
    if is_prepacked {
        match prepacked(&chosen, runtime, options) {
            Ok(session) => {
                return Ok(Loaded { session, path: chosen, is_prepacked, not_used: None });
            }
            Err(reason) => not_used = Some(reason),
        }
    }
    let session = runtime.open(path, options)?;
    Ok(Loaded { session, path: path.to_owned(), is_prepacked: false, not_used })
}

/// Loads a packed graph, which was optimized when it was packed.
pub fn prepacked(
    path: &Path,
    runtime: &Runtime,
    options: &SessionOptions,
) -> Result<Box<dyn Session>, NotUsed> {
    sound(path).map_err(|it| NotUsed::Unsound(Box::new(it)))?;
    let options = SessionOptions { optimize: false, ..options.clone() };
    runtime.open(path, &options).map_err(|it| NotUsed::Refused(Box::new(it)))
}

/// Our own reader accepts it, and packed weights lie in their files.
fn sound(path: &Path) -> Result<(), LoadError> {
    let options = OpenOptions::default();
    onnx::open(path, &options)?;
    onnx::packing(path, &options).map(drop)
}
