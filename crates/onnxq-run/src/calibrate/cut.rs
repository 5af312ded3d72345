//! What a cut holds of each sample: tensors in a file without a name, not in memory.

use std::{
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

use onnxq_ir::{
    ValueId,
    fs::{read_exact_at, write_all_at},
    tensor::{DType, Tensor},
};

pub(super) struct Cut {
    /// The values that each sample has, in this order.
    pub values: Vec<ValueId>,
    file: Option<File>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    end: u64,
    samples: Vec<Option<Vec<Stored>>>,
}

#[derive(Clone)]
struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    offset: u64,
    len: usize,
}

impl Cut {
    /// Before the first node: nothing is computed yet.
    pub(super) fn start() -> Cut {
        Cut { values: Vec::new(), file: None, places: Mutex::default() }
    }

    pub(super) fn new(values: Vec<ValueId>) -> io::Result<Cut> {
        let file = if values.is_empty() { None } else { Some(tempfile::tempfile()?) };
        Ok(Cut { values, file, places: Mutex::default() })
    }

    pub(super) fn store(&self, sample: usize, tensors: &[&Tensor]) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut list = Vec::new();
        for tensor in tensors {
            let bytes = tensor.bytes().map_err(io::Error::other)?;
            let offset = self.reserve(bytes.len());
            write_all_at(file, &bytes, offset)?;
            let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
            list.push(Stored { dtype, shape, offset, len: bytes.len() });
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

    pub(super) fn load(&self, sample: usize) -> io::Result<Vec<Tensor>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let list = {
            let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.samples.get(sample).cloned().flatten()
        };
        let missing = || io::Error::other("the data has more samples than before");
        let mut tensors = Vec::new();
        for it in list.ok_or_else(missing)? {
            let mut bytes = vec![0; it.len];
            read_exact_at(file, &mut bytes, it.offset)?;
            tensors.push(Tensor::new(it.dtype, it.shape, bytes));
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_in_any_order() {
        let cut = Cut::new(vec![ValueId::at(0), ValueId::at(1)]).unwrap();
        let tensors = |sample: usize| {
            let floats = Tensor::from_f32(&[1, 2], [sample as f32, 0.5]);
            (floats, Tensor::from_i64(&[sample], 0..sample as i64))
        };
        for sample in [2, 0, 1] {
            let (a, b) = tensors(sample);
            cut.store(sample, &[&a, &b]).unwrap();
        }
        for sample in 0..3 {
            let (a, b) = tensors(sample);
            let got = cut.load(sample).unwrap();
            assert_eq!(got[0].to_f32().unwrap(), a.to_f32().unwrap());
            assert_eq!((&got[1].shape, got[1].to_i64().unwrap()), (&b.shape, b.to_i64().unwrap()));
        }
        assert!(cut.load(3).is_err());
    }
}
