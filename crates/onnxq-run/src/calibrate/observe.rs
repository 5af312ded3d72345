//! What looks at the inner values of a model while it runs on data, one sample at a time.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};

use super::{CalibrateError, Guide};
use onnxq_ir::{
    ValueId,
    tensor::{Tensor, TensorError},
};
use onnxq_numerics::solve::BadStats;
use onnxq_quant::window::Guided;

/// What one run of the model computed of a value; tokens of padding are left out.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its place in the data, whichever thread was first.
    pub index: usize,
    /// Of `values`: without padding, so the axis of tokens may be shorter than in the model.
    pub shape: &'a [usize],
    pub values: &'a [f32],
    /// The same values of the float model, if that runs alongside.
    pub float: Option<&'a [f32]>,
    /// How much each row counts; `None`: all the same.
    pub weights: Option<&'a [f32]>,
}

/// Gathers something of a value. Samples come in any order, each exactly once.
pub trait Observe: Send {
    /// Nothing that it adds up may depend on the order of the calls.
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats>;
}

/// An observer at its value. Threads take turns.
pub(super) struct Tap<'a> {
    pub value: ValueId,
    pub name: String,
    /// The length of a row, if the observer wants rows of a known length.
    pub width: Option<usize>,
    /// The axis of tokens, if the value has one.
    pub tokens: Option<usize>,
    /// What knows how much rows count, and for whom.
    pub guide: Option<Share<'a>>,
    pub observer: Mutex<&'a mut dyn Observe>,
}

/// What a guide knows of the rows of one group.
#[derive(Clone, Copy)]
pub(super) struct Share<'a> {
    pub guide: &'a Guide,
    pub guided: Guided,
    pub group: usize,
}

impl Tap<'_> {
    pub(super) fn add(
        &self,
        index: usize,
        own: &Tensor,
        float: Option<&Tensor>,
        mask: Option<&Mask>,
    ) -> Result<(), CalibrateError> {
        let unreadable = |source| CalibrateError::Tensor { value: self.name.clone(), source };
        self.check_width(own)?;
        let (values, shape) = without_padding(own, mask, self.tokens).map_err(unreadable)?;
        let float = float.map(|it| without_padding(it, mask, self.tokens));
        let float = float.transpose().map_err(unreadable)?.map(|it| it.0);
        let weights = self.weights(index, &own.shape, mask)?;
        let (float, weights) = (float.as_deref(), weights.as_deref());
        let sample = Sample { index, shape: &shape, values: &values, float, weights };
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |source| CalibrateError::NonFinite { value: self.name.clone(), source };
        observer.observe(&sample).map_err(bad)
    }

    /// How much each row of a sample counts, those of padding left out as they are of the values.
    fn weights(
        &self,
        index: usize,
        shape: &[usize],
        mask: Option<&Mask>,
    ) -> Result<Option<Vec<f32>>, CalibrateError> {
        let Some(Share { guide, guided, group }) = self.guide else { return Ok(None) };
        let Some(weights) = guide.weights(guided, group, index)? else { return Ok(None) };
        let Some(axis) = self.tokens else { return Ok(Some(weights)) };
        let rows = [&shape[..shape.len() - 1], &[1]].concat();
        if weights.len() != rows.iter().product::<usize>() {
            let source = BadStats("weights of another number of rows");
            return Err(CalibrateError::Weights { sample: index, source });
        }
        Ok(Some(match mask.filter(|it| it.fits(&rows, axis)) {
            Some(mask) => mask.keep(&weights, &rows, axis).0,
            None => weights,
        }))
    }

    fn check_width(&self, tensor: &Tensor) -> Result<(), CalibrateError> {
        let Some(expected) = self.width else { return Ok(()) };
        let shape = &tensor.shape;
        if shape.len() < 2 || shape.last() != Some(&expected) {
            let (value, actual) = (self.name.clone(), shape.clone());
            return Err(CalibrateError::Width { value, actual, expected });
        }
        Ok(())
    }
}

/// Which tokens of a batch are none of padding, `[batch, sequence]`.
pub struct Mask {
    shape: [usize; 2],
    flags: Vec<bool>,
}

impl Mask {
    /// `None` if every token counts, or the tensor is no mask of tokens.
    pub fn read(tensor: &Tensor) -> Result<Option<Mask>, TensorError> {
        let &[batch, sequence] = &tensor.shape[..] else { return Ok(None) };
        let flags: Vec<bool> = match tensor.to_i64() {
            Ok(list) => list.into_iter().map(|it| it != 0).collect(),
            // Of floats, as some exporters make it.
            Err(_) => tensor.to_f32()?.into_iter().map(|it| it != 0.0).collect(),
        };
        let padded = flags.iter().any(|it| !it);
        Ok(padded.then_some(Mask { shape: [batch, sequence], flags }))
    }

    /// Whether a value of that shape has these tokens along `axis`.
    pub fn fits(&self, shape: &[usize], axis: usize) -> bool {
        shape.len() > 2 && shape[0] == self.shape[0] && shape.get(axis) == Some(&self.shape[1])
    }

    /// Whether a row counts, where there is one for each token.
    pub fn counts(&self, row: usize, rows: usize) -> bool {
        self.flags.len() != rows || self.flags[row]
    }

    /// The values of the tokens along `axis`, with the shape of what is left, batches in a row.
    pub fn keep(&self, values: &[f32], shape: &[usize], axis: usize) -> (Vec<f32>, Vec<usize>) {
        let [batch, sequence] = self.shape;
        let middle: usize = shape[1..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        let mut kept = Vec::with_capacity(values.len());
        for middle_at in 0..middle {
            for (at, _) in self.flags.iter().enumerate().filter(|it| *it.1) {
                let (row, token) = (at / sequence, at % sequence);
                let start = ((row * middle + middle_at) * sequence + token) * inner;
                kept.extend_from_slice(&values[start..start + inner]);
            }
        }
        debug_assert!(batch * middle * sequence * inner == values.len());
        let mut shape = shape.to_vec();
        shape[0] = 1;
        shape[axis] = self.flags.iter().filter(|it| **it).count();
        (kept, shape)
    }
}

/// Values and their shape.
type Shaped<'a> = (Cow<'a, [f32]>, Cow<'a, [usize]>);

/// The values of a tensor's tokens that are none of padding, and their shape.
fn without_padding<'a>(
    tensor: &'a Tensor,
    mask: Option<&Mask>,
    tokens: Option<usize>,
) -> Result<Shaped<'a>, TensorError> {
    let (values, shape) = (tensor.f32s()?, &tensor.shape);
    match (mask, tokens) {
        (Some(mask), Some(axis)) if mask.fits(shape, axis) => {
            let (values, shape) = mask.keep(&values, shape, axis);
            Ok((values.into(), shape.into()))
        }
        _ => Ok((values, shape.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Last(Vec<f32>, Vec<usize>);

    impl Observe for Last {
        fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
            *self = Last(sample.values.to_vec(), sample.shape.to_vec());
            Ok(())
        }
    }

    fn seen(shape: &[usize], mask: &Tensor, tokens: Option<usize>) -> Last {
        let mut last = Last(Vec::new(), Vec::new());
        let tensor = Tensor::from_f32(shape, (0..shape.iter().product()).map(|it| it as f32));
        let mask = Mask::read(mask).unwrap();
        let (name, observer) = ("x".into(), Mutex::new(&mut last as &mut dyn Observe));
        let (value, width, guide) = (ValueId::at(0), None, None);
        let tap = Tap { value, name, width, tokens, guide, observer };
        tap.add(0, &tensor, None, mask.as_ref()).unwrap();
        last
    }

    #[test]
    fn tokens_of_padding_are_left_out_along_any_axis() {
        let mask = Tensor::from_i64(&[2, 3], [1, 0, 1, 1, 0, 0]);
        let rows = seen(&[2, 3, 2], &mask, Some(1));
        assert_eq!((rows.0, rows.1), (vec![0., 1., 4., 5., 6., 7.], vec![1, 3, 2]));
        let heads = seen(&[2, 2, 3, 1], &mask, Some(2));
        assert_eq!((heads.0, heads.1), (vec![0., 2., 6., 3., 5., 9.], vec![1, 2, 3, 1]));
        let floats = Tensor::from_f32(&[2, 3], [1., 0., 1., 1., 0., 0.]);
        assert_eq!(seen(&[2, 3, 1], &floats, Some(1)).0, [0., 2., 3.]);
    }

    #[test]
    fn what_has_no_such_tokens_is_seen_whole() {
        let mask = Tensor::from_i64(&[1, 3], [1, 0, 1]);
        assert_eq!(seen(&[1, 3, 2], &mask, None).0.len(), 6);
        assert_eq!(seen(&[1, 4, 2], &mask, Some(1)).0.len(), 8);
        assert_eq!(seen(&[3, 2], &mask, Some(1)).0.len(), 6);
        let all = Tensor::from_i64(&[1, 3], [1, 1, 1]);
        assert_eq!(seen(&[1, 3, 2], &all, Some(1)).0.len(), 6);
    }
}
