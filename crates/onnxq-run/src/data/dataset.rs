//! Data as a value: where samples are, opened and tokenized once however often they are needed.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Batch, Batches, DataError, DataOptions, open::open, source::Source};
use crate::engine::IoInfo;

/// Samples in files or in memory.
///
/// Opening waits until a model's inputs are known; what was opened for them is kept, so the files
/// are read, and a text tokenized, once. Copies share it.
#[derive(Clone)]
pub struct Dataset {
    inner: Arc<Inner>,
}

struct Inner {
    given: Given,
    options: DataOptions,
    opened: Mutex<Option<Batches>>,
    times_opened: AtomicUsize,
}

enum Given {
    Path(PathBuf),
    Samples(Vec<Batch>),
}

/// What messages call samples that are in no file.
const IN_MEMORY: &str = "(samples in memory)";

impl Dataset {
    /// `.npy`, `.npz`, text, an image, or a folder; see [`open`].
    pub fn of_path(path: impl Into<PathBuf>, options: DataOptions) -> Dataset {
        Dataset::new(Given::Path(path.into()), options)
    }

    /// Each sample has a tensor for each input that cannot be made from its name, shaped as the
    /// model takes it: batch axes are there, and may have any length.
    pub fn of_samples(samples: Vec<Batch>) -> Dataset {
        Dataset::new(Given::Samples(samples), DataOptions::default())
    }

    fn new(given: Given, options: DataOptions) -> Dataset {
        let (opened, times_opened) = (Mutex::new(None), AtomicUsize::new(0));
        Dataset { inner: Arc::new(Inner { given, options, opened, times_opened }) }
    }

    /// Where the samples are, for messages.
    pub fn path(&self) -> &Path {
        match &self.inner.given {
            Given::Path(path) => path,
            Given::Samples(_) => Path::new(IN_MEMORY),
        }
    }

    /// Whether the samples are in files, which another process could open.
    pub fn is_of_files(&self) -> bool {
        matches!(self.inner.given, Given::Path(_))
    }

    pub fn options(&self) -> &DataOptions {
        &self.inner.options
    }

    /// All samples from the first on, for a model with these inputs.
    ///
    /// # Errors
    /// E601 to E608, E616: what the data is, and how it does not fit the inputs; E902.
    pub fn batches(&self, inputs: &[IoInfo]) -> Result<Batches, DataError> {
        let mut opened = self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = opened.as_ref().filter(|it| *it.inputs == *inputs) {
            return Ok(known.clone());
        }
        self.inner.times_opened.fetch_add(1, Ordering::Relaxed);
        let Inner { given, options, .. } = &*self.inner;
        let batches = match given {
            Given::Path(path) => open(path, inputs, options)?,
            Given::Samples(samples) => {
                let source = Source::Samples(samples.clone());
                Batches::new(self.path(), source, Vec::new(), inputs, options)?
            }
        };
        Ok(opened.insert(batches).clone())
    }

    /// How often the data was opened: once, unless models with other inputs read it too.
    pub fn times_opened(&self) -> usize {
        self.inner.times_opened.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dataset").field(&self.path()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::{DType, Dim, Tensor, TensorType};

    fn inputs(name: &str) -> Vec<IoInfo> {
        let dims = vec![Dim::Symbol("batch".into()), Dim::Fixed(2)];
        vec![IoInfo { name: name.into(), ty: TensorType::new(DType::F32, dims) }]
    }

    fn samples() -> Vec<Batch> {
        let tensor = |at: f32| Tensor::from_f32(&[1, 2], [at, 1.0]);
        (0..3).map(|at| Batch::from([("x".to_owned(), tensor(at as f32))])).collect()
    }

    #[test]
    fn data_is_opened_once_for_the_same_inputs() {
        let data = Dataset::of_samples(samples());
        let mut first = data.batches(&inputs("x")).unwrap();
        assert_eq!(first.next().unwrap().unwrap()["x"].to_f32().unwrap(), [0.0, 1.0]);
        // Another pass begins at the start, wherever the first has got.
        assert_eq!(data.batches(&inputs("x")).unwrap().count(), 3);
        assert_eq!((first.count(), data.times_opened()), (2, 1));
        assert!(data.batches(&inputs("y")).unwrap().next().unwrap().is_err());
        assert_eq!(data.times_opened(), 2);
    }

    #[test]
    fn samples_in_memory_have_a_digest() {
        let digest = |samples| {
            let data: Dataset = Dataset::of_samples(samples);
            data.batches(&inputs("x")).unwrap().sha256().to_owned()
        };
        assert_eq!(digest(samples()), digest(samples()));
        assert_ne!(digest(samples()), digest(samples()[1..].to_vec()));
    }
}
