//! Files of another writer, broken files, and laws.

mod golden;
mod hostile;
mod laws;
mod saved;

use std::path::Path;

use bytes::Bytes;

use super::File;
use crate::CheckpointError;

fn fixture(name: &str) -> Bytes {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf");
    std::fs::read(folder.join(name)).unwrap().into()
}

fn parse(bytes: impl Into<Bytes>) -> Result<File, CheckpointError> {
    File::parse(&bytes.into(), "x.gguf")
}

fn read(name: &str) -> File {
    parse(fixture(name)).unwrap()
}
