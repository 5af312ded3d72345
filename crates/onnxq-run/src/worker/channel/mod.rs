//! Frames between this program and a child: a head of JSON, and bytes beside it.
//!
//! On Unix both ends are one socket, which is the child's standard input, and many bytes travel as a file
//! in memory that both map; elsewhere frames go through pipes, bytes and all.

#[cfg(not(unix))]
mod pipes;
#[cfg(unix)]
mod socket;

use std::io::{self, Read as _};

use bytes::Bytes;

#[cfg(not(unix))]
pub(super) use self::pipes::{Sender, own, spawn};
#[cfg(unix)]
pub(super) use self::socket::{Sender, own, spawn};

/// What travels.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    pub head: Vec<u8>,
    pub payload: Bytes,
}

/// Of a head; texts and tokens of a request are in it.
const LONGEST_HEAD: u32 = 256 << 20;
/// Parts of a payload begin at multiples of this, as tensors want it.
pub(super) const ALIGNMENT: usize = 64;

/// What comes first: how long the rest is, and whether the payload is a file.
#[derive(Clone, Copy)]
struct Prefix {
    head: u32,
    is_file: bool,
    payload: u64,
}

impl Prefix {
    const LEN: usize = 16;

    fn new(head: &[u8], parts: &[Bytes], is_file: bool) -> io::Result<Prefix> {
        let head = u32::try_from(head.len()).ok().filter(|it| *it <= LONGEST_HEAD);
        let head = head.ok_or_else(|| io::Error::other("the request is too long"))?;
        Ok(Prefix { head, is_file, payload: padded_len(parts) })
    }

    fn bytes(self) -> [u8; Prefix::LEN] {
        let mut bytes = [0; Prefix::LEN];
        bytes[..4].copy_from_slice(&self.head.to_le_bytes());
        bytes[4] = u8::from(self.is_file);
        bytes[8..].copy_from_slice(&self.payload.to_le_bytes());
        bytes
    }

    fn read(bytes: [u8; Prefix::LEN]) -> io::Result<Prefix> {
        let head = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let payload = u64::from_le_bytes(bytes[8..].try_into().expect("eight bytes"));
        if head > LONGEST_HEAD || bytes[4] > 1 || bytes[5..8] != [0; 3] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no frame"));
        }
        Ok(Prefix { head, is_file: bytes[4] == 1, payload })
    }
}

/// Where the part after one that ends at `end` begins.
pub(super) fn aligned(end: u64) -> u64 {
    end.next_multiple_of(ALIGNMENT as u64)
}

fn padded_len(parts: &[Bytes]) -> u64 {
    parts.iter().map(|it| aligned(it.len() as u64)).sum()
}

/// Writes the parts, each filled up to the next multiple of the alignment.
fn write_parts(out: &mut impl io::Write, parts: &[Bytes]) -> io::Result<()> {
    for part in parts {
        out.write_all(part)?;
        let rest = aligned(part.len() as u64) - part.len() as u64;
        out.write_all(&[0; ALIGNMENT][..rest as usize])?;
    }
    Ok(())
}

/// Reads so many bytes; memory grows with what really comes.
fn read_bytes(input: impl io::Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::take(input, len).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == len {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
