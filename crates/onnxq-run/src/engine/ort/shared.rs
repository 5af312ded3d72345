//! The decoder whose past and present are one buffer, into which each run writes behind what is there.

use ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    value::{DynTensor, Shape},
};

use super::{
    super::{Decoder, EngineError, Logits, NoCache, Rows, Stop},
    decoder::{Cache, failed, made, missing, stoppable},
    run_error,
    session::OrtSession,
    tensors::{Feed, element_type, resized, rows},
};

/// Tokens that the first buffer has room for. Each later one has twice as much: what lies behind the
/// last token is not read, so the numbers do not depend on it.
const FIRST: usize = 256;

pub(super) struct Shared {
    session: OrtSession,
    cache: Cache,
    /// One for each pair; empty before the first token.
    buffers: Vec<DynTensor>,
    room: usize,
    length: usize,
}

impl Shared {
    pub(super) fn new(session: OrtSession, cache: Cache) -> Shared {
        Shared { session, cache, buffers: Vec::new(), room: 0, length: 0 }
    }

    /// Room for so many tokens.
    fn reserve(&mut self, tokens: usize) -> Result<(), EngineError> {
        if tokens <= self.room {
            return Ok(());
        }
        let room = match self.cache.fixed() {
            Some(fixed) if tokens > fixed => {
                let fact = format!("{tokens} tokens do not fit into {fixed}");
                return Err(EngineError::Cache(fact));
            }
            Some(fixed) => fixed,
            None => tokens.next_power_of_two().max(FIRST),
        };
        let buffers = (0..self.cache.inputs.len()).map(|at| self.buffer(at, room));
        self.buffers = buffers.collect::<Result<_, _>>()?;
        self.room = room;
        Ok(())
    }

    /// A larger buffer with what the old one holds.
    fn buffer(&self, at: usize, room: usize) -> Result<DynTensor, EngineError> {
        if let Some(old) = self.buffers.get(at) {
            return resized(old, self.cache.axes[at], (self.length, room));
        }
        let input = &self.cache.inputs[at];
        let ty = element_type(&input.name, input.ty.dtype)?;
        let shape: Shape = self.cache.shape(at, room).into_iter().map(|it| it as i64).collect();
        DynTensor::new(&Allocator::default(), ty, shape).map_err(run_error)
    }
}

impl Decoder for Shared {
    fn length(&self) -> usize {
        self.length
    }

    fn keep(&mut self, length: usize) -> Result<(), EngineError> {
        self.length = self.length.min(length);
        Ok(())
    }

    fn feed(&mut self, ids: &[u32], wanted: Rows, stop: &Stop) -> Result<Logits, EngineError> {
        self.reserve(self.length + ids.len())?;
        let tensors = made(&self.session.inputs, self.length, ids)?;
        let feeds: Vec<Feed<'_>> =
            tensors.iter().map(|(name, it)| Feed::new(name, it)).collect::<Result<_, _>>()?;
        let mut binding = self.session.session.create_binding().map_err(run_error)?;
        for ((name, _), feed) in tensors.iter().zip(&feeds) {
            // `ort` would copy what is borrowed, by a session that waits for itself.
            binding.bind_input(name, &*feed.copy()?).map_err(run_error)?;
        }
        let pairs = &self.cache.pairs;
        for (pair, buffer) in pairs.list.iter().zip(&mut self.buffers) {
            binding.bind_input(&pair.past, buffer).map_err(run_error)?;
            binding.bind_output(&pair.present, buffer).map_err(run_error)?;
        }
        let memory =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default);
        let memory = memory.map_err(run_error)?;
        binding.bind_output_to_device(&pairs.logits, &memory).map_err(run_error)?;
        let options = stoppable(stop)?;
        let run = self.session.session.run_binding_with_options(&binding, &options);
        let mut outputs = run.map_err(|it| failed(stop, it))?;
        let logits = outputs.remove(&pairs.logits).ok_or_else(|| missing(&pairs.logits))?;
        let logits = rows(&logits, wanted, ids.len())?;
        self.length += ids.len();
        Ok(logits)
    }

    fn bytes_per_token(&self) -> u64 {
        self.cache.bytes_per_token()
    }

    fn most(&self) -> Option<usize> {
        self.cache.fixed()
    }

    fn no_cache(&self) -> Option<&NoCache> {
        None
    }
}
