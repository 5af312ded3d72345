//! Which samples a model was calibrated on, in so few bytes that the model itself can say it.
//!
//! Each sample has a digest. Of many, the smallest are kept: whether a sample was among those seen
//! can then be told of a known fraction of all samples, without the data. This is the bottom-k
//! MinHash sketch (Broder, "On the resemblance and containment of documents", 1997).

use std::{fmt, path::Path};

use sha2::{Digest, Sha256};

use super::{Batch, Batches, DataError, roles, source::Source};
use onnxq_ir::{
    onnx,
    tensor::{DType, Tensor, TensorError},
};

/// Digests that are kept.
const WORDS: usize = 256;

/// The smallest digests of samples, shortened to 4 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Samples seen.
    pub count: u64,
    /// Ascending.
    words: Vec<u32>,
}

impl Sketch {
    pub fn of(digests: &[u64]) -> Sketch {
        let words = digests.iter().map(|it| word(*it)).collect();
        Sketch { count: digests.len() as u64, words: smallest(words) }
    }

    /// What [`Display`](fmt::Display) wrote; `None` if it is anything else.
    pub fn parse(count: u64, text: &str) -> Option<Sketch> {
        let is_hex = |it: &u8| it.is_ascii_digit() || (b'a'..=b'f').contains(it);
        let fits = text.len() <= 8 * WORDS
            && text.len().is_multiple_of(8)
            && text.bytes().all(|it| is_hex(&it));
        let word = |at: usize| u32::from_str_radix(&text[8 * at..8 * at + 8], 16).ok();
        let words: Vec<u32> = (0..text.len() / 8).filter(|_| fits).filter_map(word).collect();
        let sorted = words.is_sorted_by(|a, b| a < b) && words.len() as u64 <= count;
        (fits && sorted && !words.is_empty()).then_some(Sketch { count, words })
    }

    /// That of both data sets together.
    pub fn merge(&self, other: &Sketch) -> Sketch {
        let words = self.words.iter().chain(&other.words).copied().collect();
        Sketch { count: self.count + other.count, words: smallest(words) }
    }

    /// How many of these samples can be looked up, and how many of those were seen.
    pub fn overlap(&self, digests: &[u64]) -> (usize, usize) {
        let is_complete = self.words.len() < WORDS || self.count <= WORDS as u64;
        let last = self.words.last().copied().unwrap_or(0);
        let known = digests.iter().map(|it| word(*it)).filter(|it| is_complete || *it <= last);
        known.fold((0, 0), |(checked, shared), it| {
            (checked + 1, shared + usize::from(self.words.binary_search(&it).is_ok()))
        })
    }
}

impl fmt::Display for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.iter().try_for_each(|it| write!(f, "{it:08x}"))
    }
}

fn word(digest: u64) -> u32 {
    (digest >> 32) as u32
}

fn smallest(mut words: Vec<u32>) -> Vec<u32> {
    words.sort_unstable();
    words.dedup();
    words.truncate(WORDS);
    words
}

/// The samples of data, whatever file they come from and in whatever order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Of the digests of all samples, sorted, and of what turns files into samples.
    pub sha256: String,
    pub sketch: Sketch,
}

impl Batches {
    /// A digest of each sample: of its ids or pixels as they are given, so that neither the size
    /// of batches nor what is made from the inputs' names changes it. Of an image, of its file.
    pub fn digests(&self) -> Result<Vec<u64>, DataError> {
        Ok(self.hashes()?.iter().map(short).collect())
    }

    /// All samples in a few bytes.
    pub fn contents(&self) -> Result<Contents, DataError> {
        let mut hashes = self.hashes()?;
        let sketch = Sketch::of(&hashes.iter().map(short).collect::<Vec<_>>());
        hashes.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(self.settings.as_deref().unwrap_or_default());
        hashes.iter().for_each(|it| hash.update(it));
        let sha256 = hex::encode(hash.finalize());
        Ok(Contents { sha256, sketch })
    }

    fn hashes(&self) -> Result<Vec<[u8; 32]>, DataError> {
        (0..self.samples()).map(|at| self.hash(at)).collect()
    }

    fn hash(&self, at: usize) -> Result<[u8; 32], DataError> {
        let image = self.with_source(|source| match source {
            Source::Images(images) => Some(images.file(at).to_owned()),
            _ => None,
        });
        if let Some(file) = image {
            let bytes = onnx::map_file(&file).map_err(DataError::io(&file))?;
            return Ok(Sha256::digest(&bytes).into());
        }
        let given = self.given(at..at + 1)?;
        let is_main = |name: &str| roles::role(name).is_none();
        let any_main = given.keys().any(|it| is_main(it));
        let hashed = hash(&given, |name| is_main(name) || !any_main);
        hashed.map_err(|it| DataError::format(&self.file, format!("is no tensor: {it}")))
    }
}

/// Of samples in memory, in their order.
pub(super) fn sha256_of(samples: &[Batch], name: &Path) -> Result<String, DataError> {
    let mut all = Sha256::new();
    for sample in samples {
        let digest = hash(sample, |_| true);
        all.update(digest.map_err(|it| DataError::format(name, format!("is no tensor: {it}")))?);
    }
    Ok(hex::encode(all.finalize()))
}

fn short(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |sum, it| sum << 8 | u64::from(*it))
}

fn hash(given: &Batch, counts: impl Fn(&str) -> bool) -> Result<[u8; 32], TensorError> {
    let mut hash = Sha256::new();
    for (name, tensor) in given.iter().filter(|it| counts(it.0)) {
        hash.update(name);
        hash.update([0]);
        tensor.shape.iter().for_each(|it| hash.update((*it as u64).to_le_bytes()));
        update(&mut hash, tensor)?;
    }
    Ok(hash.finalize().into())
}

/// Ids are the same in whatever width.
fn update(hash: &mut Sha256, tensor: &Tensor) -> Result<(), TensorError> {
    match tensor.dtype {
        DType::String => {
            let list = tensor.string_values().unwrap_or_default();
            list.iter().for_each(|it| {
                hash.update((it.len() as u64).to_le_bytes());
                hash.update(it);
            });
        }
        DType::I32 | DType::I64 => {
            tensor.to_i64()?.iter().for_each(|it| hash.update(it.to_le_bytes()));
        }
        _ => hash.update(tensor.bytes()?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spread over all words.
    fn digests(range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|it| (it + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
    }

    #[test]
    fn few_samples_are_all_known() {
        let sketch = Sketch::of(&digests(0..100));
        assert_eq!(sketch.overlap(&digests(90..110)), (20, 10));
        assert_eq!(sketch.overlap(&[]), (0, 0));
        let text = sketch.to_string();
        assert_eq!(text.len(), 800);
        assert_eq!(Sketch::parse(100, &text), Some(sketch));
    }

    #[test]
    fn of_many_samples_some_are_known_and_no_other_is() {
        let all = digests(0..4000);
        let sketch = Sketch::of(&all);
        let (checked, shared) = sketch.overlap(&all);
        assert_eq!((checked, shared), (256, 256));
        let (checked, shared) = sketch.overlap(&digests(4000..8000));
        assert!((150..350).contains(&checked) && shared == 0, "{checked} {shared}");
        let halves = Sketch::of(&all[..2000]).merge(&Sketch::of(&all[2000..]));
        assert_eq!(halves, sketch);
    }

    #[test]
    fn what_is_no_sketch_is_refused() {
        for text in ["", "0", "0000000g", "0000000A", "0000000200000001", "00000001000000010"] {
            assert_eq!(Sketch::parse(9, text), None, "{text}");
        }
        assert_eq!(Sketch::parse(1, "0000000100000002"), None, "more than were seen");
        assert!(Sketch::parse(2, "0000000100000002").is_some());
        assert_eq!(Sketch::parse(9999, &"0".repeat(8 * 257)), None);
        assert_eq!(Sketch::parse(9, "\u{e9}\u{e9}\u{e9}\u{e9}"), None);
    }
}
