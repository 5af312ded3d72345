//! A GGUF file as a checkpoint: what llama.cpp calls keys and tensors, under the names of Hugging Face.
//!
//! Names and permutations are those that llama.cpp's `convert_hf_to_gguf.py` writes.

mod export;
mod families;
mod keys;
mod keys_of;
mod names;
#[cfg(test)]
mod tests;

use std::path::Path;

use onnxq_ir::{
    onnx::{ExternalPolicy, Files},
    tensor::Tensor,
    untrusted::Untrusted,
};

pub use self::export::{Export, ExportPart, ExportTensor};
use self::families::{FAMILIES, Family};
use super::{
    Checkpoint, Weights,
    weights::{Blocks, Data, Stored},
};
use crate::{CheckpointError, arch, gguf::File};

/// Reads a GGUF file and checks all of it: keys, names and shapes.
pub(super) fn open(path: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
    let mut files = Files::new(path, policy)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let file = File::parse(&files.map_model()?, &name)?;
    let family = family(&file, &name)?;
    let config = keys::config(&file, &name, family)?;
    let weights = weights(&file, &name, family)?;
    let mut architecture = arch::describe(&config, path, &weights)?;
    if file.info(names::ROPE_FACTORS).is_some() {
        let factors = numbers(&file, &name, names::ROPE_FACTORS)?;
        stretch(&mut architecture.rotaries[0], &factors, &name)?;
    }
    weights.check(&architecture, path)?;
    let files = files.built(path);
    let words = file.metadata().filter(|it| it.0.starts_with("tokenizer."));
    let words = words.map(|(key, value)| (key.to_owned(), value.clone())).collect();
    let folder = path.into();
    Ok(Checkpoint { folder, architecture, weights, files, words, is_guessed: false })
}

/// What a file says of its model, as a `config.json`.
pub(crate) fn config(file: &File, name: &str) -> Result<serde_json::Value, CheckpointError> {
    Ok(keys::config(file, name, family(file, name)?)?.json())
}

fn family(file: &File, name: &str) -> Result<&'static Family, CheckpointError> {
    let architecture = file.value("general.architecture").and_then(|it| it.text());
    let Some(architecture) = architecture else {
        let problem = "`general.architecture` is missing".to_owned();
        return Err(CheckpointError::Weights { file: name.to_owned(), problem });
    };
    let known = || FAMILIES.iter().map(|it| it.architecture).collect::<Vec<_>>().join(", ");
    FAMILIES.iter().find(|it| it.architecture == architecture).ok_or_else(|| {
        CheckpointError::Architecture { name: architecture.to_owned(), known: known() }
    })
}

/// Tensors by the names of checkpoints. Those of quantized types are views: no weight is made whole.
fn weights(file: &File, name: &str, family: &Family) -> Result<Weights, CheckpointError> {
    let mut weights = Weights::raised();
    for (tensor, info) in file.tensors().filter(|it| !names::is_factor(it.0)) {
        let ours = names::of(family, tensor);
        let view = file.tensor(tensor)?;
        let is_turned = view.shape.len() == 2 && names::is_turned(family, tensor);
        let view = if is_turned { view.transposed() } else { view };
        let (type_name, shape) = (info.kind.name().to_owned(), view.shape.clone());
        let data = match view.dtype.is_float() {
            true => Data::View(paired(view, family.heads_of(file, &ours), name, tensor)?),
            false => Data::Other,
        };
        let is_matrix = shape.len() == 2 && matches!(data, Data::View(_));
        let blocks = is_matrix.then(|| Blocks { kind: info.kind, bytes: info.bytes.clone() });
        let stored = Stored { name: tensor.to_owned(), type_name, shape, data, blocks };
        weights.add(ours, stored).map_err(|before| {
            let (tensor, before) = (Untrusted(tensor), Untrusted(&before));
            let problem = format!("tensors `{before}` and `{tensor}` are the same parameter");
            CheckpointError::Weights { file: name.to_owned(), problem }
        })?;
    }
    Ok(weights)
}

/// Rows in the order of checkpoints. llama.cpp turns neighbours, `(0, 1), (2, 3), …`; checkpoints turn
/// the halves of a head, `(0, d/2), (1, d/2 + 1), …`.
fn paired(
    tensor: Tensor,
    heads: Option<usize>,
    file: &str,
    name: &str,
) -> Result<Tensor, CheckpointError> {
    let (Some(heads), Some(&rows)) = (heads, tensor.shape.first()) else { return Ok(tensor) };
    if heads == 0 || !rows.is_multiple_of(2 * heads) {
        let problem = format!("tensor `{}`: {rows} rows of {heads} heads", Untrusted(name));
        return Err(CheckpointError::Weights { file: file.to_owned(), problem });
    }
    let size = rows / heads;
    let place = |row: usize| {
        let (head, at) = (row / size, row % size);
        head * size + (at % (size / 2)) * 2 + at / (size / 2)
    };
    let places: Vec<usize> = (0..rows).map(place).collect();
    if tensor.shape.len() == 2 {
        return Ok(tensor.picked(places));
    }
    // A bias, which is small.
    let values = floats(&tensor, file, name)?;
    Ok(Tensor::from_f32(&tensor.shape, places.iter().map(|it| values[*it])))
}

/// A small tensor whose numbers the description needs.
fn numbers(file: &File, name: &str, tensor: &str) -> Result<Vec<f32>, CheckpointError> {
    /// More pairs than any head turns.
    const MOST: usize = 1 << 16;
    let view = file.tensor(tensor)?;
    if view.numel() > MOST || !view.dtype.is_float() {
        let problem = format!("tensor `{tensor}` is no list of factors");
        return Err(CheckpointError::Weights { file: name.to_owned(), problem });
    }
    floats(&view, name, tensor)
}

fn floats(view: &Tensor, file: &str, name: &str) -> Result<Vec<f32>, CheckpointError> {
    view.to_f32().map_err(|error| {
        let problem = format!("tensor `{}`: {error}", Untrusted(name));
        CheckpointError::Weights { file: file.to_owned(), problem }
    })
}

/// Each frequency is divided by its factor, as Llama 3.1 does.
fn stretch(rotary: &mut arch::Rotary, factors: &[f32], file: &str) -> Result<(), CheckpointError> {
    if factors.len() != rotary.frequencies.len() || !factors.iter().all(|it| *it > 0.0) {
        let pairs = rotary.frequencies.len();
        let problem = format!("tensor `{}` must be {pairs} numbers above 0", names::ROPE_FACTORS);
        return Err(CheckpointError::Weights { file: file.to_owned(), problem });
    }
    for (it, factor) in rotary.frequencies.iter_mut().zip(factors) {
        *it /= factor;
    }
    Ok(())
}
