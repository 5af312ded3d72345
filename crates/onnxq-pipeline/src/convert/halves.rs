//! A decoder with a cache that reads a sample in two runs: the first half, and the rest after it.

use std::collections::BTreeMap;

use onnxq_ir::{
    Name,
    tensor::{Dim, Tensor},
};
use onnxq_rewrite::cache::Cached;
use onnxq_run::{
    data::Batch,
    engine::{EngineError, IoInfo, Session},
};

pub(super) struct Halves {
    session: Box<dyn Session>,
    inputs: Vec<IoInfo>,
    /// The past of each present, by name.
    past_of: BTreeMap<Name, Name>,
    padding: Option<Name>,
}

/// What the padding mask is called in a batch, where its own name says which tokens to compare.
fn whole(padding: &str) -> String {
    format!("{padding} of the whole")
}

impl Halves {
    pub(super) fn new(session: Box<dyn Session>, cached: &Cached) -> Halves {
        let mut past_of = BTreeMap::new();
        for it in &cached.layers {
            past_of.extend(it.present.iter().cloned().zip(it.past.iter().cloned()));
        }
        let padding = cached.padding.clone();
        let is_past = |it: &IoInfo| past_of.values().any(|name| **name == *it.name);
        let mut inputs: Vec<IoInfo> =
            session.inputs().iter().filter(|it| !is_past(it)).cloned().collect();
        for it in &mut inputs {
            if padding.as_deref() == Some(&it.name) {
                it.name = whole(&it.name);
            }
        }
        Halves { session, inputs, past_of, padding }
    }

    /// The batch, in which only the tokens of the second half count.
    pub(super) fn batch(mut batch: Batch, cached: &Cached) -> Batch {
        if let Some(name) = &cached.padding
            && let Some(it) = batch.get(&**name).cloned()
        {
            batch.insert(whole(name), it);
        }
        let Some([rows, length]) = batch
            .get("input_ids")
            .map(|it| it.shape.clone())
            .as_deref()
            .and_then(|it| <[usize; 2]>::try_from(it).ok())
        else {
            return batch;
        };
        let seen = batch.get("attention_mask").and_then(|it| it.to_i64().ok());
        let seen = seen.filter(|it| it.len() == rows * length);
        let is_late = |at: usize| at % length >= half(length);
        let counts = |at: usize| is_late(at) && seen.as_ref().is_none_or(|it| it[at] != 0);
        let mask = (0..rows * length).map(|at| i64::from(counts(at)));
        batch.insert("attention_mask".into(), Tensor::from_i64(&[rows, length], mask));
        batch
    }

    /// Inputs of the tokens `from..to`; the padding mask begins with the first.
    fn part(
        &self,
        inputs: &[(&str, &Tensor)],
        length: usize,
        (from, to): (usize, usize),
    ) -> Result<BTreeMap<String, Tensor>, EngineError> {
        let mut part = BTreeMap::new();
        for (name, it) in inputs {
            let padding = self.padding.as_deref().filter(|padding| whole(padding) == **name);
            let name = padding.unwrap_or(name).to_owned();
            let from = if padding.is_some() { 0 } else { from };
            let it = match it.shape.get(1) {
                Some(size) if *size == length => slice(&name, it, (from, to))?,
                _ => (*it).clone(),
            };
            part.insert(name, it);
        }
        Ok(part)
    }

    fn empty_past(&self, batch: usize) -> impl Iterator<Item = (String, Tensor)> {
        let is_past = |it: &&IoInfo| self.past_of.values().any(|name| **name == *it.name);
        self.session.inputs().iter().filter(is_past).map(move |it| {
            let size = |(at, dim): (usize, &Dim)| match (at, dim) {
                (0, _) => batch,
                (_, Dim::Fixed(it)) => *it,
                _ => 0,
            };
            let shape = it.ty.shape.iter().flatten().enumerate().map(size).collect();
            (it.name.clone(), Tensor::new(it.ty.dtype, shape, Vec::new()))
        })
    }
}

impl Session for Halves {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        self.session.outputs()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let tokens = inputs.iter().find(|it| it.0 == "input_ids").or(inputs.first());
        let [batch, length] =
            [0, 1].map(|axis| tokens.and_then(|it| it.1.shape.get(axis)).copied().unwrap_or(0));
        let half = half(length);
        let mut first = self.part(inputs, length, (0, half))?;
        first.extend(self.empty_past(batch));
        let before = run(self.session.as_mut(), &first)?;
        let mut rest = self.part(inputs, length, (half, length))?;
        let mut results = Vec::new();
        for (name, it) in before {
            match self.past_of.get(&*name) {
                Some(past) => {
                    rest.insert(past.to_string(), it);
                }
                None => results.push((name, it)),
            }
        }
        for (name, it) in run(self.session.as_mut(), &rest)? {
            if let Some((_, first)) = results.iter_mut().find(|it| it.0 == name) {
                *first = joined(&name, first, &it)?;
            }
        }
        Ok(results)
    }
}

fn run(
    session: &mut dyn Session,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<Vec<(String, Tensor)>, EngineError> {
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs)
}

/// Tokens of the first run; a single token has no second.
fn half(length: usize) -> usize {
    length.div_ceil(2)
}

/// The elements `from..to` along axis 1.
fn slice(name: &str, it: &Tensor, (from, to): (usize, usize)) -> Result<Tensor, EngineError> {
    let bytes = read(name, it)?;
    let (rows, length) = (it.shape[0], it.shape[1]);
    let size = bytes.len() / (rows * length).max(1);
    let part = |row: usize| &bytes[(row * length + from) * size..(row * length + to) * size];
    let mut shape = it.shape.clone();
    shape[1] = to - from;
    Ok(Tensor::new(it.dtype, shape, (0..rows).flat_map(part).copied().collect::<Vec<u8>>()))
}

/// Both one after the other along axis 1; what has no such axis is taken from the second.
fn joined(name: &str, a: &Tensor, b: &Tensor) -> Result<Tensor, EngineError> {
    let fits = a.shape.len() >= 2
        && a.shape.len() == b.shape.len()
        && a.shape[0] == b.shape[0]
        && a.shape[2..] == b.shape[2..];
    if !fits {
        return Ok(b.clone());
    }
    let (x, y) = (read(name, a)?, read(name, b)?);
    let rows = a.shape[0].max(1);
    let (x, y) = (x.chunks(x.len().div_ceil(rows).max(1)), y.chunks((y.len() / rows).max(1)));
    let bytes: Vec<u8> = x.zip(y).flat_map(|(x, y)| [x, y].concat()).collect();
    let mut shape = a.shape.clone();
    shape[1] += b.shape[1];
    Ok(Tensor::new(a.dtype, shape, bytes))
}

fn read(name: &str, it: &Tensor) -> Result<bytes::Bytes, EngineError> {
    let unreadable = |source| EngineError::Unreadable { name: name.to_owned(), source };
    it.bytes().map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_join_to_the_whole() {
        let x = Tensor::from_i64(&[2, 3, 2], 0..12);
        let parts = [(0, 2), (2, 3)].map(|it| slice("x", &x, it).unwrap());
        assert_eq!(parts[0].to_i64().unwrap(), [0, 1, 2, 3, 6, 7, 8, 9]);
        assert_eq!(parts[1].shape, [2, 1, 2]);
        let whole = joined("x", &parts[0], &parts[1]).unwrap();
        assert_eq!(
            (whole.shape.clone(), whole.to_i64().unwrap()),
            (x.shape.clone(), (0..12).collect())
        );
        assert_eq!((half(1), half(4), half(5)), (1, 2, 3));
    }
}
