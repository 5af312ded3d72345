//! A log of records that survives a killed process: what was written whole is read back.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use onnxq_ir::fs::{open_alone, read_exact_at, write_all_at};
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"onnxq statistics log 1\n";
/// The length of a record and a checksum of it come before it.
const HEAD: usize = 8 + SUM;
const SUM: usize = 16;

/// An open log, which no other process opens. Records are found by their offset.
pub(super) struct Log {
    file: File,
    end: u64,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    offset: u64,
    len: u64,
}

impl Record {
    /// The record in the bytes of the whole file.
    pub(super) fn bytes(&self, file: &bytes::Bytes) -> bytes::Bytes {
        file.slice(self.offset as usize..(self.offset + self.len) as usize)
    }
}

impl Log {
    /// Whether something else lies at the path: a link, or a file that does not begin as a log does.
    pub(super) fn is_foreign(path: &Path) -> io::Result<bool> {
        let found = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        if !found.is_file() {
            return Ok(true);
        }
        let mut begin = Vec::new();
        File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
        Ok(!MAGIC.starts_with(&begin))
    }

    /// Opens the log and finds its records; a torn tail is cut off. What is no log becomes an empty one.
    ///
    /// # Errors
    /// `ResourceBusy` if another process has it open.
    pub(super) fn open(path: &Path) -> io::Result<(Log, Vec<Record>)> {
        let mut log = Log { file: open_alone(path)?, end: MAGIC.len() as u64 };
        let size = log.file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        if size >= MAGIC.len() as u64 {
            read_exact_at(&log.file, &mut magic, 0)?;
        }
        if magic != MAGIC {
            log.clear()?;
            return Ok((log, Vec::new()));
        }
        let mut records = Vec::new();
        while let Some(record) = log.check(size)? {
            log.end = record.offset + record.len;
            records.push(record);
        }
        log.file.set_len(log.end)?;
        Ok((log, records))
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        write_all_at(&self.file, MAGIC, 0)?;
        self.end = MAGIC.len() as u64;
        Ok(())
    }

    /// The record at the end of what is known, if it is whole.
    fn check(&self, size: u64) -> io::Result<Option<Record>> {
        let mut head = [0; HEAD];
        if self.end + HEAD as u64 > size {
            return Ok(None);
        }
        read_exact_at(&self.file, &mut head, self.end)?;
        let (len, sum) = head.split_at(8);
        let len = u64::from_le_bytes(len.try_into().expect("8 bytes"));
        let offset = self.end + HEAD as u64;
        if offset.checked_add(len).is_none_or(|it| it > size) {
            return Ok(None);
        }
        let record = Record { offset, len };
        Ok((checksum(&self.read(record)?)[..] == *sum).then_some(record))
    }

    pub(super) fn read(&self, record: Record) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; record.len as usize];
        read_exact_at(&self.file, &mut bytes, record.offset)?;
        Ok(bytes)
    }

    /// Adds a record; it counts only once it is on the disk.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<Record> {
        let len = bytes.len() as u64;
        let head = [&len.to_le_bytes()[..], &checksum(bytes)].concat();
        let offset = self.end + HEAD as u64;
        write_all_at(&self.file, &head, self.end)?;
        write_all_at(&self.file, bytes, offset)?;
        self.file.sync_data()?;
        self.end = offset + len;
        Ok(Record { offset, len })
    }
}

fn checksum(bytes: &[u8]) -> [u8; SUM] {
    let mut sum = [0; SUM];
    sum.copy_from_slice(&Sha256::digest(bytes)[..SUM]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_tail_is_dropped_and_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, _) = Log::open(&path).unwrap();
        log.append(b"first").unwrap();
        log.append(b"second").unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..(HEAD + 6) {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut log, records) = Log::open(&path).unwrap();
            assert_eq!(records.len(), 1, "{cut} bytes less");
            log.append(b"third").unwrap();
            drop(log);
            let (log, records) = Log::open(&path).unwrap();
            let read: Vec<_> = records.iter().map(|it| log.read(*it).unwrap()).collect();
            assert_eq!(read, [b"first".to_vec(), b"third".to_vec()]);
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(Log::open(&path).unwrap().1.len(), 1);
        std::fs::write(&path, "anything else").unwrap();
        assert!(Log::open(&path).unwrap().1.is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), MAGIC);
    }

    #[cfg(unix)]
    #[test]
    fn a_log_is_of_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, _) = Log::open(&path).unwrap();
        log.append(b"first").unwrap();
        let Err(error) = Log::open(&path) else { panic!("two runs have one log") };
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(log);
        assert_eq!(Log::open(&path).unwrap().1.len(), 1);
    }
}
