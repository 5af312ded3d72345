//! Reading a report that was written before, by this version or by another.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Report, SCHEMA};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{read_code, read_hint},
    untrusted::Untrusted,
};

/// More than a report of a million nodes.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the report `{}` could not be read", Untrusted(&path.to_string_lossy()))]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is larger than any report", Untrusted(&path.to_string_lossy()))]
    Size { path: PathBuf },
    #[error("`{}` is no report of onnxq", Untrusted(&path.to_string_lossy()))]
    Json { path: PathBuf, source: serde_json::Error },
    #[error(
        "`{}` is of the format `{}`; this version reads `{SCHEMA}`",
        Untrusted(&path.to_string_lossy()),
        Untrusted(schema)
    )]
    Schema { path: PathBuf, schema: String },
}

impl Diagnostic for ReadError {
    fn code(&self) -> Code {
        match self {
            ReadError::Io { source, .. } => read_code(source),
            _ => Code::E619,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ReadError::Io { path, source } => read_hint(path, source),
            ReadError::Schema { schema, .. } if schema.starts_with("onnxq.report/") => {
                Some("update onnxq".into())
            }
            _ => Some("pass a report.json that `onnxq validate --report` wrote".into()),
        }
    }
}

/// The one field that every version has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    schema: Option<String>,
}

/// Reads `report.json`. Fields that this version does not know are left out.
pub fn read(path: &Path) -> Result<Report, ReadError> {
    let io = |source| ReadError::Io { path: path.into(), source };
    let mut text = Vec::new();
    let file = onnxq_ir::fs::open_file(path).map_err(io)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ReadError::Size { path: path.into() });
    }
    parse(&text, path)
}

/// The same from memory; `path` is for messages.
pub fn parse(text: &[u8], path: &Path) -> Result<Report, ReadError> {
    let json = |source| ReadError::Json { path: path.into(), source };
    let head: Head = serde_json::from_slice(text).map_err(json)?;
    match head.schema {
        Some(schema) if schema == SCHEMA => serde_json::from_slice(text).map_err(json),
        schema => {
            let schema = schema.unwrap_or_else(|| "none".to_owned());
            Err(ReadError::Schema { path: path.into(), schema })
        }
    }
}
