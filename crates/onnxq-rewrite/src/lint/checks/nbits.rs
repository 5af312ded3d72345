//! `MatMulNBits`: attributes and inputs that keep it from its fast kernels.

use super::{Found, ModelIndex, Severity, factor};
use crate::rules::must_not_be_constant;
use onnxq_ir::{
    NodeId,
    ops::{Set, Traits},
};

const OP: &str = "com.microsoft.MatMulNBits";

pub(super) fn accuracy_level(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, OP) || l.m.int_attr(node, "accuracy_level", 0) == 4 {
        return None;
    }
    let bits = l.m.int_attr(node, "bits", 4);
    let factor = match bits {
        4 => factor(1.5, 2.0, "4 bits, accuracy level 0 against 4, one row"),
        _ => factor(16.0, 30.0, "8 and 2 bits, accuracy level 0 against 4, one row"),
    };
    let level = match l.m.int_attr(node, "accuracy_level", 0) {
        0 => "unset".to_owned(),
        it => it.to_string(),
    };
    Some(Found {
        severity: Severity::Slow,
        what: format!("accuracy_level is {level} with {bits} bits"),
        factor,
        hint: "set accuracy_level to 4: the kernel then quantizes activations to int8 for each row \
               and block, which changes results by 0.5 to 0.8 %",
        fix: Some(("accuracy-level", node)),
    })
}

pub(super) fn float_zero_points(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let dtype = l.dtype(node, 3)?;
    (l.is(node, OP) && dtype.is_float()).then(|| Found {
        severity: Severity::Slow,
        what: format!("zero points are {dtype}"),
        factor: factor(
            85.0,
            120.0,
            "4 bits with float zero points against none, 2048×8192, one row",
        ),
        hint: "store zero points as packed integers; those that are no integers need the weight to \
               be quantized again (`convert --to float`, then `quantize`)",
        fix: Some(("integer-zero-points", node)),
    })
}

pub(super) fn block(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, OP) {
        return None;
    }
    let block = l.m.int_attr(node, "block_size", 0);
    let found =
        |severity, what, factor, hint| Some(Found { severity, what, factor, hint, fix: None });
    let bits = l.m.int_attr(node, "bits", 4);
    match block {
        16 | 256 if bits == 2 => found(
            Severity::Slow,
            format!("2 bits in blocks of {block}"),
            factor(11.0, 590.0, "blocks of 256 against 128: 64 rows, one row"),
            "no kernel multiplies them, each run dequantizes the weight; 2 bits need blocks of 64 or 128",
        ),
        32 if bits == 2 => found(
            Severity::Advice,
            "2 bits in blocks of 32".into(),
            factor(2.7, 3.4, "blocks of 32 against 128: one row, 64 rows"),
            "4 bits in blocks of 32 are faster; 2 bits are fast in blocks of 64 and 128",
        ),
        16 | 32 => found(
            Severity::Advice,
            format!("blocks of {block}"),
            factor(1.28, 1.5, "blocks of 32 against 128: one row, 128 rows"),
            "blocks of 128 are the sweet spot if accuracy allows; quantize the float model again",
        ),
        64 | 128 | 256 => None,
        // ONNX Runtime 1.32 takes them.
        512 if bits == 4 || bits == 8 => None,
        it if it > 256 => found(
            Severity::Broken,
            format!("blocks of {block}"),
            None,
            "CPU kernels take blocks of at most 256, or 512 of 4 and 8 bits; larger ones are refused or give zeros",
        ),
        _ => found(
            Severity::Broken,
            format!("blocks of {block}"),
            None,
            "the block size must be a power of two from 16 to 256, or 512 of 4 and 8 bits",
        ),
    }
}

pub(super) fn group_index(l: &ModelIndex, node: NodeId) -> Option<Found> {
    (l.is(node, OP) && l.input(node, 4).is_some()).then(|| Found {
        severity: Severity::Slow,
        what: "it has group indices (g_idx)".into(),
        factor: factor(3.7, 110.0, "1024×4096, 4 bits, 128 rows and one row"),
        hint: "quantize without reordering of columns (act-order), or permute the weight's rows \
               and the activation instead",
        fix: None,
    })
}

pub(super) fn computed(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let is_computed = |index: usize| {
        let Some(value) = l.input(node, index) else { return false };
        l.m.constant(value).is_err() && !is_cast_of_constant(l, node, index)
    };
    (l.is(node, OP) && [1, 2, 3].into_iter().any(is_computed)).then(|| Found {
        severity: Severity::Slow,
        what: "its weight is not constant, so it is not prepacked".into(),
        factor: factor(3.2, 200.0, "1024×4096, 4 bits, 128 rows and one row"),
        hint: "make weight, scales and zero points initializers that are no inputs of the graph",
        fix: None,
    })
}

pub(super) fn computed_scales(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let is_wrong = must_not_be_constant(&l.m, node, 1) && l.constant(node, 1).is_some();
    is_wrong.then(|| Found {
        severity: Severity::Broken,
        what: "its weight is constant, its scales or zero points are computed".into(),
        factor: None,
        hint: "ONNX Runtime packs the weight without them and computes zeros, with scales behind a Cast \
               in sessions without optimizations; an Identity before the weight prevents that",
        fix: Some(("computed-scales", node)),
    })
}

const COMPUTED_AT_LOAD: Set = Set::of(Traits::CAST.union(Traits::COPY)).plus(&["Reshape"]);

/// ONNX Runtime computes this when it loads the model.
fn is_cast_of_constant(l: &ModelIndex, node: NodeId, index: usize) -> bool {
    l.producer(node, index)
        .is_some_and(|it| l.is_in(it, COMPUTED_AT_LOAD) && l.constant(it, 0).is_some())
}
