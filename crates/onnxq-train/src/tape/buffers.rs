//! Buffers that are used again: every run of a program takes the same ones.

use std::collections::BTreeMap;

/// Free buffers by their length.
pub(super) struct Buffers<R> {
    free: BTreeMap<usize, Vec<Vec<R>>>,
}

impl<R> Default for Buffers<R> {
    fn default() -> Buffers<R> {
        Buffers { free: BTreeMap::new() }
    }
}

impl<R: Copy + Default> Buffers<R> {
    /// A buffer of that length; what its elements are is not said.
    pub(super) fn take(&mut self, len: usize) -> Vec<R> {
        let free = self.free.get_mut(&len).and_then(Vec::pop);
        free.unwrap_or_else(|| vec![R::default(); len])
    }

    pub(super) fn give(&mut self, buffer: Vec<R>) {
        if !buffer.is_empty() {
            self.free.entry(buffer.len()).or_default().push(buffer);
        }
    }
}
