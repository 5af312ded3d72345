//! Where ONNX Runtime is.

use std::{fmt, path::PathBuf};

use onnxq_run::engine::{self, Places, RuntimeOptions};

use super::Error;

/// Which ONNX Runtime runs models: a value, found when the first model is run.
///
/// A process can load one library; asking for another one later is an error (E803). Nothing is
/// read from the environment. Official builds of ONNX Runtime report to their maker unless
/// `ORT_DISABLE_TELEMETRY=1` is in the process's environment before the library is loaded: a
/// program that wants none must see to that, as the command line of onnxq does.
#[derive(Clone, Default)]
pub struct Runtime {
    options: RuntimeOptions,
}

impl Runtime {
    /// The library at a path (`libonnxruntime.so`, or a folder that has it), and no other.
    pub fn at(library: impl Into<PathBuf>) -> Runtime {
        let places = Places { library: Some(library.into()), ..Places::default() };
        Runtime { options: RuntimeOptions { places, offline: true, ..RuntimeOptions::default() } }
    }

    /// The tested version in `folder`; fetched from PyPI with Python's pip, or by itself if the
    /// crate has the feature `install`, when a model is first run and it is not there.
    pub fn installed_in(folder: impl Into<PathBuf>) -> Runtime {
        let places = Places { cache: Some(folder.into()), no_system: true, ..Places::default() };
        Runtime { options: RuntimeOptions { places, ..RuntimeOptions::default() } }
    }

    /// Every model that is run may use the custom operators of this library.
    pub fn with_custom_ops(mut self, library: impl Into<PathBuf>) -> Runtime {
        self.options.custom_ops.push(library.into());
        self
    }

    /// The version of the library that models would run in.
    ///
    /// # Errors
    /// E801 if there is none, E802 if it is too old, E807 if it could not be installed.
    pub fn version(&self) -> Result<String, Error> {
        Ok(self.value().ensure().map_err(Error::of)?.version)
    }

    pub(crate) fn value(&self) -> engine::Runtime<'static> {
        engine::Runtime::from(self.options.clone())
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runtime").field(&self.options.places.library).finish()
    }
}
