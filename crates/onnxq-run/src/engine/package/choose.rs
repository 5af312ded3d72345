//! Whether the packed form of a model may be used here.

use std::path::{Path, PathBuf};

use super::{
    super::{EngineError, Runtime, SessionOptions},
    MANIFEST, Machine, Manifest, ManifestError, PackedModel,
};
use onnxq_ir::{
    diag::{Code, Warning},
    fs::{open_file, read_ahead},
    onnx::LoadError,
    untrusted::{Untrusted, escape},
};

/// Which file a session is made of.
#[derive(Debug)]
pub struct Choice {
    /// The packed form, or the model that was asked for.
    pub path: PathBuf,
    pub is_prepacked: bool,
    /// Why the packed form is not used, if there is one.
    pub not_used: Option<NotUsed>,
}

/// A package that has a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub folder: PathBuf,
    pub manifest: Manifest,
    /// Where the model's plain graph is in the package.
    pub place: String,
}

/// Why the plain model is loaded although a package has a packed form of it.
#[derive(Debug, thiserror::Error)]
pub enum NotUsed {
    #[error("`{MANIFEST}` {0}")]
    Manifest(ManifestError),
    #[error("it was packed by ONNX Runtime {}, and this one is {here}", Untrusted(packed))]
    Library { packed: String, here: String },
    #[error("it was packed for {}", escape(.0))]
    Machine(String),
    #[error("`{}` {what}", Untrusted(path))]
    File { path: String, what: String },
    #[error("the session is to run without optimizations, or to be saved")]
    Options,
    #[error("it is no sound model: {0}")]
    Unsound(Box<LoadError>),
    #[error("{0}")]
    Refused(Box<EngineError>),
}

impl NotUsed {
    /// What the user is told: the answers are the same, the memory is not.
    pub fn warning(&self, model: &Path) -> Warning {
        let text = format!(
            "the packed form of `{}` is not used, because {self}; the plain model is loaded",
            model.display()
        );
        Warning::new(Code::W630, text)
    }
}

/// The package that has the model at `path`; `None` if it lies in none.
///
/// # Errors
/// There is a manifest that cannot be used.
pub fn find(path: &Path) -> Result<Option<Package>, NotUsed> {
    let Some(name) = path.file_name().and_then(|it| it.to_str()) else { return Ok(None) };
    let parent = path.parent().unwrap_or(Path::new(""));
    let mut place = name.to_owned();
    // A model of a repository lies in a folder of it.
    for folder in [Some(parent), parent.parent()].into_iter().flatten() {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if here.join(MANIFEST).is_file() {
            let folder = here.to_owned();
            let manifest = match Manifest::read(&folder) {
                Ok(manifest) => manifest,
                Err(ManifestError::Foreign) => return Ok(None),
                Err(error) => return Err(NotUsed::Manifest(error)),
            };
            let has = manifest.model(&place).is_some();
            return Ok(has.then_some(Package { folder, manifest, place }));
        }
        let Some(outer) = folder.file_name().and_then(|it| it.to_str()) else { return Ok(None) };
        place = format!("{outer}/{place}");
    }
    Ok(None)
}

/// Which form of the model at `path` a session with these options is made of.
///
/// Files are looked at as far as that takes no longer than a moment: sizes, and samples of their bytes.
/// `onnxq package --check` reads all of them.
pub fn choose(path: &Path, runtime: &Runtime, options: &SessionOptions) -> Choice {
    let plain = |not_used| Choice { path: path.to_owned(), is_prepacked: false, not_used };
    match find(path) {
        Ok(None) => plain(None),
        Err(reason) => plain(Some(reason)),
        Ok(Some(package)) => match package.usable(runtime, options) {
            Ok(path) => Choice { path, is_prepacked: true, not_used: None },
            Err(reason) => plain(Some(reason)),
        },
    }
}

impl Package {
    /// The model that was looked for.
    pub fn model(&self) -> &PackedModel {
        self.manifest.model(&self.place).expect("it was found by that")
    }

    /// The packed graph, if it may be used.
    fn usable(&self, runtime: &Runtime, options: &SessionOptions) -> Result<PathBuf, NotUsed> {
        let asks_for_plain = options.lean || options.exact || !options.optimize;
        if asks_for_plain || options.optimized_model.is_some() {
            return Err(NotUsed::Options);
        }
        let here = runtime.ensure().map_err(|it| NotUsed::Refused(Box::new(it)))?.version;
        if here != self.manifest.onnxruntime {
            return Err(NotUsed::Library { packed: self.manifest.onnxruntime.clone(), here });
        }
        if let Some(text) = self.manifest.machine.difference(&Machine::of_process()) {
            return Err(NotUsed::Machine(text));
        }
        self.unchanged()?;
        Ok(self.model().prepacked[0].place(&self.folder))
    }

    fn unchanged(&self) -> Result<(), NotUsed> {
        let model = self.model();
        let files = || model.plain.iter().chain(&model.prepacked);
        let changed = |path: &str, what: Option<String>| match what {
            Some(what) => Err(NotUsed::File { path: path.to_owned(), what }),
            None => Ok(()),
        };
        files().try_for_each(|it| changed(&it.path, it.resized(&self.folder)))?;
        for it in &model.prepacked {
            // Before anything else reads of it: the pages that come first stay. Without them a model
            // is slower, not wrong.
            let _ = open_file(&it.place(&self.folder)).and_then(|it| read_ahead(&it));
        }
        files().try_for_each(|it| changed(&it.path, it.altered(&self.folder)))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{FileFacts, SCHEMA},
        *,
    };
    use std::fs;

    fn manifest(places: &[&str]) -> String {
        let facts = |path: String| FileFacts {
            path,
            bytes: 1,
            sha256: String::new(),
            sampled_sha256: String::new(),
        };
        let model = |place: &&str| PackedModel {
            plain: vec![facts((*place).to_owned())],
            prepacked: vec![facts(format!("prepacked/{place}"))],
        };
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            onnxq: String::new(),
            onnxruntime: String::new(),
            machine: Machine::of_process(),
            models: places.iter().map(model).collect(),
        };
        manifest.text()
    }

    #[test]
    fn a_model_is_looked_for_in_its_folder_and_that_of_its_repository() {
        let root = tempfile::tempdir().unwrap();
        let found = |name: &str| {
            let package = find(&root.path().join(name)).unwrap()?;
            assert_eq!(package.folder, root.path());
            Some(package.place)
        };
        assert_eq!(found("m.onnx"), None);
        fs::write(root.path().join(MANIFEST), manifest(&["m.onnx", "onnx/m.onnx"])).unwrap();
        assert_eq!(found("m.onnx").unwrap(), "m.onnx");
        assert_eq!(found("onnx/m.onnx").unwrap(), "onnx/m.onnx");
        assert_eq!((found("other.onnx"), found("a/onnx/m.onnx")), (None, None));
        // The packed form is no plain model: it is loaded as it is.
        assert_eq!(found("prepacked/m.onnx"), None);
        fs::write(root.path().join(MANIFEST), r#"{"name": "page"}"#).unwrap();
        assert_eq!(found("m.onnx"), None);
        fs::write(root.path().join(MANIFEST), "{").unwrap();
        assert!(matches!(find(&root.path().join("m.onnx")), Err(NotUsed::Manifest(_))));
    }
}
