//! Puts ONNX Runtime into our cache, from a package whose checksum this build knows.

use std::{
    env::consts::{ARCH, OS},
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde::Deserialize;

use super::{How, Located, PackageIndex, Reject, RuntimeOptions, locate};
use onnxq_ir::ctx::Progress;
use onnxq_ir::diag::{Code, Diagnostic};
use onnxq_ir::untrusted::escape;

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("`{}` is no readable wheel: {reason}", .path.display())]
    Archive { path: PathBuf, reason: String },
    #[error("the SHA-256 of `{}` is {actual}, not {expected}", .path.display())]
    Checksum { path: PathBuf, expected: String, actual: String },
    #[error("this build of onnxq cannot install: it lacks the feature `install`")]
    Disabled,
    #[error("`{}` holds no ONNX Runtime library", .path.display())]
    Empty { path: PathBuf },
    #[error(
        "the package `{file}` could not be fetched; through pip: {pip}; from an index: {index}"
    )]
    Fetch { file: String, pip: String, index: String },
    #[error("`{}` could not be read or written", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no home folder to hold the cache")]
    NoCache,
    #[error("the package may not be fetched offline")]
    Offline,
    #[error("no package of ONNX Runtime {version} is known for {OS} on {ARCH}")]
    Platform { version: String },
    #[error("ONNX Runtime `{}` is none of the tested versions: {known}", escape(.version))]
    Version { version: String, known: String },
    #[error("the installed library `{}` {reason}", .path.display())]
    Unusable { path: PathBuf, reason: Reject },
}

impl Diagnostic for InstallError {
    fn code(&self) -> Code {
        Code::E807
    }

    fn hint(&self) -> Option<String> {
        let file = match self {
            InstallError::Fetch { file, .. } => Some(file.clone()),
            InstallError::Checksum { path, .. } => {
                path.file_name().map(|it| it.to_string_lossy().into_owned())
            }
            _ => None,
        };
        let pin = file.and_then(|file| pins().wheels.iter().find(|it| it.file == file));
        Some(match pin {
            Some(Pin { file, version, .. }) => format!(
                "name a package index with --index-url URL, or copy `{file}` here and run\n  \
                 onnxq runtime install {version} --from-wheel {file}"
            ),
            None => "install ONNX Runtime yourself and pass --ort-lib FILE".to_owned(),
        })
    }
}

/// The version that is installed unless another is asked for.
pub fn pinned_version() -> &'static str {
    &pins().wheels[0].version
}

/// Installs the pinned version, or another of the table, from `wheel`, or else from a package index:
/// through pip if there is a Python, which honours the user's configuration, or directly.
///
/// Several processes may do so at once; one installs, the others wait and use the result.
pub(super) fn install(
    options: &RuntimeOptions,
    version: Option<&str>,
    wheel: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Located, InstallError> {
    let pin = pins().find(version.unwrap_or(pinned_version()))?;
    let cache = options.places.cache.as_deref().ok_or(InstallError::NoCache)?;
    let folder = cache.parent().ok_or(InstallError::NoCache)?;
    let destination = &version.map_or(cache.to_owned(), |it| folder.join(it));
    let _lock = lock(folder)?;
    if wheel.is_none() {
        if let Ok(located) = usable(destination) {
            return Ok(located);
        }
        if options.offline {
            return Err(InstallError::Offline);
        }
    }
    let temp = tempfile::Builder::new().prefix(".install-").tempdir_in(folder);
    let temp = temp.map_err(|source| InstallError::Io { path: folder.to_owned(), source })?;
    put(pin, wheel, destination, temp.path(), &options.index, progress)?;
    usable(destination)
}

/// The pin table: the version to use comes first, then others that are tested.
#[derive(Deserialize)]
#[cfg_attr(not(feature = "install"), expect(dead_code, reason = "only installing asks for it"))]
pub(super) struct Pins {
    pub python: String,
    wheels: Vec<Pin>,
}

/// A package whose content is known.
#[derive(Clone, Deserialize)]
#[cfg_attr(not(feature = "install"), expect(dead_code, reason = "only installing asks for it"))]
pub(super) struct Pin {
    pub version: String,
    os: String,
    arch: String,
    /// As pip spells it.
    pub platform: String,
    pub file: String,
    pub size: u64,
    pub sha256: String,
}

impl Pins {
    /// The package of a version for this machine.
    fn of(&self, version: &str) -> Option<&Pin> {
        self.wheels.iter().find(|it| it.version == version && it.os == OS && it.arch == ARCH)
    }

    fn find(&self, version: &str) -> Result<&Pin, InstallError> {
        let version_of = |it: &Pin| it.version.clone();
        let mut known: Vec<String> = self.wheels.iter().map(version_of).collect();
        known.dedup();
        let version = version.to_owned();
        match self.of(&version) {
            Some(pin) => Ok(pin),
            None if known.contains(&version) => Err(InstallError::Platform { version }),
            None => Err(InstallError::Version { version, known: known.join(", ") }),
        }
    }
}

pub(super) fn pins() -> &'static Pins {
    static PINS: LazyLock<Pins> = LazyLock::new(|| {
        serde_json::from_str(include_str!("wheels.json")).expect("the table is a part of the build")
    });
    &PINS
}

/// Released when the file is closed.
fn lock(folder: &Path) -> Result<fs::File, InstallError> {
    let path = folder.join(".lock");
    let open = || {
        fs::create_dir_all(folder)?;
        let file = fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| InstallError::Io { path: path.clone(), source })
}

/// The library that lies in the cache, if it works.
fn usable(destination: &Path) -> Result<Located, InstallError> {
    match locate::in_folder(How::Cache, destination) {
        Ok(located) => Ok(located),
        Err(tried) => Err(InstallError::Unusable { path: tried.path, reason: tried.reason }),
    }
}

#[cfg(feature = "install")]
fn put(
    pin: &Pin,
    wheel: Option<&Path>,
    destination: &Path,
    temp: &Path,
    index: &PackageIndex,
    progress: &dyn Progress,
) -> Result<(), InstallError> {
    let wheel = match wheel {
        Some(wheel) => wheel.to_owned(),
        None => super::fetch::download(pin, temp, index, progress)?,
    };
    super::wheel::unpack(pin, &wheel, destination, temp)
}

#[cfg(not(feature = "install"))]
fn put(
    _: &Pin,
    _: Option<&Path>,
    _: &Path,
    _: &Path,
    _: &PackageIndex,
    _: &dyn Progress,
) -> Result<(), InstallError> {
    Err(InstallError::Disabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let pins = pins();
        // The first is the version to use.
        let newest_first =
            |it: &Pin| std::cmp::Reverse(onnxq_ir::releases::Release::of(&it.version));
        assert!(pins.wheels.is_sorted_by_key(newest_first));
        for version in pins.wheels.chunk_by(|a, b| a.version == b.version) {
            assert!(version.is_sorted_by_key(|it| (&it.os, &it.arch)));
        }
        for it in &pins.wheels {
            let tag = format!("cp{}", pins.python.replace('.', ""));
            let name = format!("onnxruntime-{}-{tag}-{tag}-", it.version);
            let platforms = it.file.strip_prefix(&name).and_then(|it| it.strip_suffix(".whl"));
            assert!(platforms.unwrap().split('.').any(|tag| tag == it.platform), "{}", it.file);
            assert!(it.sha256.len() == 64 && it.sha256.chars().all(|it| it.is_ascii_hexdigit()));
            assert!(it.size > 1 << 20);
        }
    }
}
