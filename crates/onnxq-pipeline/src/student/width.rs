//! Which hidden channels of feed-forward blocks to leave out: those that add least to the stream.
//!
//! A channel adds its activation times its row of the last product. How much that is on the data is the
//! root of its mean square times the length of the row. (After Wanda, Sun et al. 2023,
//! <https://arxiv.org/abs/2306.11695>, summed over rows.)

use std::collections::BTreeMap;

use serde::Serialize;

use super::{NoStudent, SAMPLES, comparable, evaluator};
use crate::{Error, Inputs, search::evaluator::Measure};
use onnxq_ir::{Model, ctx::Ctx, infer, onnx::Files, tensor::TensorError};
use onnxq_numerics::solve::BadStats;
use onnxq_rewrite::prune::{self, FeedForward};
use onnxq_run::calibrate::{self, Observe, Sample, Target};

/// The hidden channels that stay, by layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChosenWidth {
    /// In ascending order.
    pub kept: Vec<Vec<usize>>,
    /// Of every channel before: what it adds to the stream.
    pub importance: Vec<Vec<f64>>,
    /// What the model loses without the others, measured.
    pub loss: f64,
    /// What that is.
    pub measure: Measure,
    /// Samples that the loss was measured on.
    pub samples: usize,
}

/// Keeps the `width` most important hidden channels of each layer.
///
/// # Errors
/// E412 if the blocks are not recognised or narrower than that, E610 without data.
pub fn choose_width(
    model: &Model,
    files: &Files,
    inputs: &Inputs,
    width: usize,
    ctx: &Ctx,
) -> Result<ChosenWidth, Error> {
    let mut whole = comparable(model)?;
    // Only values whose types are known can be looked at.
    infer::run(&mut whole);
    let count = prune::layers(&whole)?.len();
    let blocks: Vec<FeedForward> =
        (0..count).map(|it| prune::feed_forward(&whole, it)).collect::<Result<_, _>>()?;
    let narrow = blocks.iter().enumerate().find(|it| width == 0 || it.1.width < width);
    if let Some((layer, it)) = narrow {
        return Err(NoStudent::Width { asked: width, layer, width: it.width }.into());
    }
    let evaluator = evaluator(&whole, files, inputs)?;
    evaluator.tell(ctx);
    let importance = importance(&whole, files, inputs, &blocks, ctx)?;
    let kept: Vec<Vec<usize>> = importance.iter().map(|it| most(it, width)).collect();
    let mut candidate = whole.clone();
    for (layer, kept) in kept.iter().enumerate() {
        prune::narrow_feed_forward(&mut candidate, layer, kept)?;
    }
    let loss = evaluator.loss_of(&candidate, SAMPLES)?;
    let (measure, samples) = (evaluator.measure(), evaluator.samples());
    Ok(ChosenWidth { kept, importance, loss, measure, samples })
}

/// The places of the largest values, in ascending order.
fn most(importance: &[f64], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..importance.len()).collect();
    places.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]).then(a.cmp(b)));
    places.truncate(count);
    places.sort_unstable();
    places
}

fn importance(
    m: &Model,
    files: &Files,
    inputs: &Inputs,
    blocks: &[FeedForward],
    ctx: &Ctx,
) -> Result<Vec<Vec<f64>>, Error> {
    let mut squares: Vec<Squares> = blocks.iter().map(|it| Squares::new(it.width)).collect();
    let targets = blocks.iter().zip(&mut squares).map(|(block, observer)| {
        let bytes = (block.width * size_of::<f64>()) as u64;
        Target { value: block.hidden, bytes, observer }
    });
    let targets = targets.collect();
    calibrate::observe(inputs.run(m, files, inputs.batches(m)?), targets, ctx)?;
    let weighed = blocks.iter().zip(&squares).map(|(block, squares)| {
        let means = squares.means();
        let lengths = lengths(m, block)?;
        Ok::<_, Error>(means.iter().zip(lengths).map(|(a, b)| a.sqrt() * b).collect())
    });
    weighed.collect()
}

/// The length of each hidden channel's row of the last product.
fn lengths(m: &Model, block: &FeedForward) -> Result<Vec<f64>, TensorError> {
    let (weight, axis) = block.weight;
    let Ok(tensor) = m.constant(weight) else { return Ok(vec![1.0; block.width]) };
    let (values, columns) = (tensor.to_f32()?, tensor.shape[1]);
    let mut squares = vec![0.0; block.width];
    for (at, value) in values.iter().enumerate() {
        let channel = if axis == 0 { at / columns } else { at % columns };
        squares[channel] += f64::from(*value) * f64::from(*value);
    }
    Ok(squares.iter().map(|it| it.sqrt()).collect())
}

/// The sum of squares of each channel, sample by sample: what is added last does not depend on threads.
struct Squares {
    width: usize,
    samples: BTreeMap<usize, (u64, Vec<f64>)>,
}

impl Squares {
    fn new(width: usize) -> Squares {
        Squares { width, samples: BTreeMap::new() }
    }

    fn means(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        let mut rows = 0;
        for (count, squares) in self.samples.values() {
            rows += count;
            sums.iter_mut().zip(squares).for_each(|(sum, it)| *sum += it);
        }
        sums.iter().map(|it| it / rows.max(1) as f64).collect()
    }
}

impl Observe for Squares {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        let mut squares = vec![0.0; self.width];
        let rows = sample.values.chunks_exact(self.width.max(1));
        let count = rows.len() as u64;
        for row in rows {
            for (sum, it) in squares.iter_mut().zip(row) {
                *sum += f64::from(*it) * f64::from(*it);
            }
        }
        if squares.iter().any(|it| !it.is_finite()) {
            return Err(BadStats("values whose squares are no floats"));
        }
        self.samples.insert(sample.index, (count, squares));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_important_stay_in_order() {
        assert_eq!(most(&[0.5, 2.0, 1.0, 2.0], 2), [1, 3]);
        assert_eq!(most(&[1.0, 1.0, 1.0], 2), [0, 1]);
        assert_eq!(most(&[0.0, f64::MAX], 5), [0, 1]);
    }

    #[test]
    fn sums_do_not_depend_on_who_was_first() {
        let samples: Vec<Vec<f32>> =
            (0..7).map(|at| (0..6).map(|it| (it * at) as f32 / 3.0).collect()).collect();
        let means = |order: &[usize]| {
            let mut squares = Squares::new(3);
            for &index in order {
                let (shape, values) = (&[2, 3][..], &samples[index][..]);
                squares
                    .observe(&Sample { index, shape, values, float: None, weights: None })
                    .unwrap();
            }
            squares.means()
        };
        assert_eq!(means(&[0, 1, 2, 3, 4, 5, 6]), means(&[6, 2, 4, 0, 5, 1, 3]));
        let mut squares = Squares::new(1);
        let bad =
            Sample { index: 0, shape: &[1, 1], values: &[f32::NAN], float: None, weights: None };
        assert!(squares.observe(&bad).is_err());
    }
}
