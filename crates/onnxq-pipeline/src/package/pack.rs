//! One model: its packed form is written by ONNX Runtime, read back, and compared.

use std::{fs, path::Path};

use serde::Serialize;

use super::{
    PackageError, Packing,
    compared::{Answers, answers},
};
use crate::{Error, staged::failed};
use onnxq_ir::{
    human::bytes,
    onnx::{self, OpenOptions},
};
use onnxq_run::{
    calibrate::model_inputs,
    engine::{
        Session, SessionOptions,
        package::{self, FileFacts, PREPACKED, PackedModel},
    },
};

/// What became of a model.
#[derive(Clone, Debug, Serialize)]
pub struct PackagedModel {
    /// The plain graph's place in the folder.
    pub file: String,
    /// The packed graph's.
    pub prepacked: String,
    /// Bytes of the plain files.
    pub plain_bytes: u64,
    /// Bytes of the packed files: the weights as they were are in them too, because ONNX Runtime packs
    /// them again to see that the packed ones are right.
    pub prepacked_bytes: u64,
    /// Where kernels read weights from, in bytes.
    pub weights: Weights,
    /// How often the two were compared, and on what.
    pub compared: String,
}

/// Weights by where they are in the memory of a process.
#[derive(Clone, Debug, Serialize)]
pub struct Weights {
    /// Mapped, packed for their kernels.
    pub packed_bytes: u64,
    pub packed: usize,
    /// Mapped as they are: tables that are looked up, and what no kernel packs.
    pub mapped_bytes: u64,
    pub mapped: usize,
    /// Too small for a place of their own (less than 1 KiB each): every process copies them.
    pub copied_bytes: u64,
    pub copied: usize,
}

impl PackagedModel {
    pub(super) fn summary(&self) -> String {
        let [packed, mapped, copied] =
            [self.weights.packed_bytes, self.weights.mapped_bytes, self.weights.copied_bytes]
                .map(bytes);
        format!("{}: {packed} packed, {mapped} mapped as they are, {copied} copied", self.file)
    }
}

/// Packs the model with these plain files, which lie in `root`, into `target`.
pub(super) fn pack(
    (root, plain): (&Path, &[String]),
    target: &Path,
    how: &Packing,
) -> Result<(PackedModel, PackagedModel), Error> {
    let place = &plain[0];
    let packed_place = format!("{PREPACKED}/{place}");
    let path = target.join(&packed_place);
    let folder = path.parent().expect("it is in a folder");
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let expected = write(&root.join(place), &path, place, how)?;
    let compared = expected.compare_with(open_packed(&path, place, how)?, place)?;
    let facts = |root: &Path, list: &[String]| -> Result<Vec<FileFacts>, Error> {
        let facts = list
            .iter()
            .map(|it| FileFacts::of(root, it).map_err(failed(&root.join(it))).map_err(Error::from));
        facts.collect()
    };
    let mut packed_files = vec![packed_place.clone()];
    let data = format!("{packed_place}.data");
    packed_files.extend(Some(data).filter(|it| target.join(it).exists()));
    let model =
        PackedModel { plain: facts(root, plain)?, prepacked: facts(target, &packed_files)? };
    let size = |list: &[FileFacts]| list.iter().map(|it| it.bytes).sum();
    let row = PackagedModel {
        file: place.clone(),
        prepacked: packed_place,
        plain_bytes: size(&model.plain),
        prepacked_bytes: size(&model.prepacked),
        weights: weights(&path)?,
        compared,
    };
    Ok((model, row))
}

/// Writes the packed form of the model at `path`, and says what the model answers.
fn write(path: &Path, packed: &Path, place: &str, how: &Packing) -> Result<Answers, Error> {
    let loaded = onnx::open(path, &how.open)?;
    how.runtime.check(&loaded.model, &format!("`{place}`"))?;
    let inputs = model_inputs(&loaded.model);
    drop(loaded);
    let options =
        SessionOptions { optimized_model: Some(packed.to_owned()), prepack: true, ..options(how) };
    let session = how.runtime.open(path, &options)?;
    answers(session, &inputs, how.data.as_ref(), place)
}

fn open_packed(path: &Path, place: &str, how: &Packing) -> Result<Box<dyn Session>, Error> {
    let load = |path: &Path, options: &SessionOptions| how.runtime.open(path, options);
    package::prepacked(path, &options(how), load).map_err(|reason| {
        let (model, reason) = (place.to_owned(), reason.to_string());
        PackageError::NotLoaded { model, reason }.into()
    })
}

fn options(how: &Packing) -> SessionOptions {
    SessionOptions { threads: how.threads, ..SessionOptions::default() }
}

fn weights(path: &Path) -> Result<Weights, Error> {
    let found = onnx::packing(path, &OpenOptions::default())?;
    Ok(Weights {
        packed_bytes: found.packed,
        packed: found.packed_weights,
        mapped_bytes: found.as_is,
        mapped: found.as_is_weights,
        copied_bytes: found.inside,
        copied: found.inside_weights,
    })
}
