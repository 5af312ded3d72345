//! Opening data by what it is: arrays, archives, texts, images and folders of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Batches, DataError, DataOptions,
    batches::missing,
    images::{self, Images},
    npy::Npy,
    npz::Npz,
    records::TEXTS,
    roles,
    source::{Array, Source},
    test_data, text_data,
};
use crate::engine::IoInfo;
use onnxq_ir::{fs::open_file, tensor::Dim};

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
        extension if TEXTS.contains(&&*format!(".{extension}")) => text(path, inputs, options)?,
        _ if images::is_image(path) => pictures(path, vec![path.into()], inputs, options)?,
        _ => return Err(DataError::Kind { file: path.into() }),
    };
    Batches::new(path, source, files, inputs, options)
}

/// What an array is opened as, and the files it came from.
type Opened = (Source, Vec<PathBuf>);

fn one_array(path: &Path, inputs: &[IoInfo]) -> Result<Opened, DataError> {
    let input = primary(inputs);
    let npy = Npy::open(path, open_file(path).map_err(DataError::io(path))?)?;
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
            found.push((at, Npy::open(&file, open_file(&file).map_err(DataError::io(&file))?)?));
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
    let at = primary(inputs);
    let Some(input) = inputs.get(at).filter(|it| !it.ty.dtype.is_float()) else {
        let found = inputs.iter().map(|it| it.name.clone()).collect();
        return Err(DataError::NoTextInput { file: path.into(), found });
    };
    let Some(tokenizer) = &options.tokenizer else {
        return Err(DataError::NoTokenizer { file: path.into() });
    };
    let fixed = input.ty.shape.as_ref().and_then(|it| it.get(1)?.fixed());
    let width = fixed.unwrap_or(options.sequence);
    let tokens = text_data::read(path, (tokenizer, options), width)?;
    let mut files = vec![path.to_owned(), tokenizer.clone()];
    files.extend(options.chat.clone().filter(|it| it.exists()));
    Ok((Source::Tokens { input: at, tokens }, files))
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
