//! Samples as checked batches of model inputs, read as they are needed.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{DataError, digest, fit, roles, sketch, source::Source};
use crate::engine::IoInfo;
use onnxq_ir::tensor::Tensor;

/// A tensor for each input of the model.
pub type Batch = BTreeMap<String, Tensor>;

#[derive(Clone, Debug)]
pub struct DataOptions {
    /// `tokenizer.json`, for text.
    pub tokenizer: Option<PathBuf>,
    /// `tokenizer_config.json`: if it has a chat template, text is what the user says in it.
    pub chat: Option<PathBuf>,
    /// How images become inputs: the name of a shipped description, or a file.
    pub preprocess: Option<String>,
    /// Take only the first samples.
    pub samples: Option<usize>,
    /// Tokens per row of a text, if the model leaves it open.
    pub sequence: usize,
    /// Samples per batch, if the model leaves it open.
    pub batch: usize,
}

impl Default for DataOptions {
    fn default() -> DataOptions {
        let (tokenizer, chat, preprocess) = (None, None, None);
        DataOptions { tokenizer, chat, preprocess, samples: None, sequence: 128, batch: 4 }
    }
}

/// Checked batches in the order of the data. Copies share what was opened, but not how far each
/// has got.
#[derive(Clone)]
pub struct Batches {
    pub(super) inputs: Arc<[IoInfo]>,
    source: Arc<Mutex<Source>>,
    /// What the samples depend on besides files.
    pub(super) settings: Option<String>,
    pub(super) file: PathBuf,
    files: Arc<[PathBuf]>,
    samples: usize,
    dropped: usize,
    batch: usize,
    /// The model states the batch size.
    is_fixed: bool,
    sha256: String,
    at: usize,
}

impl Batches {
    /// Batches of what was opened: as many samples as are wanted, in batches of the size that the
    /// model states or that is wanted.
    pub(super) fn new(
        path: &Path,
        source: Source,
        files: Vec<PathBuf>,
        inputs: &[IoInfo],
        options: &DataOptions,
    ) -> Result<Batches, DataError> {
        let sha256 = match &source {
            Source::Samples(samples) => sketch::sha256_of(samples, path)?,
            _ => digest::of(&files, source.settings())?,
        };
        let per_run = source.fixed_batch(inputs);
        let total = source.samples(inputs)?;
        let batch = if source.is_one_by_one() {
            per_run.unwrap_or(1)
        } else {
            per_run.unwrap_or(options.batch.max(1))
        };
        let wanted = options.samples.unwrap_or(total).min(total);
        let samples = if per_run.is_some() { wanted / batch * batch } else { wanted };
        if wanted == 0 {
            return Err(DataError::Empty { file: path.into() });
        }
        if samples == 0 {
            return Err(DataError::TooFew { file: path.into(), actual: wanted, batch });
        }
        Ok(Batches {
            inputs: inputs.into(),
            settings: source.settings().map(str::to_owned),
            sha256,
            files: files.into(),
            source: Arc::new(Mutex::new(source)),
            file: path.into(),
            samples,
            dropped: wanted - samples,
            batch,
            is_fixed: per_run.is_some(),
            at: 0,
        })
    }

    /// Samples that the batches hold together.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Samples at the end that do not fill a batch of the size that the model demands.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Samples per batch; the last one may have fewer.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// One sample per batch, unless the model states another number.
    pub fn one_by_one(&mut self) {
        if !self.is_fixed {
            self.batch = 1;
        }
    }

    /// A digest of every file that the data came from, the tokenizer or description included.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Those files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The file of a sample, if it has one of its own.
    pub fn file_of(&self, sample: usize) -> Option<PathBuf> {
        self.with_source(|source| source.file_of(sample))
    }

    /// The input that a text becomes, and the largest number of a token in it.
    pub(super) fn largest_token(&self) -> Option<(String, u32)> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let Source::Tokens { input, tokens } = &*source else { return None };
        Some((self.inputs.get(*input)?.name.clone(), tokens.ids.iter().copied().max()?))
    }

    /// Some samples as one batch, wherever the iteration is.
    ///
    /// # Errors
    /// As iterating does.
    pub fn at(&self, rows: Range<usize>) -> Result<Batch, DataError> {
        self.read(rows)
    }

    /// Starts again with the first batch.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    /// What the data itself has for these samples.
    pub(super) fn given(&self, rows: Range<usize>) -> Result<Batch, DataError> {
        self.with_source(|source| source.read(rows, &self.inputs))
    }

    pub(super) fn with_source<T>(&self, look: impl FnOnce(&mut Source) -> T) -> T {
        look(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self, rows: Range<usize>) -> Result<Batch, DataError> {
        let mut given = self.given(rows)?;
        for input in self.inputs.iter() {
            if let Some((name, tensor)) = given.remove_entry(&input.name) {
                given.insert(name, fit::fit(input, tensor)?);
            }
        }
        fit::check_symbols(&self.inputs, &given)?;
        let extent = roles::extent(&self.inputs, &given);
        let mut batch = Batch::new();
        for input in self.inputs.iter() {
            let made = || roles::make(input, extent?);
            let Some(tensor) = given.get(&input.name).cloned().or_else(made) else {
                let found = given.keys().cloned().collect();
                return Err(missing(&self.file, input, found));
            };
            fit::check_shape(input, &tensor.shape)?;
            batch.insert(input.name.clone(), tensor);
        }
        Ok(batch)
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Result<Batch, DataError>> {
        if self.at >= self.samples {
            return None;
        }
        let rows = self.at..(self.at + self.batch).min(self.samples);
        self.at = rows.end;
        let batch = self.read(rows);
        if batch.is_err() {
            self.at = self.samples;
        }
        Some(batch)
    }
}

pub(super) fn missing(file: &Path, input: &IoInfo, found: Vec<String>) -> DataError {
    let (input, ty) = (input.name.clone(), input.ty.clone());
    DataError::Missing { file: file.into(), input, ty, found }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::{npy::tests as npy, open},
        *,
    };
    use onnxq_ir::{
        diag::{Code, Diagnostic},
        tensor::{DType, Dim, TensorType},
    };

    fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.into())
    }

    fn input(name: &str, dtype: DType, dims: Vec<Dim>) -> IoInfo {
        IoInfo { name: name.into(), ty: TensorType::new(dtype, dims) }
    }

    fn ids(name: &str) -> IoInfo {
        input(name, DType::I64, vec![symbol("batch"), symbol("sequence")])
    }

    fn model() -> Vec<IoInfo> {
        let past = vec![symbol("batch"), Dim::Fixed(2), symbol("past"), Dim::Fixed(8)];
        vec![
            ids("input_ids"),
            ids("attention_mask"),
            input("past_key_values.0.key", DType::F32, past),
        ]
    }

    fn write(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn options(batch: usize) -> DataOptions {
        DataOptions { batch, ..DataOptions::default() }
    }

    fn code(path: &Path, inputs: &[IoInfo]) -> Code {
        let batches = open(path, inputs, &options(4));
        batches.and_then(|it| it.collect::<Result<Vec<_>, _>>()).expect_err("an error").code()
    }

    #[test]
    fn a_lone_array_is_completed_by_roles_and_cut_into_batches() {
        let folder = write(&[("eval.npy", npy::ids(5, 3, 0..15))]);
        let mut batches = open(&folder.path().join("eval.npy"), &model(), &options(2)).unwrap();
        assert_eq!((batches.samples(), batches.dropped(), batches.sha256().len()), (5, 0, 64));
        let all: Vec<Batch> = batches.by_ref().map(Result::unwrap).collect();
        assert_eq!(all.iter().map(|it| it["input_ids"].shape[0]).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(all[2]["input_ids"].to_i64().unwrap(), [12, 13, 14]);
        assert_eq!(all[0]["attention_mask"].to_i64().unwrap(), [1; 6]);
        assert_eq!(all[0]["past_key_values.0.key"].shape, [2, 2, 0, 8]);
        batches.rewind();
        assert_eq!(batches.count(), 3);
    }

    #[test]
    fn a_folder_holds_an_array_per_input() {
        let files = [
            ("input_ids.npy", npy::ids(2, 3, 0..6)),
            ("attention_mask.npy", npy::ids(2, 3, [0; 6])),
        ];
        let folder = write(&files);
        let batch = open(folder.path(), &model(), &options(4)).unwrap().next().unwrap().unwrap();
        assert_eq!(batch["attention_mask"].to_i64().unwrap(), [0; 6]);
    }

    #[test]
    fn a_fixed_batch_rules() {
        let inputs = [input("x", DType::I64, vec![Dim::Fixed(2), Dim::Fixed(3)])];
        let folder = write(&[("x.npy", npy::ids(5, 3, 0..15)), ("one.npy", npy::ids(1, 3, 0..3))]);
        let batches = open(&folder.path().join("x.npy"), &inputs, &options(4)).unwrap();
        assert_eq!((batches.samples(), batches.dropped(), batches.batch()), (4, 1, 2));
        assert_eq!(batches.count(), 2);
        assert_eq!(code(&folder.path().join("one.npy"), &inputs), Code::E606);
    }

    #[test]
    fn an_input_without_a_batch_axis_is_the_same_for_every_run() {
        let inputs =
            [ids("input_ids"), input("scale", DType::I64, vec![Dim::Fixed(1), Dim::Fixed(2)])];
        let folder = write(&[
            ("input_ids.npy", npy::ids(3, 2, 0..6)),
            ("scale.npy", npy::ids(1, 2, [7, 8])),
        ]);
        let all: Vec<Batch> =
            open(folder.path(), &inputs, &options(2)).unwrap().map(Result::unwrap).collect();
        assert_eq!(all[1]["scale"].to_i64().unwrap(), [7, 8]);
    }

    #[test]
    fn what_does_not_fit_has_a_code() {
        let nan: Vec<u8> = [0.0f32, f32::NAN].iter().flat_map(|it| it.to_le_bytes()).collect();
        let folder = write(&[
            ("empty.npy", npy::ids(0, 3, [])),
            ("rank.npy", npy::file("'<i8'", "False", "(3,)", &[0; 24])),
            ("float.npy", npy::file("'<f4'", "False", "(1, 2)", &[0; 8])),
            ("nan.npy", npy::file("'<f4'", "False", "(1, 2)", &nan)),
            ("data.bin", b"1,2".to_vec()),
            ("words.txt", b"a".to_vec()),
        ]);
        let at = |name: &str| folder.path().join(name);
        let floats = [input("x", DType::F32, vec![symbol("n"), Dim::Fixed(2)])];
        assert_eq!(code(&at("data.bin"), &model()), Code::E601);
        assert_eq!(code(&at("rank.npy"), &model()), Code::E603);
        assert_eq!(code(&at("float.npy"), &model()), Code::E604);
        assert_eq!(code(&at("nan.npy"), &floats), Code::E605);
        assert_eq!(code(&at("empty.npy"), &model()), Code::E606);
        assert_eq!(
            code(&at("float.npy"), &[floats[0].clone(), input("y", DType::F32, vec![])]),
            Code::E607
        );
        assert_eq!(code(folder.path(), &model()), Code::E607);
        assert_eq!(code(&at("words.txt"), &model()), Code::E608);
        assert_eq!(code(&at("nothing.npy"), &model()), Code::E905);
    }

    #[test]
    fn arrays_that_do_not_belong_together_are_refused() {
        let longer = write(&[
            ("input_ids.npy", npy::ids(2, 3, 0..6)),
            ("attention_mask.npy", npy::ids(2, 4, [1; 8])),
        ]);
        assert_eq!(code(longer.path(), &model()), Code::E603);
        let fewer = write(&[
            ("input_ids.npy", npy::ids(2, 3, 0..6)),
            ("attention_mask.npy", npy::ids(1, 3, [1; 3])),
        ]);
        assert_eq!(code(fewer.path(), &model()), Code::E603);
    }
}
