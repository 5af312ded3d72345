//! Mutations of npy headers and of the members of zip archives; lengths are made right again.

use std::io::{Cursor, Read, Write};

use fastrand::Rng;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::{bytes, proto, range, text, word};

const MAGIC: &[u8] = b"\x93NUMPY";

pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    if input.starts_with(MAGIC) {
        npy(input, other, words, rng);
    } else if input.starts_with(b"PK") {
        // Headers of an archive are found by what they say, so most changes are to plain bytes.
        match members(input).filter(|it| !it.is_empty() && rng.u8(..3) == 0) {
            Some(list) => archive(input, list, other, words, rng),
            None => bytes::mutate(input, other, words, rng),
        }
    } else {
        proto::mutate(input, other, words, rng);
    }
}

/// Changes the header's text and writes its length, or changes the data.
fn npy(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let Some((header, data)) = split(input) else {
        bytes::mutate(input, other, words, rng);
        return;
    };
    let (mut header, mut data) = (header.to_vec(), data.to_vec());
    match rng.u8(..4) {
        0 => {
            let len = rng.usize(..=2 * data.len() + 8);
            data.resize(len, 1);
        }
        1 => bytes::mutate(&mut data, other, words, rng),
        _ => text::mutate(&mut header, split(other).map_or(other, |it| it.0), words, rng),
    }
    let version = if rng.u8(..8) == 0 { rng.u8(..4) } else { input[6] };
    let mut out = MAGIC.to_vec();
    out.extend([version, 0]);
    match version {
        1 => out.extend((header.len() as u16).to_le_bytes()),
        _ => out.extend((header.len() as u32).to_le_bytes()),
    }
    out.extend(header);
    out.extend(data);
    *input = out;
}

/// The header's text and the data.
fn split(npy: &[u8]) -> Option<(&[u8], &[u8])> {
    let (fixed, rest) = npy.split_at_checked(8)?;
    let (len, rest) = match fixed[6] {
        1 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u16::from_le_bytes(*len).into(), rest)
        }
        _ => {
            let (len, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
    };
    rest.split_at_checked(len)
}

fn members(archive: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    const LONGEST: u64 = 1 << 16;
    let mut archive = ZipArchive::new(Cursor::new(archive)).ok()?;
    let mut list = Vec::new();
    for at in 0..archive.len().min(16) {
        let member = archive.by_index(at).ok()?;
        let name = member.name().ok()?.to_string();
        let mut bytes = Vec::new();
        member.take(LONGEST).read_to_end(&mut bytes).ok()?;
        list.push((name, bytes));
    }
    Some(list)
}

fn archive(
    input: &mut Vec<u8>,
    mut list: Vec<(String, Vec<u8>)>,
    other: &[u8],
    words: &[&str],
    rng: &mut Rng,
) {
    let at = rng.usize(..list.len());
    match rng.u8(..5) {
        0 => list[at].0 = word(words, rng).to_owned(),
        1 => drop(list.remove(at)),
        2 => list.push((format!("n{}.npy", rng.u8(..)), other.to_vec())),
        3 => {
            let part = range(list[at].1.len(), rng).unwrap_or_default();
            list[at].1.drain(part);
        }
        _ => npy(&mut list[at].1, other, words, rng),
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in list {
        let method = [CompressionMethod::Stored, CompressionMethod::Deflated][rng.usize(..2)];
        let options = SimpleFileOptions::default().compression_method(method);
        if zip.start_file(name, options).is_ok() {
            zip.write_all(&bytes).expect("memory takes it");
        }
    }
    if let Ok(done) = zip.finish() {
        *input = done.into_inner();
    }
}
