//! How much each token counts for a weight: what the model's loss makes of the outputs there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{CalibrateError, Mask};
use crate::kept::Kept;
use onnxq_ir::tensor::Tensor;
use onnxq_numerics::solve::BadStats;
use onnxq_quant::window::Guided;

/// The weights of rows (tokens, or places of an image) for all guided nodes over all samples, in a
/// temporary file. They are 1 in the mean over the rows that count, for each group of each node.
pub struct Guide {
    kept: Kept,
    nodes: Vec<Guided>,
    /// For each node: for each group, what its weights are divided by.
    means: Vec<Vec<f64>>,
}

/// Writes down what a [`Guide`] knows, sample by sample, in any order and from any thread.
pub struct Recorder {
    kept: Kept,
    nodes: Vec<Guided>,
    sums: Mutex<BTreeMap<usize, Vec<Vec<Sum>>>>,
}

/// The weights of a sample that count.
#[derive(Clone, Copy, Default)]
struct Sum {
    total: f64,
    rows: u64,
}

impl Recorder {
    /// `nodes` are those that will be known, in the order in which each sample names them; ids are
    /// those of the model whose inputs are collected, the groups those of
    /// [`SitePlan::guided`](onnxq_quant::plan::SitePlan::guided).
    pub fn new(nodes: Vec<Guided>) -> Result<Recorder, CalibrateError> {
        let kept = Kept::new().map_err(CalibrateError::Scratch)?;
        Ok(Recorder { kept, nodes, sums: Mutex::default() })
    }

    /// Adds the weights of the sample at place `sample` of the data.
    ///
    /// There is a list for each node, `[groups * rows]`, group by group, as
    /// [`row_weights`](onnxq_numerics::guided::row_weights) makes them of gradients. Rows are those
    /// of the node's output as the model computes it for this sample alone: all its axes but the
    /// channels', flattened, those of padding included, whose weights mean nothing (`mask` says
    /// which they are). An empty list: nothing is known of the node, its rows count the same.
    /// Weights are not negative, and their scale means nothing as long as it is that of all samples.
    pub fn add(
        &self,
        sample: usize,
        weights: &[Vec<f32>],
        mask: Option<&Mask>,
    ) -> Result<(), CalibrateError> {
        let bad = |source| CalibrateError::Weights { sample, source };
        if weights.len() != self.nodes.len() {
            return Err(bad(BadStats("weights of another number of nodes")));
        }
        let mut tensors = Vec::new();
        let mut sums = Vec::new();
        for (it, weights) in self.nodes.iter().zip(weights) {
            if !weights.iter().all(|it| it.is_finite() && *it >= 0.0) {
                return Err(bad(BadStats("weights of rows that are negative or no numbers")));
            }
            if weights.len() % it.groups != 0 {
                return Err(bad(BadStats("weights of another number of groups")));
            }
            let rows = weights.len() / it.groups;
            let groups = weights.chunks(rows.max(1)).map(|it| sum(it, mask));
            sums.push(groups.collect());
            tensors.push(Tensor::from_f32(&[it.groups, rows], weights.iter().copied()));
        }
        let list: Vec<&Tensor> = tensors.iter().collect();
        self.kept.store(sample, &list).map_err(CalibrateError::Scratch)?;
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).insert(sample, sums);
        Ok(())
    }

    pub fn finish(self) -> Guide {
        let sums = self.sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mean = |node: usize, group: usize| {
            let mut all = Sum::default();
            for it in sums.values().filter_map(|it| it[node].get(group)) {
                all.total += it.total;
                all.rows += it.rows;
            }
            all.total / all.rows.max(1) as f64
        };
        let means = self.nodes.iter().enumerate();
        let means = means.map(|(at, it)| (0..it.groups).map(|group| mean(at, group)).collect());
        Guide { kept: self.kept, means: means.collect(), nodes: self.nodes }
    }
}

/// Of the weights of a group those that count: of no padding, and not zero.
fn sum(weights: &[f32], mask: Option<&Mask>) -> Sum {
    let mut sum = Sum::default();
    for (at, weight) in weights.iter().enumerate() {
        if *weight > 0.0 && mask.is_none_or(|it| it.counts(at, weights.len())) {
            sum.total += f64::from(*weight);
            sum.rows += 1;
        }
    }
    sum
}

impl Guide {
    /// How much each row of a sample counts for a group of a node's outputs; `None`: all the same,
    /// as of a node or a group of which nothing is known.
    pub fn weights(
        &self,
        guided: Guided,
        group: usize,
        sample: usize,
    ) -> Result<Option<Vec<f32>>, CalibrateError> {
        let Some(at) = self.nodes.iter().position(|it| *it == guided) else { return Ok(None) };
        let mean = self.means[at][group];
        // No output of the group means anything to the loss, or it was not asked.
        if mean <= 0.0 {
            return Ok(None);
        }
        let stored = self.kept.load_one(sample, at).map_err(CalibrateError::Scratch)?;
        let rows = stored.shape[1];
        if rows == 0 {
            return Ok(None);
        }
        let bytes = stored
            .bytes()
            .map_err(|it| CalibrateError::Scratch(std::io::Error::other(it.to_string())))?;
        let own = bytes.chunks_exact(4).skip(group * rows).take(rows);
        let float = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("4 bytes"));
        Ok(Some(own.map(|it| (f64::from(float(it)) / mean) as f32).collect()))
    }
}
