//! A file: its metadata, and where its tensors lie.

use std::fmt;

use bytes::Bytes;
use onnxq_ir::{tensor::Tensor, untrusted::Untrusted};

use super::{
    ALIGNMENT, ALIGNMENT_KEY, MAGIC, MOST_DIMS,
    cursor::{Cursor, Problem},
    named::Named,
    tensor::tensor,
    types::GgmlType,
    value::{Value, ValueType},
};
use crate::CheckpointError;

/// No system has coarser places for mappings than Windows, so no writer has a use for more.
const LARGEST_ALIGNMENT: u32 = 64 << 10;
/// A key, its type and one byte.
const LEAST_ENTRY: usize = 8 + 1 + 4 + 1;
/// A name, no dimensions, a type and an offset.
const LEAST_INFO: usize = 8 + 1 + 4 + 4 + 8;

/// A GGUF file whose claims hold. Tensors are slices of it.
#[derive(Clone, Debug)]
pub struct File {
    name: String,
    version: u32,
    alignment: u32,
    metadata: Named<Value>,
    tensors: Named<Info>,
}

/// A tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    pub kind: GgmlType,
    /// Rows before columns, the reverse of what the file has.
    pub shape: Vec<usize>,
    /// Its blocks, row after row.
    pub bytes: Bytes,
}

/// A tensor as it is stated, before its place is known to exist.
struct Claim {
    kind: GgmlType,
    shape: Vec<usize>,
    offset: u64,
    size: u64,
}

impl File {
    /// Reads what is before the tensors of a file, which is called `name` in errors.
    ///
    /// # Errors
    /// E123 of a broken file, E122 of one that is of a version or type not implemented.
    pub fn parse(bytes: &Bytes, name: &str) -> Result<File, CheckpointError> {
        let at = Place { file: name };
        let mut from = Cursor::new(bytes);
        let version = version(&mut from, at)?;
        let entries = |problem| at.broken("the header", problem);
        let tensors = from.u64().map_err(entries)?;
        let count = from.count(LEAST_ENTRY).map_err(|it| at.broken("the metadata's", it))?;
        let metadata = metadata(&mut from, count, at)?;
        let alignment = alignment(metadata.get(ALIGNMENT_KEY), at)?;
        let claims = claims(&mut from, tensors, alignment, at)?;
        let start = (from.at as u64).next_multiple_of(alignment.into());
        check_overlaps(&claims, at)?;
        let infos = claims.into_iter().map(|(tensor, claim)| {
            let info = claim.located(bytes, start).map_err(|it| at.tensor(&tensor, it))?;
            Ok((tensor, info))
        });
        let infos = infos.collect::<Result<Vec<_>, CheckpointError>>()?;
        let tensors = Named::new(infos).map_err(|it| at.tensor(&it, "is there twice".into()))?;
        Ok(File { name: name.to_owned(), version, alignment, metadata, tensors })
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    /// What tensors begin at multiples of.
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// Keys and values in the order of the file.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.metadata.iter()
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// Tensors in the order of the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &Info)> {
        self.tensors.iter()
    }

    pub fn info(&self, name: &str) -> Option<&Info> {
        self.tensors.get(name)
    }

    /// A tensor of floats or of blocks in float32, of integers as it is: a view, whose rows are made
    /// when they are read. A tensor that is asked for twice has one [`Tensor::identity`].
    ///
    /// # Errors
    /// E124 if there is none, E122 if its type is not implemented.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let info = self.info(name).ok_or_else(|| CheckpointError::Missing {
            name: name.to_owned(),
            folder: (&self.name).into(),
        })?;
        tensor(info).ok_or_else(|| Place { file: &self.name }.unknown(name, info.kind.name()))
    }
}

/// What errors say first.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
}

impl Place<'_> {
    fn broken(self, what: &str, problem: Problem) -> CheckpointError {
        CheckpointError::Weights { file: self.file.into(), problem: format!("{what} {problem}") }
    }

    fn key(self, key: &str, problem: Problem) -> CheckpointError {
        self.broken(&format!("metadata `{}`", Untrusted(key)), problem)
    }

    fn tensor(self, name: &str, problem: Problem) -> CheckpointError {
        self.broken(&format!("tensor `{}`", Untrusted(name)), problem)
    }

    /// Of a type that is not implemented.
    fn unknown(self, tensor: &str, kind: &str) -> CheckpointError {
        CheckpointError::TensorType {
            file: self.file.into(),
            tensor: tensor.to_owned(),
            kind: kind.to_owned(),
            known: GgmlType::readable(),
        }
    }
}

fn version(from: &mut Cursor, at: Place) -> Result<u32, CheckpointError> {
    let magic = from.take(MAGIC.len() as u64).map_err(|it| at.broken("the header", it))?;
    if magic != MAGIC {
        return Err(at.broken("it", "is no GGUF file: it does not begin with GGUF".into()));
    }
    let version = from.u32().map_err(|it| at.broken("the header", it))?;
    let what = match version {
        2 | 3 => return Ok(version),
        // The number of a version is small, so one that is large was written the other way round.
        _ if version.swap_bytes() <= u32::from(u16::MAX) && version != 0 => {
            "is big-endian GGUF; little-endian files are read".to_owned()
        }
        _ => format!("is GGUF of version {version}; versions 2 and 3 are read"),
    };
    Err(CheckpointError::Container { file: at.file.into(), what })
}

/// A text that is not empty; `what` is how errors call it.
fn named<'a>(
    from: &mut Cursor<'a>,
    what: fmt::Arguments,
    at: Place,
) -> Result<&'a str, CheckpointError> {
    let nameless = |it| at.broken(&what.to_string(), it);
    match from.text().map_err(nameless)? {
        "" => Err(nameless("is empty".into())),
        name => Ok(name),
    }
}

fn metadata(from: &mut Cursor, count: usize, at: Place) -> Result<Named<Value>, CheckpointError> {
    let mut entries = Vec::new();
    for i in 0..count {
        let key = named(from, format_args!("the key of metadata {i}"), at)?;
        entries.push((key.to_owned(), value(from).map_err(|it| at.key(key, it))?));
    }
    Named::new(entries).map_err(|it| at.key(&it, "is there twice".into()))
}

fn value(from: &mut Cursor) -> Result<Value, Problem> {
    let id = from.u32()?;
    let kind = ValueType::from_id(id).ok_or_else(|| format!("is of type {id}, which is none"))?;
    Value::read(kind, from, 0)
}

/// Whether tensors can begin at multiples of it.
pub(super) fn is_alignment(bytes: u32) -> bool {
    bytes.is_power_of_two() && bytes <= LARGEST_ALIGNMENT
}

fn alignment(value: Option<&Value>, at: Place) -> Result<u32, CheckpointError> {
    let Some(value) = value else { return Ok(ALIGNMENT) };
    let problem = |it: &str| at.key(ALIGNMENT_KEY, it.into());
    let Value::U32(alignment) = *value else { return Err(problem("must be of type uint32")) };
    if is_alignment(alignment) {
        return Ok(alignment);
    }
    Err(problem(&format!("is {alignment}, not a power of two up to {LARGEST_ALIGNMENT}")))
}

/// What the file says of its tensors.
fn claims(
    from: &mut Cursor,
    count: u64,
    alignment: u32,
    at: Place,
) -> Result<Vec<(String, Claim)>, CheckpointError> {
    let left = from.left();
    if count > (left / LEAST_INFO) as u64 {
        let problem = format!("count {count} is more than the {left} bytes left can hold");
        return Err(at.broken("the tensors'", problem));
    }
    let mut claims = Vec::new();
    for i in 0..count {
        let name = named(from, format_args!("the name of tensor {i}"), at)?;
        claims.push((name.to_owned(), claim(from, name, alignment, at)?));
    }
    Ok(claims)
}

fn claim(
    from: &mut Cursor,
    name: &str,
    alignment: u32,
    at: Place,
) -> Result<Claim, CheckpointError> {
    let problem = |it: Problem| at.tensor(name, it);
    let shape = shape(from).map_err(problem)?;
    let id = from.u32().map_err(problem)?;
    let kind = GgmlType::from_id(id).ok_or_else(|| at.unknown(name, &GgmlType::name_of(id)))?;
    let offset = from.u64().map_err(problem)?;
    if !offset.is_multiple_of(alignment.into()) {
        return Err(problem(format!("begins at {offset}, which is no multiple of {alignment}")));
    }
    let size = size(kind, &shape).map_err(problem)?;
    Ok(Claim { kind, shape, offset, size })
}

fn shape(from: &mut Cursor) -> Result<Vec<usize>, Problem> {
    let dims = from.u32()? as usize;
    if dims > MOST_DIMS {
        return Err(format!("has {dims} dimensions, more than {MOST_DIMS}"));
    }
    let mut shape = Vec::with_capacity(dims);
    for _ in 0..dims {
        let dim = from.u64()?;
        let fits = usize::try_from(dim).ok().filter(|it| *it > 0);
        shape.push(fits.ok_or_else(|| format!("has a dimension of {dim}"))?);
    }
    shape.reverse();
    Ok(shape)
}

/// Bytes of a tensor, which also fits memory as float32.
pub(super) fn size(kind: GgmlType, shape: &[usize]) -> Result<u64, Problem> {
    let columns = shape.last().copied().unwrap_or(1);
    if !columns.is_multiple_of(kind.elements()) {
        let blocks = format!("{kind} has blocks of {}", kind.elements());
        return Err(format!("has rows of {columns} elements, but {blocks}"));
    }
    let rows = shape.iter().rev().skip(1).try_fold(1usize, |rows, dim| rows.checked_mul(*dim));
    let elements = rows.and_then(|it| it.checked_mul(columns)?.checked_mul(size_of::<f64>()));
    let bytes = rows.and_then(|it| kind.row_bytes(columns)?.checked_mul(it));
    match (elements.filter(|it| isize::try_from(*it).is_ok()), bytes) {
        (Some(_), Some(bytes)) => Ok(bytes as u64),
        _ => Err(format!("has the shape {shape:?}, whose product is too large")),
    }
}

fn check_overlaps(claims: &[(String, Claim)], at: Place) -> Result<(), CheckpointError> {
    let mut order: Vec<&(String, Claim)> = claims.iter().collect();
    order.sort_by_key(|(_, it)| it.offset);
    for pair in order.windows(2) {
        let ((before, first), (name, second)) = (pair[0], pair[1]);
        if first.offset.saturating_add(first.size) > second.offset {
            let problem = format!("overlaps with `{}`", Untrusted(before));
            return Err(at.tensor(name, problem));
        }
    }
    Ok(())
}

impl Claim {
    /// The tensor, if the file has its bytes.
    fn located(self, file: &Bytes, start: u64) -> Result<Info, Problem> {
        let Claim { kind, shape, offset, size } = self;
        let from = start.checked_add(offset);
        let end = from.and_then(|it| it.checked_add(size));
        let inside = end.filter(|it| *it <= file.len() as u64);
        match (from, inside) {
            (Some(from), Some(end)) => {
                // Both are at most the length of the file.
                let bytes = file.slice(from as usize..end as usize);
                Ok(Info { kind, shape, bytes })
            }
            _ => Err(format!(
                "needs {size} bytes at {offset} behind the header, but the file ends at {}",
                file.len()
            )),
        }
    }
}
