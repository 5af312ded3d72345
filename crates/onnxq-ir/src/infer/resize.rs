//! `Resize` and `Upsample`: sizes from a list of sizes or of factors.

use super::{
    call::{Call, position, tensor},
    dims,
    expr::Expr,
};
use crate::tensor::{Dim, Shape, TensorType};

pub(super) fn resize(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype(0)?;
    let Some(shape) = c.shape(0) else { return Some(tensor(dtype, None)) };
    let resized = resized(c, &shape).or_else(|| dims::of_rank(shape.len()));
    Some(tensor(dtype, resized))
}

fn resized(c: &Call, shape: &Shape) -> Option<Shape> {
    let axes: Vec<usize> = match c.ints_attr("axes") {
        Some(axes) => axes.iter().map(|it| position(*it, shape.len())).collect::<Option<_>>()?,
        None => (0..shape.len()).collect(),
    };
    let (mode, policy) =
        (c.str_attr("coordinate_transformation_mode"), c.str_attr("keep_aspect_ratio_policy"));
    let new: Vec<Dim> = match sizes(c) {
        Some(_) if !matches!(policy, b"" | b"stretch") => return None,
        Some(it) => it,
        None if mode == b"tf_crop_and_resize" => return None,
        None => {
            let scales = scales(c).filter(|it| it.len() == axes.len())?;
            axes.iter().zip(scales).map(|(axis, by)| scaled(&shape[*axis], by)).collect()
        }
    };
    if new.len() != axes.len() {
        return None;
    }
    let mut out = shape.clone();
    axes.into_iter().zip(new).for_each(|(axis, dim)| out[axis] = dim);
    Some(out)
}

fn sizes(c: &Call) -> Option<Vec<Dim>> {
    let data = c.data(3).filter(|it| !it.items.is_empty())?;
    Some(data.items.into_iter().map(dims::to_dim).collect())
}

/// An attribute at first, then the second input, then the third, after a region.
fn scales(c: &Call) -> Option<Vec<f32>> {
    if let Some(it) = c.floats_attr("scales") {
        return Some(it.to_vec());
    }
    c.floats(if c.inputs() > 2 { 2 } else { 1 })
}

fn scaled(dim: &Dim, by: f32) -> Dim {
    const MOST: f32 = (1 << 20) as f32;
    let whole = |it: f32| (it.fract() == 0.0 && (1.0..MOST).contains(&it)).then_some(it as i64);
    match (whole(by), whole(by.recip())) {
        (Some(by), _) => dims::map(dim, |it| it.scale(by)),
        (None, Some(by)) => dims::map(dim, |it| it.div_floor(by)),
        (None, None) => match dim.fixed() {
            // The product is made in single precision, as the standard and its runtimes do.
            Some(it) if (0.0..MOST).contains(&by) => dims::to_dim(floor(it as f32 * by)),
            _ => Dim::Unknown,
        },
    }
}

fn floor(it: f32) -> Option<Expr> {
    (it.is_finite() && it < 1e15).then(|| Expr::from(it.floor() as i64))
}
