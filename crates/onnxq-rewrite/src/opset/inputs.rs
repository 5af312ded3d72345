//! Attributes that became inputs.

use super::edit::{Edit, Inputs, has_more_outputs, ints, known_dtype, number};
use onnxq_ir::{
    Model, NoMatch, NodeId, no_match,
    tensor::{DType, Tensor},
};

/// `Squeeze`, `ReduceSum` 13, other reductions 18: no axes mean all of them, before and after.
pub(super) fn axes_or_all(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    if let Some(axes) = it.take_ints("axes")?.filter(|axes| !axes.is_empty()) {
        it.set(1, "axes", ints(&axes));
    }
    Ok(it.done())
}

/// `Unsqueeze` 13.
pub(super) fn axes_required(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    let axes = it.take_ints("axes")?.ok_or(no_match!("it has no `axes`"))?;
    it.set(1, "axes", ints(&axes));
    Ok(it.done())
}

/// Limits left out are the largest numbers of a `float`, whatever the element type was.
pub(super) fn clip_11(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let dtype = known_dtype(m, m.operand(node, 0)?)?;
    let mut it = Inputs::of(m, node, 1)?;
    for (index, name, default) in [(1, "min", f32::MIN), (2, "max", f32::MAX)] {
        let limit = it.take_float(name)?.unwrap_or(default);
        // The new default is the largest number of the element type.
        if limit != default || dtype != DType::F32 {
            it.set(index, name, number(dtype, limit)?);
        }
    }
    Ok(it.done())
}

/// The axis was the second from the left, and is now the second from the right.
pub(super) fn dft_20(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 2)?;
    let axis = it.take_int("axis")?.unwrap_or(1);
    it.set(2, "axis", Tensor::from_i64(&[], [axis]));
    Ok(it.done())
}

const MASK: &str = "its mask has no defined values outside training before opset 12";

/// The mask became boolean.
pub(super) fn dropout_10(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    if has_more_outputs(m, node) {
        return Err(no_match!("{MASK}, and other element types before 10"));
    }
    Ok(Edit::keep(node))
}

pub(super) fn dropout_12(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    if has_more_outputs(m, node) {
        return Err(no_match!("{MASK}"));
    }
    let mut it = Inputs::of(m, node, 1)?;
    if let Some(ratio) = it.take_float("ratio")? {
        it.set(1, "ratio", Tensor::scalar(ratio));
    }
    Ok(it.done())
}

pub(super) fn pad_11(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    let pads = it.take_ints("pads")?.ok_or(no_match!("it has no `pads`"))?;
    it.set(1, "pads", ints(&pads));
    if let Some(value) = it.take_float("value")?.filter(|it| *it != 0.0) {
        let dtype = known_dtype(m, m.operand(node, 0)?)?;
        it.set(2, "value", number(dtype, value)?);
    }
    Ok(it.done())
}

pub(super) fn slice_10(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    for (index, name) in [(1, "starts"), (2, "ends")] {
        let list = it.take_ints(name)?.ok_or(no_match!("it has no `{name}`"))?;
        it.set(index, name, ints(&list));
    }
    if let Some(axes) = it.take_ints("axes")? {
        it.set(3, "axes", ints(&axes));
    }
    Ok(it.done())
}

pub(super) fn split_13(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    if let Some(sizes) = it.take_ints("split")? {
        it.set(1, "split", ints(&sizes));
    }
    Ok(it.done())
}

/// Without sizes, the number of parts must be said.
pub(super) fn split_18(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 2)?;
    if m.operand(node, 1).is_err() {
        it.set_attr("num_outputs", m.node(node).outputs.len());
    }
    Ok(it.done())
}

pub(super) fn top_k_10(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    let count = it.take_int("k")?.ok_or(no_match!("it has no `k`"))?;
    it.set(1, "k", ints(&[count]));
    Ok(it.done())
}

pub(super) fn upsample_9(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 1)?;
    let scales = it.take_floats("scales")?.ok_or(no_match!("it has no `scales`"))?;
    it.set(1, "scales", Tensor::from_f32(&[scales.len()], scales));
    Ok(it.done())
}
