//! Where samples come from: arrays, sets of ONNX test data, texts or images.

use std::{ops::Range, path::PathBuf};

use super::{Batch, DataError, images::Images, npy::Npy, test_data, text_data};
use crate::engine::IoInfo;
use onnxq_ir::tensor::Tensor;

pub(super) enum Source {
    Arrays(Vec<Array>),
    Sets(Vec<PathBuf>),
    Tokens {
        input: usize,
        tokens: text_data::Tokens,
    },
    Images(Images),
    /// In memory, each a run of the model.
    Samples(Vec<Batch>),
}

pub(super) struct Array {
    pub input: usize,
    /// The same for every run: the input has no batch axis.
    pub whole: bool,
    pub npy: Npy,
}

impl Source {
    /// Samples may differ in shape.
    pub(super) fn is_one_by_one(&self) -> bool {
        match self {
            Source::Sets(_) | Source::Samples(_) => true,
            Source::Images(images) => !images.same_size,
            Source::Arrays(_) | Source::Tokens { .. } => false,
        }
    }

    /// What the samples depend on besides files.
    pub(super) fn settings(&self) -> Option<&str> {
        match self {
            Source::Images(images) => Some(&images.description),
            _ => None,
        }
    }

    /// Samples in the data; arrays must agree about it.
    pub(super) fn samples(&self, inputs: &[IoInfo]) -> Result<usize, DataError> {
        match self {
            Source::Sets(sets) => Ok(sets.len()),
            Source::Samples(samples) => Ok(samples.len()),
            Source::Tokens { tokens, .. } => Ok(tokens.rows()),
            Source::Images(images) => Ok(images.len()),
            Source::Arrays(arrays) => {
                let mut counts = arrays
                    .iter()
                    .filter(|it| !it.whole)
                    .map(|it| (it.input, it.npy.shape.first().copied().unwrap_or(0)));
                // If every array is the same for every run, there is one run.
                let Some((_, expected)) = counts.next() else { return Ok(1) };
                match counts.find(|(_, actual)| *actual != expected) {
                    None => Ok(expected),
                    Some((input, actual)) => {
                        let input = inputs[input].name.clone();
                        Err(DataError::Samples { input, actual, expected })
                    }
                }
            }
        }
    }

    /// The file of a sample, if it has one of its own.
    pub(super) fn file_of(&self, sample: usize) -> Option<PathBuf> {
        match self {
            Source::Images(images) => images.files.get(sample).cloned(),
            Source::Sets(sets) => sets.get(sample).cloned(),
            _ => None,
        }
    }

    /// What the data itself has for these samples.
    pub(super) fn read(
        &mut self,
        rows: Range<usize>,
        inputs: &[IoInfo],
    ) -> Result<Batch, DataError> {
        match self {
            Source::Arrays(arrays) => arrays
                .iter_mut()
                .map(|it| {
                    let tensor =
                        if it.whole { it.npy.whole()? } else { it.npy.rows(rows.clone())? };
                    Ok((inputs[it.input].name.clone(), tensor))
                })
                .collect(),
            Source::Sets(sets) => test_data::read(&sets[rows.start], inputs),
            Source::Samples(samples) => Ok(samples[rows.start].clone()),
            Source::Images(images) => {
                let name = inputs[images.input].name.clone();
                Ok(Batch::from([(name, images.read(rows)?)]))
            }
            Source::Tokens { input, tokens } => {
                let shape = [rows.len(), tokens.width];
                let ids = &tokens.ids[rows.start * tokens.width..rows.end * tokens.width];
                let tensor = Tensor::from_i64(&shape, ids.iter().map(|it| i64::from(*it)));
                Ok(Batch::from([(inputs[*input].name.clone(), tensor)]))
            }
        }
    }

    /// The batch size, if the model states it.
    pub(super) fn fixed_batch(&self, inputs: &[IoInfo]) -> Option<usize> {
        let input = match self {
            Source::Sets(_) | Source::Samples(_) => return None,
            Source::Tokens { input, .. } => *input,
            Source::Images(images) => images.input,
            Source::Arrays(arrays) => arrays.iter().find(|it| !it.whole)?.input,
        };
        inputs[input].ty.shape.as_ref()?.first()?.fixed().filter(|it| *it > 0)
    }
}
