//! What a student learns from: samples, which of them are held out, and the order they come in.

use std::sync::Arc;

use crate::{Error, search::evaluator::digest};
use onnxq_ir::{
    Model,
    diag::{Code, Diagnostic},
    tensor::{DType, Tensor},
};
use onnxq_run::{
    calibrate,
    data::{
        Batch, Batches, Dataset, fitting,
        training::{self, TrainingData},
    },
};

/// One sample, as the model takes it in a batch of one.
#[derive(Clone, Debug)]
pub struct Example {
    pub inputs: Batch,
    /// By token: whether what the model says there counts. `None`: all that are no padding.
    pub counts: Option<Vec<bool>>,
    /// By token: what it is to say there, where no teacher is asked.
    pub labels: Option<Vec<i64>>,
}

/// Samples by number.
pub trait Examples {
    fn count(&self) -> usize;
    fn get(&self, index: usize) -> Result<Example, Error>;
    /// Equal texts have equal keys, so that none is learnt from and held out.
    fn key(&self, index: usize) -> Result<[u8; 32], Error>;
    /// A digest of all of them.
    fn sha256(&self) -> String;
    /// How many of them, the last ones, are held out, if that was decided before.
    fn held_out(&self) -> Option<usize> {
        None
    }
}

/// What to learn from.
#[derive(Clone)]
pub enum Lessons {
    /// Samples of any kind; a tenth of them is held out.
    Samples(Dataset),
    /// Texts, chats, answers or labels.
    Texts(Arc<TrainingData>),
}

impl Lessons {
    /// The examples for a model.
    pub(crate) fn examples(&self, m: &Model) -> Result<Box<dyn Examples>, Error> {
        let inputs = calibrate::model_inputs(m);
        match self {
            Lessons::Samples(data) => {
                let mut batches = fitting(data.batches(&inputs)?, m)?;
                batches.one_by_one();
                Ok(Box::new(batches))
            }
            Lessons::Texts(data) => Ok(Box::new(Texts::new(data.clone(), m)?)),
        }
    }
}

/// Texts as samples of a model.
struct Texts {
    data: Arc<TrainingData>,
    batches: Batches,
}

/// The model reads no tokens.
#[derive(Debug, thiserror::Error)]
#[error("the model has no input `input_ids`, so it cannot be trained on texts")]
struct NoTokens;

impl Diagnostic for NoTokens {
    fn code(&self) -> Code {
        Code::E627
    }
}

impl Texts {
    fn new(data: Arc<TrainingData>, m: &Model) -> Result<Texts, Error> {
        let inputs = calibrate::model_inputs(m);
        let ids = inputs.iter().find(|it| it.name == IDS).ok_or(NoTokens)?;
        let dtype = ids.ty.dtype;
        let sample = |it: &training::Example| {
            let tensor = Tensor::from_i64(&[1, it.ids.len()], it.ids.iter().copied());
            let tensor = if dtype == DType::I32 { narrow(&it.ids) } else { tensor };
            Batch::from([(IDS.to_owned(), tensor)])
        };
        let all = data.train.iter().chain(&data.held_out);
        let samples = Dataset::of_samples(all.map(sample).collect());
        let mut batches = fitting(samples.batches(&inputs)?, m)?;
        batches.one_by_one();
        Ok(Texts { data, batches })
    }

    fn example(&self, index: usize) -> &training::Example {
        let train = self.data.train.len();
        if index < train { &self.data.train[index] } else { &self.data.held_out[index - train] }
    }
}

const IDS: &str = "input_ids";

fn narrow(ids: &[i64]) -> Tensor {
    let bytes: Vec<u8> = ids.iter().flat_map(|it| (*it as i32).to_le_bytes()).collect();
    Tensor::new(DType::I32, vec![1, ids.len()], bytes)
}

impl Examples for Texts {
    fn count(&self) -> usize {
        self.data.train.len() + self.data.held_out.len()
    }

    fn get(&self, index: usize) -> Result<Example, Error> {
        let inputs = self.batches.at(index..index + 1)?;
        let own = self.example(index);
        let labels = own.label.and_then(|it| i64::try_from(it).ok()).map(|it| vec![it]);
        let counts = labels.is_none().then(|| own.counts.clone());
        Ok(Example { inputs, counts, labels })
    }

    fn key(&self, index: usize) -> Result<[u8; 32], Error> {
        Ok(digest(&self.batches.at(index..index + 1)?)?)
    }

    fn sha256(&self) -> String {
        self.data.facts.sha256.clone()
    }

    fn held_out(&self) -> Option<usize> {
        Some(self.data.held_out.len())
    }
}

impl Examples for Batches {
    fn count(&self) -> usize {
        self.samples()
    }

    fn get(&self, index: usize) -> Result<Example, Error> {
        let inputs = self.at(index..index + 1)?;
        Ok(Example { inputs, counts: None, labels: None })
    }

    fn key(&self, index: usize) -> Result<[u8; 32], Error> {
        Ok(digest(&self.at(index..index + 1)?)?)
    }

    fn sha256(&self) -> String {
        self.sha256().to_owned()
    }
}

/// Which samples are for what.
pub(super) struct Split {
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
}

/// Of so many samples one is held out, by its key.
const ONE_IN: u8 = 10;

impl Split {
    /// At most `most` samples are held out: those with the smallest keys.
    pub(super) fn new(examples: &dyn Examples, most: usize) -> Result<Split, Error> {
        if let Some(count) = examples.held_out() {
            let train = examples.count() - count;
            // Evenly over all of them.
            let taken = count.min(most).max(1);
            let held_out = (0..count.min(taken)).map(|at| train + at * count / taken).collect();
            return Ok(Split { train: (0..train).collect(), held_out });
        }
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for index in 0..examples.count() {
            let key = examples.key(index)?;
            if key[31] % ONE_IN == 0 { held_out.push((key, index)) } else { train.push(index) }
        }
        held_out.sort_unstable();
        let equal = |at: usize, list: &[([u8; 32], usize)]| at > 0 && list[at - 1].0 == list[at].0;
        let distinct = (0..held_out.len()).filter(|at| !equal(*at, &held_out));
        let held_out: Vec<usize> = distinct.map(|at| held_out[at].1).take(most).collect();
        Ok(Split { train, held_out })
    }

    /// The samples of a step: each epoch goes through all of them in an order of its own.
    pub(super) fn of_step(&self, step: usize, batch: usize, seed: u64) -> Vec<usize> {
        let len = self.train.len();
        let mut chosen = Vec::with_capacity(batch);
        let mut at = step * batch;
        while chosen.len() < batch {
            let epoch = at / len;
            let order = self.order(epoch as u64, seed);
            let from = at % len;
            let count = (batch - chosen.len()).min(len - from);
            chosen.extend(order[from..from + count].iter().map(|it| self.train[*it]));
            at += count;
        }
        chosen
    }

    fn order(&self, epoch: u64, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(epoch);
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_once_an_epoch() {
        let split = Split { train: (0..10).collect(), held_out: Vec::new() };
        let mut seen: Vec<usize> = (0..5).flat_map(|it| split.of_step(it, 4, 7)).collect();
        let second = seen.split_off(10);
        assert_ne!(seen, second);
        for mut epoch in [seen, second] {
            epoch.sort_unstable();
            assert!(epoch.into_iter().eq(0..10));
        }
        // More than there are.
        assert_eq!(split.of_step(0, 25, 7).len(), 25);
    }
}
