//! A path that leads to nothing is a slip of whoever typed it: which code it has, and what may have
//! been meant.

use std::{
    fs,
    io::{Error, ErrorKind},
    path::Path,
};

use crate::{diag::Code, suggest::suggest};

/// More entries of a folder are not looked at.
const MOST_ENTRIES: usize = 10_000;
/// More names are no help.
const MOST_NAMES: usize = 6;

/// The code of a file that could not be read: the user's slip, or the machine's failure.
pub fn read_code(error: &Error) -> Code {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput => Code::E905,
        _ => Code::E902,
    }
}

/// What may have been meant by a path that could not be read.
pub fn read_hint(path: &Path, error: &Error) -> Option<String> {
    match read_code(error) {
        Code::E905 if !path.exists() => missing_hint(path),
        _ => None,
    }
}

/// What may have been meant by a path that leads to nothing.
pub fn missing_hint(path: &Path) -> Option<String> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let near = similar(folder).map(|near| format!("; did you mean `{near}`?"));
        return Some(format!(
            "there is no folder `{}`{}",
            folder.display(),
            near.unwrap_or_default()
        ));
    }
    if let Some(near) = similar(path) {
        return Some(format!("did you mean `{near}`?"));
    }
    let extension = path.extension()?;
    let mut alike = names(folder);
    alike.retain(|name| Path::new(name).extension() == Some(extension));
    alike.sort();
    let more = if alike.len() > MOST_NAMES { ", …" } else { "" };
    alike.truncate(MOST_NAMES);
    let extension = extension.to_string_lossy();
    match alike.is_empty() {
        true => Some(format!("`{}` holds no .{extension} file", folder.display())),
        false => Some(format!("`{}` holds {}{more}", folder.display(), alike.join(", "))),
    }
}

/// The path of what lies beside it and is called almost so, or so but for what the name ends in.
fn similar(path: &Path) -> Option<String> {
    let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names = names(place);
    let stem = |name: &str| Path::new(name).file_stem().map(|it| it.to_string_lossy().into_owned());
    let near = suggest(name, names.iter().map(String::as_str)).map(str::to_owned);
    let same_stem = || {
        let found: Vec<_> = names.iter().filter(|other| stem(other) == stem(name)).collect();
        let model = || found.iter().find(|other| other.ends_with(".onnx")).copied();
        (if found.len() == 1 { found.first().copied() } else { model() }).cloned()
    };
    Some(folder.join(near.or_else(same_stem)?).display().to_string())
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.take(MOST_ENTRIES).flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_a_failure_and_answered() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("eval.txt"), "").unwrap();
        fs::write(at("notes.txt"), "").unwrap();
        let hint =
            |name: &str| missing_hint(&at(name)).unwrap().replace(at("").to_str().unwrap(), "");
        assert_eq!(hint("evla.txt"), "did you mean `eval.txt`?");
        assert_eq!(hint("eval"), "did you mean `eval.txt`?");
        assert!(hint("zzzz.txt").ends_with("holds eval.txt, notes.txt"), "{}", hint("zzzz.txt"));
        assert!(hint("other.npz").ends_with("holds no .npz file"));
        assert!(hint("none/eval.txt").starts_with("there is no folder"));
        let error = |kind| Error::from(kind);
        assert_eq!(read_code(&error(ErrorKind::NotFound)), Code::E905);
        assert_eq!(read_code(&error(ErrorKind::PermissionDenied)), Code::E902);
    }
}
