//! Gathers the moments of a value's rows.

use std::borrow::Cow;

use ndarray::{Array2, ArrayView2, CowArray, Ix2};

use super::observe::{Observe, Sample};
use onnxq_numerics::{
    drift::Drift, guided::weighted, moments::Moments, solve::BadStats, stats::InputStats,
};
use onnxq_quant::window::{Patches, ranked};

/// Moments of rows, and how far they are from those of the float model.
pub(super) struct Rows {
    pub k: usize,
    pub patches: Option<Patches>,
    pub moments: Moments,
    /// Only if the float model runs alongside.
    pub drift: Option<Drift>,
}

impl Observe for Rows {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        let places = self.patches.as_ref().map(|it| {
            let count = it.count(sample.shape);
            ranked(sample.values, count, PATCHES)
        });
        let rows = |values| -> CowArray<f32, Ix2> {
            match (&self.patches, &places) {
                (Some(patches), Some(places)) => {
                    cut(patches, values, sample.shape, places, self.k).into()
                }
                _ => rows(values, self.k).into(),
            }
        };
        let own = rows(sample.values);
        let float = sample.float.map(rows);
        let Some(weights) = sample.weights else {
            if let (Some(drift), Some(float)) = (&mut self.drift, float) {
                drift.add(float.view(), own.view())?;
            }
            return self.moments.add(own.view());
        };
        let weights = weights_of(weights, &own, places.as_deref())?;
        if let (Some(drift), Some(float)) = (&mut self.drift, float) {
            let [float, own] = [float, own.view().into()].map(|it| weighted(it.view(), &weights));
            drift.add(float.view(), own.view())?;
        }
        self.moments.add_weighted(own.view(), &weights)
    }
}

impl Rows {
    pub(super) fn finish(self) -> InputStats {
        InputStats { drift: self.drift.and_then(Drift::finish), ..self.moments.finish() }
    }
}

/// The weights of the rows that are looked at.
fn weights_of<'a>(
    all: &'a [f32],
    rows: &CowArray<f32, Ix2>,
    places: Option<&[(u64, usize)]>,
) -> Result<Cow<'a, [f32]>, BadStats> {
    let known = match places {
        None => (all.len() == rows.nrows()).then_some(all.into()),
        Some(list) => {
            list.iter().map(|it| all.get(it.1).copied()).collect::<Option<Vec<_>>>().map(Cow::from)
        }
    };
    known.ok_or(BadStats("weights of another number of rows"))
}

/// The most patches of a sample that are looked at: neighbours say the same, and an image has many.
pub(super) const PATCHES: usize = 1024;

fn cut(
    patches: &Patches,
    values: &[f32],
    shape: &[usize],
    places: &[(u64, usize)],
    k: usize,
) -> Array2<f32> {
    let mut rows = Vec::with_capacity(places.len() * k);
    places.iter().for_each(|it| rows.extend(patches.cut_by_channel(values, shape, it.1)));
    Array2::from_shape_vec((places.len(), k), rows).expect("whole patches")
}

fn rows(values: &[f32], k: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / k.max(1), k), values).expect("whole rows")
}
