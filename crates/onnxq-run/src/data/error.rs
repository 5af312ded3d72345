//! What can be wrong with a data file.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use super::{images, records::TEXTS};
use onnxq_formats::CheckpointError;
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{read_code, read_hint},
    suggest::suggest,
    tensor::{DType, Shape, TensorType},
    untrusted::Untrusted,
};
use onnxq_quant::recipe::RecipeError;

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("`{}` {fact}", shown(file))]
    Format { file: PathBuf, fact: Cow<'static, str> },
    #[error("`{}` holds Python objects (a pickle), which are never loaded", shown(file))]
    Pickle { file: PathBuf },
    #[error("`{}` stores its array in Fortran order", shown(file))]
    Fortran { file: PathBuf },
    #[error("`{}` {fact}", shown(file))]
    Size { file: PathBuf, fact: String },
    #[error(
        "the data for `{}` is {actual:?}, the model takes [{}]",
        Untrusted(input),
        list(expected)
    )]
    Shape { input: String, actual: Vec<usize>, expected: Shape },
    #[error("`{}` has {actual} samples, other inputs have {expected}", Untrusted(input))]
    Samples { input: String, actual: usize, expected: usize },
    #[error(
        "dimension `{}` of `{}` is {actual} in the data, but {expected} for another input",
        Untrusted(symbol),
        Untrusted(input)
    )]
    Symbol { input: String, symbol: String, actual: usize, expected: usize },
    #[error("the data for `{}` is {actual}, the model takes {expected}", Untrusted(input))]
    DType { input: String, actual: DType, expected: DType },
    #[error(
        "the data for `{}` is {actual}; as {expected}, which the model takes, it would lose digits at element {at}",
        Untrusted(input)
    )]
    Inexact { input: String, actual: DType, expected: DType, at: usize },
    #[error("the data for `{}` holds {what} at element {at} of a batch", Untrusted(input))]
    NonFinite { input: String, what: &'static str, at: usize },
    #[error("`{}` has no samples", shown(file))]
    Empty { file: PathBuf },
    #[error(
        "`{}` has {examples} examples, and in none of them anything that counts is among the first {window} tokens",
        shown(file)
    )]
    NothingCounts { file: PathBuf, examples: usize, window: usize },
    #[error("`{}` has {actual} samples, one run of the model takes {batch}", shown(file))]
    TooFew { file: PathBuf, actual: usize, batch: usize },
    #[error(
        "`{}` has nothing for input `{}` ({ty}); it holds {}",
        shown(file),
        Untrusted(input),
        names(found)
    )]
    Missing { file: PathBuf, input: String, ty: TensorType, found: Vec<String> },
    #[error("`{}` is text, and no tokenizer was given", shown(file))]
    NoTokenizer { file: PathBuf },
    #[error("`{}` is text, and this build has no tokenizer", shown(file))]
    NoText { file: PathBuf },
    #[error("`{}` {fact}", shown(file))]
    Extent { file: PathBuf, fact: String },
    #[error("`{}` is or holds images, and nothing says how they become inputs", shown(file))]
    NoPreprocess { file: PathBuf },
    #[error("`{}` holds images, and {}", shown(file), candidates(found))]
    NoImageInput { file: PathBuf, found: Vec<String> },
    #[error("there is no description of images `{}`", Untrusted(name))]
    NoDescription { name: String },
    #[error(transparent)]
    Description(#[from] RecipeError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("`{}` is an image, and this build reads none", shown(file))]
    NoImages { file: PathBuf },
    #[error("`{}` is none of .npy, .npz, {}, an image or a folder", shown(file), TEXTS.join(", "))]
    Kind { file: PathBuf },
    #[error("`{}` {fact} (line {line})", shown(file))]
    Line { file: PathBuf, line: usize, fact: String, hint: Option<&'static str> },
    #[error("`{}` is no text to train on: .txt, .text, .md, .jsonl or .ndjson", shown(file))]
    TrainingKind { file: PathBuf },
    #[error(
        "`{}` is text, and the model takes no numbers of tokens: its inputs are {}",
        shown(file),
        names(found)
    )]
    NoTextInput { file: PathBuf, found: Vec<String> },
    #[error(
        "`{}` makes token {id}, but the model looks `{}` up in a table of {rows} rows",
        shown(tokenizer),
        Untrusted(input)
    )]
    OtherTokenizer { tokenizer: PathBuf, input: String, id: u32, rows: usize },
    #[error("cannot unpack data into `{}`", shown(folder))]
    Scratch { folder: PathBuf, source: std::io::Error },
    #[error("cannot read `{}`", shown(file))]
    Io { file: PathBuf, source: std::io::Error },
}

impl DataError {
    pub(crate) fn format(file: &Path, fact: impl Into<Cow<'static, str>>) -> DataError {
        DataError::Format { file: file.into(), fact: fact.into() }
    }

    pub(crate) fn size(file: &Path, fact: impl Into<String>) -> DataError {
        DataError::Size { file: file.into(), fact: fact.into() }
    }

    pub(crate) fn io(file: &Path) -> impl Fn(std::io::Error) -> DataError + '_ {
        move |source| DataError::Io { file: file.into(), source }
    }
}

impl Diagnostic for DataError {
    fn code(&self) -> Code {
        match self {
            DataError::Format { .. }
            | DataError::Kind { .. }
            | DataError::Line { .. }
            | DataError::TrainingKind { .. }
            | DataError::Pickle { .. }
            | DataError::Fortran { .. } => Code::E601,
            DataError::Size { .. } => Code::E602,
            DataError::Shape { .. }
            | DataError::Samples { .. }
            | DataError::Symbol { .. }
            | DataError::Extent { .. } => Code::E603,
            DataError::DType { .. } | DataError::Inexact { .. } => Code::E604,
            DataError::NonFinite { .. } => Code::E605,
            DataError::Empty { .. }
            | DataError::NothingCounts { .. }
            | DataError::TooFew { .. } => Code::E606,
            DataError::Missing { .. }
            | DataError::NoTextInput { .. }
            | DataError::NoImageInput { .. } => Code::E607,
            DataError::NoTokenizer { .. } | DataError::NoText { .. } => Code::E608,
            DataError::NoPreprocess { .. } | DataError::NoImages { .. } => Code::E616,
            DataError::NoDescription { .. } => Code::E705,
            DataError::Description(error) => error.code(),
            DataError::Checkpoint(error) => error.code(),
            DataError::Io { source, .. } => read_code(source),
            DataError::Scratch { .. } => Code::E901,
            DataError::OtherTokenizer { .. } => Code::E623,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            DataError::Pickle { .. } => {
                "save a plain array: `numpy.save(path, array.astype(...), allow_pickle=False)`"
                    .into()
            }
            DataError::Scratch { .. } => {
                "free some space there, or set TMPDIR to another folder".into()
            }
            DataError::Fortran { .. } => {
                "save it in C order: `numpy.save(path, numpy.ascontiguousarray(array))`".into()
            }
            DataError::DType { expected, .. } | DataError::Inexact { expected, .. } => {
                format!("save the array as {expected}")
            }
            DataError::Missing { input, .. } => {
                format!("add an array named `{}` to the data", Untrusted(input))
            }
            DataError::Io { file, source } => return read_hint(file, source),
            DataError::Kind { file } | DataError::TrainingKind { file } => other_kind(file),
            DataError::Line { hint, .. } => (*hint)?.to_owned(),
            DataError::NothingCounts { window, .. } => {
                format!("take more tokens of each: --window {}", 4 * window)
            }
            DataError::NoTextInput { .. } => {
                "for images give a folder of them and --preprocess, for anything else the inputs \
                 as arrays: numpy.savez(\"data.npz\", NAME=array)"
                    .into()
            }
            DataError::OtherTokenizer { .. } => {
                "is it this model's? Pass --tokenizer with the tokenizer.json that came with the model"
                    .into()
            }
            DataError::NoTokenizer { file } => {
                let beside = file.with_file_name("tokenizer.json");
                let path = if beside.is_file() { beside } else { "tokenizer.json".into() };
                format!("pass --tokenizer {}", shown(&path))
            }
            DataError::NoText { .. } => {
                "pass token ids as .npy, or build with feature `text`".into()
            }
            DataError::NoPreprocess { .. } => {
                format!("pass --preprocess with {} or a file", descriptions().join(", "))
            }
            DataError::NoImageInput { found, .. } if !found.is_empty() => {
                "name one as `input` in a description of your own".into()
            }
            DataError::NoDescription { name } => match suggest(name, descriptions().into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("shipped are {}", descriptions().join(", ")),
            },
            DataError::Description(error) => return error.hint(),
            DataError::Checkpoint(error) => return error.hint(),
            DataError::Extent { .. } => {
                "choose or write a description that makes images the size that the model takes"
                    .into()
            }
            DataError::NoImages { .. } => {
                "pass arrays as .npy, or build with feature `images`".into()
            }
            _ => return None,
        })
    }
}

/// What to do with a file of samples that is of no kind that is read.
fn other_kind(file: &Path) -> String {
    let extension = file.extension().and_then(|it| it.to_str()).unwrap_or("").to_ascii_lowercase();
    let (from, to) = (file.display(), file.with_extension("jsonl"));
    let to = to.display();
    match &*extension {
        "parquet" | "feather" | "orc" => format!(
            "make lines of JSON of it: python -c \"import pandas; pandas.read_{extension}('{from}')\
             .to_json('{to}', orient='records', lines=True)\""
        ),
        "pt" | "pth" | "pkl" | "pickle" => "save its arrays by the names of the model's inputs: \
             numpy.savez(\"data.npz\", input_ids=array)"
            .into(),
        "onnx" | "onnxtxt" => "that is a model; samples are wanted here".into(),
        _ => format!("if it is plain text, give it a name that ends in .txt: {from}.txt"),
    }
}

fn descriptions() -> Vec<&'static str> {
    images::SHIPPED.iter().map(|it| it.0).collect()
}

fn candidates(found: &[String]) -> String {
    match found.is_empty() {
        true => "the model has no input for them".into(),
        false => format!("they could be for {}", names(found)),
    }
}

fn shown(file: &Path) -> String {
    Untrusted(&file.to_string_lossy()).to_string()
}

/// Symbols are names from a model.
fn list(shape: &Shape) -> String {
    let dims: Vec<String> = shape.iter().map(|it| Untrusted(&it.to_string()).to_string()).collect();
    dims.join(", ")
}

fn names(found: &[String]) -> String {
    const SHOWN: usize = 8;
    if found.is_empty() {
        return "nothing".into();
    }
    let mut list: Vec<String> =
        found.iter().take(SHOWN).map(|it| format!("`{}`", Untrusted(it))).collect();
    if found.len() > SHOWN {
        list.push(format!("{} more", found.len() - SHOWN));
    }
    list.join(", ")
}
