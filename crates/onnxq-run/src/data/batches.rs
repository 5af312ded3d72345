//! Data files as batches of model inputs; arrays are read as they are needed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    DataError, digest, fit,
    images::{self, Images},
    npy::Npy,
    npz::Npz,
    roles, test_data, text_data,
};
use crate::engine::IoInfo;
use onnxq_ir::tensor::{DType, Dim, Tensor};

/// A tensor for each input of the model.
pub type Batch = BTreeMap<String, Tensor>;

#[derive(Clone, Debug)]
pub struct DataOptions {
    /// `tokenizer.json`, for text.
    pub tokenizer: Option<PathBuf>,
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
        DataOptions { tokenizer: None, preprocess: None, samples: None, sequence: 128, batch: 4 }
    }
}

/// Checked batches in the order of the data.
pub struct Batches {
    pub(super) inputs: Vec<IoInfo>,
    pub(super) source: Source,
    pub(super) file: PathBuf,
    files: Vec<PathBuf>,
    samples: usize,
    dropped: usize,
    batch: usize,
    /// The model states the batch size.
    is_fixed: bool,
    sha256: String,
    at: usize,
}

pub(super) enum Source {
    Arrays(Vec<Array>),
    Sets(Vec<PathBuf>),
    Tokens { input: usize, tokens: text_data::Tokens },
    Images(Images),
}

pub(super) struct Array {
    input: usize,
    /// The same for every run: the input has no batch axis.
    whole: bool,
    npy: Npy,
}

/// Opens `.npy`, `.npz`, text, an image or a folder of `<input>.npy` files, of ONNX test data or
/// of images.
///
/// What the data lacks is made from the inputs' names: masks, positions, an empty past.
pub fn open(path: &Path, inputs: &[IoInfo], options: &DataOptions) -> Result<Batches, DataError> {
    let kind = fs::metadata(path).map_err(DataError::io(path))?;
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or("");
    let (source, files) = match extension.to_ascii_lowercase().as_str() {
        _ if kind.is_dir() => folder(path, inputs, options)?,
        _ if !kind.is_file() => return Err(DataError::format(path, "is not a regular file")),
        "npy" => one_array(path, inputs)?,
        "npz" => archive(path, inputs)?,
        "md" | "text" | "txt" => text(path, inputs, options)?,
        _ if images::is_image(path) => pictures(path, vec![path.into()], inputs, options)?,
        _ => {
            let fact = "is none of .npy, .npz, .txt, an image or a folder";
            return Err(DataError::format(path, fact));
        }
    };
    let sha256 = digest::of(&files, source.settings())?;
    let per_run = fixed_batch(&source, inputs);
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
        inputs: inputs.to_vec(),
        sha256,
        files,
        source,
        file: path.into(),
        samples,
        dropped: wanted - samples,
        batch,
        is_fixed: per_run.is_some(),
        at: 0,
    })
}

impl Batches {
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

    /// Starts again with the first batch.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    fn read(&mut self, rows: Range<usize>) -> Result<Batch, DataError> {
        let mut given = self.source.read(rows, &self.inputs)?;
        for input in &self.inputs {
            if let Some((name, tensor)) = given.remove_entry(&input.name) {
                given.insert(name, fit::fit(input, tensor)?);
            }
        }
        fit::check_symbols(&self.inputs, &given)?;
        let extent = roles::extent(&self.inputs, &given);
        let mut batch = Batch::new();
        for input in &self.inputs {
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

impl Source {
    /// Samples may differ in shape.
    fn is_one_by_one(&self) -> bool {
        match self {
            Source::Sets(_) => true,
            Source::Images(images) => !images.same_size,
            Source::Arrays(_) | Source::Tokens { .. } => false,
        }
    }

    /// What the samples depend on besides files.
    pub(super) fn settings(&self) -> Option<&str> {
        match self {
            Source::Images(images) => Some(&images.description),
            _ => None,
        }
    }

    /// Samples in the data; arrays must agree about it.
    fn samples(&self, inputs: &[IoInfo]) -> Result<usize, DataError> {
        match self {
            Source::Sets(sets) => Ok(sets.len()),
            Source::Tokens { tokens, .. } => Ok(tokens.rows()),
            Source::Images(images) => Ok(images.len()),
            Source::Arrays(arrays) => {
                let mut counts = arrays
                    .iter()
                    .filter(|it| !it.whole)
                    .map(|it| (it.input, it.npy.shape.first().copied().unwrap_or(0)));
                // If every array is the same for every run, there is one run.
                let Some((_, expected)) = counts.next() else { return Ok(1) };
                match counts.find(|(_, actual)| *actual != expected) {
                    None => Ok(expected),
                    Some((input, actual)) => {
                        let input = inputs[input].name.clone();
                        Err(DataError::Samples { input, actual, expected })
                    }
                }
            }
        }
    }

    /// What the data itself has for these samples.
    pub(super) fn read(
        &mut self,
        rows: Range<usize>,
        inputs: &[IoInfo],
    ) -> Result<Batch, DataError> {
        match self {
            Source::Arrays(arrays) => arrays
                .iter_mut()
                .map(|it| {
                    let tensor =
                        if it.whole { it.npy.whole()? } else { it.npy.rows(rows.clone())? };
                    Ok((inputs[it.input].name.clone(), tensor))
                })
                .collect(),
            Source::Sets(sets) => test_data::read(&sets[rows.start], inputs),
            Source::Images(images) => {
                let name = inputs[images.input].name.clone();
                Ok(Batch::from([(name, images.read(rows)?)]))
            }
            Source::Tokens { input, tokens } => {
                let shape = [rows.len(), tokens.width];
                let ids = &tokens.ids[rows.start * tokens.width..rows.end * tokens.width];
                let tensor = Tensor::from_i64(&shape, ids.iter().map(|it| i64::from(*it)));
                Ok(Batch::from([(inputs[*input].name.clone(), tensor)]))
            }
        }
    }
}

/// What an array is opened as, and the files it came from.
type Opened = (Source, Vec<PathBuf>);

fn one_array(path: &Path, inputs: &[IoInfo]) -> Result<Opened, DataError> {
    let input = primary(inputs);
    let npy = Npy::open(path, File::open(path).map_err(DataError::io(path))?)?;
    arrays(path, inputs, vec![(input, npy)], vec![path.into()])
}

fn archive(path: &Path, inputs: &[IoInfo]) -> Result<Opened, DataError> {
    let mut npz = Npz::open(path)?;
    let mut found = Vec::new();
    for (at, input) in inputs.iter().enumerate() {
        if let Some(npy) = npz.array(&input.name)? {
            found.push((at, npy));
        }
    }
    require(path, inputs, &found, npz.names())?;
    arrays(path, inputs, found, vec![path.into()])
}

fn folder(path: &Path, inputs: &[IoInfo], options: &DataOptions) -> Result<Opened, DataError> {
    let sets = test_data::sets(path)?;
    if !sets.is_empty() {
        let mut files = Vec::new();
        for set in &sets {
            files.extend(test_data::files(set)?.into_iter().map(|(_, file)| file));
        }
        return Ok((Source::Sets(sets), files));
    }
    let (mut found, mut files) = (Vec::new(), Vec::new());
    // A name with a separator would lead out of the folder.
    let plain = |it: &str| !it.contains(['/', '\\', '\0']);
    for (at, input) in inputs.iter().enumerate().filter(|(_, it)| plain(&it.name)) {
        let file = path.join(format!("{}.npy", input.name));
        if file.is_file() {
            found.push((at, Npy::open(&file, File::open(&file).map_err(DataError::io(&file))?)?));
            files.push(file);
        }
    }
    if found.is_empty() {
        let files = images::find(path)?;
        if !files.is_empty() {
            return pictures(path, files, inputs, options);
        }
    }
    let names = found.iter().map(|(at, _)| inputs[*at].name.clone()).collect();
    require(path, inputs, &found, names)?;
    arrays(path, inputs, found, files)
}

fn pictures(
    path: &Path,
    files: Vec<PathBuf>,
    inputs: &[IoInfo],
    options: &DataOptions,
) -> Result<Opened, DataError> {
    let Some(preprocess) = &options.preprocess else {
        return Err(DataError::NoPreprocess { file: path.into() });
    };
    let description = images::load(preprocess)?;
    let images = Images::new(path, files.clone(), &description, inputs)?;
    let others = inputs.iter().enumerate().filter(|it| it.0 != images.input);
    if let Some((_, input)) = others.clone().find(|(_, it)| roles::role(&it.name).is_none()) {
        return Err(missing(path, input, vec!["images".into()]));
    }
    Ok((Source::Images(images), files))
}

fn text(path: &Path, inputs: &[IoInfo], options: &DataOptions) -> Result<Opened, DataError> {
    let Some(tokenizer) = &options.tokenizer else {
        return Err(DataError::NoTokenizer { file: path.into() });
    };
    let at = primary(inputs);
    let Some(input) = inputs.get(at).filter(|it| !it.ty.dtype.is_float()) else {
        let ids = IoInfo {
            name: "input_ids".into(),
            ty: onnxq_ir::tensor::TensorType { dtype: DType::I64, shape: None },
        };
        return Err(missing(path, &ids, vec!["text".into()]));
    };
    let fixed = input.ty.shape.as_ref().and_then(|it| it.get(1)?.fixed());
    let tokens = text_data::read(path, tokenizer, fixed.unwrap_or(options.sequence))?;
    Ok((Source::Tokens { input: at, tokens }, vec![path.into(), tokenizer.clone()]))
}

/// The input that a lone array or a text is for.
fn primary(inputs: &[IoInfo]) -> usize {
    let ids = inputs.iter().position(|it| it.name == "input_ids");
    ids.or_else(|| inputs.iter().position(|it| roles::role(&it.name).is_none())).unwrap_or(0)
}

/// Fails early if an input is neither in the data nor can be made.
fn require(
    path: &Path,
    inputs: &[IoInfo],
    found: &[(usize, Npy)],
    names: Vec<String>,
) -> Result<(), DataError> {
    let lacks = |at: usize| !found.iter().any(|(it, _)| *it == at);
    let mut candidates = inputs.iter().enumerate();
    match candidates.find(|(at, it)| lacks(*at) && roles::role(&it.name).is_none()) {
        Some((_, input)) => Err(missing(path, input, names)),
        None => Ok(()),
    }
}

fn missing(file: &Path, input: &IoInfo, found: Vec<String>) -> DataError {
    let (input, ty) = (input.name.clone(), input.ty.clone());
    DataError::Missing { file: file.into(), input, ty, found }
}

fn arrays(
    path: &Path,
    inputs: &[IoInfo],
    found: Vec<(usize, Npy)>,
    files: Vec<PathBuf>,
) -> Result<Opened, DataError> {
    let Some(first) = inputs.first() else {
        return Err(DataError::format(path, "is data for a model that has no inputs"));
    };
    let leading = |it: &IoInfo| it.ty.shape.as_ref().map(|dims| dims.first().cloned());
    let open = inputs.iter().any(|it| !matches!(leading(it), Some(None | Some(Dim::Fixed(_)))));
    let mut list = Vec::new();
    for (at, npy) in found {
        let input = &inputs[at];
        let whole = match leading(input) {
            Some(None) => true,
            Some(Some(Dim::Fixed(_))) if open => true,
            Some(Some(Dim::Fixed(_))) => leading(input) != leading(first),
            _ => false,
        };
        check_rank(input, &npy)?;
        list.push(Array { input: at, whole, npy });
    }
    Ok((Source::Arrays(list), files))
}

/// The other dimensions are checked with each batch.
fn check_rank(input: &IoInfo, npy: &Npy) -> Result<(), DataError> {
    match &input.ty.shape {
        Some(expected) if expected.len() != npy.shape.len() => {
            let (input, actual) = (input.name.clone(), npy.shape.clone());
            Err(DataError::Shape { input, actual, expected: expected.clone() })
        }
        None if npy.shape.is_empty() => {
            Err(DataError::format(&npy.file, "is a single number without an axis for samples"))
        }
        _ => Ok(()),
    }
}

/// The batch size, if the model states it.
fn fixed_batch(source: &Source, inputs: &[IoInfo]) -> Option<usize> {
    let input = match source {
        Source::Sets(_) => return None,
        Source::Tokens { input, .. } => *input,
        Source::Images(images) => images.input,
        Source::Arrays(arrays) => arrays.iter().find(|it| !it.whole)?.input,
    };
    inputs[input].ty.shape.as_ref()?.first()?.fixed().filter(|it| *it > 0)
}

#[cfg(test)]
mod tests {
    use super::{super::npy::tests as npy, *};
    use onnxq_ir::{
        diag::{Code, Diagnostic},
        tensor::TensorType,
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
            ("data.csv", b"1,2".to_vec()),
            ("words.txt", b"a".to_vec()),
        ]);
        let at = |name: &str| folder.path().join(name);
        let floats = [input("x", DType::F32, vec![symbol("n"), Dim::Fixed(2)])];
        assert_eq!(code(&at("data.csv"), &model()), Code::E601);
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
        assert_eq!(code(&at("nothing.npy"), &model()), Code::E902);
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
