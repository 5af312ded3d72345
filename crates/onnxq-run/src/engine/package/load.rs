//! A session of a model, by its packed form where that can be used.

use std::path::{Path, PathBuf};

use super::{
    super::{EngineError, Runtime, SessionOptions},
    Choice, NotUsed, choose,
};
use onnxq_ir::onnx::{self, LoadError, OpenOptions};

/// A session, and what it was made of.
pub struct Loaded<S> {
    pub session: S,
    pub path: PathBuf,
    pub is_prepacked: bool,
    /// Why the packed form is not used, if there is one.
    pub not_used: Option<NotUsed>,
}

/// Loads the model at `path`; if it lies in a package, by its packed form unless something is against it.
///
/// `path` was read by our own reader, as always; the packed form is here. `load` makes a session of
/// whatever kind, as `|path, options| runtime.open(path, options)` does.
///
/// # Errors
/// The plain model cannot be loaded.
pub fn open<S>(
    path: &Path,
    runtime: &Runtime,
    options: &SessionOptions,
    load: impl Fn(&Path, &SessionOptions) -> Result<S, EngineError>,
) -> Result<Loaded<S>, EngineError> {
    let Choice { path: chosen, is_prepacked, mut not_used } = choose(path, runtime, options);
    if is_prepacked {
        match prepacked(&chosen, options, &load) {
            Ok(session) => {
                return Ok(Loaded { session, path: chosen, is_prepacked, not_used: None });
            }
            Err(reason) => not_used = Some(reason),
        }
    }
    let session = load(path, options)?;
    Ok(Loaded { session, path: path.to_owned(), is_prepacked: false, not_used })
}

/// Loads a packed graph, which was optimized when it was packed.
pub fn prepacked<S>(
    path: &Path,
    options: &SessionOptions,
    load: impl Fn(&Path, &SessionOptions) -> Result<S, EngineError>,
) -> Result<S, NotUsed> {
    sound(path).map_err(|it| NotUsed::Unsound(Box::new(it)))?;
    let options = SessionOptions { optimize: false, ..options.clone() };
    load(path, &options).map_err(|it| NotUsed::Refused(Box::new(it)))
}

/// Our own reader accepts it, and packed weights lie in their files.
fn sound(path: &Path) -> Result<(), LoadError> {
    let options = OpenOptions::default();
    onnx::open(path, &options)?;
    onnx::packing(path, &options).map(drop)
}
