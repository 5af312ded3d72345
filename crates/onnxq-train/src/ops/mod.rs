//! One row per operator: how a node becomes an [`Op`] with fixed shapes.

mod attention;
mod binary;
mod broadcast;
mod concat;
mod dequantize;
mod expand;
mod gather;
mod matmul;
mod norm;
mod permute;
mod reduce;
mod reshape;
mod rotary;
mod select;
mod skip_norm;
mod slice;
mod softmax;
#[cfg(test)]
mod tests;
mod unary;

use std::marker::PhantomData;

use onnxq_ir::{NoMatch, Op as OpName};

pub(crate) use self::softmax::softmax;
use crate::{
    lower::Site,
    real::Real,
    tape::{Op, SlotId},
};

/// What a row makes of a node.
pub(crate) struct Lowered<R> {
    pub op: Box<dyn Op<R>>,
    pub inputs: Vec<SlotId>,
    /// Of its first output.
    pub shape: Vec<usize>,
}

impl<R: Real> Lowered<R> {
    fn new(op: impl Op<R> + 'static, inputs: Vec<SlotId>, shape: Vec<usize>) -> Lowered<R> {
        Lowered { op: Box::new(op), inputs, shape }
    }
}

/// How nodes of an operator become steps.
pub(crate) struct Row<R> {
    /// The printed name of the operator.
    pub op: &'static str,
    /// By output of the node. The reason why it cannot be done is shown to the user.
    pub lower: fn(&mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch>,
}

/// The rows for a float type.
pub(crate) struct Table<R>(PhantomData<R>);

impl<R: Real> Table<R> {
    /// In alphabetical order.
    pub(crate) const ROWS: &'static [Row<R>] = &[
        Row { op: "Abs", lower: unary::abs },
        Row { op: "Add", lower: binary::add },
        Row { op: "Attention", lower: attention::attention },
        Row { op: "Cast", lower: reshape::cast },
        Row { op: "Clip", lower: unary::clip },
        Row { op: "Concat", lower: concat::concat },
        Row { op: "DequantizeLinear", lower: dequantize::dequantize },
        Row { op: "Div", lower: binary::div },
        Row { op: "Dropout", lower: reshape::identity },
        Row { op: "Erf", lower: unary::erf },
        Row { op: "Exp", lower: unary::exp },
        Row { op: "Expand", lower: expand::expand },
        Row { op: "Flatten", lower: reshape::flatten },
        Row { op: "Gather", lower: gather::gather },
        Row { op: "Gelu", lower: unary::gelu },
        Row { op: "Gemm", lower: matmul::gemm },
        Row { op: "Identity", lower: reshape::identity },
        Row { op: "LayerNormalization", lower: norm::layer_norm },
        Row { op: "Log", lower: unary::log },
        Row { op: "MatMul", lower: matmul::matmul },
        Row { op: "Max", lower: binary::max },
        Row { op: "Mul", lower: binary::mul },
        Row { op: "Neg", lower: unary::neg },
        Row { op: "Pow", lower: unary::pow },
        Row { op: "RMSNormalization", lower: norm::rms_norm },
        Row { op: "Reciprocal", lower: unary::reciprocal },
        Row { op: "ReduceMax", lower: reduce::max },
        Row { op: "ReduceMean", lower: reduce::mean },
        Row { op: "ReduceSum", lower: reduce::sum },
        Row { op: "Relu", lower: unary::relu },
        Row { op: "Reshape", lower: reshape::reshape },
        Row { op: "RotaryEmbedding", lower: rotary::rotary },
        Row { op: "Sigmoid", lower: unary::sigmoid },
        Row { op: "SimplifiedLayerNormalization", lower: norm::rms_norm },
        Row { op: "Slice", lower: slice::slice },
        Row { op: "Softmax", lower: softmax::along_axis },
        Row { op: "Split", lower: slice::split },
        Row { op: "Sqrt", lower: unary::sqrt },
        Row { op: "Squeeze", lower: reshape::squeeze },
        Row { op: "Sub", lower: binary::sub },
        Row { op: "Sum", lower: binary::add },
        Row { op: "Tanh", lower: unary::tanh },
        Row { op: "Transpose", lower: permute::transpose },
        Row { op: "Unsqueeze", lower: reshape::unsqueeze },
        Row { op: "Where", lower: select::select },
        Row { op: "com.microsoft.GroupQueryAttention", lower: attention::group_query },
        Row { op: "com.microsoft.QuickGelu", lower: unary::quick_gelu },
        Row { op: "com.microsoft.RotaryEmbedding", lower: rotary::rotary_of_microsoft },
        Row {
            op: "com.microsoft.SkipSimplifiedLayerNormalization",
            lower: skip_norm::skip_rms_norm,
        },
    ];

    pub(crate) fn find(op: &OpName) -> Option<&'static Row<R>> {
        Self::ROWS.iter().find(|it| op.is(it.op))
    }
}
