//! `.npz`: a zip archive of arrays, one per input; bombs and ambiguous archives are refused.

use std::{
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use zip::ZipArchive;

use super::{
    DataError,
    npy::{Npy, ReadSeek},
};

const MAX_MEMBERS: usize = 100_000;
/// A member may expand to this many times its size, and then this many bytes more.
const MAX_RATIO: u64 = 200;
const GRACE: u64 = 1 << 20;
/// Members lie unpacked while batches are read.
const MAX_TOTAL: u64 = 16 << 30;
/// Larger members lie in a nameless temporary file, not in memory.
const IN_MEMORY: usize = 64 << 20;

pub struct Npz {
    file: PathBuf,
    archive: ZipArchive<Box<dyn ReadSeek>>,
    taken: u64,
}

impl Npz {
    pub fn open(file: &Path) -> Result<Npz, DataError> {
        Npz::read(file, onnxq_ir::fs::open_file(file).map_err(DataError::io(file))?)
    }

    /// Reads the list of members; `file` is for messages.
    pub fn read(file: &Path, data: impl ReadSeek + 'static) -> Result<Npz, DataError> {
        let data: Box<dyn ReadSeek> = Box::new(data);
        let mut archive = ZipArchive::new(data).map_err(|it| damaged(file, it))?;
        if archive.len() > MAX_MEMBERS {
            let fact = format!("has {} members, more than {MAX_MEMBERS}", archive.len());
            return Err(DataError::size(file, fact));
        }
        if archive.has_duplicate_names() {
            return Err(DataError::size(file, "has two members of the same name"));
        }
        if archive.has_overlapping_files().map_err(|it| damaged(file, it))? {
            return Err(DataError::size(file, "has members that share bytes"));
        }
        Ok(Npz { file: file.into(), archive, taken: 0 })
    }

    /// Names of the arrays, sorted, without `.npy`.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .archive
            .file_names()
            .filter_map(|it| Some(it.ok()?.strip_suffix(".npy")?.to_owned()))
            .collect();
        names.sort_unstable();
        names
    }

    /// The array of that name, if the archive has it.
    pub fn array(&mut self, name: &str) -> Result<Option<Npy>, DataError> {
        let file = self.file.join(format!("{name}.npy"));
        let member = match self.archive.by_name(&format!("{name}.npy")) {
            Ok(it) => it,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(it) => return Err(damaged(&file, it)),
        };
        let (size, packed) = (member.size(), member.compressed_size());
        if size > packed.saturating_mul(MAX_RATIO).saturating_add(GRACE) {
            let fact = format!("expands from {packed} to {size} bytes");
            return Err(DataError::size(&file, fact));
        }
        self.taken = self.taken.saturating_add(size);
        if self.taken > MAX_TOTAL {
            let fact = format!("expands to more than {} GiB", MAX_TOTAL >> 30);
            return Err(DataError::size(&self.file, fact));
        }
        // Not allocated up front: the size is a claim until the bytes are there.
        let mut unpacked = tempfile::spooled_tempfile(IN_MEMORY);
        let held = copy(&mut member.take(size + 1), &mut unpacked, &file)?;
        if held != size {
            let fact = format!("declares {size} bytes, but holds {held}");
            return Err(DataError::size(&file, fact));
        }
        unpacked.rewind().map_err(DataError::io(&file))?;
        Npy::open(&file, unpacked).map(Some)
    }
}

/// Unpacks a member. What fails to be read is damaged, what fails to be written is the machine's.
fn copy(from: &mut impl Read, to: &mut impl io::Write, file: &Path) -> Result<u64, DataError> {
    let mut piece = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let count = from.read(&mut piece).map_err(|it| damaged(file, it))?;
        if count == 0 {
            return Ok(total);
        }
        to.write_all(&piece[..count]).map_err(|source| {
            let folder = std::env::temp_dir();
            DataError::Scratch { folder, source }
        })?;
        total += count as u64;
    }
}

fn damaged(file: &Path, error: impl Into<zip::result::ZipError>) -> DataError {
    DataError::format(
        file,
        format!(
            "is not a readable .npz file: {}",
            onnxq_ir::untrusted::escape(&error.into().to_string())
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::{super::npy, *};
    use onnxq_ir::diag::{Code, Diagnostic};

    fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn with<T>(bytes: &[u8], run: impl FnOnce(Result<Npz, DataError>) -> T) -> T {
        let file = tempfile::Builder::new().suffix(".npz").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        run(Npz::open(file.path()))
    }

    fn code(bytes: &[u8], name: &str) -> Code {
        with(bytes, |it| it.and_then(|mut it| it.array(name)).err().expect("an error").code())
    }

    #[test]
    fn reads_arrays_by_name() {
        let bytes = archive(&[("b.npy", npy::tests::ids(1, 2, [7, 8])), ("readme", vec![1])]);
        with(&bytes, |it| {
            let mut npz = it.unwrap();
            assert_eq!(npz.names(), ["b"]);
            assert_eq!(npz.array("b").unwrap().unwrap().whole().unwrap().to_i64().unwrap(), [7, 8]);
            assert!(npz.array("a").unwrap().is_none());
        });
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = npy::tests::file("'|u1'", "False", "(16777216,)", &vec![0; 1 << 24]);
        assert_eq!(code(&archive(&[("x.npy", zeros)]), "x"), Code::E602);
    }

    #[test]
    fn a_large_member_is_read_from_the_disk() {
        let rows = IN_MEMORY / 8 + 9;
        let values =
            (0..rows as i64).map(|it| it.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed()));
        let bytes = archive(&[("x.npy", npy::tests::ids(rows, 1, values.clone()))]);
        with(&bytes, |it| {
            let mut array = it.unwrap().array("x").unwrap().unwrap();
            let last = array.rows(rows - 1..rows).unwrap().to_i64().unwrap();
            assert_eq!(last, [values.clone().next_back().unwrap()]);
        });
    }

    #[test]
    fn a_small_constant_mask_is_no_bomb() {
        let ones = archive(&[("m.npy", npy::tests::ids(64, 128, [1; 64 * 128]))]);
        with(&ones, |it| assert!(it.unwrap().array("m").is_ok()));
    }

    #[test]
    fn a_member_must_be_as_long_as_its_header_says() {
        let short = npy::tests::file("'<f4'", "False", "(3,)", &[0; 8]);
        assert_eq!(code(&archive(&[("x.npy", short)]), "x"), Code::E602);
    }

    #[test]
    fn names_must_be_unique() {
        // The writer refuses duplicates, so one of two names is patched, in both headers.
        let array = npy::tests::ids(1, 1, [1]);
        let mut bytes = archive(&[("a.npy", array.clone()), ("b.npy", array)]);
        for at in 0..bytes.len() - 5 {
            if &bytes[at..at + 5] == b"b.npy" {
                bytes[at] = b'a';
            }
        }
        assert_eq!(code(&bytes, "a"), Code::E602);
    }

    #[test]
    fn other_files_and_damage_are_refused() {
        assert_eq!(code(b"PK but not really", "x"), Code::E601);
        let mut bytes = archive(&[("x.npy", npy::tests::ids(8, 8, 0..64))]);
        for it in &mut bytes[60..90] {
            *it ^= 0x55;
        }
        assert_eq!(code(&bytes, "x"), Code::E601);
    }
}
