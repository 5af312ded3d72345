//! A whole file of statistics, in the format of safetensors.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::{CalibrateError, Identity};
use onnxq_ir::onnx;
use onnxq_numerics::stats::{Hessian, InputStats};

pub(super) const VERSION: &str = "onnxq.stats/1";
const KEY: &str = "onnxq";

pub(super) const MEAN_SQUARE: &str = "mean_square";
pub(super) const MAX_ABS: &str = "max_abs";
pub(super) const HESSIAN: &str = "hessian";
pub(super) const DRIFT: &str = "drift";

/// A whole file of statistics, mapped.
pub struct Stats {
    pub(super) path: PathBuf,
    bytes: Bytes,
    pub identity: Identity,
    rows: BTreeMap<String, u64>,
}

impl Stats {
    pub fn read(path: &Path) -> Result<Stats, CalibrateError> {
        let io = |source| CalibrateError::StatsFile { path: path.into(), source };
        let bytes = onnx::map_file(path).map_err(io)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|err| damaged(path, err))?;
        let json = header.metadata().as_ref().and_then(|it| it.get(KEY));
        let json = json.ok_or_else(|| damaged(path, "it is not from onnxq"))?;
        let metadata: Metadata = serde_json::from_str(json).map_err(|err| damaged(path, err))?;
        if metadata.version != VERSION {
            return Err(damaged(path, format!("its version is {}", metadata.version)));
        }
        let stats =
            Stats { path: path.into(), bytes, identity: metadata.identity, rows: metadata.rows };
        Ok(stats)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inputs that it knows.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(|it| &**it)
    }

    pub fn get(&self, name: &str) -> Result<Option<InputStats>, CalibrateError> {
        let Some(&rows) = self.rows.get(name) else { return Ok(None) };
        let tensors =
            SafeTensors::deserialize(&self.bytes).map_err(|err| damaged(&self.path, err))?;
        let vector = |what: &str| -> Result<Option<Vec<f32>>, CalibrateError> {
            let Ok(view) = tensors.tensor(&format!("{name}.{what}")) else { return Ok(None) };
            if view.dtype() != Dtype::F32 {
                return Err(damaged(&self.path, format!("`{name}.{what}` is not F32")));
            }
            let values = floats(view.data());
            if values.iter().any(|it| !it.is_finite()) {
                return Err(damaged(&self.path, format!("`{name}.{what}` is not finite")));
            }
            Ok(Some(values))
        };
        let missing = || damaged(&self.path, format!("`{name}` is incomplete"));
        let mean_square = vector(MEAN_SQUARE)?.ok_or_else(missing)?;
        let max_abs = vector(MAX_ABS)?.ok_or_else(missing)?;
        let k = mean_square.len();
        let hessian = vector(HESSIAN)?.map(|lower| Hessian { k, lower });
        let sized = hessian.as_ref().is_none_or(|it| it.lower.len() == Hessian::len_of(k));
        let drift = vector(DRIFT)?;
        let squared = drift.as_ref().is_none_or(|it| it.len() == k * k);
        if max_abs.len() != k || !sized || !squared {
            return Err(missing());
        }
        let drift = drift.map(|it| square(k, it));
        Ok(Some(InputStats { rows, mean_square, max_abs, hessian, drift }))
    }
}

/// The description of a whole file.
#[derive(Serialize, Deserialize)]
pub(super) struct Metadata {
    pub version: String,
    #[serde(flatten)]
    pub identity: Identity,
    /// Rows observed of each input.
    pub rows: BTreeMap<String, u64>,
}

/// A vector of floats that is written when its turn comes.
pub(super) struct Floats {
    pub shape: [usize; 1],
    pub bytes: Bytes,
}

impl View for Floats {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes a file in one step.
pub(super) fn write(
    path: &Path,
    metadata: &Metadata,
    list: Vec<(String, Floats)>,
) -> Result<(), CalibrateError> {
    // One entry, because the order of several would change from run to run.
    let json = serde_json::to_string(metadata).expect("plain data");
    let entries = HashMap::from([(KEY.to_owned(), json)]);
    let io = |err: &dyn ToString| CalibrateError::StatsFile {
        path: path.into(),
        source: io::Error::other(err.to_string()),
    };
    let whole = std::path::absolute(path).map_err(|err| io(&err))?;
    safetensors::serialize_to_file(list, Some(entries), &whole).map_err(|err| io(&err))
}

pub(super) fn square(k: usize, values: Vec<f32>) -> Array2<f32> {
    Array2::from_shape_vec((k, k), values).expect("the length was checked")
}

pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    let float = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("4 bytes"));
    bytes.chunks_exact(4).map(float).collect()
}

pub(super) fn damaged(path: &Path, fact: impl ToString) -> CalibrateError {
    CalibrateError::Damaged { path: path.into(), fact: fact.to_string() }
}
