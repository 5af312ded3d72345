//! Decoders on ONNX Runtime: what is common to all, and the one whose cache grows with every run.

use std::sync::Arc;

use ort::{
    session::{NoSelectedOutputs, RunOptions, SessionInputValue},
    value::{DynTensor, DynTensorValueType, DynValue},
};

use super::{
    super::{
        Decoder, EngineError, IoInfo, Logits, NoCache, Pairs, Rows, Stop,
        roles::{self, Role, role},
    },
    recomputing::Recomputing,
    run_error,
    session::OrtSession,
    shared::Shared,
    tensors::{Feed, resized, rows},
};
use onnxq_ir::tensor::{Dim, Tensor};

/// The decoder that fits the model: with one buffer, with a cache that grows, or without one.
pub(super) fn decoder(session: OrtSession, shared: bool) -> Result<Box<dyn Decoder>, EngineError> {
    let pairs = match Pairs::of(&session.inputs, &session.outputs) {
        Ok(pairs) => pairs,
        Err(reason) => return Ok(Box::new(Recomputing::new(session, reason)?)),
    };
    let cache = Cache::new(&session, pairs)?;
    Ok(match shared {
        true => Box::new(Shared::new(session, cache)),
        false => Box::new(Growing { session, cache, past: Vec::new(), length: 0 }),
    })
}

/// What is known of a cache from the model's inputs.
pub(super) struct Cache {
    pub pairs: Pairs,
    /// The inputs of the past, in the order of the pairs.
    pub inputs: Vec<IoInfo>,
    /// The axis of tokens of each.
    pub axes: Vec<usize>,
}

impl Cache {
    fn new(session: &OrtSession, pairs: Pairs) -> Result<Cache, EngineError> {
        let input = |name: &str| session.inputs.iter().find(|it| it.name == name).cloned();
        let inputs: Vec<IoInfo> = pairs.list.iter().filter_map(|it| input(&it.past)).collect();
        let axes = inputs.iter().map(axis).collect::<Result<_, _>>()?;
        Ok(Cache { pairs, inputs, axes })
    }

    /// The shape of one part for so many tokens of one text.
    pub(super) fn shape(&self, at: usize, tokens: usize) -> Vec<usize> {
        let dims = self.inputs[at].ty.shape.as_deref().unwrap_or_default();
        let size = |(axis, dim): (usize, &Dim)| match axis {
            0 => 1,
            _ if axis == self.axes[at] => tokens,
            _ => dim.fixed().unwrap_or(0),
        };
        dims.iter().enumerate().map(size).collect()
    }

    pub(super) fn bytes_per_token(&self) -> u64 {
        let part = |at: usize| {
            let count: usize = self.shape(at, 1).iter().product();
            self.inputs[at].ty.dtype.nbytes(count).unwrap_or(0) as u64
        };
        (0..self.inputs.len()).map(part).sum()
    }

    /// How many tokens the inputs have room for, if they say.
    pub(super) fn fixed(&self) -> Option<usize> {
        let size = |(input, axis): (&IoInfo, &usize)| input.ty.shape.as_ref()?.get(*axis)?.fixed();
        self.inputs.iter().zip(&self.axes).filter_map(size).min()
    }
}

/// Where the tokens lie: the axis without a fixed size, or of four with fixed ones the third.
fn axis(input: &IoInfo) -> Result<usize, EngineError> {
    let failed = |fact: &str| EngineError::Cache(format!("`{}` {fact}", input.name));
    let Some(dims) = &input.ty.shape else { return Err(failed("has no shape")) };
    let free: Vec<usize> = (1..dims.len()).filter(|it| dims[*it].fixed().is_none()).collect();
    match free[..] {
        [only] => Ok(only),
        [] if dims.len() == 4 => Ok(2),
        _ => Err(failed("does not say which of its axes is that of the tokens")),
    }
}

/// The tensors of a run of more tokens, those of the cache aside.
pub(super) fn made(
    inputs: &[IoInfo],
    past: usize,
    ids: &[u32],
) -> Result<Vec<(String, Tensor)>, EngineError> {
    let tensor = |input: &IoInfo| {
        let tensor = match role(&input.name) {
            None => roles::ids(input, ids),
            Some(_) => roles::after(input, past, ids.len()),
        };
        let missing = || EngineError::MissingInput { name: input.name.clone(), given: Vec::new() };
        Ok((input.name.clone(), tensor.ok_or_else(missing)?))
    };
    let own = inputs.iter().filter(|it| role(&it.name) != Some(Role::Past));
    own.map(tensor).collect()
}

/// Options of one run that end it when a stop is asked for.
pub(super) fn stoppable(stop: &Stop) -> Result<Arc<RunOptions<NoSelectedOutputs>>, EngineError> {
    if stop.is_stopped() {
        return Err(EngineError::Stopped);
    }
    let options = Arc::new(RunOptions::new().map_err(run_error)?);
    let own = options.clone();
    // A run that has ended already cannot be told, and need not be.
    stop.on_stop(move || drop(own.terminate()));
    Ok(options)
}

/// What a failed run means.
pub(super) fn failed<R>(stop: &Stop, error: ort::Error<R>) -> EngineError {
    if stop.is_stopped() { EngineError::Stopped } else { run_error(error) }
}

pub(super) fn missing(name: &str) -> EngineError {
    EngineError::Cache(format!("output `{name}` is missing"))
}

/// What came out as present goes in as past with the next tokens: no copy on the way.
struct Growing {
    session: OrtSession,
    cache: Cache,
    /// Empty before the first token.
    past: Vec<DynTensor>,
    length: usize,
}

impl Growing {
    /// The empty past of a new text.
    fn empty(&self) -> Vec<(String, Tensor)> {
        let part = |at: usize| {
            let input = &self.cache.inputs[at];
            (input.name.clone(), Tensor::new(input.ty.dtype, self.cache.shape(at, 0), Vec::new()))
        };
        (0..self.cache.inputs.len()).map(part).collect()
    }
}

impl Decoder for Growing {
    fn length(&self) -> usize {
        self.length
    }

    fn keep(&mut self, length: usize) -> Result<(), EngineError> {
        if length == 0 {
            self.past.clear();
        } else if length < self.length {
            for (past, &axis) in self.past.iter_mut().zip(&self.cache.axes) {
                *past = resized(past, axis, (length, length))?;
            }
        }
        self.length = self.length.min(length);
        Ok(())
    }

    fn feed(&mut self, ids: &[u32], wanted: Rows, stop: &Stop) -> Result<Logits, EngineError> {
        let mut tensors = made(&self.session.inputs, self.length, ids)?;
        if self.past.is_empty() {
            tensors.extend(self.empty());
        }
        let feeds: Vec<Feed<'_>> =
            tensors.iter().map(|(name, it)| Feed::new(name, it)).collect::<Result<_, _>>()?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
        for ((name, _), feed) in tensors.iter().zip(&feeds) {
            inputs.push((name, feed.value()?));
        }
        for (pair, past) in self.cache.pairs.list.iter().zip(&self.past) {
            inputs.push((&pair.past, past.into()));
        }
        let options = stoppable(stop)?;
        let run = self.session.session.run_with_options(inputs, &*options);
        let mut outputs = run.map_err(|it| failed(stop, it))?;
        let mut take = |name: &str| outputs.remove(name).ok_or_else(|| missing(name));
        let logits = rows(&take(&self.cache.pairs.logits)?, wanted, ids.len())?;
        let tensor = |it: DynValue| it.downcast::<DynTensorValueType>().map_err(run_error);
        let present = self.cache.pairs.list.iter().map(|it| tensor(take(&it.present)?));
        self.past = present.collect::<Result<_, _>>()?;
        self.length += ids.len();
        Ok(logits)
    }

    fn bytes_per_token(&self) -> u64 {
        self.cache.bytes_per_token()
    }

    fn most(&self) -> Option<usize> {
        None
    }

    fn no_cache(&self) -> Option<&NoCache> {
        None
    }
}
