//! Samples: in files or in memory.

use std::path::PathBuf;

use onnxq_ir::tensor::{self, DType};
use onnxq_run::data::{self, Batch, DataOptions};

/// Samples that a model can be run on, opened and tokenized once however often they are needed.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(crate) inner: data::Dataset,
}

/// How files become inputs of a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DatasetOptions {
    /// The `tokenizer.json` for text.
    pub tokenizer: Option<PathBuf>,
    /// How images become inputs: the name of a shipped description (`imagenet`), or a YAML file.
    pub preprocess: Option<String>,
    /// Take only the first samples.
    pub samples: Option<usize>,
    /// Tokens of each sample of a text, if the model leaves that open. 128 if `None`.
    pub sequence: Option<usize>,
}

/// A dense array: one input of one sample.
#[derive(Clone, Debug)]
pub struct Tensor {
    inner: tensor::Tensor,
}

impl Dataset {
    /// `.npy`, `.npz`, text, an image, or a folder of `<input>.npy` files, of ONNX test data or of
    /// images. Opened when a model is run on it.
    pub fn open(path: impl Into<PathBuf>, options: DatasetOptions) -> Dataset {
        let default = DataOptions::default();
        let options = DataOptions {
            tokenizer: options.tokenizer,
            preprocess: options.preprocess,
            samples: options.samples,
            sequence: options.sequence.unwrap_or(default.sequence),
            ..default
        };
        Dataset { inner: data::Dataset::of_path(path, options) }
    }

    /// Samples in memory. Each has a tensor for every input by its name, batch axes included; masks,
    /// positions and an empty past are made if they are missing.
    pub fn of_samples<S, I>(samples: impl IntoIterator<Item = S>) -> Dataset
    where
        S: IntoIterator<Item = (I, Tensor)>,
        I: Into<String>,
    {
        let batch = |sample: S| -> Batch {
            sample.into_iter().map(|(input, it)| (input.into(), it.inner)).collect()
        };
        Dataset { inner: data::Dataset::of_samples(samples.into_iter().map(batch).collect()) }
    }

    /// How often its files were opened: once, unless models with other inputs read it too.
    pub fn times_opened(&self) -> usize {
        self.inner.times_opened()
    }
}

impl Tensor {
    /// Values in row-major order; as many as the dimensions say.
    ///
    /// # Panics
    /// If the number of values is another.
    pub fn f32(dims: &[usize], values: impl IntoIterator<Item = f32>) -> Tensor {
        Tensor::checked(dims, DType::F32, values.into_iter().flat_map(f32::to_le_bytes).collect())
    }

    /// Values in row-major order, as token ids; as many as the dimensions say.
    ///
    /// # Panics
    /// If the number of values is another.
    pub fn i64(dims: &[usize], values: impl IntoIterator<Item = i64>) -> Tensor {
        Tensor::checked(dims, DType::I64, values.into_iter().flat_map(i64::to_le_bytes).collect())
    }

    fn checked(dims: &[usize], dtype: DType, bytes: Vec<u8>) -> Tensor {
        let expected = dims.iter().product::<usize>() * dtype.bits() / 8;
        assert_eq!(bytes.len(), expected, "bytes of a tensor of {dims:?}");
        Tensor { inner: tensor::Tensor::new(dtype, dims.to_vec(), bytes) }
    }
}
