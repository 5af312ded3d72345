//! The decoder of a model without a cache: every step reads the whole text again.

use ort::session::SessionInputValue;

use super::{
    super::{
        Decoder, EngineError, IoInfo, Logits, NoCache, Rows, Stop,
        decoder::logits,
        roles::{self, Role, role},
    },
    decoder::{failed, made, missing, stoppable},
    session::OrtSession,
    tensors::{Feed, rows},
};
use onnxq_ir::tensor::Tensor;

pub(super) struct Recomputing {
    session: OrtSession,
    reason: NoCache,
    logits: String,
    ids: Vec<u32>,
}

impl Recomputing {
    pub(super) fn new(session: OrtSession, reason: NoCache) -> Result<Recomputing, EngineError> {
        let unusable = || EngineError::Cache(reason.to_string());
        if matches!(reason, NoCache::Input(_)) {
            return Err(unusable());
        }
        let logits = logits(&session.outputs).ok_or_else(unusable)?.name.clone();
        Ok(Recomputing { session, reason, logits, ids: Vec::new() })
    }

    /// Everything that the model takes for the whole text.
    fn inputs(&self, ids: &[u32]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let mut tensors = made(&self.session.inputs, 0, ids)?;
        let past = self.session.inputs.iter().filter(|it| role(&it.name) == Some(Role::Past));
        let empty = |input: &IoInfo| {
            let tensor = roles::make(input, (1, ids.len()));
            let missing =
                || EngineError::MissingInput { name: input.name.clone(), given: Vec::new() };
            Ok((input.name.clone(), tensor.ok_or_else(missing)?))
        };
        tensors.extend(past.map(empty).collect::<Result<Vec<_>, EngineError>>()?);
        Ok(tensors)
    }

    fn run(&mut self, ids: &[u32], stop: &Stop, fed: (Rows, usize)) -> Result<Logits, EngineError> {
        let tensors = self.inputs(ids)?;
        let feeds: Vec<Feed<'_>> =
            tensors.iter().map(|(name, it)| Feed::new(name, it)).collect::<Result<_, _>>()?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::new();
        for ((name, _), feed) in tensors.iter().zip(&feeds) {
            inputs.push((name, feed.value()?));
        }
        let options = stoppable(stop)?;
        let run = self.session.session.run_with_options(inputs, &*options);
        let mut outputs = run.map_err(|it| failed(stop, it))?;
        let logits = outputs.remove(&self.logits).ok_or_else(|| missing(&self.logits))?;
        rows(&logits, fed.0, fed.1)
    }
}

impl Decoder for Recomputing {
    fn length(&self) -> usize {
        self.ids.len()
    }

    fn keep(&mut self, length: usize) -> Result<(), EngineError> {
        self.ids.truncate(length);
        Ok(())
    }

    fn feed(&mut self, ids: &[u32], wanted: Rows, stop: &Stop) -> Result<Logits, EngineError> {
        let all = [&self.ids[..], ids].concat();
        let logits = match wanted {
            Rows::None => Logits::default(),
            _ => self.run(&all, stop, (wanted, ids.len()))?,
        };
        self.ids = all;
        Ok(logits)
    }

    fn bytes_per_token(&self) -> u64 {
        0
    }

    fn most(&self) -> Option<usize> {
        let fixed = |it: &IoInfo| it.ty.shape.as_ref()?.get(1)?.fixed();
        self.session.inputs.iter().filter(|it| it.name == "input_ids").find_map(fixed)
    }

    fn no_cache(&self) -> Option<&NoCache> {
        Some(&self.reason)
    }
}
