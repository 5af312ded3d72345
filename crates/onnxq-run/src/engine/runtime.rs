//! ONNX Runtime as a value: where it may be, whether it may be fetched, and what it runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Decoder, Doctor, EngineError, Examined, InstallError, Located, NotFound, Session,
    SessionOptions, doctor, install, locate, ort,
};
use onnxq_ir::{
    Model,
    ctx::{Progress, Silent},
    releases::Needed,
};

/// Which ONNX Runtime to use, and whether it may be fetched.
///
/// Nothing here is read from the environment: the command line does that, other programs say what
/// they want. By default only the system's loader is asked, and nothing can be installed.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    pub places: Places,
    /// Never fetch a missing library.
    pub offline: bool,
    pub index: PackageIndex,
    /// `--custom-ops`: libraries whose operators every session knows.
    pub custom_ops: Vec<PathBuf>,
}

/// Where the library may be, in the order in which the places are tried.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `--ort-lib`: this library (or the one in this folder) and no other.
    pub library: Option<PathBuf>,
    /// `ORT_DYLIB_PATH`: the same, if the first is not given.
    pub dylib_path: Option<PathBuf>,
    /// The program, with links resolved: tool managers link one out of its environment.
    pub executable: Option<PathBuf>,
    pub virtual_env: Option<PathBuf>,
    pub conda: Option<PathBuf>,
    /// The folder that [`Runtime::install`] puts the tested version into.
    pub cache: Option<PathBuf>,
    /// Do not ask the system's loader.
    pub no_system: bool,
}

/// Where a missing library is fetched from.
#[derive(Clone, Debug, Default)]
pub struct PackageIndex {
    /// `--index-url`: this index, instead of a configured one.
    pub url: Option<String>,
    /// What the user configured for other tools, as uv spells it too: `name=url`.
    pub configured: Option<String>,
    /// pip's configuration files, which may name one; the strongest first.
    pub pip_files: Vec<PathBuf>,
    /// Go through the proxy that the environment names, as `HTTPS_PROXY`.
    pub proxy: bool,
}

/// ONNX Runtime, found, or installed, when a model is first run.
///
/// The official builds report to their maker unless `ORT_DISABLE_TELEMETRY=1` stands in the
/// process's environment before the library is loaded. onnxq's own program sees to that.
#[derive(Clone)]
pub struct Runtime<'a> {
    options: Arc<RuntimeOptions>,
    progress: &'a dyn Progress,
    /// `None`: this process.
    host: Option<Arc<dyn Host>>,
}

/// Where sessions live.
pub trait Host: Send + Sync {
    fn open(
        &self,
        located: &Located,
        source: Source<'_>,
        options: &SessionOptions,
        custom_ops: &[PathBuf],
    ) -> Result<Box<dyn Session>, EngineError>;

    /// An error if one of the libraries of custom operators cannot be used.
    fn register(&self, located: &Located, custom_ops: &[PathBuf]) -> Result<(), EngineError>;

    /// What the library can do, as [`Runtime::examine`] wants to know it.
    fn examine(&self, located: &Located, kernels: bool) -> Result<Examined, EngineError>;
}

/// A model on its way into a session.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// External data is found by its path relative to the file.
    File(&'a Path),
    /// External data is looked for in `folder`.
    Bytes { model: &'a [u8], folder: Option<&'a Path> },
}

impl Default for Runtime<'_> {
    fn default() -> Self {
        Runtime::new(RuntimeOptions::default(), &Silent)
    }
}

impl From<RuntimeOptions> for Runtime<'_> {
    fn from(options: RuntimeOptions) -> Self {
        Runtime::new(options, &Silent)
    }
}

impl<'a> Runtime<'a> {
    /// `progress` is told of an installation.
    pub fn new(options: RuntimeOptions, progress: &'a dyn Progress) -> Runtime<'a> {
        Runtime { options: Arc::new(options), progress, host: None }
    }

    /// The same, with sessions that live elsewhere.
    pub fn hosted(self, host: Option<Arc<dyn Host>>) -> Runtime<'a> {
        Runtime { host, ..self }
    }

    /// Loads a model file; external data is found by its path relative to the file.
    pub fn open(
        &self,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        self.open_source(Source::File(model), options)
    }

    /// Loads a model that continues texts; `shared` if past and present may be one buffer
    /// ([`shares_buffer`](super::shares_buffer)).
    pub fn open_decoder(
        &self,
        model: &Path,
        options: &SessionOptions,
        shared: bool,
    ) -> Result<Box<dyn Decoder>, EngineError> {
        let source = Source::File(model);
        let more = (&*self.options.custom_ops, shared);
        ort::open_decoder(&self.ensure()?, source, options, more)
    }

    /// Loads a serialized model; external data is looked for in `folder`.
    pub fn open_bytes(
        &self,
        model: &[u8],
        folder: Option<&Path>,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        self.open_source(Source::Bytes { model, folder }, options)
    }

    /// Loads a model.
    pub fn open_source(
        &self,
        source: Source<'_>,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        let located = self.ensure()?;
        match &self.host {
            Some(host) => host.open(&located, source, options, &self.options.custom_ops),
            None => ort::open(&located, source, options, &self.options.custom_ops),
        }
    }

    /// Finds the library, or installs it into the cache unless that is forbidden.
    pub fn ensure(&self) -> Result<Located, EngineError> {
        match self.available() {
            Err(EngineError::NotFound(it)) if !it.explicit() && !self.options.offline => {
                self.install(None, None).map_err(EngineError::Install)
            }
            found => found,
        }
    }

    /// The library that [`Runtime::ensure`] would find without installing anything.
    pub fn available(&self) -> Result<Located, EngineError> {
        match ort::loaded(self.options.places.named())? {
            Some(located) => Ok(located),
            None => self.locate().map_err(EngineError::NotFound),
        }
    }

    /// An error if this release refuses a model, or computes something else; `what` names it.
    pub fn check(&self, model: &Model, what: &str) -> Result<(), EngineError> {
        let (needed, library) = (Needed::by(model), self.ensure()?);
        if library.suffices(&needed) {
            return Ok(());
        }
        let (model, message) = (what.to_owned(), needed.to_string());
        Err(EngineError::TooOld { model, version: library.version, message })
    }

    /// An error if one of the libraries of custom operators cannot be used. Without ONNX Runtime that
    /// is not known.
    pub fn check_custom_ops(&self) -> Result<(), EngineError> {
        match self.available() {
            Ok(located) if !self.custom_ops().is_empty() => match &self.host {
                Some(host) => host.register(&located, self.custom_ops()),
                None => ort::register(&located, self.custom_ops()),
            },
            _ => Ok(()),
        }
    }

    /// Libraries whose operators every session knows.
    pub fn custom_ops(&self) -> &[PathBuf] {
        &self.options.custom_ops
    }

    /// Starts the library, which the first session would do otherwise.
    pub fn start(&self) -> Result<(), EngineError> {
        ort::providers(&self.ensure()?).map(drop)
    }

    /// The first library of the places, whichever this process uses already.
    pub fn locate(&self) -> Result<Located, NotFound> {
        locate::locate(&self.options.places)
    }

    /// What the library itself says for [`Runtime::examine`].
    pub fn examined(&self, kernels: bool) -> Result<Examined, EngineError> {
        let library = self.available()?;
        match &self.host {
            Some(host) => host.examine(&library, kernels),
            None => doctor::run(&library, kernels),
        }
    }

    /// Installs the tested version from `wheel`, or else from a package index.
    pub fn install(
        &self,
        version: Option<&str>,
        wheel: Option<&Path>,
    ) -> Result<Located, InstallError> {
        install::install(&self.options, version, wheel, self.progress)
    }

    /// What this machine can do, and with `kernels` which instructions products of integers take.
    /// Nothing is installed for that.
    pub fn examine(&self, kernels: bool) -> Doctor {
        doctor::examine(&self.options.places, || self.examined(kernels))
    }
}

impl Places {
    /// The one place that the user named.
    pub fn named(&self) -> Option<&Path> {
        self.library.as_deref().or(self.dylib_path.as_deref())
    }
}
