//! Writing a file: everything is laid out from sizes, then tensors are made one after another.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use onnxq_ir::{
    diag::{Code, Diagnostic},
    tensor::TensorError,
    untrusted::Untrusted,
};

use super::{
    ALIGNMENT, ALIGNMENT_KEY, MAGIC, MOST_DIMS, VERSION,
    file::{is_alignment, size},
    named::Named,
    types::GgmlType,
    value::{Value, encode_text},
};

/// llama.cpp has names of at most so many bytes.
const LONGEST_NAME: usize = 63;

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot write GGUF")]
    Io(#[from] io::Error),
    #[error("cannot write tensor `{}`: {source}", Untrusted(name))]
    Tensor { name: String, source: TensorError },
    #[error("cannot write GGUF: `{}` {problem}", Untrusted(name))]
    Invalid { name: String, problem: String },
}

impl Diagnostic for WriteError {
    fn code(&self) -> Code {
        match self {
            WriteError::Io(_) => Code::E901,
            WriteError::Tensor { source, .. } => source.code(),
            WriteError::Invalid { .. } => Code::E124,
        }
    }
}

/// Writes the bytes of a tensor.
type Source<'a> = dyn Fn(&mut dyn Write) -> Result<(), SourceError> + Sync + 'a;

/// Why a source has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// A file of version 3 to be.
#[derive(Default)]
pub struct Writer<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Planned<'a>)>,
}

struct Planned<'a> {
    kind: GgmlType,
    shape: Vec<usize>,
    size: u64,
    source: Box<Source<'a>>,
}

/// Where everything goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Everything before the tensors.
    pub header: Vec<u8>,
    /// Where the tensors lie in the file, in their order.
    pub places: Vec<Range<u64>>,
    /// Bytes of the file.
    pub len: u64,
}

impl<'a> Writer<'a> {
    pub fn new() -> Writer<'a> {
        Writer::default()
    }

    /// Appends a value. `general.alignment` is also what the file is laid out by.
    pub fn value(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.push((key.to_owned(), value.into()));
    }

    /// Appends a tensor, rows before columns, whose bytes `source` writes when their turn comes.
    ///
    /// # Errors
    /// A name or a shape that the format cannot hold.
    pub fn tensor(
        &mut self,
        name: &str,
        kind: GgmlType,
        shape: &[usize],
        source: impl Fn(&mut dyn Write) -> Result<(), SourceError> + Sync + 'a,
    ) -> Result<(), WriteError> {
        let invalid = |problem: String| WriteError::Invalid { name: name.to_owned(), problem };
        if !(1..=LONGEST_NAME).contains(&name.len()) {
            return Err(invalid(format!("is no name of 1 to {LONGEST_NAME} bytes")));
        }
        if shape.len() > MOST_DIMS || shape.contains(&0) {
            let most = format!("{MOST_DIMS} dimensions above 0");
            return Err(invalid(format!("has the shape {shape:?}, not up to {most}")));
        }
        let size = size(kind, shape).map_err(invalid)?;
        let planned = Planned { kind, shape: shape.to_vec(), size, source: Box::new(source) };
        self.tensors.push((name.to_owned(), planned));
        Ok(())
    }

    /// Lays the file out. Nothing is read.
    ///
    /// # Errors
    /// A key or a name that is there twice, and an alignment that is none.
    pub fn layout(&self) -> Result<Layout, WriteError> {
        let alignment = self.checked()?;
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            encode_text(key, &mut header);
            header.extend(value.kind().id().to_le_bytes());
            value.encode(&mut header);
        }
        let offsets = self.tensors.iter().scan(0u64, |end, (_, it)| {
            let offset = end.next_multiple_of(alignment);
            *end = offset + it.size;
            Some(offset..*end)
        });
        let offsets: Vec<Range<u64>> = offsets.collect();
        for ((name, it), place) in self.tensors.iter().zip(&offsets) {
            it.encode(name, place.start, &mut header);
        }
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        let start = header.len() as u64;
        let places: Vec<_> = offsets.iter().map(|it| start + it.start..start + it.end).collect();
        // The last tensor is padded as well: other readers expect it.
        let end = places.last().map_or(start, |it| it.end);
        Ok(Layout { header, places, len: end.next_multiple_of(alignment) })
    }

    /// The bytes of a tensor, to a place of [`Layout::places`].
    ///
    /// # Errors
    /// What its source says, and a source that writes another number of bytes than the type needs.
    pub fn write_tensor(&self, index: usize, to: &mut dyn Write) -> Result<(), WriteError> {
        let (name, planned) = &self.tensors[index];
        let mut counted = Counted { to, left: planned.size };
        (planned.source)(&mut counted).map_err(|err| match err {
            SourceError::Io(err) => WriteError::Io(err),
            SourceError::Tensor(source) => WriteError::Tensor { name: name.clone(), source },
        })?;
        match counted.left {
            0 => Ok(()),
            left => Err(WriteError::Invalid {
                name: name.clone(),
                problem: format!("has {left} of its {} bytes too few", planned.size),
            }),
        }
    }

    /// Writes the whole file, from its beginning to its end.
    ///
    /// # Errors
    /// See [`Self::layout`] and [`Self::write_tensor`].
    pub fn write(&self, to: &mut dyn Write) -> Result<(), WriteError> {
        let layout = self.layout()?;
        to.write_all(&layout.header)?;
        let ends = layout.places.iter().skip(1).map(|it| it.start).chain([layout.len]);
        for (index, (place, next)) in layout.places.iter().zip(ends).enumerate() {
            self.write_tensor(index, to)?;
            io::copy(&mut io::repeat(0).take(next - place.end), to)?;
        }
        Ok(())
    }

    /// The alignment, if all names are unique.
    fn checked(&self) -> Result<u64, WriteError> {
        let twice = |name| WriteError::Invalid { name, problem: "is there twice".into() };
        let names = self.tensors.iter().map(|(name, _)| (name.clone(), ())).collect();
        Named::new(names).map_err(twice)?;
        let entries = self.metadata.iter().map(|(key, value)| (key.clone(), value));
        let metadata = Named::new(entries.collect()).map_err(twice)?;
        if metadata.get("").is_some() {
            let (name, problem) = (String::new(), "is no key".into());
            return Err(WriteError::Invalid { name, problem });
        }
        match metadata.get(ALIGNMENT_KEY) {
            None => Ok(ALIGNMENT.into()),
            Some(Value::U32(it)) if is_alignment(*it) => Ok((*it).into()),
            Some(_) => Err(WriteError::Invalid {
                name: ALIGNMENT_KEY.into(),
                problem: "is no uint32 that is a power of two".into(),
            }),
        }
    }
}

impl Planned<'_> {
    /// What the header says of a tensor.
    fn encode(&self, name: &str, offset: u64, header: &mut Vec<u8>) {
        encode_text(name, header);
        header.extend((self.shape.len() as u32).to_le_bytes());
        header.extend(self.shape.iter().rev().flat_map(|it| (*it as u64).to_le_bytes()));
        header.extend(self.kind.id().to_le_bytes());
        header.extend(offset.to_le_bytes());
    }
}

/// A place for so many bytes.
struct Counted<'a> {
    to: &'a mut dyn Write,
    left: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("a tensor has more bytes than its type needs"));
        }
        let written = self.to.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
