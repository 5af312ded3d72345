//! Round to nearest: the range of each block, cut into equal steps.
//!
//! With `range: full` the bytes equal those of ONNX Runtime's `MatMulNBitsQuantizer`
//! (1.31, default algorithm), bit for bit: golden data in `fixtures/golden`.

use ndarray::ArrayView2;

use super::{Prepared, Solver, blocks::quantize, grid::grid};
use crate::scheme::Scheme;
use onnxq_ir::tensor::{QMatrix, QShape};

pub struct Rtn;

impl Solver for Rtn {
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        _: Option<&Prepared>,
    ) -> QMatrix {
        quantize(
            rows,
            (scheme, shape),
            None,
            #[inline(always)]
            |values, _| grid(values, scheme, shape.scale),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{Granularity, Range};
    use onnxq_ir::tensor::{DType, ZeroPoints};

    #[test]
    fn a_block_of_denormals_is_zero_and_not_nan() {
        let scheme = Scheme {
            bits: 4,
            zero_points: ZeroPoints::Symmetric,
            granularity: Granularity::Block(16),
            range: Range::Full,
            superblock: None,
        };
        let values = [1e-42f32, 0.0, -1e-43, 0.0].repeat(4);
        let view = ArrayView2::from_shape((1, 16), &values).unwrap();
        let q = Rtn.solve(view, &scheme, scheme.shape(1, 16, DType::F32), None);
        assert!(q.dequantize().iter().all(|it| it.abs() < 1e-40));
    }
}
