//! Which constants of a model are weights, what is trained of them, and their elements for a tape.

use std::{collections::BTreeMap, sync::Arc};

use onnxq_ir::{
    Model, NodeId, User, ValueId,
    tensor::{DType, Identity, Part, QMatrix, QSource, Tensor, TensorError},
};

use rayon::prelude::*;

use super::{
    LeafId,
    quantized::{Layout, Quantized},
};
use crate::real::Real;

/// Which weights are trained: by what they are for, whether they are quantized, and their name.
pub type Selection = dyn Fn(Role, bool, &str) -> Option<Trained> + Send + Sync;

/// What a weight is for, by the nodes that read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// What an operator multiplies by or looks up.
    Matrix,
    /// A gain or a shift of a normalization.
    Norm,
    /// A vector that is added.
    Bias,
    Other,
}

/// How a weight is trained, and by how much a step of the schedule counts for it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trained {
    /// The rate of the weight itself, of a quantized one in mean steps of its grid; `None`: only its
    /// scales are trained.
    pub rate: Option<f32>,
    /// The rate of the logarithms of scales.
    pub scale_rate: f32,
}

/// What is stored of a weight.
pub enum Kind {
    /// Numbers in rows and columns; a vector is one row.
    Float {
        rows: usize,
        columns: usize,
    },
    Quantized(Box<Quantized>),
}

pub struct Weight {
    /// The first value that has it.
    pub name: String,
    pub kind: Kind,
    pub trained: Option<Trained>,
    /// Of a quantized weight, the float weight that is rounded, in its layout, if that is trained.
    pub shadow: Vec<f32>,
    /// Logarithms of what the scales are multiplied by.
    pub theta: Vec<f32>,
    source: Source,
    /// The leaf that was asked for first: a float weight is what stands there.
    pub(crate) first: LeafId,
}

/// Where a weight was found.
enum Source {
    Float { value: ValueId, tensor: Tensor },
    Quantized(Arc<dyn QSource>),
}

/// What training changes in a model.
pub enum Change {
    Float {
        value: ValueId,
        tensor: Tensor,
    },
    /// Every part of this source becomes that of the matrix.
    Quantized {
        source: Arc<dyn QSource>,
        matrix: Box<QMatrix>,
    },
}

struct Leaf {
    weight: usize,
    transposed: bool,
    shape: Vec<usize>,
}

/// The elements of leaves.
#[derive(Clone, Default)]
pub struct Leaves<R>(Vec<Values<R>>);

/// The elements of one leaf.
#[derive(Clone)]
enum Values<R> {
    Own(Vec<R>),
    /// A constant that is not trained, where it lies in its file.
    Lying(Tensor),
}

impl<R: Real> Leaves<R> {
    pub fn get(&self, leaf: LeafId) -> &[R] {
        match &self.0[leaf.0] {
            Values::Own(it) => it,
            Values::Lying(it) => R::lying(it).expect("it lay there when leaves were made"),
        }
    }

    /// What is trained.
    pub fn get_mut(&mut self, leaf: LeafId) -> &mut [R] {
        match &mut self.0[leaf.0] {
            Values::Own(it) => it,
            Values::Lying(_) => unreachable!("a file is never written to"),
        }
    }

    /// By weight: the elements of a float one that is trained.
    pub(crate) fn trained(&mut self, weights: &Weights) -> Vec<Option<&mut [R]>> {
        let mut leaves: Vec<Option<&mut Values<R>>> = self.0.iter_mut().map(Some).collect();
        let mut of = |it: &Weight| {
            let is_own = it.is_float() && it.trained.is_some();
            match leaves.get_mut(it.first.0).filter(|_| is_own)?.take()? {
                Values::Own(own) => Some(&mut own[..]),
                Values::Lying(_) => None,
            }
        };
        weights.list.iter().map(&mut of).collect()
    }

    /// The same in another float type.
    pub fn cast<S: Real>(&self) -> Leaves<S> {
        let leaves = (0..self.0.len()).map(|it| self.get(LeafId(it)));
        let cast = |it: &[R]| Values::Own(it.iter().map(|x| S::of(x.wide())).collect());
        Leaves(leaves.map(cast).collect())
    }
}

/// The weights that programs of a model read.
pub struct Weights {
    pub list: Vec<Weight>,
    leaves: Vec<Leaf>,
    by_value: BTreeMap<ValueId, LeafId>,
    select: Box<Selection>,
}

impl Weights {
    pub fn new(
        select: impl Fn(Role, bool, &str) -> Option<Trained> + Send + Sync + 'static,
    ) -> Weights {
        let (list, leaves, by_value) = (Vec::new(), Vec::new(), BTreeMap::new());
        Weights { list, leaves, by_value, select: Box::new(select) }
    }

    pub fn leaf_count(&self) -> usize {
        self.leaves.len()
    }

    pub fn shape(&self, leaf: LeafId) -> Vec<usize> {
        self.leaves[leaf.0].shape.clone()
    }

    pub fn is_trained(&self, leaf: LeafId) -> bool {
        self.list[self.leaves[leaf.0].weight].trained.is_some()
    }

    pub fn is_known(&self, value: ValueId) -> bool {
        self.by_value.contains_key(&value)
    }

    /// The weight behind a leaf, and whether the leaf has it transposed.
    pub(crate) fn behind(&self, leaf: LeafId) -> (usize, bool) {
        (self.leaves[leaf.0].weight, self.leaves[leaf.0].transposed)
    }

    /// Whether a node has a weight of its own where its operator has one.
    pub(crate) fn is_weight_of(&self, m: &Model, node: NodeId) -> bool {
        let Some(info) = m.node(node).op.info().filter(|it| it.layout.is_some()) else {
            return false;
        };
        let is_weight = |index: &usize| {
            let Ok(value) = m.operand(node, *index) else { return false };
            let matrix = float_constant(m, value).filter(|it| it.shape.len() > 1);
            matrix.is_some() || quantized_parts(m, value).is_some()
        };
        info.weight_inputs().iter().any(is_weight)
    }

    /// The leaf of a value that is a weight: a float constant, or what `DequantizeLinear` makes of one.
    pub(crate) fn leaf(
        &mut self,
        m: &Model,
        value: ValueId,
    ) -> Result<Option<LeafId>, TensorError> {
        if let Some(leaf) = self.by_value.get(&value) {
            return Ok(Some(*leaf));
        }
        let found = if let Some(tensor) = float_constant(m, value) {
            Some(self.float(m, value, tensor))
        } else if let Some((codes, source)) = quantized_parts(m, value) {
            Some(self.quantized(m, value, codes, source)?)
        } else {
            None
        };
        if let Some(leaf) = found {
            self.by_value.insert(value, leaf);
        }
        Ok(found)
    }

    fn push_leaf(&mut self, weight: usize, transposed: bool, shape: Vec<usize>) -> LeafId {
        self.leaves.push(Leaf { weight, transposed, shape });
        LeafId(self.leaves.len() - 1)
    }

    /// Whether a value is a float constant that is to be trained.
    pub(crate) fn trains(&self, m: &Model, value: ValueId) -> bool {
        float_constant(m, value)
            .is_some_and(|_| (self.select)(role(m, value), false, &m.value(value).name).is_some())
    }

    fn add(&mut self, role: Role, name: String, kind: Kind, source: Source) -> usize {
        let trained = (self.select)(role, matches!(kind, Kind::Quantized(_)), &name);
        let blocks = match &kind {
            Kind::Quantized(it) => it.shape.n * it.shape.blocks(),
            Kind::Float { .. } => 0,
        };
        let mut weight = Weight {
            name,
            kind,
            trained,
            shadow: Vec::new(),
            theta: vec![0.0; blocks],
            source,
            first: LeafId(self.leaves.len()),
        };
        if let Kind::Quantized(it) = &weight.kind
            && trained.is_some_and(|it| it.rate.is_some())
        {
            weight.shadow = it.weight(&weight.theta, None);
        }
        self.list.push(weight);
        self.list.len() - 1
    }

    fn float(&mut self, m: &Model, value: ValueId, tensor: &Tensor) -> LeafId {
        let (shape, identity) = (tensor.shape.clone(), tensor.identity());
        let found = self.list.iter().position(|it| match &it.source {
            Source::Float { tensor, .. } => is_same(tensor, &identity),
            Source::Quantized(_) => false,
        });
        if let Some(index) = found {
            let Source::Float { tensor: first, .. } = &self.list[index].source else {
                unreachable!()
            };
            let transposed = first.identity() != identity;
            return self.push_leaf(index, transposed, shape);
        }
        let columns = shape.last().copied().unwrap_or(1);
        let kind = Kind::Float { rows: tensor.numel() / columns.max(1), columns };
        let name = m.value(value).name.to_string();
        let index =
            self.add(role(m, value), name, kind, Source::Float { value, tensor: tensor.clone() });
        self.push_leaf(index, false, shape)
    }

    fn quantized(
        &mut self,
        m: &Model,
        value: ValueId,
        codes: ValueId,
        source: Arc<dyn QSource>,
    ) -> Result<LeafId, TensorError> {
        let shape = m.constant(codes).map_or_else(|_| Vec::new(), |it| it.shape.clone());
        let transposed = is_by_column(m, codes);
        let same =
            |it: &Weight| matches!(&it.source, Source::Quantized(it) if Arc::ptr_eq(it, &source));
        let index = match self.list.iter().position(same) {
            Some(index) => index,
            None => {
                let matrix = source.solve(0..source.shape().n)?;
                let layout = if transposed { Layout::ByColumn } else { Layout::ByRow };
                let kind = Kind::Quantized(Box::new(Quantized::new(&matrix, layout)));
                self.add(
                    role(m, value),
                    m.value(value).name.to_string(),
                    kind,
                    Source::Quantized(source),
                )
            }
        };
        Ok(self.push_leaf(index, transposed, shape))
    }

    /// The elements of all leaves, as the model has them.
    pub fn leaves(&self) -> Result<Leaves<f32>, TensorError> {
        let of = |leaf: &Leaf| -> Result<Values<f32>, TensorError> {
            let weight = &self.list[leaf.weight];
            let values = match (&weight.kind, &weight.source) {
                (Kind::Quantized(it), _) => it.weight(&weight.theta, weight.rounded_from()),
                (_, Source::Float { tensor, .. }) => {
                    let is_left = weight.trained.is_none() && !leaf.transposed;
                    if is_left && f32::lying(tensor).is_some() {
                        return Ok(Values::Lying(tensor.clone()));
                    }
                    tensor.cast(DType::F32).to_f32()?
                }
                _ => unreachable!("a weight's kind is that of its source"),
            };
            Ok(Values::Own(weight.turned(values, leaf.transposed)))
        };
        Ok(Leaves(self.leaves.iter().map(of).collect::<Result<_, _>>()?))
    }

    /// Computes anew what follows from trained numbers.
    pub fn refresh(&self, leaves: &mut Leaves<f32>) {
        // Leaves of float weights that are seen from their side follow from the other leaf.
        let mut flipped = Vec::new();
        for (index, leaf) in self.leaves.iter().enumerate() {
            let weight = &self.list[leaf.weight];
            if weight.trained.is_some() && weight.is_float() && weight.first.0 != index {
                flipped.push((
                    index,
                    weight.turned(leaves.get(weight.first).to_vec(), leaf.transposed),
                ));
            }
        }
        for (index, values) in flipped {
            leaves.0[index] = Values::Own(values);
        }
        self.leaves.par_iter().zip(&mut leaves.0).for_each(|(leaf, values)| {
            let weight = &self.list[leaf.weight];
            if let (Kind::Quantized(it), Some(_), Values::Own(own)) =
                (&weight.kind, weight.trained, values)
            {
                let shadow = weight.rounded_from();
                match weight.is_by_column() == leaf.transposed {
                    true => it.fill(&weight.theta, shadow, own),
                    false => {
                        *own = weight.turned(it.weight(&weight.theta, shadow), leaf.transposed);
                    }
                }
            }
        });
    }

    /// What training changed.
    pub fn changes(&self, leaves: &Leaves<f32>) -> Vec<Change> {
        let trained = self.list.iter().filter(|it| it.trained.is_some());
        trained.map(|it| it.change(leaves)).collect()
    }

    /// How many numbers are trained.
    pub fn trained_numbers(&self) -> usize {
        let of = |it: &Weight| match it.trained {
            None => 0,
            Some(how) => {
                let (rows, columns) = it.extent();
                it.theta.len() + if how.rate.is_some() { rows * columns } else { 0 }
            }
        };
        self.list.iter().map(of).sum()
    }
}

impl Weight {
    pub fn is_float(&self) -> bool {
        matches!(self.kind, Kind::Float { .. })
    }

    /// Rows and columns.
    pub fn extent(&self) -> (usize, usize) {
        match &self.kind {
            Kind::Float { rows, columns } => (*rows, *columns),
            Kind::Quantized(it) => (it.shape.n, it.shape.k),
        }
    }

    /// What its rate is a multiple of.
    pub(crate) fn unit(&self) -> f32 {
        match &self.kind {
            Kind::Float { .. } => 1.0,
            Kind::Quantized(it) => it.step,
        }
    }

    /// The float weight that integers are rounded from, if it is trained.
    pub(crate) fn rounded_from(&self) -> Option<&[f32]> {
        (!self.shadow.is_empty()).then_some(&self.shadow[..])
    }

    fn is_by_column(&self) -> bool {
        matches!(&self.kind, Kind::Quantized(it) if it.layout == Layout::ByColumn)
    }

    /// Its numbers as a leaf has them.
    fn turned(&self, values: Vec<f32>, flip: bool) -> Vec<f32> {
        self.laid(values, self.is_by_column(), flip)
    }

    /// Numbers of a leaf as its own lie.
    pub(crate) fn returned(&self, values: Vec<f32>, flip: bool) -> Vec<f32> {
        self.laid(values, flip, self.is_by_column())
    }

    /// Numbers from one order to another, each by row or by column.
    fn laid(&self, values: Vec<f32>, from: bool, to: bool) -> Vec<f32> {
        let (rows, columns) = self.extent();
        match (from == to, to) {
            (true, _) => values,
            (false, true) => transposed(&values, rows, columns),
            (false, false) => transposed(&values, columns, rows),
        }
    }

    fn change(&self, leaves: &Leaves<f32>) -> Change {
        match (&self.source, &self.kind) {
            (Source::Quantized(source), Kind::Quantized(it)) => {
                let matrix = it.matrix(&self.theta, self.rounded_from());
                Change::Quantized { source: source.clone(), matrix: Box::new(matrix) }
            }
            (Source::Float { value, tensor }, _) => {
                let values = leaves.get(self.first).iter().copied();
                let tensor = Tensor::from_f32(&tensor.shape, values).cast(tensor.dtype);
                Change::Float { value: *value, tensor }
            }
            _ => unreachable!("a weight's kind is that of its source"),
        }
    }
}

/// Whether a tensor is the one with that identity, or the same seen from its side.
fn is_same(tensor: &Tensor, identity: &Option<Identity>) -> bool {
    let own = tensor.identity();
    let flipped = || (tensor.shape.len() == 2).then(|| tensor.transposed().identity()).flatten();
    identity.is_some() && (own == *identity || flipped() == *identity)
}

pub(crate) fn transposed<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const TILE: usize = 16;
    let mut out = vec![T::default(); values.len()];
    for i in (0..rows).step_by(TILE) {
        for j in (0..columns).step_by(TILE) {
            for row in i..(i + TILE).min(rows) {
                for column in j..(j + TILE).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

fn role(m: &Model, value: ValueId) -> Role {
    for user in &m.value(value).uses {
        let User::Node(node) = user.user else { continue };
        let op = &m.node(node).op;
        if op.info().is_some_and(|it| it.weight_inputs().contains(&user.index)) {
            return Role::Matrix;
        }
        if op.info().is_some_and(|it| it.gain.is_some()) {
            return Role::Norm;
        }
        let is_vector = m.constant(value).is_ok_and(|it| it.shape.len() == 1);
        if is_vector && (op.is("Add") || op.is("Sum") || op.is("Gemm")) {
            return Role::Bias;
        }
    }
    Role::Other
}

fn float_constant(m: &Model, value: ValueId) -> Option<&Tensor> {
    let tensor = m.constant(value).ok()?;
    (tensor.dtype.is_float() && tensor.numel() > 1 && tensor.quantized().is_none())
        .then_some(tensor)
}

/// The integers of a weight that `DequantizeLinear` makes of a quantized source, and the source.
fn quantized_parts(m: &Model, value: ValueId) -> Option<(ValueId, Arc<dyn QSource>)> {
    let node = m.producer(value, "DequantizeLinear").ok()?;
    let codes = m.operand(node, 0).ok()?;
    let (source, part, _) = m.constant(codes).ok()?.quantized()?;
    (part == Part::Quantized).then(|| (codes, source.clone()))
}

/// Whether a value is a quantized weight once it is dequantized.
pub(crate) fn is_weight(m: &Model, value: ValueId) -> bool {
    quantized_parts(m, value).is_some()
}

/// Whether the integers lie by column of the matrix, as products want them.
fn is_by_column(m: &Model, codes: ValueId) -> bool {
    use onnxq_ir::tensor::Packing;
    let packing = m.constant(codes).ok().and_then(Tensor::quantized).map(|it| it.2);
    matches!(packing, Some(Packing::Blocked | Packing::PerChannel | Packing::PerSlice(_)))
}
