//! What a student learns from: samples, which of them are held out, and the order they come in.

use sha2::{Digest, Sha256};

use crate::Error;
use onnxq_ir::tensor::TensorError;
use onnxq_run::data::{Batch, Batches};

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

pub(super) fn digest(batch: &Batch) -> Result<[u8; 32], TensorError> {
    let mut hash = Sha256::new();
    for (name, tensor) in batch {
        hash.update(name);
        tensor.shape.iter().for_each(|it| hash.update(it.to_le_bytes()));
        hash.update(tensor.bytes()?);
    }
    Ok(hash.finalize().into())
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
