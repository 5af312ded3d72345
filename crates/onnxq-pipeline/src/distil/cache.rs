//! What the teacher said, kept in a file for the next training: of each row the likeliest values.
//!
//! The file has a header, and one record after the other as samples come; a record that was not
//! written to its end does not count.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use half::f16;
use onnxq_train::loss::Aim;
use serde::{Deserialize, Serialize};

use super::files::{Fault, FileError};

/// The likeliest values of rows of logits, as they are kept.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Top {
    count: usize,
    /// By row, in rising order.
    ids: Vec<u32>,
    probabilities: Vec<f32>,
}

impl Top {
    /// The `count` likeliest values of each row of `width` logits. Probabilities are rounded to
    /// float16, kept or not, so that a training from a file has the same bytes.
    pub(super) fn of(logits: &[f32], width: usize, count: usize) -> Top {
        let count = count.min(width);
        let (mut ids, mut probabilities) = (Vec::new(), Vec::new());
        let mut order: Vec<u32> = Vec::new();
        for row in logits.chunks_exact(width.max(1)) {
            order.clear();
            order.extend(0..width as u32);
            let larger =
                |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            if count < width {
                order.select_nth_unstable_by(count, larger);
            }
            let top = &mut order[..count];
            top.sort_unstable();
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|it| f64::from(it - most).exp()).sum();
            ids.extend_from_slice(top);
            probabilities.extend(top.iter().map(|it| {
                f16::from_f64(f64::from(row[*it as usize] - most).exp() / total).to_f32()
            }));
        }
        Top { count, ids, probabilities }
    }

    pub(super) fn rows(&self) -> usize {
        self.ids.len() / self.count.max(1)
    }

    /// What a student is to come near to in a row.
    pub(super) fn aim(&self, row: usize) -> Aim<'_> {
        let range = row * self.count..(row + 1) * self.count;
        let probabilities = &self.probabilities[range.clone()];
        let rest = (1.0 - probabilities.iter().sum::<f32>()).max(0.0);
        Aim::Top { ids: &self.ids[range], probabilities, rest }
    }

    /// Rows one after the other.
    pub(super) fn joined(parts: Vec<Top>) -> Top {
        let count = parts.first().map_or(0, |it| it.count);
        let ids = parts.iter().flat_map(|it| &it.ids).copied().collect();
        let probabilities = parts.iter().flat_map(|it| &it.probabilities).copied().collect();
        Top { count, ids, probabilities }
    }

    /// In so many pieces of equal numbers of rows.
    pub(super) fn pieces(&self, pieces: usize) -> impl Iterator<Item = Top> + '_ {
        let len = (self.rows() / pieces.max(1) * self.count).max(1);
        let both = self.ids.chunks(len).zip(self.probabilities.chunks(len));
        both.map(|(ids, p)| Top { count: self.count, ids: ids.into(), probabilities: p.into() })
    }

    pub(super) fn bytes_in_memory(&self) -> usize {
        size_of_val(&self.ids[..]) + size_of_val(&self.probabilities[..])
    }

    fn bytes(&self) -> Vec<u8> {
        let ids = self.ids.iter().flat_map(|it| it.to_le_bytes());
        let of = |it: &f32| f16::from_f32(*it).to_le_bytes();
        ids.chain(self.probabilities.iter().flat_map(of)).collect()
    }

    /// From bytes of a file: `None` if they are no rows of a distribution over `width` values.
    fn read(bytes: &[u8], count: usize, width: usize) -> Option<Top> {
        let values = bytes.len() / VALUE;
        let (ids, probabilities) = bytes.split_at(values * 4);
        let ids: Vec<u32> = ids.as_chunks().0.iter().map(|it| u32::from_le_bytes(*it)).collect();
        let probabilities: Vec<f32> =
            probabilities.as_chunks().0.iter().map(|it| f16::from_le_bytes(*it).to_f32()).collect();
        let known = ids.iter().all(|it| (*it as usize) < width);
        let likely = probabilities.iter().all(|it| (0.0..=1.0).contains(it));
        (known && likely).then_some(Top { count, ids, probabilities })
    }
}

/// Bytes of a value: its number, and its probability in float16.
const VALUE: usize = 6;
const MAGIC: [u8; 8] = *b"onnxq-t1";
const MOST_HEADER: u64 = 1 << 16;

/// Of whom and of what the answers are.
#[derive(PartialEq, Serialize, Deserialize)]
struct Header {
    key: String,
    count: usize,
    /// Values of a row, by output.
    widths: Vec<usize>,
}

/// A file of answers.
pub(super) struct Cache {
    path: PathBuf,
    file: File,
    header: Header,
    /// Place and rows by sample and output.
    index: BTreeMap<(u32, u32), (u64, u32)>,
    end: u64,
}

const OTHER: &str = " has answers of another teacher, to other samples, or another number of them";

fn wrong(path: &Path, fault: Fault) -> FileError {
    fault.of(path, ", or name another file")
}

impl Cache {
    /// What there is at `path` of such answers; an empty file of them if there is nothing.
    pub(super) fn open(
        path: &Path,
        key: String,
        (count, widths): (usize, Vec<usize>),
    ) -> Result<Cache, FileError> {
        let io = |source| wrong(path, Fault::Io(source));
        let header = Header { key, count, widths };
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut cache = Cache {
            path: path.to_owned(),
            file: file.try_clone().map_err(io)?,
            header,
            index: BTreeMap::new(),
            end: 0,
        };
        if len == 0 {
            let text = serde_json::to_vec(&cache.header).expect("plain data");
            let size = (text.len() as u32).to_le_bytes();
            file.write_all(&[&MAGIC[..], &size, &text].concat()).map_err(io)?;
            cache.end = file.stream_position().map_err(io)?;
            return Ok(cache);
        }
        cache.scan(&mut BufReader::new(file), len)?;
        Ok(cache)
    }

    fn scan(&mut self, file: &mut (impl Read + Seek), len: u64) -> Result<(), FileError> {
        let io = |source| wrong(&self.path, Fault::Io(source));
        let damaged = |what: &str| wrong(&self.path, Fault::Damaged(what.to_owned()));
        let mut start = [0; 12];
        if len < 12 {
            return Err(damaged("it has no header"));
        }
        file.read_exact(&mut start).map_err(io)?;
        let size = u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]]));
        if start[..8] != MAGIC || size > MOST_HEADER || 12 + size > len {
            return Err(damaged("it has no header"));
        }
        let mut text = vec![0; size as usize];
        file.read_exact(&mut text).map_err(io)?;
        let header: Header =
            serde_json::from_slice(&text).map_err(|_| damaged("its header is none"))?;
        if header != self.header {
            return Err(wrong(&self.path, Fault::Other(OTHER)));
        }
        let mut at = 12 + size;
        while at + 12 <= len {
            let mut head = [0; 12];
            file.read_exact(&mut head).map_err(io)?;
            let number = |it: usize| {
                u32::from_le_bytes([head[it], head[it + 1], head[it + 2], head[it + 3]])
            };
            let (sample, output, rows) = (number(0), number(4), number(8));
            let Some(bytes) = self.record(output, rows).filter(|it| at + 12 + it <= len) else {
                break;
            };
            self.index.insert((sample, output), (at + 12, rows));
            at += 12 + bytes;
            file.seek(SeekFrom::Start(at)).map_err(io)?;
        }
        self.end = at;
        Ok(())
    }

    /// Bytes of a record's rows.
    fn record(&self, output: u32, rows: u32) -> Option<u64> {
        let count = self.header.count.min(*self.header.widths.get(output as usize)?);
        u64::from(rows).checked_mul(count as u64)?.checked_mul(VALUE as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What was said of a sample.
    pub(super) fn get(&mut self, sample: usize, output: usize) -> Result<Option<Top>, FileError> {
        let Some(key) = key_of(sample, output) else { return Ok(None) };
        let Some((at, rows)) = self.index.get(&key).copied() else { return Ok(None) };
        let bytes = self.record(key.1, rows).expect("it was found so");
        let io = |source| wrong(&self.path, Fault::Io(source));
        // Not larger than the file.
        let mut buffer = vec![0; bytes as usize];
        self.file.seek(SeekFrom::Start(at)).map_err(io)?;
        self.file.read_exact(&mut buffer).map_err(io)?;
        let width = self.header.widths[output];
        let top = Top::read(&buffer, self.header.count.min(width), width);
        let what = "it has values that the teacher does not know";
        top.map(Some).ok_or_else(|| wrong(&self.path, Fault::Damaged(what.to_owned())))
    }

    /// Keeps what was said of a sample.
    pub(super) fn put(&mut self, sample: usize, output: usize, top: &Top) -> Result<(), FileError> {
        let Some(key) = key_of(sample, output) else { return Ok(()) };
        let io = |source| wrong(&self.path, Fault::Io(source));
        let rows = top.rows() as u32;
        let head = [key.0, key.1, rows].map(u32::to_le_bytes).concat();
        let record = [head, top.bytes()].concat();
        self.file.seek(SeekFrom::Start(self.end)).map_err(io)?;
        self.file.write_all(&record).map_err(io)?;
        self.index.insert(key, (self.end + 12, rows));
        self.end += record.len() as u64;
        Ok(())
    }
}

fn key_of(sample: usize, output: usize) -> Option<(u32, u32)> {
    Some((u32::try_from(sample).ok()?, u32::try_from(output).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answers() -> Top {
        let logits: Vec<f32> = (0..40).map(|it| ((it * 7) % 11) as f32 * 0.5).collect();
        Top::of(&logits, 10, 3)
    }

    fn open(path: &Path) -> Result<Cache, FileError> {
        Cache::open(path, "a".to_owned(), (3, vec![10]))
    }

    #[test]
    fn what_was_kept_is_read_again_and_a_torn_record_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers");
        let mut cache = open(&path).unwrap();
        cache.put(7, 0, &answers()).unwrap();
        cache.put(8, 0, &answers()).unwrap();
        drop(cache);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut cache = open(&path).unwrap();
        assert_eq!(cache.get(7, 0).unwrap(), Some(answers()));
        assert_eq!(cache.get(8, 0).unwrap(), None);
        cache.put(8, 0, &answers()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let other = Cache::open(&path, "b".to_owned(), (3, vec![10]));
        assert!(other.is_err_and(|it| it.to_string().contains("another teacher")));
    }

    #[test]
    fn the_likeliest_are_kept_with_what_they_have_together() {
        let top = Top::of(&[0.0, 3.0, 1.0, 2.0], 4, 2);
        let Aim::Top { ids, probabilities, rest } = top.aim(0) else { unreachable!() };
        assert_eq!(ids, [1, 3]);
        assert!((probabilities[0] - 0.6439).abs() < 1e-3 && (rest - 0.1192).abs() < 1e-3);
        let parts: Vec<Top> = answers().pieces(2).collect();
        assert_eq!(parts.iter().map(Top::rows).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(Top::joined(parts), answers());
    }

    proptest! {
        #[test]
        fn bytes_of_anybody_are_answers_or_an_error(at in 0usize..200, byte: u8) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("answers");
            let mut cache = open(&path).unwrap();
            cache.put(7, 0, &answers()).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(mut cache) = open(&path) && let Ok(Some(top)) = cache.get(7, 0) {
                prop_assert!(top.ids.iter().all(|it| *it < 10));
            }
        }
    }
}
