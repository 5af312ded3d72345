//! Reading a prompt in chunks, and what of an earlier one need not be read again.
//!
//! Answers depend on the request alone. How many tokens are read at once may change the last digits of
//! what a model remembers, so that only chunks are used again that a fresh run would cut alike.

use super::AnswerError;
use crate::engine::{Decoder, EngineError, Logits, Rows, Stop};

/// Tokens that are read at once: a run can be stopped, and its memory is bounded.
pub(super) const CHUNK: usize = 64;

/// The tokens that a decoder has read in whole chunks from its beginning.
#[derive(Default)]
pub(super) struct Prefix {
    ids: Vec<u32>,
}

impl Prefix {
    /// Makes the decoder ready for a prompt: says how many of its tokens were read already. The last one
    /// never is, because what comes after it is wanted.
    pub(super) fn reuse(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[u32],
    ) -> Result<usize, EngineError> {
        let same = self.ids.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let remembers = decoder.no_cache().is_none();
        let most = if remembers { prompt.len().saturating_sub(1) } else { 0 };
        let kept = same.min(most).min(decoder.length()) / CHUNK * CHUNK;
        self.ids.truncate(kept);
        decoder.keep(kept)?;
        Ok(kept)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, decoder: &mut dyn Decoder) -> Result<(), EngineError> {
        self.ids.clear();
        decoder.keep(0)
    }

    /// Reads what is left of a prompt; each chunk's logits are handed on. With `rows` all tokens have
    /// some, else the last one.
    pub(super) fn read(
        &mut self,
        decoder: &mut dyn Decoder,
        (prompt, all): (&[u32], bool),
        stop: &Stop,
        on: &mut dyn FnMut(Logits),
    ) -> Result<(), AnswerError> {
        while decoder.length() < prompt.len() {
            let from = decoder.length();
            let to = (from + CHUNK).min(prompt.len());
            let rows = match (all, to == prompt.len()) {
                (true, _) => Rows::All,
                (false, true) => Rows::Last,
                (false, false) => Rows::None,
            };
            on(decoder.feed(&prompt[from..to], rows, stop)?);
            if to - from == CHUNK {
                self.ids.extend_from_slice(&prompt[from..to]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NoCache;

    /// Remembers what it read, and how it was cut.
    #[derive(Default)]
    struct Recorded {
        ids: Vec<u32>,
        fed: Vec<usize>,
    }

    impl Decoder for Recorded {
        fn length(&self) -> usize {
            self.ids.len()
        }

        fn keep(&mut self, length: usize) -> Result<(), EngineError> {
            self.ids.truncate(length);
            Ok(())
        }

        fn feed(&mut self, ids: &[u32], _: Rows, stop: &Stop) -> Result<Logits, EngineError> {
            if stop.is_stopped() {
                return Err(EngineError::Stopped);
            }
            self.ids.extend_from_slice(ids);
            self.fed.push(ids.len());
            Ok(Logits::default())
        }

        fn bytes_per_token(&self) -> u64 {
            1
        }

        fn most(&self) -> Option<usize> {
            None
        }

        fn no_cache(&self) -> Option<&NoCache> {
            None
        }
    }

    fn read(prefix: &mut Prefix, decoder: &mut Recorded, prompt: &[u32]) -> (usize, Vec<usize>) {
        decoder.fed.clear();
        let kept = prefix.reuse(decoder, prompt).unwrap();
        prefix.read(decoder, (prompt, false), &Stop::default(), &mut |_| {}).unwrap();
        assert_eq!(decoder.ids, prompt);
        (kept, decoder.fed.clone())
    }

    #[test]
    fn whole_chunks_of_the_same_beginning_are_used_again() {
        let (mut prefix, mut decoder) = (Prefix::default(), Recorded::default());
        let long: Vec<u32> = (0..150).collect();
        assert_eq!(read(&mut prefix, &mut decoder, &long), (0, vec![64, 64, 22]));
        decoder.feed(&[7, 8], Rows::Last, &Stop::default()).unwrap();
        assert_eq!(read(&mut prefix, &mut decoder, &long), (128, vec![22]));
        // The last token has to be read, and so has its chunk.
        assert_eq!(read(&mut prefix, &mut decoder, &long[..128]), (64, vec![64]));
        assert_eq!(read(&mut prefix, &mut decoder, &long), (128, vec![22]));
        let mut other = long.clone();
        other[100] = 9;
        assert_eq!(read(&mut prefix, &mut decoder, &other), (64, vec![64, 22]));
        assert_eq!(read(&mut prefix, &mut decoder, &[5]), (0, vec![1]));
        // What was read in another cut is not used.
        assert_eq!(read(&mut prefix, &mut decoder, &long), (0, vec![64, 64, 22]));
    }

    #[test]
    fn a_stopped_prompt_leaves_what_was_read() {
        let (mut prefix, mut decoder) = (Prefix::default(), Recorded::default());
        let stop = Stop::default();
        stop.stop();
        let long: Vec<u32> = (0..150).collect();
        let failed = prefix.read(&mut decoder, (&long, false), &stop, &mut |_| {});
        assert!(matches!(failed, Err(AnswerError::Engine(EngineError::Stopped))));
        assert_eq!(read(&mut prefix, &mut decoder, &long), (0, vec![64, 64, 22]));
    }
}
