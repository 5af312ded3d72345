//! A package on another machine, or with another library: its weights are packed again.

use std::{fs, path::Path};

use super::{
    PackageError, Packaged, Packing, manifest, pack_all, packaged,
    sources::{Sources, files_of},
    unpacked,
};
use crate::{Error, staged::failed};
use onnxq_ir::{
    ctx::Ctx,
    fs::{ScratchFolder, lock_folder},
};
use onnxq_run::engine::package::{MANIFEST, PREPACKED};

/// Packs the models of a package again, for this library and this machine. The other files stay.
///
/// # Errors
/// E631 if the folder is no package, and what [`package`](super::package()) says.
pub fn remake(folder: &Path, how: &Packing, ctx: &Ctx) -> Result<Packaged, Error> {
    if !folder.join(MANIFEST).is_file() {
        let reason = "is missing".to_owned();
        return Err(PackageError::NoPackage { folder: folder.to_owned(), reason }.into());
    }
    let sources = Sources::of(folder)?;
    let scratch = ScratchFolder::new(folder, ".onnxq-new-").map_err(failed(folder))?;
    let plain = sources.models.iter().map(|it| files_of(folder, it, how));
    let plain = plain.collect::<Result<Vec<_>, _>>()?;
    let (models, rows) = pack_all(scratch.path(), (folder, &plain), how, ctx)?;
    let manifest = manifest(&how.runtime, models)?;
    let text = scratch.path().join(MANIFEST);
    fs::write(&text, manifest.text()).map_err(failed(&text))?;
    exchange(folder, &scratch)?;
    let mut files: Vec<String> = manifest.files().map(|it| it.path.clone()).collect();
    files.push(MANIFEST.to_owned());
    files.sort();
    let warnings = unpacked(&rows, &manifest);
    warnings.iter().for_each(|it| ctx.progress.warn(it));
    Ok(packaged(folder, manifest, (rows, files), (Vec::new(), warnings)))
}

/// The manifest goes first and comes last: without one, readers take the plain model. Processes that mapped
/// the old files keep them.
fn exchange(folder: &Path, new: &ScratchFolder) -> Result<(), Error> {
    let _alone = lock_folder(folder).map_err(failed(folder))?;
    let (manifest, packed) = (folder.join(MANIFEST), folder.join(PREPACKED));
    if manifest.exists() {
        fs::remove_file(&manifest).map_err(failed(&manifest))?;
    }
    if packed.exists() {
        fs::rename(&packed, new.path().join("old")).map_err(failed(&packed))?;
    }
    fs::rename(new.path().join(PREPACKED), &packed).map_err(failed(&packed))?;
    Ok(fs::rename(new.path().join(MANIFEST), &manifest).map_err(failed(&manifest))?)
}
