//! Round to nearest: the range of each block, cut into equal steps.
//!
//! With `range: full` the bytes equal those of ONNX Runtime's `MatMulNBitsQuantizer`
//! (1.31, default algorithm), bit for bit: golden data in `fixtures/golden`.

use ndarray::ArrayView2;

use super::{Prepared, Solver, blocks::quantize, grid::grid};
use crate::{
    quant::scheme::Scheme,
    tensor::{QMatrix, QShape},
};

pub struct Rtn;

impl Solver for Rtn {
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        extent: QShape,
        _: Option<&Prepared>,
    ) -> QMatrix {
        quantize(
            rows,
            extent,
            #[inline(always)]
            |values, _| grid(values, scheme, extent.scale),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        calibrate::npz::Npz,
        quant::scheme::{Granularity, Range},
        tensor::{DType, Packing, Part, Tensor, Zeros},
    };

    /// `fixtures/generate/golden.py` says where the numbers come from.
    #[test]
    fn the_bytes_are_those_of_matmul_nbits_quantizer() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/matmul_nbits.npz");
        let mut golden = Npz::open(&path).unwrap();
        let mut array =
            |name: &str| -> Option<Tensor> { Some(golden.array(name).unwrap()?.whole().unwrap()) };
        for weight in ["normal", "ragged", "odd_blocks", "half", "odd"] {
            for (bits, block) in [(4, 32), (4, 128), (8, 32), (8, 128)] {
                for zeros in [Zeros::Symmetric, Zeros::Asymmetric] {
                    let kind = if zeros == Zeros::Symmetric { "sym" } else { "asym" };
                    let case = format!("{weight}_{bits}_{block}_{kind}");
                    let weight = array(&format!("{case}/weight")).unwrap();
                    let rows = weight.transposed();
                    let granularity = Granularity::Block(block);
                    let scheme = Scheme { bits, zeros, granularity, range: Range::Full };
                    let (n, k) = (rows.shape[0], rows.shape[1]);
                    let extent = scheme.extent(n, k, weight.dtype);
                    let values = rows.rows_f32(0..n).unwrap();
                    let view = ArrayView2::from_shape((n, k), &values).unwrap();
                    let q = Rtn.solve(view, &scheme, extent, None);
                    let parts =
                        [("codes", Part::Codes), ("scales", Part::Scales), ("zeros", Part::Zeros)];
                    for (name, part) in parts {
                        let Some(expected) = array(&format!("{case}/{name}")) else {
                            assert_eq!((name, zeros), ("zeros", Zeros::Symmetric));
                            continue;
                        };
                        let actual = Packing::NBits.pack(&q, part);
                        assert!(actual == expected.bytes().unwrap(), "{case}/{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_of_denormals_is_zero_and_not_nan() {
        let scheme = Scheme {
            bits: 4,
            zeros: Zeros::Symmetric,
            granularity: Granularity::Block(16),
            range: Range::Full,
        };
        let values = [1e-42f32, 0.0, -1e-43, 0.0].repeat(4);
        let view = ArrayView2::from_shape((1, 16), &values).unwrap();
        let q = Rtn.solve(view, &scheme, scheme.extent(1, 16, DType::F32), None);
        assert!(q.dequantize().iter().all(|it| it.abs() < 1e-40));
    }
}
