//! The input under way, in a file: whoever outlives the process can say what ended it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// Bytes of the count and of the input's length.
const HEAD: usize = 16;

/// Written by the process that runs inputs.
pub struct State {
    file: File,
    buffer: Vec<u8>,
}

impl State {
    pub fn create(path: &Path) -> io::Result<State> {
        Ok(State { file: File::create(path)?, buffer: Vec::new() })
    }

    /// `count` inputs are done, and this one begins.
    pub fn begin(&mut self, count: u64, input: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend(count.to_le_bytes());
        self.buffer.extend((input.len() as u64).to_le_bytes());
        self.buffer.extend(input);
        self.file.write_all_at(&self.buffer, 0)
    }
}

/// How many inputs are done.
pub fn count(path: &Path) -> u64 {
    let mut bytes = [0; 8];
    let read = File::open(path).and_then(|it| it.read_exact_at(&mut bytes, 0));
    read.map_or(0, |()| u64::from_le_bytes(bytes))
}

/// The input that was under way.
pub fn input(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let len = u64::from_le_bytes(head[8..].try_into().ok()?);
    Some(rest.get(..usize::try_from(len).ok()?)?.to_vec())
}
