//! Running a decoder token by token: what came out as `present` goes in as `past` with the next
//! token.

use std::{borrow::Cow, collections::BTreeMap};

use crate::compare::models::{CompareError, inputs, run_on};
use crate::{
    data::{Batch, role},
    engine::{Pairs, Session, roles::after},
};
use onnxq_ir::tensor::Tensor;

/// The cache of a model.
pub(super) struct Cache(Pairs);

/// A row of tokens.
pub(super) struct Text {
    pub ids: Vec<i64>,
}

impl Text {
    /// Sample `at` of a batch, up to its padding; `None` if it has no ids, or is padded in front.
    pub(super) fn of(batch: &Batch, at: usize) -> Option<Text> {
        let row = |name: &str| {
            let tensor = batch.get(name).filter(|it| it.shape.len() == 2 && at < it.shape[0])?;
            let width = tensor.shape[1];
            Some(tensor.to_i64().ok()?[at * width..(at + 1) * width].to_vec())
        };
        let mut ids = row("input_ids")?;
        if let Some(mask) = row("attention_mask").filter(|it| it.len() == ids.len()) {
            let real = mask.iter().take_while(|it| **it != 0).count();
            if mask[real..].iter().any(|it| *it != 0) {
                return None;
            }
            ids.truncate(real);
        }
        Some(Text { ids })
    }
}

impl Cache {
    /// `None` if the model has none, or one that is not understood.
    pub(super) fn of(session: &dyn Session) -> Option<Cache> {
        Pairs::of(session.inputs(), session.outputs()).ok().map(Cache)
    }

    /// Before the first token; the past of `batch` is the empty one.
    pub(super) fn begin<'a>(
        &'a self,
        session: &dyn Session,
        model: &'static str,
        batch: &Batch,
    ) -> Result<Past<'a>, CompareError> {
        let empty = inputs(session.inputs(), model, batch)?;
        let is_past = |name: &str| self.0.list.iter().any(|it| it.past == name);
        let one = |tensor: &Tensor| match tensor.shape.first() {
            // An empty tensor of one sample: nothing has to be cut.
            Some(&count) if count > 1 && tensor.nbytes() == 0 => {
                let mut shape = tensor.shape.clone();
                shape[0] = 1;
                Tensor::new(tensor.dtype, shape, Vec::new())
            }
            _ => tensor.clone(),
        };
        let tensors =
            empty.into_iter().filter(|it| is_past(&it.0)).map(|(name, it)| (name, one(&it)));
        Ok(Past { cache: self, model, tensors: tensors.collect(), length: 0 })
    }
}

/// What a model remembers of one sample.
pub(super) struct Past<'a> {
    cache: &'a Cache,
    model: &'static str,
    tensors: BTreeMap<String, Tensor>,
    length: usize,
}

impl Past<'_> {
    /// Reads tokens and remembers them; returns the logits, a row for each.
    pub(super) fn feed(
        &mut self,
        session: &mut dyn Session,
        ids: &[i64],
    ) -> Result<Vec<Vec<f32>>, CompareError> {
        let inputs = self.inputs(session, ids)?;
        let mut outputs: BTreeMap<String, Tensor> =
            run_on(session, self.model, &inputs)?.into_iter().collect();
        let mut take =
            |name: &str| outputs.remove(name).ok_or_else(|| CompareError::Output(name.to_owned()));
        let logits = take(&self.cache.0.logits)?;
        for pair in &self.cache.0.list {
            self.tensors.insert(pair.past.clone(), take(&pair.present)?);
        }
        self.length += ids.len();
        let unreadable =
            |source| CompareError::Tensor { output: self.cache.0.logits.clone(), source };
        let width = logits.shape.last().copied().unwrap_or(1).max(1);
        let values = logits.to_f32().map_err(unreadable)?;
        Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// The inputs of the next run.
    pub(super) fn inputs(
        &self,
        session: &dyn Session,
        ids: &[i64],
    ) -> Result<Vec<(String, Cow<'static, Tensor>)>, CompareError> {
        let mut batch = Batch::new();
        for input in session.inputs() {
            let tensor = match (self.tensors.get(&input.name), role(&input.name)) {
                (Some(it), _) => it.clone(),
                (None, None) => Tensor::from_i64(&[1, ids.len()], ids.iter().copied()),
                (None, Some(_)) => after(input, self.length, ids.len()).ok_or_else(|| {
                    CompareError::Input { model: self.model, input: input.name.clone() }
                })?,
            };
            batch.insert(input.name.clone(), tensor);
        }
        let fitted = inputs(session.inputs(), self.model, &batch)?;
        Ok(fitted.into_iter().map(|(name, it)| (name, Cow::Owned(it.into_owned()))).collect())
    }
}
