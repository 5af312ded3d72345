//! `convert --to gguf`: the floats of a checkpoint in the file of llama.cpp.

use std::sync::Arc;

use super::{Target, prove, rounded};
use crate::{
    Census, Destination, Error,
    convert::{Convert, Converted, Left, Step},
    origin,
};
use onnxq_formats::{Form, build, gguf::GgmlType, open_checkpoint};
use onnxq_ir::{ctx::Ctx, diag::Warning, human::grouped};

/// Writes a GGUF file of the checkpoint at `job.model`. Matrices are rounded to `kind`, if there is one, as
/// the package `gguf` does; all other tensors stay as they are, those of a GGUF file in their blocks, and
/// lists are float32.
///
/// # Errors
/// E120 to E125 if it is no checkpoint that can be written so, and what writing says.
pub fn to_gguf(
    (job, kind): (&Convert, Option<GgmlType>),
    place: &Destination,
    ctx: &Ctx,
) -> Result<Converted, Error> {
    let (output, save) = (place.path, &place.save);
    save.check_free(output)?;
    let target = Target::new(open_checkpoint(&job.model, job.open.external)?)?;
    let checkpoint = &target.checkpoint;
    let loaded = build(checkpoint, Form::Standard)?;
    let mut model = loaded.model;
    if checkpoint.is_guessed {
        let (original, built) = ((&*job.model, &job.open), (&model, &loaded.files));
        prove(original, built, &checkpoint.architecture, &place.runtime, ctx)?;
    }
    origin::mark_exported(&mut model, &job.model, &loaded.files)?;
    let before = Census::of(&model, loaded.files.size());
    let gguf = rounded(Arc::new(target), kind);
    let warnings: Vec<Warning> =
        gguf.notes().iter().map(|it| Warning::remark(it.clone())).collect();
    warnings.iter().for_each(|it| ctx.progress.warn(it));
    let entries = origin::of_gguf(&model);
    let size = gguf.write(output, save, (&entries, None), &job.open, ctx)?;
    let types = gguf.types();
    let line = |it: (&&str, &usize)| format!("{} × {}", grouped(*it.1 as u64), it.0);
    let lines = types.iter().map(line).collect();
    let changed = types.values().sum();
    let left = kind.into_iter().flat_map(|kind| {
        gguf.unfit(kind).map(move |it| Left {
            node: it.name.clone(),
            op: it.dtype.name().to_owned(),
            reason: format!("rows of {} are no whole blocks of {kind}", it.shape[1]),
        })
    });
    let left = left.collect();
    Ok(Converted {
        schema: "onnxq.convert/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        model: job.model.clone(),
        output: Some(output.to_owned()),
        files: vec![output.to_owned()],
        after: Census::of(&model, size),
        before,
        needs: None,
        execution: None,
        steps: vec![Step { changed, lines, left, ..Step::new("gguf") }],
        warnings,
    })
}
