//! Large weights behind a `DequantizeLinear` that ONNX Runtime does not fuse.
//!
//! It fuses `MatMul(x, DQ(w))`, and `Gemm` without transB, where `w` has one scale of shape `[]`,
//! a scale per column or blocks along axis 0, and products whose activation is dequantized too.
//! All else is dequantized in each run.

use super::{
    super::model_index::{Grain, LARGE},
    Factor, Found, ModelIndex, Severity, factor,
};
use onnxq_ir::{
    NodeId,
    ops::{Layout, Traits},
};

const DEQUANTIZED: Option<Factor> =
    factor(1.2, 7.0, "unfused DequantizeLinear and MatMul against float MatMul, 384×1536");

/// Why a weight is not fused with a user of it.
#[derive(Clone, Copy, PartialEq)]
enum Miss {
    PerTensor,
    Transposed,
    Axis,
    Gemm,
    Gather,
    Conv,
    Other,
}

/// The first user that takes this weight in float, and why.
fn miss(l: &ModelIndex, dq: NodeId, wanted: &[Miss]) -> Option<(NodeId, Miss)> {
    let w = l.dequantized(dq)?;
    if w.quantized.numel() <= LARGE {
        return None;
    }
    let miss = |(user, index): (NodeId, usize)| {
        let it = why(l, user, index, w.grain, w.quantized.shape.len())?;
        wanted.contains(&it).then_some((user, it))
    };
    l.users(dq).into_iter().find_map(miss)
}

fn why(l: &ModelIndex, user: NodeId, index: usize, grain: Grain, rank: usize) -> Option<Miss> {
    if l.is(user, "MatMul") && index == 1 {
        let is_static = l.is_quantized_activation(user, 0);
        return match grain {
            Grain::Scalar | Grain::Tensor if is_static => None,
            Grain::Scalar if rank == 2 => None,
            Grain::Tensor => Some(Miss::PerTensor),
            Grain::Channel { axis } if is_static || rank == 2 && axis == 1 => None,
            Grain::Blocks { axis: 0, .. } if rank == 2 => None,
            _ => Some(Miss::Axis),
        };
    }
    let fits = match grain {
        Grain::Channel { axis } => axis == 1,
        Grain::Blocks { axis, .. } => axis == 0,
        Grain::Scalar => true,
        Grain::Tensor => false,
    };
    if l.is(user, "Gemm") && index == 1 && l.m.int_attr(user, "transB", 0) == 0 && fits {
        return None;
    }
    let is_static = || index == 1 && l.is_quantized_activation(user, 0);
    match l.m.node(user).op.float_layout() {
        Some(Layout::Table) if index == 0 => Some(Miss::Gather),
        Some(Layout::Gemm | Layout::Conv | Layout::ConvTranspose) if is_static() => None,
        Some(Layout::Gemm) if index == 1 => Some(Miss::Gemm),
        Some(Layout::Conv | Layout::ConvTranspose) => Some(Miss::Conv),
        _ if l.is(user, "Transpose") => Some(Miss::Transposed),
        // Behind these the tensor is quantized again, or belongs to another form.
        _ if l.has(user, Traits::QUANTIZE) => None,
        _ => Some(Miss::Other),
    }
}

fn slow(what: &str, factor: Option<Factor>, hint: &'static str) -> Found {
    Found { severity: Severity::Slow, what: what.into(), factor, hint, fix: None }
}

pub(super) fn per_tensor(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    miss(l, dq, &[Miss::PerTensor])?;
    let hint = "repeat the scale for each column (axis 1): ONNX Runtime then fuses to MatMulNBits";
    let found = slow("one scale of shape [1] for the weight of a MatMul", DEQUANTIZED, hint);
    Some(Found { fix: Some(("per-channel-scales", dq)), ..found })
}

pub(super) fn transposed(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    let (user, _) = miss(l, dq, &[Miss::Transposed])?;
    let factor = factor(5.0, 7.0, "blocks, DequantizeLinear and Transpose before MatMul, one row");
    let found = slow(
        "a Transpose between it and the product",
        factor,
        "store the weight's quantized values transposed, and move the axis",
    );
    Some(Found { fix: Some(("transpose-of-dequantized", user)), ..found })
}

pub(super) fn wrong_axis(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    miss(l, dq, &[Miss::Axis])?;
    Some(slow(
        "scales of a MatMul's weight along an axis that is not fused",
        DEQUANTIZED,
        "scales must go with columns, or blocks along axis 0 of a matrix: quantize the float model \
         again (`convert --to float`)",
    ))
}

pub(super) fn gemm(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    let (user, _) = miss(l, dq, &[Miss::Gemm])?;
    let found = slow(
        "the weight of a Gemm",
        DEQUANTIZED,
        "write MatMul and Add, the quantized values transposed if the Gemm transposes them",
    );
    Some(Found { fix: Some(("gemm-of-dequantized", user)), ..found })
}

pub(super) fn gather(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    let (user, _) = miss(l, dq, &[Miss::Gather])?;
    let factor = factor(33.0, 585.0, "a table of 32000×768, 512 rows to 1 row");
    let found = slow(
        "the table of a Gather",
        factor,
        "gather the quantized values and dequantize those rows, or use GatherBlockQuantized",
    );
    Some(Found { fix: Some(("gather-of-dequantized", user)), ..found })
}

pub(super) fn other(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    let (user, miss) = miss(l, dq, &[Miss::Conv, Miss::Other])?;
    if miss == Miss::Conv {
        return Some(slow(
            "the weight of a convolution whose activation is float",
            factor(1.1, 7.1, "int8 weights only against float Conv"),
            "quantize its activation too (static QDQ), or leave the weight in float",
        ));
    }
    Some(slow(
        &format!("a large constant for {}", l.m.node(user).op),
        None,
        "keep it in float, or in a form that has a kernel",
    ))
}

/// What ONNX Runtime makes of the pattern has blocks of 32 if the scales are per column.
pub(super) fn fused_at_load(l: &ModelIndex, dq: NodeId) -> Option<Found> {
    let w = l.dequantized(dq).filter(|it| it.quantized.numel() > LARGE)?;
    let rank = w.quantized.shape.len();
    let fused = |(user, index): &(NodeId, usize)| {
        l.is(*user, "MatMul")
            && *index == 1
            && !l.is_quantized_activation(*user, 0)
            && why(l, *user, *index, w.grain, rank).is_none()
    };
    l.users(dq).iter().find(|it| fused(it))?;
    Some(Found {
        severity: Severity::Advice,
        what: "ONNX Runtime makes MatMulNBits of it each time it loads the model".into(),
        factor: factor(
            2.6,
            5.0,
            "CPU time to load 16 layers of 4096×4096; memory 1.8 to 2.5 times",
        ),
        hint: "write MatMulNBits (`onnxq convert --to matmul_nbits`), unless the model is meant for \
               other runtimes",
        fix: None,
    })
}
