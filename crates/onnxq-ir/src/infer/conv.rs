//! Windows that slide over space: convolutions and pools.

use super::{
    call::{Call, Types, tensor},
    dims,
    expr::Expr,
};
use crate::tensor::{DType, Dim, Shape, TensorType};

pub(super) fn conv(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0).or_else(|| c.dtype(1))?, conv_shape(c, 0, 1)))
}

pub(super) fn conv_integer(c: &Call) -> Option<TensorType> {
    Some(tensor(DType::I32, conv_shape(c, 0, 1)))
}

/// The shape of a convolution of inputs `x` and `w`.
pub(super) fn conv_shape(c: &Call, x: usize, w: usize) -> Option<Shape> {
    let (input, weight) = (c.shape(x), c.shape(w));
    let rank = input.as_ref().or(weight.as_ref())?.len();
    let mut shape = vec![c.dim(x, 0), c.dim(w, 0)];
    dims::of_rank(rank)?;
    for axis in 0..rank.checked_sub(2)? {
        let kernel = Kernel::of(c, axis, rank - 2, || c.dim(w, axis + 2).fixed());
        shape.push(kernel.slide(&c.dim(x, axis + 2), false));
    }
    Some(shape)
}

pub(super) fn conv_transpose(c: &Call) -> Option<TensorType> {
    let shape = || {
        let rank = c.rank(0).or_else(|| c.rank(1))?;
        let groups = Expr::from(c.int_or("group", 1));
        let mut shape = vec![c.dim(0, 0), dims::map(&c.dim(1, 1), |it| it.mul(&groups))];
        dims::of_rank(rank)?;
        for axis in 0..rank.checked_sub(2)? {
            let stated = c.ints_attr("output_shape").and_then(|it| it.get(axis));
            let kernel = Kernel::of(c, axis, rank - 2, || c.dim(1, axis + 2).fixed());
            let more = c.ints_attr("output_padding").and_then(|it| it.get(axis).copied());
            shape.push(match stated {
                Some(it) => dims::from_int(*it),
                None => kernel.spread(&c.dim(0, axis + 2), more.unwrap_or(0)),
            });
        }
        Some(shape)
    };
    Some(tensor(c.dtype(0).or_else(|| c.dtype(1))?, shape()))
}

/// The result, and the positions of the maxima.
pub(super) fn pool(c: &Call) -> Types {
    let shape = pool_shape(c);
    vec![c.dtype(0).map(|it| tensor(it, shape.clone())), Some(tensor(DType::I64, shape))]
}

pub(super) fn pool_shape(c: &Call) -> Option<Shape> {
    let mut shape = c.shape(0)?;
    let axes = shape.len().checked_sub(2)?;
    for (axis, dim) in shape.iter_mut().skip(2).enumerate() {
        *dim = Kernel::of(c, axis, axes, || None).slide(dim, c.flag("ceil_mode"));
    }
    Some(shape)
}

pub(super) fn global_pool(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, global_pool_shape(c)))
}

pub(super) fn global_pool_shape(c: &Call) -> Option<Shape> {
    let mut shape = c.shape(0)?;
    shape.iter_mut().skip(2).for_each(|it| *it = Dim::Fixed(1));
    Some(shape)
}

/// `[n, c, ...]` of the input, the sizes of the grid.
pub(super) fn grid_sample(c: &Call) -> Option<TensorType> {
    let shape = || {
        let grid = c.shape(1)?;
        let inner = grid.get(1..grid.len().checked_sub(1)?)?;
        Some([c.dim(0, 0), c.dim(0, 1)].iter().chain(inner).cloned().collect())
    };
    Some(tensor(c.dtype(0)?, shape()))
}

pub(super) fn roi_align(c: &Call) -> Option<TensorType> {
    let side = |name| dims::from_int(c.int_or(name, 1));
    let (height, width) = (side("output_height"), side("output_width"));
    Some(TensorType::new(c.dtype(0)?, [c.dim(1, 0), c.dim(0, 1), height, width]))
}

/// A window along one axis.
struct Kernel {
    size: Option<i64>,
    stride: i64,
    dilation: i64,
    /// At both ends together.
    pads: Option<i64>,
    begin: i64,
    same: bool,
}

impl Kernel {
    fn of(c: &Call, axis: usize, axes: usize, size: impl Fn() -> Option<usize>) -> Kernel {
        let at = |name: &str, axis: usize| c.ints_attr(name).and_then(|it| it.get(axis).copied());
        let size = at("kernel_shape", axis).or_else(|| i64::try_from(size()?).ok());
        let begin = at("pads", axis).unwrap_or(0);
        let pads = begin.checked_add(at("pads", axis + axes).unwrap_or(0));
        let auto = c.str_attr("auto_pad");
        Kernel {
            size: size.filter(|it| *it > 0),
            stride: at("strides", axis).unwrap_or(1),
            dilation: at("dilations", axis).unwrap_or(1),
            pads: if auto == b"VALID" { Some(0) } else { pads },
            begin,
            same: auto.starts_with(b"SAME"),
        }
    }

    /// What the window covers.
    fn reach(&self) -> Option<i64> {
        (self.size? - 1).checked_mul(self.dilation)?.checked_add(1)
    }

    /// How many places the window has.
    fn slide(&self, dim: &Dim, ceil: bool) -> Dim {
        dims::map(dim, |dim| {
            if self.same {
                return dim.div_ceil(self.stride);
            }
            let room = dim.add(&Expr::from(self.pads?.checked_sub(self.reach()?)?))?;
            if !ceil {
                return room.div_floor(self.stride)?.add(&Expr::from(1));
            }
            let count = room.div_ceil(self.stride)?.add(&Expr::from(1))?;
            if room.div_exact(&Expr::from(self.stride)).is_some() {
                return Some(count);
            }
            // The last window must begin inside the input or the padding before it.
            let last = count.constant()?.checked_sub(1)?.checked_mul(self.stride)?;
            let inside = last < dim.constant()?.checked_add(self.begin)?;
            count.sub(&Expr::from(i64::from(!inside)))
        })
    }

    /// The size that the window spreads to when it slides over the output.
    fn spread(&self, dim: &Dim, more: i64) -> Dim {
        dims::map(dim, |dim| {
            if self.same {
                return dim.scale(self.stride);
            }
            let edge = self.reach()?.checked_sub(self.pads?)?.checked_add(more)?;
            dim.sub(&Expr::from(1))?.scale(self.stride)?.add(&Expr::from(edge))
        })
    }
}
