//! The digest of data: what statistics belong to.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::DataError;
use onnxq_ir::onnx;

/// One file: its digest. Several, or with settings: the digest of their names and digests.
pub(super) fn of(files: &[PathBuf], settings: Option<&str>) -> Result<String, DataError> {
    let mut list = Vec::new();
    for file in files {
        list.push(onnx::sha256(file).map_err(DataError::io(file))?.1);
    }
    if let ([only], None) = (&list[..], settings) {
        return Ok(only.clone());
    }
    let mut hash = Sha256::new();
    hash.update(settings.unwrap_or_default());
    for (file, digest) in files.iter().zip(&list) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        hash.update(format!("{digest}  {name}\n"));
    }
    Ok(hex::encode(hash.finalize()))
}
