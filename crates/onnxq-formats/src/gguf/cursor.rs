//! Reading forwards in bytes whose lengths and counts are not to be believed.

use bytes::Bytes;

/// What is wrong, without the place: whoever knows that says it.
pub(super) type Problem = String;

/// What is left of a file.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a Bytes,
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes, where they lie.
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Problem> {
        let len = self.check(len)?;
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    fn check(&self, len: u64) -> Result<usize, Problem> {
        let fits = usize::try_from(len).ok().filter(|it| *it <= self.left());
        fits.ok_or_else(|| format!("needs {len} bytes, but {} are left in the file", self.left()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        Ok(self.take(N as u64)?.try_into().expect("N bytes were taken"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    /// How many things follow, each of which needs `least` bytes.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Problem> {
        let count = self.u64()?;
        let most = self.left() / least;
        let fits = usize::try_from(count).ok().filter(|it| *it <= most);
        let left = self.left();
        fits.ok_or_else(|| format!("count {count} is more than the {left} bytes left can hold"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Problem> {
        let len = self.u64()?;
        let bytes = self.take(len)?;
        str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
    }

    /// The bytes since `start`, shared with the file.
    pub(super) fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start..self.at)
    }
}
