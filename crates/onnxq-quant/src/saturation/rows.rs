//! Some rows of an activation, chosen so that the order of samples and threads does not matter.

use std::collections::BTreeMap;

use crate::window::{Window, ranked};
use onnxq_numerics::affine::Interval;

/// Rows of one activation: what a row of a weight is multiplied with. For a convolution, patches.
#[derive(Clone, Debug)]
pub struct SampledRows {
    window: Window,
    /// The most rows that are kept.
    limit: usize,
    /// Every row is divided by its largest magnitude before it is quantized.
    by_row: bool,
    /// By rank: a number as good as random that follows from the values of the sample and the
    /// place of the row in it. Equal samples have equal ranks, and count once.
    kept: BTreeMap<u64, Row>,
}

#[derive(Clone, Debug)]
struct Row {
    values: Vec<f32>,
    /// Of all values of the run.
    range: Interval,
}

impl SampledRows {
    pub fn new(window: Window, limit: usize, by_row: bool) -> SampledRows {
        SampledRows { window, limit, by_row, kept: BTreeMap::new() }
    }

    /// Bytes that it comes to need for rows of `k`.
    pub fn bytes(k: usize, limit: usize) -> usize {
        // Rows of one more sample, before the surplus goes.
        2 * limit * k * size_of::<f32>()
    }

    /// Rows and the range of all values of their run, by rank.
    pub fn iter(&self) -> impl Iterator<Item = (&[f32], Interval)> {
        self.kept.values().map(|it| (&it.values[..], it.range))
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Looks at what one run computed.
    pub fn add(&mut self, values: &[f32], shape: &[usize]) {
        let count = match &self.window {
            Window::Rows(k) => values.len() / (*k).max(1),
            Window::Patches(it) => it.count(shape),
        };
        if count == 0 {
            return;
        }
        let range = self.range(values);
        for (rank, at) in ranked(values, count, self.limit) {
            let full = self.kept.len() >= self.limit;
            if full && self.kept.last_key_value().is_some_and(|last| *last.0 < rank) {
                break;
            }
            let row = Row { values: self.row(values, shape, at), range };
            self.kept.insert(rank, row);
            if self.kept.len() > self.limit {
                self.kept.pop_last();
            }
        }
    }

    fn row(&self, values: &[f32], shape: &[usize], at: usize) -> Vec<f32> {
        match &self.window {
            Window::Rows(k) => {
                let mut row = values[at * k..(at + 1) * k].to_vec();
                let inverse = self.inverse(&row);
                row.iter_mut().for_each(|it| *it *= inverse);
                row
            }
            Window::Patches(it) => it.cut(values, shape, at),
        }
    }

    /// What a row is multiplied with.
    fn inverse(&self, row: &[f32]) -> f32 {
        let reach = row.iter().fold(0f32, |max, it| max.max(it.abs()));
        if self.by_row && reach > 0.0 { 1.0 / reach } else { 1.0 }
    }

    fn range(&self, values: &[f32]) -> Interval {
        let k = match self.window {
            Window::Rows(k) => k.max(1),
            Window::Patches(_) => values.len().max(1),
        };
        let of_row = |row: &[f32]| {
            let inverse = self.inverse(row);
            let low = row.iter().copied().fold(0f32, f32::min) * inverse;
            let high = row.iter().copied().fold(0f32, f32::max) * inverse;
            Interval::new(low, high)
        };
        values.chunks(k).map(of_row).fold(Interval::default(), Interval::union)
    }
}
