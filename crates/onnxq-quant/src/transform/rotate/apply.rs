//! Replaces the constants of a stream by rotated ones.

use std::collections::BTreeMap;

use super::{
    super::{
        named,
        scratch::{Place, Scratch},
    },
    matrix::Rotation,
    stream::{Norm, Spot, Stream, gain, shift_over_gain},
};
use onnxq_ir::{
    Attrs, Model, NodeId, Patch, Ref, ValueId,
    tensor::{DType, Tensor, TensorError, from_f32},
};

/// Rotates a stream. Returns the products before heads that were tied to a table, and still are.
pub(super) fn apply(m: &mut Model, stream: &Stream, seed: u64) -> Result<Vec<NodeId>, TensorError> {
    let q = Rotation::new(stream.width, seed, stream.centred);
    let tied: Vec<Tied> = stream.norms.iter().flat_map(|it| ties(m, stream, it)).collect();
    let mut work = Rotating { m, stream, q, scratch: Scratch::new()?, done: BTreeMap::new() };
    for &spot in &stream.writers {
        work.writer(spot)?;
    }
    for &node in &stream.readers {
        work.reader(node, None)?;
    }
    for norm in &stream.norms {
        for &node in norm.readers.iter().filter(|it| tied.iter().all(|tie| tie.head != **it)) {
            work.reader(node, Some(norm.node))?;
        }
        work.bias(norm.node)?;
    }
    let products = tied.iter().map(|it| work.product(it.norm)).collect::<Result<Vec<_>, _>>()?;
    let Rotating { scratch, done, .. } = work;
    let bytes = scratch.map()?;
    let tensor = |it: &Place| it.tensor(&bytes);

    let mut patch = Patch::before(stream.norms[0].node);
    for (key, entry) in &done {
        let new = patch.constant(&m.value(key.value).name, tensor(&entry.place));
        patch = entry.spots.iter().fold(patch, |it, spot| it.rewire(spot.node, spot.index, new));
    }
    for norm in stream.norms.iter().filter(|it| is_replaced(it, stream, m)) {
        let old = m.operand(norm.node, 1).expect("a norm has a gain");
        let ones = ones(m.constant(old).expect("it is constant"))?;
        let new = patch.constant(&m.value(old).name, ones);
        patch = patch.rewire(norm.node, 1, new);
    }
    patch.apply(m);
    Ok(tied.iter().zip(&products).map(|(tie, product)| tie.join(m, tensor(product))).collect())
}

/// A gain of ones stays what it is.
fn is_replaced(norm: &Norm, stream: &Stream, m: &Model) -> bool {
    gain(m, norm.node, stream.width).is_ok_and(|it| it.iter().any(|it| *it != 1.0))
}

fn ones(gain: &Tensor) -> Result<Tensor, TensorError> {
    let bytes = from_f32(gain.dtype, &vec![1.0; gain.numel()])?;
    Ok(Tensor::new(gain.dtype, gain.shape.clone(), bytes))
}

/// A head whose weight is the transpose of an embedding table.
struct Tied {
    table: NodeId,
    norm: NodeId,
    head: NodeId,
}

impl Tied {
    /// The head reads the rotated table, and the gain of its norm becomes a product before it.
    fn join(&self, m: &mut Model, product: Tensor) -> NodeId {
        let table = m.operand(self.table, 0).and_then(|it| m.constant(it));
        let weight = table.expect("it was rotated").transposed();
        let old = m.operand(self.head, 1).expect("a head has a weight");
        let (label, normed) = (m.value(old).name.clone(), m.node(self.norm).output());
        let name = format!("{}_gain", m.value(normed).name);
        let mut patch = Patch::before(self.head);
        let product = patch.constant(&name, product);
        let own = format!("{}_gain", named(m, self.norm));
        let inputs = [Ref::from(normed), product];
        let y = patch.named(&own, "gained", "MatMul", inputs, Attrs::default());
        let weight = patch.constant(&label, weight);
        let made = patch.rewire(self.head, 0, y).rewire(self.head, 1, weight).apply(m);
        m.producer(made.value(y), "MatMul").expect("it was made")
    }
}

/// The readers of a norm that are tied to a table which writes to the stream.
fn ties(m: &Model, stream: &Stream, norm: &Norm) -> Vec<Tied> {
    let tables = stream.writers.iter().filter(|it| m.node(it.node).op.is("Gather"));
    let tables: Vec<(NodeId, &Tensor)> =
        tables.filter_map(|it| Some((it.node, constant(m, *it)?.1))).collect();
    let tie = |&head: &NodeId| {
        let weight = constant(m, Spot { node: head, index: 1 })?.1.transposed();
        let (table, _) = tables.iter().find(|(_, rows)| are_one(rows, &weight))?;
        Some(Tied { table: *table, norm: norm.node, head })
    };
    norm.readers.iter().filter_map(tie).collect()
}

/// Whether two matrices are one: `tie-constants` has made equal ones views of each other.
fn are_one(a: &Tensor, b: &Tensor) -> bool {
    a.identity().is_some_and(|it| b.identity() == Some(it))
}

fn constant(m: &Model, spot: Spot) -> Option<(ValueId, &Tensor)> {
    let value = m.operand(spot.node, spot.index).ok()?;
    Some((value, m.constant(value).ok()?))
}

/// A constant and what becomes of it: equal ones are rotated once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    value: ValueId,
    /// Rows instead of columns are channels of the stream.
    is_read: bool,
    gain: Option<ValueId>,
}

struct Entry {
    place: Place,
    spots: Vec<Spot>,
}

struct Rotating<'a> {
    m: &'a Model,
    stream: &'a Stream,
    q: Rotation,
    scratch: Scratch,
    done: BTreeMap<Key, Entry>,
}

impl Rotating<'_> {
    /// `rows·diag(gain)·Q` for the rows of a matrix `[r, n]`.
    fn rotated(&mut self, rows: &Tensor, gain: Option<&[f32]>) -> Result<Place, TensorError> {
        let q = &self.q;
        self.scratch.changed(rows, |row| {
            let gains = gain.into_iter().flatten();
            row.iter_mut().zip(gains).for_each(|(it, gain)| *it *= f64::from(*gain));
            q.rotate(row);
        })
    }

    fn writer(&mut self, spot: Spot) -> Result<(), TensorError> {
        let (value, tensor) = constant(self.m, spot).expect("the stream was checked");
        let key = Key { value, is_read: false, gain: None };
        if let Some(entry) = self.done.get_mut(&key) {
            entry.spots.push(spot);
            return Ok(());
        }
        let rows = match tensor.shape.len() {
            2 => tensor.clone(),
            _ => tensor.reshaped(vec![tensor.numel() / self.q.len(), self.q.len()]),
        };
        let place = self.rotated(&rows, None)?.shaped(tensor.shape.clone());
        self.done.insert(key, Entry { place, spots: vec![spot] });
        Ok(())
    }

    fn reader(&mut self, node: NodeId, norm: Option<NodeId>) -> Result<(), TensorError> {
        let spot = Spot { node, index: 1 };
        let (value, tensor) = constant(self.m, spot).expect("the stream was checked");
        let gains = norm.map(|it| gain(self.m, it, self.q.len()).expect("it was checked"));
        let key =
            Key { value, is_read: true, gain: norm.and_then(|it| self.m.operand(it, 1).ok()) };
        if let Some(entry) = self.done.get_mut(&key) {
            entry.spots.push(spot);
            return Ok(());
        }
        let rows = tensor.transposed();
        let place = self.rotated(&rows, gains.as_deref())?.transposed();
        self.done.insert(key, Entry { place, spots: vec![spot] });
        Ok(())
    }

    /// What a norm adds comes after its gain, which is one from now on.
    fn bias(&mut self, norm: NodeId) -> Result<(), TensorError> {
        let spot = Spot { node: norm, index: 2 };
        let shift = shift_over_gain(self.m, norm, self.stream.width).expect("it was checked");
        let Some((value, tensor)) = constant(self.m, spot).filter(|_| !shift.is_empty()) else {
            return Ok(());
        };
        let rows = Tensor::from_f32(&[1, shift.len()], shift);
        let rows = Tensor::new(tensor.dtype, rows.shape.clone(), narrowed(tensor.dtype, &rows)?);
        let place = self.rotated(&rows, None)?.shaped(tensor.shape.clone());
        let key = Key { value, is_read: false, gain: self.m.operand(norm, 1).ok() };
        self.done.entry(key).or_insert(Entry { place, spots: Vec::new() }).spots.push(spot);
        Ok(())
    }

    /// `Qᵀ·diag(gain)·Q`, which is symmetric.
    fn product(&mut self, norm: NodeId) -> Result<Place, TensorError> {
        let n = self.q.len();
        let gains = gain(self.m, norm, n).expect("it was checked");
        let (_, tensor) = constant(self.m, Spot { node: norm, index: 1 }).expect("it was checked");
        let mut half = vec![0f32; n * n];
        for (row, (line, gain)) in half.chunks_exact_mut(n).zip(&gains).enumerate() {
            let mut wide = vec![0.0; n];
            wide[row] = f64::from(*gain);
            self.q.rotate(&mut wide);
            line.iter_mut().zip(wide).for_each(|(it, wide)| *it = wide as f32);
        }
        let half = Tensor::from_f32(&[n, n], half);
        let half = Tensor::new(tensor.dtype, half.shape.clone(), narrowed(tensor.dtype, &half)?);
        self.rotated(&half.transposed(), None)
    }
}

fn narrowed(dtype: DType, tensor: &Tensor) -> Result<Vec<u8>, TensorError> {
    from_f32(dtype, &tensor.to_f32()?)
}
