//! One node at inference: the types and small values of its inputs, its attributes.

use super::{
    data::{Data, MAX_CONSTANT},
    expr::Expr,
    walk::Walk,
};
pub(super) use crate::tensor::position;
use crate::{
    ir::{Attr, Def, GraphId, Model, Name, Node, ValueId, normal_domain},
    tensor::{DType, Dim, Shape, Tensor, TensorType},
};

/// What a row of the table sees. Every question may go unanswered.
pub struct Call<'a> {
    pub model: &'a Model,
    pub node: &'a Node,
    walk: &'a Walk<'a>,
}

/// Types of the outputs, in order; those that are missing at the end are unknown.
pub(super) type Types = Vec<Option<TensorType>>;

/// A type whose shape may be unknown.
pub(super) fn tensor(dtype: DType, shape: Option<Shape>) -> TensorType {
    TensorType { dtype, shape }
}

impl<'a> Call<'a> {
    pub(super) fn new(walk: &'a Walk<'a>, node: &'a Node) -> Call<'a> {
        Call { model: walk.model, node, walk }
    }

    fn input(&self, index: usize) -> Option<ValueId> {
        self.node.inputs.get(index).copied().flatten()
    }

    /// Whether input `index` is given.
    pub fn has(&self, index: usize) -> bool {
        self.input(index).is_some()
    }

    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }

    pub fn outputs(&self) -> usize {
        self.node.outputs.len()
    }

    pub fn ty(&self, index: usize) -> Option<TensorType> {
        self.type_of(self.input(index)?)
    }

    fn type_of(&self, id: ValueId) -> Option<TensorType> {
        let it = self.model.value(id);
        let declared = || match &it.def {
            Def::Const(tensor) | Def::Input(_, Some(tensor)) => {
                Some(TensorType::new(tensor.dtype, tensor.shape.iter().copied()))
            }
            _ => None,
        };
        self.walk.types.get(&id).or(it.ty.as_ref()).cloned().or_else(declared)
    }

    pub fn dtype(&self, index: usize) -> Option<DType> {
        Some(self.ty(index)?.dtype)
    }

    pub fn shape(&self, index: usize) -> Option<Shape> {
        self.ty(index)?.shape
    }

    pub fn rank(&self, index: usize) -> Option<usize> {
        Some(self.shape(index)?.len())
    }

    /// One dimension of an input; unknown if there is none.
    pub fn dim(&self, index: usize, axis: usize) -> Dim {
        self.shape(index).and_then(|it| it.get(axis).cloned()).unwrap_or(Dim::Unknown)
    }

    /// The constant tensor of an input, if it has few elements: reading may be expensive.
    fn constant(&self, index: usize) -> Option<&'a Tensor> {
        let tensor = self.model.constant(self.input(index)?).ok()?;
        let numel = tensor.shape.iter().try_fold(1usize, |n, it| n.checked_mul(*it))?;
        (numel <= MAX_CONSTANT).then_some(tensor)
    }

    /// The elements of an input, as far as they are whole numbers or sizes.
    pub fn data(&self, index: usize) -> Option<Data> {
        let computed = self.walk.data.get(&self.input(index)?).cloned();
        computed.or_else(|| Data::of_tensor(self.constant(index)?))
    }

    /// The elements of an input, all known numbers.
    pub fn ints(&self, index: usize) -> Option<Vec<i64>> {
        self.data(index)?.constants()
    }

    /// The only element of an input.
    pub fn scalar(&self, index: usize) -> Option<Expr> {
        match &self.data(index)?.items[..] {
            [it] => it.clone(),
            _ => None,
        }
    }

    /// The elements of a constant float input.
    pub fn floats(&self, index: usize) -> Option<Vec<f32>> {
        self.constant(index)?.to_f32().ok()
    }

    /// An attribute; inside a function body, that of the calling node where it refers to one.
    pub fn attr(&self, name: &str) -> Option<&'a Attr> {
        match self.node.attrs.get(name)? {
            Attr::Ref { name, .. } => self.walk.scope.attrs.get(name),
            it => Some(it),
        }
    }

    pub fn int_attr(&self, name: &str) -> Option<i64> {
        self.attr(name)?.as_int()
    }

    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int_attr(name).unwrap_or(default)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.int_or(name, 0) != 0
    }

    pub fn ints_attr(&self, name: &str) -> Option<&'a [i64]> {
        self.attr(name)?.as_ints()
    }

    pub fn floats_attr(&self, name: &str) -> Option<&'a [f32]> {
        self.attr(name)?.as_floats()
    }

    /// A string attribute; empty if missing.
    pub fn str_attr(&self, name: &str) -> &'a [u8] {
        self.attr(name).and_then(Attr::as_bytes).unwrap_or_default()
    }

    /// An element type given by its ONNX number. 0 says nothing.
    pub fn dtype_attr(&self, name: &str) -> Option<DType> {
        DType::from_number(i32::try_from(self.int_attr(name)?).ok()?)
    }

    /// The attribute `axis` as a position among `len`.
    pub fn axis(&self, default: i64, len: usize) -> Option<usize> {
        position(self.int_or("axis", default), len)
    }

    /// Axes from an attribute in old operator sets, from input `index` in newer ones.
    /// `Some(None)`: not given; `None`: given, but not known.
    pub fn axes(&self, index: usize) -> Option<Option<Vec<i64>>> {
        if let Some(it) = self.ints_attr("axes") {
            return Some(Some(it.to_vec()));
        }
        if self.has(index) { self.ints(index).map(Some) } else { Some(None) }
    }

    /// The version of the standard operator set here.
    pub fn opset(&self) -> i64 {
        let standard = |it: &&(Name, i64)| normal_domain(&it.0).is_empty();
        self.walk.scope.opsets.iter().find(standard).map_or(0, |it| it.1)
    }

    pub(super) fn body(&self, attr: &str) -> Option<GraphId> {
        self.node.attrs.get(attr)?.as_graph()
    }

    /// What is known of the outputs of a body.
    pub fn body_outputs(&self, attr: &str) -> Types {
        let outputs = self.body(attr).map(|it| &self.model.graph(it).outputs[..]);
        outputs.unwrap_or_default().iter().map(|it| self.type_of(*it)).collect()
    }
}
