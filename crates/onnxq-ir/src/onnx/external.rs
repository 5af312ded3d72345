//! Where each initializer's bytes go, decided from sizes alone; then filled one weight at a time.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    sync::Arc,
};

use rayon::prelude::*;

use super::SaveError;
use crate::{
    ctx::Ctx,
    fs::write_all_at,
    ir::{Def, GraphId, Model, ValueId},
    tensor::{Packing, Part, QMatrix, QSource, Tensor, TensorError, from_f32},
};

/// Smaller tensors stay in the model file: what points to them costs about as much as it saves.
const EXTERNAL_FROM: usize = 64 << 10;
/// Smaller initializers are simply encoded with the graph.
const STREAM_FROM: usize = 1 << 10;

/// Where a tensor in a data file begins. What maps a file maps from the page before it, so nothing
/// needs more than the widest vector loads do; large ones begin where Windows' mappings can, the
/// coarsest of all systems, as ONNX Runtime's own writer has them.
fn alignment(size: u64) -> u64 {
    const LARGE: u64 = 1 << 20;
    if size < LARGE { 64 } else { 64 << 10 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the model file, its bytes written after the graph is encoded.
    Streamed,
    /// In one of [`Layout::files`].
    In { file: usize, offset: u64 },
}

/// The place of each initializer that is not simply encoded with its graph.
#[derive(Default)]
pub(super) struct Layout {
    /// The data files.
    pub files: Vec<DataFile>,
    places: BTreeMap<ValueId, Place>,
}

/// A file of weights beside the model.
pub(super) struct DataFile {
    /// As tensors state it.
    pub name: String,
    /// What is to be written; 0 if the file exists already.
    pub bytes: u64,
}

impl Layout {
    /// All weights in the model file.
    pub(super) fn inline(model: &Model) -> Layout {
        let mut layout = Layout::default();
        for (value, tensor) in weights(model, true) {
            if tensor.nbytes() >= STREAM_FROM {
                layout.places.insert(value, Place::Streamed);
            }
        }
        layout
    }

    /// Large weights, also of subgraphs, in data files of at most `limit` bytes each; a weight
    /// beyond that has a file to itself.
    pub(super) fn external(model: &Model, name: impl Fn(usize) -> String, limit: u64) -> Layout {
        let mut layout = Layout::inline(model);
        let mut seen: HashMap<Content, Place> = HashMap::new();
        for (value, tensor) in weights(model, false) {
            if tensor.nbytes() < EXTERNAL_FROM {
                continue;
            }
            let size = tensor.nbytes() as u64;
            let mut next = || layout.append(size, limit, &name);
            let place = match Content::of(tensor) {
                Some(content) => *seen.entry(content).or_insert_with(next),
                None => next(),
            };
            layout.places.insert(value, place);
        }
        layout
    }

    /// A place for `size` bytes behind what there is.
    fn append(&mut self, size: u64, limit: u64, name: &impl Fn(usize) -> String) -> Place {
        let start = |it: &DataFile| it.bytes.next_multiple_of(alignment(size));
        let fits = |it: &DataFile| start(it).saturating_add(size) <= limit;
        if !self.files.last().is_some_and(fits) {
            self.files.push(DataFile { name: name(self.files.len()), bytes: 0 });
        }
        let file = self.files.len() - 1;
        let offset = start(&self.files[file]);
        self.files[file].bytes = offset + size;
        Place::In { file, offset }
    }

    /// Weights that lie in files already; all others are encoded with their graph.
    pub(super) fn scattered(files: Vec<String>, places: BTreeMap<ValueId, (usize, u64)>) -> Layout {
        let place = |(value, (file, offset))| (value, Place::In { file, offset });
        let places = places.into_iter().map(place).collect();
        let files = files.into_iter().map(|name| DataFile { name, bytes: 0 }).collect();
        Layout { files, places }
    }

    /// Bytes of all data files together.
    pub(super) fn external_bytes(&self) -> u64 {
        self.files.iter().map(|it| it.bytes).sum()
    }

    pub(super) fn place(&self, value: ValueId) -> Option<Place> {
        self.places.get(&value).copied()
    }

    pub(super) fn is_streamed(&self, value: ValueId) -> bool {
        self.place(value) == Some(Place::Streamed)
    }

    /// What lies in a data file, and at which offset.
    pub(super) fn of_file(&self, wanted: usize) -> Vec<(ValueId, u64)> {
        let here = |(value, it): (&ValueId, &Place)| match *it {
            Place::In { file, offset } if file == wanted => Some((*value, offset)),
            _ => None,
        };
        self.places.iter().filter_map(here).collect()
    }
}

/// What tells that tensors have the same bytes, without reading them. They share a place in the
/// data file, whatever their shapes: a tied table and head are one copy on disk.
#[derive(PartialEq, Eq, Hash)]
enum Content {
    At(usize, usize),
    Quantized(usize, Part, Packing),
}

impl Content {
    fn of(tensor: &Tensor) -> Option<Content> {
        if let Some((source, part, packing)) = tensor.quantized() {
            let address = Arc::as_ptr(source).cast::<()>().addr();
            let packing = packing.canonical(source.shape(), part);
            return Some(Content::Quantized(address, part, packing));
        }
        let (at, len) = tensor.place().filter(|_| !tensor.is_transposed())?;
        Some(Content::At(at, len))
    }
}

/// Initializers with bytes and a use, of the main graph or of all graphs outside of functions.
pub(super) fn weights(model: &Model, main_only: bool) -> Vec<(ValueId, &Tensor)> {
    let graphs = if main_only { vec![model.main] } else { model.graphs() };
    let graphs = graphs.into_iter().filter(|it| model.in_main(*it));
    graphs
        .flat_map(|it| used_constants(model, it))
        .filter_map(|value| match &model.value(value).def {
            Def::Const(tensor) if tensor.string_values().is_none() => Some((value, tensor)),
            _ => None,
        })
        .collect()
}

/// The constants of a graph that are written: those with a use.
pub(super) fn used_constants(model: &Model, graph: GraphId) -> impl Iterator<Item = ValueId> {
    let constants = model.graph(graph).constants.iter().copied();
    constants.filter(|it| !model.value(*it).uses.is_empty())
}

/// A tensor and the offset in a file where its bytes go.
#[derive(Clone, Copy)]
pub(super) struct Extent<'a> {
    pub name: &'a str,
    pub tensor: &'a Tensor,
    pub offset: u64,
}

/// Writes every extent. Parts of one quantized weight are solved together, and dropped.
///
/// Peak memory is one large weight, or a few small ones.
pub(super) fn fill(file: &File, extents: &[Extent], ctx: &Ctx) -> Result<(), Fill> {
    let mut plain = Vec::new();
    let mut groups: BTreeMap<usize, Vec<&Extent>> = BTreeMap::new();
    let mut first_seen: BTreeMap<usize, usize> = BTreeMap::new();
    for (order, extent) in extents.iter().enumerate() {
        match extent.tensor.quantized() {
            Some((source, ..)) => {
                // Addresses only tell sources apart; the order is that of the file.
                let address = Arc::as_ptr(source).cast::<()>().addr();
                let group = *first_seen.entry(address).or_insert(order);
                groups.entry(group).or_default().push(extent);
            }
            None => plain.push(extent),
        }
    }
    plain.par_iter().try_for_each(|it| {
        if it.tensor.is_view() {
            return write_view(file, it, ctx);
        }
        let bytes = it.tensor.bytes().map_err(|err| Fill::tensor(it, err))?;
        write(file, &bytes, it.offset, ctx)
    })?;
    let groups: Vec<Vec<&Extent>> = groups.into_values().collect();
    let small = |it: &&Vec<&Extent>| elements(it) <= ROWS_AT_ONCE;
    let results: Vec<Result<(), Fill>> = groups
        .iter()
        .filter(small)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|it| group(file, it, ctx))
        .collect();
    results.into_iter().collect::<Result<(), Fill>>()?;
    // A large weight uses every core by itself, and two at once would cost twice the memory.
    groups.iter().filter(|it| !small(it)).try_for_each(|it| group(file, it, ctx))
}

/// A matrix whose rows are made of another one: in pieces.
fn write_view(file: &File, extent: &Extent, ctx: &Ctx) -> Result<(), Fill> {
    let failed = |err| Fill::tensor(extent, err);
    let tensor = extent.tensor.held().map_err(failed)?;
    let (count, width) = (tensor.shape[0], tensor.nbytes() / tensor.shape[0].max(1));
    let step = (PIECE / width.max(1)).max(1);
    for start in (0..count).step_by(step) {
        let values = tensor.rows_f32(start..(start + step).min(count)).map_err(failed)?;
        let bytes = from_f32(tensor.dtype, &values).map_err(failed)?;
        write(file, &bytes, extent.offset + (start * width) as u64, ctx)?;
    }
    Ok(())
}

/// Bytes of a view that are made at a time.
const PIECE: usize = 4 << 20;

/// Elements that one task reads as `f32`: 4 MiB of scratch.
const ROWS_AT_ONCE: usize = 1 << 20;

fn elements(group: &[&Extent]) -> usize {
    let shape = source(group).shape();
    shape.n * shape.k
}

fn source<'a>(group: &[&Extent<'a>]) -> &'a Arc<dyn QSource> {
    group[0].tensor.quantized().expect("a group of quantized parts").0
}

fn parts<'a>(group: &[&'a Extent<'a>]) -> Vec<(&'a Extent<'a>, Part, Packing)> {
    let part = |it: &&'a Extent<'a>| {
        let (_, part, packing) = it.tensor.quantized()?;
        Some((*it, part, packing))
    };
    group.iter().filter_map(part).collect()
}

fn group(file: &File, group: &[&Extent], ctx: &Ctx) -> Result<(), Fill> {
    let (source, parts) = (source(group), parts(group));
    let shape = source.shape();
    // Whole bytes of 64 rows each: packings by row never share a byte between tasks.
    let rows = (ROWS_AT_ONCE / shape.k.max(1)).next_multiple_of(64).max(64);
    let starts: Vec<usize> = (0..shape.n).step_by(rows).collect();
    let solve = |start: usize| {
        let range = start..(start + rows).min(shape.n);
        source.solve(range).map_err(|err| Fill::tensor(group[0], err))
    };
    let whole = parts.iter().any(|(.., packing)| !packing.is_by_row());
    let solved: Vec<Result<Option<QMatrix>, Fill>> = starts
        .par_iter()
        .map(|&start| {
            let q = solve(start)?;
            for (extent, part, packing) in parts.iter().filter(|it| it.2.is_by_row()) {
                let row_bytes = extent.tensor.nbytes() / shape.n;
                let at = extent.offset + (start * row_bytes) as u64;
                write(file, &packing.pack(&q, *part), at, ctx)?;
            }
            Ok(whole.then_some(q))
        })
        .collect();
    let solved: Vec<QMatrix> =
        solved.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    if solved.is_empty() {
        return Ok(());
    }
    let q = stack(solved);
    for (extent, part, packing) in parts.iter().filter(|it| !it.2.is_by_row()) {
        write(file, &packing.pack(&q, *part), extent.offset, ctx)?;
    }
    Ok(())
}

fn stack(mut list: Vec<QMatrix>) -> QMatrix {
    if list.len() == 1 {
        return list.remove(0);
    }
    QMatrix::stacked(list[0].shape, &list)
}

fn write(file: &File, bytes: &[u8], offset: u64, ctx: &Ctx) -> Result<(), Fill> {
    // In pieces, so that progress moves within a large weight.
    for (i, piece) in bytes.chunks(16 << 20).enumerate() {
        write_all_at(file, piece, offset + ((i * (16 << 20)) as u64)).map_err(Fill::Io)?;
        ctx.progress.step(piece.len() as u64);
    }
    Ok(())
}

/// Why a file could not be filled.
pub(super) enum Fill {
    Io(io::Error),
    Tensor { name: String, source: TensorError },
}

impl Fill {
    fn tensor(extent: &Extent, source: TensorError) -> Fill {
        Fill::Tensor { name: extent.name.to_owned(), source }
    }

    pub(super) fn at(self, path: &std::path::Path) -> SaveError {
        match self {
            Fill::Io(source) => SaveError::Io { path: path.into(), source },
            Fill::Tensor { name, source } => SaveError::of_tensor(&name, source),
        }
    }
}
