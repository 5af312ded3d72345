//! What a training that was killed left, so that the next one goes on from there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{
    Point,
    files::{Fault, FileError},
};

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
    pub lists: Lists<Vec<f32>>,
}

/// Trained numbers, their first and second moments, and the best numbers so far: none if no step was
/// better than the beginning.
pub(super) type Lists<T> = [Vec<T>; 4];

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

const NAMES: [&str; 4] = ["number", "first", "second", "best"];
const OTHER: &str = " is of another training: of another model, other samples or settings";
const FACTS: &str = "onnxq.training";

impl StateFile {
    pub(super) fn beside(output: &Path, key: String) -> StateFile {
        let mut name = output.file_name().unwrap_or_default().to_owned();
        name.push(".train");
        StateFile { path: output.with_file_name(name), key }
    }

    /// What an earlier run left, if it was the same training.
    pub(super) fn read(&self) -> Result<Option<State>, FileError> {
        let io = |source| self.wrong(Fault::Io(source));
        if !self.path.exists() {
            return Ok(None);
        }
        let bytes = onnxq_ir::fs::read_file(&self.path).map_err(io)?;
        let damaged = |what: String| self.damaged(what);
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|it| damaged(it.to_string()))?;
        let text = header.metadata().as_ref().and_then(|it| it.get(FACTS)).cloned();
        let text = text.ok_or_else(|| damaged("it has no facts".to_owned()))?;
        let facts: Facts = serde_json::from_str(&text).map_err(|it| damaged(it.to_string()))?;
        if facts.key != self.key {
            return Err(self.wrong(Fault::Other(OTHER)));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|it| damaged(it.to_string()))?;
        let mut lists: Lists<Vec<f32>> = Default::default();
        for (list, name) in lists.iter_mut().zip(NAMES) {
            for at in 0.. {
                let Ok(view) = tensors.tensor(&format!("{name}.{at}")) else { break };
                // Of this very machine, so its order of bytes is right.
                list.push(bytemuck::pod_collect_to_vec(view.data()));
            }
        }
        Ok(Some(State { facts, lists }))
    }

    /// Replaces what was there at once, or not at all. Numbers are written from where they lie.
    pub(super) fn write<'a>(
        &self,
        facts: &Facts,
        lists: &Lists<&'a [f32]>,
    ) -> Result<(), FileError> {
        let io = |source| self.wrong(Fault::Io(source));
        let facts = Facts { key: self.key.clone(), ..facts.clone() };
        let facts = serde_json::to_string(&facts).expect("plain data");
        let view = |it: &'a [f32]| {
            let view = TensorView::new(Dtype::F32, vec![it.len()], bytemuck::cast_slice(it));
            view.expect("four bytes for each number")
        };
        let named = lists.iter().zip(NAMES).flat_map(|(list, name)| {
            list.iter().enumerate().map(move |(at, it)| (format!("{name}.{at}"), view(it)))
        });
        let named: Vec<(String, TensorView<'_>)> = named.collect();
        let metadata = Some([(FACTS.to_owned(), facts)].into());
        let mut part = self.path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        safetensors::serialize_to_file(named, metadata, &part).map_err(|it| match it {
            SafeTensorError::IoError(source) => io(source),
            other => io(io::Error::other(other.to_string())),
        })?;
        fs::rename(&part, &self.path).map_err(io)
    }

    pub(super) fn damaged(&self, what: String) -> FileError {
        self.wrong(Fault::Damaged(what))
    }

    fn wrong(&self, fault: Fault) -> FileError {
        fault.of(&self.path, " to begin anew")
    }

    /// The training is over.
    pub(super) fn remove(&self) {
        // If it cannot be removed, the next training says so.
        drop(fs::remove_file(&self.path));
    }
}
