//! The file: laid out from sizes, tensors first, then what is known of them.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

use super::Gguf;
use crate::{Error, Staged, staged::failed};
use onnxq_formats::{Checkpoint, Form, build};
use onnxq_ir::{
    Late,
    ctx::Ctx,
    human::bytes,
    onnx::{OpenOptions, SaveOptions, check_place},
};

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;

impl Gguf {
    /// Bytes of the file.
    pub(crate) fn size(&self, entries: &[(String, String)]) -> Result<u64, Error> {
        Ok(self.writer(entries)?.layout()?.len)
    }

    /// Writes it beside its destination, reads it back and moves it. `late` is an entry whose text is
    /// known when all tensors are made.
    pub(crate) fn write(
        &self,
        path: &Path,
        save: &SaveOptions,
        (entries, late): (&[(String, String)], Option<&Late>),
        open: &OpenOptions,
        ctx: &Ctx,
    ) -> Result<u64, Error> {
        check_place(path)?;
        let staged = Staged::new(path, save.force)?;
        let place = staged.path();
        let size = self.write_to(&place, (entries, late), ctx)?;
        // What our own reader refuses is no file.
        let read = Checkpoint::open_gguf(&place, open.external)?;
        build(&read, Form::Standard)?.model.verify()?;
        staged.accept()?;
        ctx.progress.done(&format!("{} to {}", bytes(size), path.display()));
        Ok(size)
    }

    fn write_to(
        &self,
        place: &Path,
        (entries, late): (&[(String, String)], Option<&Late>),
        ctx: &Ctx,
    ) -> Result<u64, Error> {
        let io = failed(place);
        let writer = self.writer(entries)?;
        let layout = writer.layout()?;
        ctx.progress.start("write", layout.len);
        let file = File::create_new(place).map_err(&io)?;
        file.set_len(layout.len).map_err(&io)?;
        let mut to = BufWriter::with_capacity(BUFFER, file);
        for (index, tensor) in layout.places.iter().enumerate() {
            to.seek(SeekFrom::Start(tensor.start)).map_err(&io)?;
            writer.write_tensor(index, &mut to)?;
            ctx.progress.step(tensor.end - tensor.start);
        }
        let header = self.header(entries, late)?.filter(|it| it.len() == layout.header.len());
        finish(to, &header.unwrap_or(layout.header)).map_err(&io)?;
        Ok(layout.len)
    }

    /// The header with what is known last, if anything is.
    fn header(
        &self,
        entries: &[(String, String)],
        late: Option<&Late>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(late) = late else { return Ok(None) };
        let Some(text) = (late.text)() else { return Ok(None) };
        let mut entries = entries.to_vec();
        entries.iter_mut().filter(|it| it.0 == late.key).for_each(|it| it.1.clone_from(&text));
        Ok(Some(self.writer(&entries)?.layout()?.header))
    }
}

/// Puts the header before the tensors, and all of it on the disk.
fn finish(mut to: BufWriter<File>, header: &[u8]) -> io::Result<()> {
    to.seek(SeekFrom::Start(0))?;
    to.write_all(header)?;
    to.flush()?;
    to.get_ref().sync_all()
}
