//! The tensors of safetensors files: where they lie, never what they hold.
//!
//! Format: <https://github.com/huggingface/safetensors>: the length of a header in eight bytes, the
//! header in JSON, then the data.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};

use super::Config;
use crate::{
    CheckpointError,
    arch::{Architecture, Param},
    gguf::GgmlType,
};
use onnxq_ir::{
    onnx::{Files, LoadError},
    tensor::{DType, Tensor},
};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Every tensor of a checkpoint by its name; the bytes are slices of mapped files.
#[derive(Default)]
pub struct Weights {
    tensors: BTreeMap<String, Stored>,
    /// Whether numbers that the graph adds to parameters are in the file already.
    are_raised: bool,
}

pub(super) struct Stored {
    /// What the file calls it, and its type.
    pub name: String,
    pub type_name: String,
    pub shape: Vec<usize>,
    pub data: Data,
    /// What a GGUF file has, rows in its order.
    pub blocks: Option<Blocks>,
}

/// A matrix as a GGUF file has it.
#[derive(Clone)]
pub struct Blocks {
    pub kind: GgmlType,
    pub bytes: Bytes,
}

pub(super) enum Data {
    /// Of a type that no parameter has.
    Other,
    Bytes(DType, Bytes),
    /// Parts of a quantized weight.
    Integers(DType, Bytes),
    /// Floats that are made when they are read.
    View(Tensor),
}

impl Weights {
    /// Maps the files of a folder and reads their headers.
    pub fn open(folder: &Path, files: &mut Files) -> Result<Weights, CheckpointError> {
        let mut weights = Weights::default();
        if folder.join(SINGLE).exists() {
            weights.read(SINGLE, map(files, SINGLE)?)?;
            return Ok(weights);
        }
        if !folder.join(INDEX).exists() {
            return Err(none_in(folder));
        }
        let index = onnxq_ir::fs::read_file(&folder.join(INDEX));
        let io = |source| CheckpointError::Io { path: folder.join(INDEX), source };
        let places = Config::parse(INDEX, &index.map_err(io)?)?.names("weight_map")?;
        let mut shards: Vec<&String> = places.values().collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            weights.read(shard, map(files, shard)?)?;
        }
        match places.keys().find(|it| !weights.tensors.contains_key(*it)) {
            None => Ok(weights),
            Some(name) => {
                Err(CheckpointError::Missing { name: name.clone(), folder: folder.into() })
            }
        }
    }

    fn read(&mut self, file: &str, bytes: Bytes) -> Result<(), CheckpointError> {
        let broken = |problem: String| CheckpointError::Weights { file: file.to_owned(), problem };
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|it| broken(it.to_string()))?;
        let start = header + size_of::<u64>();
        for (name, info) in metadata.tensors() {
            // Checked: they cover the file, one after another, and fit the shapes.
            let (from, to) = info.data_offsets;
            let stored = Stored {
                name: name.clone(),
                type_name: format!("{:?}", info.dtype).to_lowercase(),
                shape: info.shape.clone(),
                data: match dtype(info.dtype) {
                    Some(dtype) if dtype.is_float() => {
                        Data::Bytes(dtype, bytes.slice(start + from..start + to))
                    }
                    Some(dtype) => Data::Integers(dtype, bytes.slice(start + from..start + to)),
                    None => Data::Other,
                },
                blocks: None,
            };
            self.add(name, stored)
                .map_err(|name| broken(format!("`{name}` is also in another file")))?;
        }
        Ok(())
    }

    /// Those of a file that has added already what graphs add to parameters.
    pub(super) fn raised() -> Weights {
        Weights { are_raised: true, ..Weights::default() }
    }

    /// A tensor under the name that checkpoints have; `Err` if there is one already.
    pub(super) fn add(&mut self, name: String, stored: Stored) -> Result<(), String> {
        match self.tensors.insert(name, stored) {
            None => Ok(()),
            Some(before) => Err(before.name),
        }
    }

    pub(super) fn stored(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// A part of a weight, which is then none of the checkpoint's tensors.
    pub(super) fn take(&mut self, name: &str) -> Option<Stored> {
        self.tensors.remove(name)
    }

    /// What is added to a parameter as it is stored.
    pub fn plus(&self, param: &Param) -> f32 {
        if self.are_raised { 0.0 } else { param.plus }
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(|it| &**it)
    }

    /// What a GGUF file has of a matrix.
    pub fn blocks(&self, name: &str) -> Option<Blocks> {
        self.tensors.get(name)?.blocks.clone()
    }

    /// The type that a tensor is stored in: that of the floats, or float32 of what becomes floats.
    pub fn dtype(&self, name: &str) -> DType {
        match self.tensors.get(name).map(|it| &it.data) {
            Some(Data::Bytes(DType::F64, _)) | None => DType::F32,
            Some(Data::Bytes(dtype, _)) => *dtype,
            Some(Data::View(it)) if it.dtype.is_float() => it.dtype,
            Some(Data::View(_) | Data::Integers(..) | Data::Other) => DType::F32,
        }
    }

    /// A parameter in `float32`: a view of what is stored, of its rows if it names some.
    pub fn get(&self, param: &Param) -> Tensor {
        let stored = &self.tensors[&param.name];
        match &stored.data {
            Data::View(it) => match &param.rows {
                Some(rows) => it.picked(rows.clone().collect::<Vec<_>>()),
                None => it.clone(),
            },
            Data::Bytes(dtype, bytes) => {
                let (mut shape, mut bytes) = (stored.shape.clone(), bytes.clone());
                if let Some(rows) = &param.rows {
                    let width = bytes.len() / shape[0];
                    (shape[0], bytes) =
                        (rows.len(), bytes.slice(rows.start * width..rows.end * width));
                }
                Tensor::new(*dtype, shape, bytes).cast(DType::F32)
            }
            Data::Integers(..) | Data::Other => unreachable!("checked to be a float"),
        }
    }

    /// Names both ways, shapes, and types, of every parameter that the architecture has.
    pub fn check(&self, architecture: &Architecture, folder: &Path) -> Result<(), CheckpointError> {
        let params = architecture.params();
        for param in &params {
            self.check_param(param, folder)?;
        }
        let used: BTreeSet<&str> = params.iter().map(|it| &*it.name).collect();
        let is_used = |it: &&str| used.contains(it) || architecture.is_buffer(it);
        let mut unused = self.names().filter(|it| !is_used(it));
        match unused.next() {
            None => Ok(()),
            Some(first) => Err(CheckpointError::Unused {
                count: 1 + unused.count(),
                first: self.tensors[first].name.clone(),
                model_type: architecture.model_type.clone(),
            }),
        }
    }

    fn check_param(&self, param: &Param, folder: &Path) -> Result<(), CheckpointError> {
        let name = param.name.clone();
        let Some(stored) = self.tensors.get(&name) else {
            return Err(CheckpointError::Missing { name, folder: folder.into() });
        };
        if stored.shape == param.shape && !matches!(stored.data, Data::Integers(..) | Data::Other) {
            return Ok(());
        }
        let name = stored.name.clone();
        let actual = format!("{}{:?}", stored.type_name, stored.shape);
        let expected = format!("a float of {:?}", param.shape);
        Err(CheckpointError::Shape { name, actual, expected })
    }
}

fn map(files: &mut Files, location: &str) -> Result<Bytes, CheckpointError> {
    files.map_external(location).map_err(|problem| {
        CheckpointError::Load(LoadError::External { tensor: location.to_owned(), problem })
    })
}

/// Why a folder has no weights.
fn none_in(folder: &Path) -> CheckpointError {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut pickles: Vec<String> = entries
        .filter_map(|it| it.file_name().into_string().ok())
        .filter(|it| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| it.ends_with(end)))
        .collect();
    pickles.sort_unstable();
    match pickles.into_iter().next() {
        Some(file) => CheckpointError::Pickle { folder: folder.into(), file },
        None => CheckpointError::NoWeights { folder: folder.into() },
    }
}

fn dtype(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I8 => DType::I8,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}
