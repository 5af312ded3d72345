//! What checks ask of a model.

use std::collections::BTreeMap;

use crate as rewrite;
use onnxq_ir::{
    Def, GraphId, Model, NodeId, User, ValueId,
    ctx::Ctx,
    ops::{OpInfo, QuantizedOp, Set, Traits},
    tensor::{DType, Tensor},
};

/// Dequantizing fewer elements in each run does not matter.
pub(super) const LARGE: usize = 4096;

/// A model whose types are inferred, and what is known of the whole of it.
pub struct ModelIndex {
    pub m: Model,
    /// It has nodes that compute with quantized weights.
    pub is_quantized: bool,
    /// The first `DynamicQuantizeLinear` of each value.
    pub dynamic: BTreeMap<(GraphId, ValueId), NodeId>,
}

/// A `DequantizeLinear` of a constant weight.
pub struct Dequantized<'a> {
    pub quantized: &'a Tensor,
    pub grain: Grain,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// One scale of shape `[]`, which ONNX Runtime fuses.
    Scalar,
    /// One scale of shape `[1]`, which it does not.
    Tensor,
    Channel {
        axis: usize,
    },
    Blocks {
        axis: usize,
        block: i64,
    },
}

impl ModelIndex {
    pub fn new(model: &Model) -> ModelIndex {
        let mut m = model.clone();
        let inferred = rewrite::run(&mut m, &["infer-types"], &Ctx::silent());
        debug_assert!(inferred.is_ok(), "inference has no errors");
        let (mut is_quantized, mut dynamic) = (false, BTreeMap::new());
        for node in m.nodes() {
            let it = m.node(node);
            is_quantized |= it.op.info().is_some_and(OpInfo::has_quantized_weights);
            if let (true, Ok(x)) = (it.op.is("DynamicQuantizeLinear"), m.operand(node, 0)) {
                dynamic.entry((it.graph, x)).or_insert(node);
            }
        }
        ModelIndex { m, is_quantized, dynamic }
    }

    pub fn is(&self, node: NodeId, op: &str) -> bool {
        self.m.node(node).op.is(op)
    }

    /// Whether the operator is known to have one of the traits.
    pub fn has(&self, node: NodeId, traits: Traits) -> bool {
        self.m.node(node).op.has(traits)
    }

    /// Whether the operator belongs to a set.
    pub fn is_in(&self, node: NodeId, set: Set) -> bool {
        self.m.node(node).op.is_in(set)
    }

    /// Where the operator has quantized values and their scales, if it reads or makes any.
    pub fn quantized(&self, node: NodeId) -> Option<&'static QuantizedOp> {
        self.m.node(node).op.quantized()
    }

    /// The constant that is input `index`.
    pub fn constant(&self, node: NodeId, index: usize) -> Option<&Tensor> {
        self.m.constant(self.input(node, index)?).ok()
    }

    pub fn input(&self, node: NodeId, index: usize) -> Option<ValueId> {
        self.m.node(node).inputs.get(index).copied().flatten()
    }

    pub fn dtype(&self, node: NodeId, index: usize) -> Option<DType> {
        self.m.dtype(self.input(node, index)?)
    }

    /// Nodes that use the first output, and at which input.
    pub fn users(&self, node: NodeId) -> Vec<(NodeId, usize)> {
        let Some(output) = self.m.node(node).outputs.first() else { return Vec::new() };
        let uses = self.m.value(*output).uses.iter();
        let node = |it: &onnxq_ir::Use| match it.user {
            User::Node(node) => Some((node, it.index)),
            _ => None,
        };
        uses.filter_map(node).collect()
    }

    /// The node that computes input `index`.
    pub fn producer(&self, node: NodeId, index: usize) -> Option<NodeId> {
        match self.m.value(self.input(node, index)?).def {
            Def::Node(it) => Some(it),
            _ => None,
        }
    }

    /// Whether input `index` is an activation in 8 bits behind a `DequantizeLinear`.
    pub fn is_quantized_activation(&self, node: NodeId, index: usize) -> bool {
        let Some(dq) = self.producer(node, index) else { return false };
        self.has(dq, Traits::DEQUANTIZE) && self.constant(dq, 0).is_none()
    }

    /// A weight of at least two dimensions that is dequantized here.
    pub fn dequantized(&self, node: NodeId) -> Option<Dequantized<'_>> {
        let quantized = self.constant(node, 0).filter(|it| it.shape.len() >= 2)?;
        if !self.has(node, Traits::DEQUANTIZE) || !is_quantized_type(quantized.dtype) {
            return None;
        }
        Some(Dequantized { quantized, grain: self.grain(node, quantized.shape.len())? })
    }

    /// How many elements share a scale of this `QuantizeLinear` or `DequantizeLinear`.
    pub fn grain(&self, node: NodeId, rank: usize) -> Option<Grain> {
        let axis = self.m.int_attr(node, "axis", 1);
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        let axis = usize::try_from(axis).ok()?;
        let scale = self.m.value(self.input(node, 1)?).ty.as_ref()?.fixed_shape()?;
        Some(match self.m.int_attr(node, "block_size", 0) {
            0 if scale.is_empty() => Grain::Scalar,
            0 if scale.iter().product::<usize>() == 1 => Grain::Tensor,
            0 => Grain::Channel { axis },
            block => Grain::Blocks { axis, block },
        })
    }
}

/// Integers of at most 8 bits.
pub fn is_quantized_type(dtype: DType) -> bool {
    use DType::{I2, I4, I8, U2, U4, U8};
    matches!(dtype, U8 | I8 | U4 | I4 | U2 | I2)
}
