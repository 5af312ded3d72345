//! Which files of a folder are images.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::super::DataError;

/// Formats that are read, by the ends of their names.
const READ: &[&str] = &["bmp", "jpeg", "jpg", "png", "webp"];
/// Formats of images that are not: a folder with one is not used without it.
const REFUSED: &[&str] =
    &["avif", "gif", "heic", "heif", "jp2", "jxl", "pgm", "ppm", "tga", "tif", "tiff"];

/// Whether the name is that of an image that can be read.
pub(crate) fn is_image(path: &Path) -> bool {
    READ.contains(&&*extension(path))
}

/// Every image under a folder, sorted by its path; hidden files and those of other kinds (labels,
/// notes) are no images.
pub(crate) fn find(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(DataError::io(&folder))? {
            let entry = entry.map_err(DataError::io(&folder))?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(DataError::io(&path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_symlink() && path.is_dir() {
                // It may lead back here, or anywhere.
                return Err(DataError::format(&path, "is a link to a folder"));
            } else if REFUSED.contains(&&*extension(&path)) {
                return Err(DataError::format(&path, "is none of PNG, JPEG, WebP and BMP"));
            } else if is_image(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|it| it.to_str()).unwrap_or("").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::{Code, Diagnostic};

    #[test]
    fn images_are_found_in_order_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        for name in ["b/c/x.PNG", "b/a.jpeg", "z.webp", "a.bmp", "labels.txt", ".x.png"] {
            fs::write(at(name), "").unwrap();
        }
        let expected = ["a.bmp", "b/a.jpeg", "b/c/x.PNG", "z.webp"].map(at);
        assert_eq!(find(folder.path()).unwrap(), expected);
        fs::write(at("y.tiff"), "").unwrap();
        assert_eq!(find(folder.path()).unwrap_err().code(), Code::E601);
    }
}
