//! The simulation for a planned site: its rows, its layout, some of its weight.

use ndarray::Array2;

use super::{Layout, SampledRows, Saturation, simulate};
use crate::{
    ops::{Site, Weight},
    window::{Patches, Window},
};
use onnxq_ir::{
    Model, NoMatch, no_match,
    tensor::{DType, Tensor, TensorError},
};
use onnxq_numerics::{
    affine::Affine,
    scheme::{Range, Scheme},
    solve::{Rtn, Solver},
};

/// How to sample the activation of a site, and how its kernel goes through the weight.
pub fn layer(m: &Model, site: &Site) -> Result<(Window, Layout), NoMatch> {
    let tensor = m.constant(site.weight)?;
    match (site.kind, &tensor.shape[..]) {
        (Weight::MatMul, [k, _]) => Ok((Window::Rows(*k), Layout::matrix())),
        (Weight::Conv, shape @ [_, channels, kernel @ ..]) => {
            let patches = Patches::of(m, site.node, shape)?;
            let layout = Layout::conv(*channels, kernel, patches.groups);
            Ok((Window::Patches(patches), layout))
        }
        (Weight::Batched(_), _) => Err(no_match!("its weight is no matrix, but several")),
        (Weight::Recurrent, _) => {
            Err(no_match!("the state that it multiplies is inside of the operator"))
        }
        _ => Err(no_match!("what {} multiplies is not simulated", m.node_label(site.node))),
    }
}

/// Rows of a weight that are looked at, in pieces that lie together.
const ROWS: usize = 512;
const PIECE: usize = 32;

/// Simulates a layer whose weight, `[n, k]`, is rounded to nearest; some of its rows if there are
/// many. `scale` is the element type of stored scales.
pub fn measure(
    rows: &SampledRows,
    affine: Option<Affine>,
    weight: &Tensor,
    scheme: &Scheme,
    scale: DType,
    layout: &Layout,
) -> Result<Saturation, TensorError> {
    let (n, k) = (weight.shape[0], weight.shape[1]);
    // Groups must stay whole.
    let values = match n <= ROWS || layout.groups > 1 {
        true => weight.rows_f32(0..n)?,
        false => {
            let pieces = ROWS / PIECE;
            let start = |piece| (n - PIECE) * piece / (pieces - 1);
            let mut values = Vec::with_capacity(ROWS * k);
            for piece in 0..pieces {
                values.extend(weight.rows_f32(start(piece)..start(piece) + PIECE)?);
            }
            values
        }
    };
    let float = Array2::from_shape_vec((values.len() / k.max(1), k), values).expect("whole rows");
    let solved = |range: Range| {
        let scheme = Scheme { range, ..*scheme };
        let shape = scheme.shape(float.nrows(), k, scale);
        Rtn.solve(float.view(), &scheme, shape, None)
    };
    let (eight, seven) = (solved(Range::Narrow), solved(Range::Reduced));
    Ok(simulate(rows, affine, float.view(), &eight, &seven, layout))
}
