//! What a training that was killed left, so that the next one goes on from there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use onnxq_ir::diag::{Code, Diagnostic};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::Point;

/// Where a training keeps its state: a file beside the output.
pub(super) struct StateFile {
    path: PathBuf,
    /// A digest of all that the training depends on.
    key: String,
}

/// A training between two steps.
#[derive(Default)]
pub(super) struct State {
    pub facts: Facts,
    /// Trained numbers, their first and second moments, and the best numbers so far.
    pub lists: [Vec<Vec<f32>>; 4],
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    pub key: String,
    pub step: usize,
    #[serde(with = "bits")]
    pub best: f64,
    pub best_step: usize,
    #[serde(with = "bits")]
    pub before: f64,
    #[serde(with = "looks")]
    pub curve: Vec<Point>,
    /// Of the steps since the last look.
    #[serde(with = "bits")]
    pub sum: f64,
    pub count: usize,
    pub tokens: u64,
}

/// A number as its bits: JSON knows no NaN, and digits may lose the last bit.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// The learning curve, its numbers as bits.
mod looks {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Point;

    pub(super) fn serialize<S: Serializer>(curve: &[Point], to: S) -> Result<S::Ok, S::Error> {
        let look = |it: &Point| (it.step, it.loss.to_bits(), it.held_out.to_bits());
        curve.iter().map(look).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<Point>, D::Error> {
        let looks = Vec::<(usize, u64, u64)>::deserialize(from)?;
        let point = |(step, loss, held_out)| Point {
            step,
            loss: f64::from_bits(loss),
            held_out: f64::from_bits(held_out),
        };
        Ok(looks.into_iter().map(point).collect())
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("`{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("`{}` is of another training: of another model, other samples or settings", path.display())]
    Other { path: PathBuf },
}

impl Diagnostic for StateError {
    fn code(&self) -> Code {
        match self {
            StateError::Io { .. } => Code::E901,
            StateError::Damaged { .. } | StateError::Other { .. } => Code::E643,
        }
    }

    fn hint(&self) -> Option<String> {
        let path = match self {
            StateError::Io { .. } => return None,
            StateError::Damaged { path, .. } | StateError::Other { path } => path,
        };
        Some(format!("delete `{}` to begin anew", path.display()))
    }
}

const NAMES: [&str; 4] = ["number", "first", "second", "best"];
const FACTS: &str = "onnxq.training";

impl StateFile {
    pub(super) fn beside(output: &Path, key: String) -> StateFile {
        let mut name = output.file_name().unwrap_or_default().to_owned();
        name.push(".train");
        StateFile { path: output.with_file_name(name), key }
    }

    /// What an earlier run left, if it was the same training.
    pub(super) fn read(&self) -> Result<Option<State>, StateError> {
        let io = |source| StateError::Io { path: self.path.clone(), source };
        if !self.path.exists() {
            return Ok(None);
        }
        let bytes = onnxq_ir::fs::read_file(&self.path).map_err(io)?;
        let damaged = |what: String| StateError::Damaged { path: self.path.clone(), what };
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|it| damaged(it.to_string()))?;
        let text = header.metadata().as_ref().and_then(|it| it.get(FACTS)).cloned();
        let text = text.ok_or_else(|| damaged("it has no facts".to_owned()))?;
        let facts: Facts = serde_json::from_str(&text).map_err(|it| damaged(it.to_string()))?;
        if facts.key != self.key {
            return Err(StateError::Other { path: self.path.clone() });
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|it| damaged(it.to_string()))?;
        let mut lists: [Vec<Vec<f32>>; 4] = Default::default();
        for (list, name) in lists.iter_mut().zip(NAMES) {
            for at in 0.. {
                let Ok(view) = tensors.tensor(&format!("{name}.{at}")) else { break };
                let (floats, _) = view.data().as_chunks::<4>();
                list.push(floats.iter().map(|it| f32::from_le_bytes(*it)).collect());
            }
        }
        Ok(Some(State { facts, lists }))
    }

    /// Replaces what was there at once, or not at all.
    pub(super) fn write(&self, mut state: State) -> Result<(), StateError> {
        let io = |source| StateError::Io { path: self.path.clone(), source };
        state.facts.key.clone_from(&self.key);
        let facts = serde_json::to_string(&state.facts).expect("plain data");
        let mut bytes = Vec::new();
        for (list, name) in state.lists.iter().zip(NAMES) {
            for (at, values) in list.iter().enumerate() {
                let own: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
                bytes.push((format!("{name}.{at}"), values.len(), own));
            }
        }
        let views: BTreeMap<&str, TensorView<'_>> = bytes
            .iter()
            .map(|(name, len, own)| {
                let view = TensorView::new(Dtype::F32, vec![*len], own);
                (&**name, view.expect("four bytes for each number"))
            })
            .collect();
        let metadata = Some([(FACTS.to_owned(), facts)].into());
        let file = safetensors::serialize(views, metadata);
        let file = file.map_err(|it| io(io::Error::other(it.to_string())))?;
        let mut part = self.path.as_os_str().to_owned();
        part.push(".part");
        fs::write(&part, file).map_err(io)?;
        fs::rename(&part, &self.path).map_err(io)
    }

    /// The training is over.
    pub(super) fn remove(&self) {
        // If it cannot be removed, the next training says so.
        drop(fs::remove_file(&self.path));
    }
}
