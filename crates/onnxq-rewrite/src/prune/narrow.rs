//! Takes hidden channels out of a feed-forward block.

use super::{
    PruneError,
    width::{Cut, FeedForward, feed_forward},
};
use onnxq_ir::{
    Attr, Model, NodeId,
    tensor::{Dim, Tensor, TensorError},
};

/// Keeps some of the hidden channels of a layer's feed-forward block, or leaves the model as it is.
/// They are numbered from 0, in ascending order.
///
/// # Errors
/// E412 if there is no such block, or the channels are not some of its.
pub fn narrow_feed_forward(
    model: &mut Model,
    layer: usize,
    keep: &[usize],
) -> Result<(), PruneError> {
    let block = feed_forward(model, layer)?;
    check(layer, &block, keep)?;
    if keep.len() == block.width {
        return Ok(());
    }
    let mut m = model.clone();
    for it in &block.cuts {
        cut(&mut m, it, &block, keep)?;
    }
    for (&value, parts) in &block.values {
        if let Some(last) =
            m.value_mut(value).ty.as_mut().and_then(|it| it.shape.as_mut()?.last_mut())
        {
            *last = Dim::Fixed(keep.len() * parts);
        }
    }
    for &node in &block.splits {
        resize(&mut m, node, keep.len());
    }
    m.remove_all_dead();
    *model = m;
    Ok(())
}

fn check(layer: usize, block: &FeedForward, keep: &[usize]) -> Result<(), PruneError> {
    let wrong =
        |channel: usize, reason: &'static str| Err(PruneError::Channel { layer, channel, reason });
    if let Some(&channel) = keep.iter().find(|it| **it >= block.width) {
        return wrong(channel, "the block has fewer channels");
    }
    if let Some(pair) = keep.windows(2).find(|it| it[0] >= it[1]) {
        return wrong(pair[1], "channels must be named once each, in ascending order");
    }
    match keep {
        [] => Err(PruneError::Width { layer, reason: "no channel would be left".into() }),
        _ => Ok(()),
    }
}

fn cut(m: &mut Model, place: &Cut, block: &FeedForward, keep: &[usize]) -> Result<(), PruneError> {
    let Some(value) = m.node(place.node).inputs[place.input] else { return Ok(()) };
    let name = m.value(value).name.clone();
    let failed = |reason: String| PruneError::Weight { weight: name.to_string(), reason };
    let tensor = m.constant(value).map_err(|it| failed(it.0.into_owned()))?;
    let all = (0..place.parts).flat_map(|part| keep.iter().map(move |at| part * block.width + at));
    let taken = taken(tensor, place.axis, all.collect()).map_err(|it| failed(it.to_string()))?;
    let main = m.main;
    let new = m.add_constant(main, &name, taken);
    m.value_mut(new).kept = m.value(value).kept.clone();
    m.set_input(place.node, place.input, Some(new));
    Ok(())
}

/// Some places of an axis, in the order given: a view, whose bytes are made when read.
fn taken(tensor: &Tensor, axis: usize, places: Vec<usize>) -> Result<Tensor, TensorError> {
    let bits = tensor.dtype.bits();
    if !bits.is_multiple_of(8) {
        return Err(TensorError::NotFloat(tensor.dtype));
    }
    let mut shape = tensor.shape.clone();
    let size = std::mem::replace(&mut shape[axis], places.len());
    let row = shape[axis + 1..].iter().product::<usize>() * (bits / 8);
    let base = tensor.clone();
    Ok(Tensor::lazy(tensor.dtype, shape, move || {
        let bytes = base.bytes()?;
        let blocks = bytes.chunks_exact((size * row).max(1));
        let rows = blocks.flat_map(|block| places.iter().map(move |at| &block[at * row..][..row]));
        Ok(rows.collect::<Vec<&[u8]>>().concat().into())
    }))
}

/// States the new sizes of equal parts, where they are stated.
fn resize(m: &mut Model, node: NodeId, size: usize) {
    let sizes = vec![i64::try_from(size).unwrap_or(i64::MAX); m.node(node).outputs.len()];
    if m.node(node).inputs.get(1).copied().flatten().is_some() {
        let main = m.main;
        let tensor = Tensor::from_i64(&[sizes.len()], sizes);
        let new = m.add_constant(main, "split_sizes", tensor);
        m.set_input(node, 1, Some(new));
    } else if m.node(node).attrs.get("split").is_some() {
        m.set_attr(node, "split", Attr::Ints(sizes));
    }
}
