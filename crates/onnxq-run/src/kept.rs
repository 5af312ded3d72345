//! Tensors of each sample in a file without a name, not in memory.

use std::{
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

use onnxq_ir::{
    fs::{read_exact_at, write_all_at},
    tensor::{DType, Tensor},
};

/// Samples come and go in any order, from any thread.
pub struct Kept {
    file: File,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    end: u64,
    samples: Vec<Option<Vec<Stored>>>,
}

#[derive(Clone)]
enum Stored {
    At {
        dtype: DType,
        shape: Vec<usize>,
        offset: u64,
        len: usize,
    },
    /// Strings have no bytes of a known number; they are labels, and small.
    Strings(Tensor),
}

impl Kept {
    pub fn new() -> io::Result<Kept> {
        Ok(Kept { file: tempfile::tempfile()?, places: Mutex::default() })
    }

    pub fn store(&self, sample: usize, tensors: &[&Tensor]) -> io::Result<()> {
        let mut list = Vec::new();
        for tensor in tensors {
            if tensor.dtype == DType::String {
                list.push(Stored::Strings((*tensor).clone()));
                continue;
            }
            let bytes = tensor.bytes().map_err(io::Error::other)?;
            let offset = self.reserve(bytes.len());
            write_all_at(&self.file, &bytes, offset)?;
            let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
            list.push(Stored::At { dtype, shape, offset, len: bytes.len() });
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.samples.len() <= sample {
            places.samples.resize(sample + 1, None);
        }
        places.samples[sample] = Some(list);
        Ok(())
    }

    fn reserve(&self, len: usize) -> u64 {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = places.end;
        places.end += len as u64;
        offset
    }

    pub fn load(&self, sample: usize) -> io::Result<Vec<Tensor>> {
        self.places(sample)?.into_iter().map(|it| self.read(it)).collect()
    }

    /// One of the tensors of a sample.
    pub fn load_one(&self, sample: usize, at: usize) -> io::Result<Tensor> {
        let missing = || io::Error::other("a sample has fewer tensors than before");
        let list = self.places(sample)?;
        self.read(list.into_iter().nth(at).ok_or_else(missing)?)
    }

    fn places(&self, sample: usize) -> io::Result<Vec<Stored>> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let list = places.samples.get(sample).cloned().flatten();
        list.ok_or_else(|| io::Error::other("the data has more samples than before"))
    }

    fn read(&self, stored: Stored) -> io::Result<Tensor> {
        let (dtype, shape, offset, len) = match stored {
            Stored::Strings(it) => return Ok(it),
            Stored::At { dtype, shape, offset, len } => (dtype, shape, offset, len),
        };
        let mut bytes = vec![0; len];
        read_exact_at(&self.file, &mut bytes, offset)?;
        Ok(Tensor::new(dtype, shape, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_in_any_order() {
        let kept = Kept::new().unwrap();
        let tensors = |sample: usize| {
            let floats = Tensor::from_f32(&[1, 2], [sample as f32, 0.5]);
            (floats, Tensor::from_i64(&[sample], 0..sample as i64))
        };
        for sample in [2, 0, 1] {
            let (a, b) = tensors(sample);
            kept.store(sample, &[&a, &b]).unwrap();
        }
        for sample in 0..3 {
            let (a, b) = tensors(sample);
            let got = kept.load(sample).unwrap();
            assert_eq!(got[0].to_f32().unwrap(), a.to_f32().unwrap());
            assert_eq!((&got[1].shape, got[1].to_i64().unwrap()), (&b.shape, b.to_i64().unwrap()));
            assert_eq!(kept.load_one(sample, 1).unwrap().shape, b.shape);
            assert!(kept.load_one(sample, 2).is_err());
        }
        assert!(kept.load(3).is_err());
    }
}
