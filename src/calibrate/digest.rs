//! The digest of data: what statistics belong to.

use std::{fs::File, io::Read, path::PathBuf};

use sha2::{Digest, Sha256};

use super::DataError;

/// One file: its digest. Several, or with settings: the digest of their names and digests.
pub fn of(files: &[PathBuf], settings: Option<&str>) -> Result<String, DataError> {
    let mut list = Vec::new();
    for file in files {
        let mut hash = Sha256::new();
        let mut data = File::open(file).map_err(DataError::io(file))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let len = data.read(&mut buffer).map_err(DataError::io(file))?;
            if len == 0 {
                break;
            }
            hash.update(&buffer[..len]);
        }
        list.push(hex(&hash.finalize()));
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
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}
