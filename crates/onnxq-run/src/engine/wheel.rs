//! Takes the library and its licences out of a wheel, after its checksum was compared.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use zip::ZipArchive;

use super::{InstallError, install::Pin, locate::library_version};
use onnxq_ir::onnx;

/// Far beyond any release, so that only a broken archive reaches it.
const MAX_FILE: u64 = 1 << 30;

const LICENCES: &[&str] = &["LICENSE", "Privacy.md", "ThirdPartyNotices.txt"];

/// Fills `destination`, all or nothing; `temp` is a folder beside it.
pub(super) fn unpack(
    pin: &Pin,
    wheel: &Path,
    destination: &Path,
    temp: &Path,
) -> Result<(), InstallError> {
    verify(pin, wheel)?;
    let staged = temp.join("runtime");
    extract(wheel, &staged)?;
    replace(&staged, destination, temp)
        .map_err(|source| InstallError::Io { path: destination.to_owned(), source })
}

fn verify(pin: &Pin, wheel: &Path) -> Result<(), InstallError> {
    let io = |source| InstallError::Io { path: wheel.to_owned(), source };
    let (_, actual) = onnx::sha256(wheel).map_err(io)?;
    if actual == pin.sha256 {
        return Ok(());
    }
    let (path, expected) = (wheel.to_owned(), pin.sha256.clone());
    Err(InstallError::Checksum { path, expected, actual })
}

fn extract(wheel: &Path, folder: &Path) -> Result<(), InstallError> {
    let archive = |reason: String| InstallError::Archive { path: wheel.to_owned(), reason };
    let io = |path: &Path, source| InstallError::Io { path: path.to_owned(), source };
    let file = onnxq_ir::fs::open_file(wheel).map_err(|it| io(wheel, it))?;
    let mut zip = ZipArchive::new(file).map_err(|it| archive(it.to_string()))?;
    fs::create_dir_all(folder).map_err(|it| io(folder, it))?;
    let mut libraries = 0;
    for i in 0..zip.len() {
        let entry = zip.by_index(i).map_err(|it| archive(it.to_string()))?;
        let name = entry.name().map_err(|it| archive(it.to_string()))?.into_owned();
        let Some(wanted) = Wanted::of(&name) else { continue };
        if entry.size() > MAX_FILE {
            return Err(archive(format!("`{}` has {} bytes", wanted.name, entry.size())));
        }
        let path = folder.join(wanted.name);
        write(entry, &path).map_err(|it| io(&path, it))?;
        libraries += usize::from(wanted.library);
    }
    if libraries == 0 { Err(InstallError::Empty { path: wheel.to_owned() }) } else { Ok(()) }
}

/// A file that we keep, by its name without folders.
struct Wanted<'a> {
    name: &'a str,
    library: bool,
}

impl Wanted<'_> {
    fn of(name: &str) -> Option<Wanted<'_>> {
        let name = name.strip_prefix("onnxruntime/")?;
        if LICENCES.contains(&name) {
            return Some(Wanted { name, library: false });
        }
        let name = name.strip_prefix("capi/")?;
        library_version(name)?;
        Some(Wanted { name, library: true })
    }
}

fn write(from: impl Read, path: &Path) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    io::copy(&mut from.take(MAX_FILE), &mut file)?;
    file.sync_all()
}

/// A rename cannot replace a folder with content, so an old one (a broken one: good ones are kept)
/// is moved away first.
fn replace(staged: &Path, destination: &Path, temp: &Path) -> io::Result<()> {
    if destination.exists() {
        let old: PathBuf = temp.join("old");
        fs::rename(destination, old)?;
    }
    fs::rename(staged, destination)
}

#[cfg(test)]
mod tests {
    use std::{
        env::consts::{DLL_PREFIX, DLL_SUFFIX},
        io::Write,
    };

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn make_wheel(path: &Path, files: &[(&str, &str)]) -> Pin {
        let mut zip = ZipWriter::new(fs::File::create(path).unwrap());
        for (name, text) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let text = format!(
            r#"{{"version": "", "os": "", "arch": "", "platform": "", "file": "", "size": 0, "sha256": "{}"}}"#,
            onnx::sha256(path).unwrap().1
        );
        serde_json::from_str(&text).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut list: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        list.sort();
        list
    }

    #[test]
    fn only_the_library_and_its_licences_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let library = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
        let inside = format!("onnxruntime/capi/{library}");
        let providers =
            format!("onnxruntime/capi/{DLL_PREFIX}onnxruntime_providers_shared{DLL_SUFFIX}");
        let files = [
            (inside.as_str(), "library"),
            (providers.as_str(), "not needed"),
            ("onnxruntime/LICENSE", "licence"),
            ("onnxruntime/__init__.py", "not needed"),
            ("onnxruntime/capi/../../../evil", "not needed"),
        ];
        let wheel = dir.path().join("a.whl");
        let pin = make_wheel(&wheel, &files);
        let destination = dir.path().join("1.0");
        // A broken earlier installation gives way.
        fs::create_dir_all(&destination).unwrap();
        fs::write(destination.join("junk"), "").unwrap();
        let temp = tempfile::tempdir_in(dir.path()).unwrap();
        unpack(&pin, &wheel, &destination, temp.path()).unwrap();
        let mut expected = ["LICENSE".to_owned(), library];
        expected.sort();
        assert_eq!(names(&destination), expected);
    }

    #[test]
    fn a_wheel_with_another_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("a.whl");
        let mut pin = make_wheel(&wheel, &[("onnxruntime/capi/libonnxruntime.so.1", "library")]);
        pin.sha256 = "0".repeat(64);
        let destination = dir.path().join("1.0");
        let error = unpack(&pin, &wheel, &destination, dir.path()).unwrap_err();
        assert!(matches!(error, InstallError::Checksum { .. }), "{error}");
        assert!(!destination.exists());
    }

    #[test]
    fn a_wheel_without_a_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("a.whl");
        let pin = make_wheel(&wheel, &[("onnxruntime/LICENSE", "licence")]);
        let destination = dir.path().join("1.0");
        let error = unpack(&pin, &wheel, &destination, dir.path()).unwrap_err();
        assert!(matches!(error, InstallError::Empty { .. }), "{error}");
        assert!(!destination.exists());
    }
}
