//! Where ONNX Runtime is: the first library of a fixed list of places that loads and is new enough.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

use super::{Places, ort};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    releases::{Needed, Release},
};

/// The rule that led to a library, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// `--ort-lib`.
    Option,
    /// `ORT_DYLIB_PATH`.
    DylibPath,
    BesideExecutable,
    /// The Python environment into which onnxq was installed.
    ExecutablePython,
    VirtualEnv,
    Conda,
    /// What `onnxq runtime install` leaves behind.
    Cache,
    System,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located {
    pub path: PathBuf,
    pub version: String,
    pub how: How,
}

impl Located {
    /// Whether this release computes a model that needs so much; one without a number does.
    pub fn suffices(&self, needed: &Needed) -> bool {
        Release::of(&self.version).is_none_or(|it| it >= needed.onnxruntime)
    }
}

/// A place that had no usable library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    pub how: How,
    pub path: PathBuf,
    #[serde(serialize_with = "as_text")]
    pub reason: Reject,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    #[error("no ONNX Runtime library there")]
    Absent,
    #[error("cannot be loaded: {0}")]
    Load(String),
    #[error("is no ONNX Runtime: it does not export `OrtGetApiBase`")]
    Foreign,
    #[error("is ONNX Runtime {0}, too old")]
    TooOld(String),
}

/// No place had a usable library.
#[derive(Clone, Debug, thiserror::Error)]
pub struct NotFound {
    pub tried: Vec<Tried>,
}

/// The library that a session would use; nothing is installed.
pub(super) fn locate(places: &Places) -> Result<Located, NotFound> {
    let (located, tried) = survey(places);
    located.ok_or(NotFound { tried })
}

/// Like [`locate`], with the places that were passed over on the way.
pub(super) fn survey(places: &Places) -> (Option<Located>, Vec<Tried>) {
    search(places, &ort::version)
}

/// The library of one folder, or why there is none.
pub(super) fn in_folder(how: How, folder: &Path) -> Result<Located, Tried> {
    let mut reason = Tried { how, path: folder.to_owned(), reason: Reject::Absent };
    for path in libraries(folder) {
        match check(&path, &ort::version) {
            Ok(version) => return Ok(Located { path, version, how }),
            Err(it) => reason = Tried { how, path, reason: it },
        }
    }
    Err(reason)
}

impl NotFound {
    /// The user named a library, so no other will do.
    pub fn explicit(&self) -> bool {
        self.named().is_some()
    }

    fn named(&self) -> Option<&Tried> {
        self.tried.iter().find(|it| matches!(it.how, How::Option | How::DylibPath))
    }
}

impl Diagnostic for NotFound {
    fn code(&self) -> Code {
        let too_old = self.tried.iter().any(|it| matches!(it.reason, Reject::TooOld(_)));
        if self.explicit() && too_old { Code::E802 } else { Code::E801 }
    }

    fn hint(&self) -> Option<String> {
        let mut text = "only commands that run models need it; get it with one of\n  \
            onnxq runtime install      (fetches the official package once, about 24 MB)\n  \
            pip install onnxruntime    (then run onnxq inside that environment)\n  \
            --ort-lib FILE or ORT_DYLIB_PATH=FILE\n\
            none of these places has one:"
            .to_owned();
        for it in &self.tried {
            let how = it.how.to_string();
            text += &format!("\n  {how:<38} {}\n  {:38}   {}", it.path.display(), "", it.reason);
        }
        Some(text)
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime (>= {}) was not found", Release::OLDEST)?;
        match self.named() {
            Some(it) => write!(f, ": {} {}", it.path.display(), it.reason),
            None => Ok(()),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Option => "--ort-lib",
            How::DylibPath => "ORT_DYLIB_PATH",
            How::BesideExecutable => "next to the executable",
            How::ExecutablePython => "Python environment of the executable",
            How::VirtualEnv => "VIRTUAL_ENV",
            How::Conda => "CONDA_PREFIX",
            How::Cache => "cache",
            How::System => "system loader",
        })
    }
}

impl Places {
    /// Files and folders to look at, in order.
    fn list(&self) -> Vec<(How, PathBuf)> {
        // `ort` reads a relative path from the executable's folder.
        let absolute = |it: &PathBuf| std::path::absolute(it).unwrap_or_else(|_| it.clone());
        if let Some(path) = &self.library {
            return vec![(How::Option, absolute(path))];
        }
        if let Some(path) = &self.dylib_path {
            return vec![(How::DylibPath, absolute(path))];
        }
        let mut list = Vec::new();
        if let Some(folder) = self.executable.as_deref().and_then(Path::parent) {
            list.push((How::BesideExecutable, folder.to_owned()));
            if let Some(prefix) = folder.parent() {
                list.push((How::BesideExecutable, prefix.join("lib")));
                push_python(&mut list, How::ExecutablePython, prefix);
            }
        }
        if let Some(prefix) = &self.virtual_env {
            push_python(&mut list, How::VirtualEnv, prefix);
        }
        if let Some(prefix) = &self.conda {
            list.push((How::Conda, prefix.join("lib")));
            push_python(&mut list, How::Conda, prefix);
        }
        list.extend(self.cache.iter().map(|it| (How::Cache, it.clone())));
        list
    }
}

/// The package's folder in each Python of an environment, or the environment itself if it has none.
fn push_python(list: &mut Vec<(How, PathBuf)>, how: How, prefix: &Path) {
    let mut homes = vec![prefix.join("Lib")];
    for lib in folders(prefix, "lib") {
        homes.extend(folders(&lib, "python3"));
    }
    let packages = homes.iter().flat_map(|it| [it.join("site-packages"), it.join("dist-packages")]);
    let mut found: Vec<PathBuf> = packages.map(|it| it.join("onnxruntime").join("capi")).collect();
    found.retain(|it| it.is_dir());
    if found.is_empty() {
        found.push(prefix.to_owned());
    }
    list.extend(found.into_iter().map(|it| (how, it)));
}

/// Folders in `parent` whose names begin with `prefix`, in order.
fn folders(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let named = |it: &PathBuf| {
        it.file_name().and_then(|it| it.to_str()).is_some_and(|it| it.starts_with(prefix))
    };
    let mut list: Vec<PathBuf> = entries.filter_map(|it| Some(it.ok()?.path())).collect();
    list.retain(|it| named(it) && it.is_dir());
    list.sort();
    list
}

type Version<'a> = &'a dyn Fn(&Path) -> Result<String, Reject>;

fn search(places: &Places, version: Version<'_>) -> (Option<Located>, Vec<Tried>) {
    let mut tried = Vec::new();
    let list = places.list();
    for (how, place) in &list {
        let libraries = libraries(place);
        if libraries.is_empty() {
            tried.push(Tried { how: *how, path: place.clone(), reason: Reject::Absent });
        }
        for path in libraries {
            match check(&path, version) {
                Ok(version) => return (Some(Located { path, version, how: *how }), tried),
                Err(reason) => tried.push(Tried { how: *how, path, reason }),
            }
        }
    }
    let explicit = list.iter().any(|(how, _)| matches!(how, How::Option | How::DylibPath));
    let system = if places.no_system || explicit { Vec::new() } else { system_names() };
    for path in system {
        match check(&path, version) {
            Ok(version) => return (Some(Located { path, version, how: How::System }), tried),
            Err(reason) => tried.push(Tried { how: How::System, path, reason }),
        }
    }
    (None, tried)
}

/// Names without a folder, which the system's loader resolves.
fn system_names() -> Vec<PathBuf> {
    let plain = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
    let mut names = vec![PathBuf::from(&plain)];
    if cfg!(all(unix, not(target_os = "macos"))) {
        names.push(PathBuf::from(format!("{plain}.1")));
    }
    names
}

/// The libraries at a place: the file itself, or those of a folder, newest first.
fn libraries(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut list: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|it| Some(it.ok()?.path()))
        .filter_map(|it| Some((library_version(it.file_name()?.to_str()?)?, it)))
        .collect();
    list.sort_by(|a, b| b.cmp(a));
    list.into_iter().map(|(_, path)| path).collect()
}

/// The version in the name of an ONNX Runtime library; `None` if it is no such name.
///
/// `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`, `onnxruntime.dll`; but not
/// `libonnxruntime_providers_shared.so`.
pub(super) fn library_version(file_name: &str) -> Option<Vec<u32>> {
    let rest = file_name.strip_prefix(DLL_PREFIX)?.strip_prefix("onnxruntime")?;
    let (before, after) = rest.split_once(DLL_SUFFIX)?;
    let version = if before.is_empty() { after } else { before };
    if !before.is_empty() && !after.is_empty() {
        return None;
    }
    if version.is_empty() {
        return Some(Vec::new());
    }
    version.strip_prefix('.')?.split('.').map(|it| it.parse().ok()).collect()
}

fn check(path: &Path, version: Version<'_>) -> Result<String, Reject> {
    let version = version(path)?;
    match Release::of(&version) >= Some(Release::OLDEST) {
        true => Ok(version),
        false => Err(Reject::TooOld(version)),
    }
}

fn as_text<S: Serializer>(reason: &Reject, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A "library" is a text file with its version.
    fn version(path: &Path) -> Result<String, Reject> {
        let text = fs::read_to_string(path).map_err(|_| Reject::Absent)?;
        if text == "broken" { Err(Reject::Load("file too short".to_owned())) } else { Ok(text) }
    }

    fn put(folder: PathBuf, version: &str) -> PathBuf {
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"));
        fs::write(&path, version).unwrap();
        path
    }

    fn found(places: &Places) -> (How, String) {
        let (located, _) = search(places, &version);
        let located = located.unwrap();
        (located.how, located.version)
    }

    #[test]
    fn places_are_tried_in_the_documented_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |it: &str| dir.path().join(it);
        let capi = "lib/python3.11/site-packages/onnxruntime/capi";
        let mut places = Places {
            library: Some(put(at("option"), "1.30.0")),
            dylib_path: Some(put(at("dylib"), "1.30.1").parent().unwrap().to_owned()),
            executable: Some(at("env/bin/onnxq")),
            virtual_env: Some(at("venv")),
            conda: Some(at("conda")),
            cache: Some(at("cache")),
            no_system: true,
        };
        let beside = put(at("env/bin"), "1.30.2");
        let lib = put(at("env/lib"), "1.30.3");
        let python = put(at("env").join(capi), "1.30.4");
        let venv = put(at("venv").join(capi), "1.30.5");
        let conda = put(at("conda").join(capi), "1.30.6");
        put(at("cache"), "1.30.7");

        assert_eq!(found(&places), (How::Option, "1.30.0".to_owned()));
        places.library = None;
        assert_eq!(found(&places), (How::DylibPath, "1.30.1".to_owned()));
        places.dylib_path = None;
        let order = [
            (beside, How::BesideExecutable),
            (lib, How::BesideExecutable),
            (python, How::ExecutablePython),
            (venv, How::VirtualEnv),
            (conda, How::Conda),
        ];
        for (i, (path, how)) in order.into_iter().enumerate() {
            assert_eq!(found(&places), (how, format!("1.30.{}", i + 2)));
            fs::remove_file(path).unwrap();
        }
        assert_eq!(found(&places), (How::Cache, "1.30.7".to_owned()));
    }

    #[test]
    fn what_the_user_names_has_no_substitute() {
        let dir = tempfile::tempdir().unwrap();
        let old = put(dir.path().join("old"), "1.20.1");
        put(dir.path().join("cache"), "1.31.1");
        let cache = Some(dir.path().join("cache"));
        let places = Places { library: Some(old), cache, ..Places::default() };
        let (located, tried) = search(&places, &version);
        assert_eq!(located, None);
        let error = NotFound { tried };
        assert!(error.explicit());
        assert_eq!(error.code(), Code::E802);
        assert!(error.to_string().contains("is ONNX Runtime 1.20.1, too old"), "{error}");
    }

    #[test]
    fn unusable_libraries_are_passed_over_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let executable = put(dir.path().join("bin"), "broken").with_file_name("onnxq");
        put(dir.path().join("cache"), "1.23.0");
        let places = Places {
            executable: Some(executable),
            cache: Some(dir.path().join("cache")),
            no_system: true,
            ..Places::default()
        };
        let (located, tried) = search(&places, &version);
        assert_eq!(located.unwrap().how, How::Cache);
        let reasons: Vec<String> = tried.iter().map(|it| it.reason.to_string()).collect();
        assert_eq!(reasons[0], "cannot be loaded: file too short");
        assert_eq!(reasons[1], "no ONNX Runtime library there");
    }

    #[test]
    fn a_folder_gives_its_newest_library() {
        let dir = tempfile::tempdir().unwrap();
        let (before, after) = if cfg!(target_os = "macos") {
            (".1.9.0", "")
        } else if cfg!(windows) {
            return; // Windows names carry no version.
        } else {
            ("", ".1.9.0")
        };
        let old = format!("{DLL_PREFIX}onnxruntime{before}{DLL_SUFFIX}{after}");
        let new = old.replace("1.9.0", "1.31.1");
        let other = format!("{DLL_PREFIX}onnxruntime_providers_shared{DLL_SUFFIX}");
        for name in [&old, &new, &other] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(libraries(dir.path()), [dir.path().join(&new), dir.path().join(&old)]);
    }
}
