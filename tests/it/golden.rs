//! Packed weights against those of another tool, byte for byte.

use std::path::Path;

use ndarray::ArrayView2;
use onnxq_ir::tensor::{Packing, Part, Tensor, ZeroPoints};
use onnxq_numerics::{
    scheme::{Granularity, Range, Scheme},
    solve::{Rtn, Solver},
};
use onnxq_run::data::npz::Npz;

/// `fixtures/generate/golden.py` says where the numbers come from.
#[test]
fn the_bytes_are_those_of_matmul_nbits_quantizer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/matmul_nbits.npz");
    let mut golden = Npz::open(&path).unwrap();
    let mut array =
        |name: &str| -> Option<Tensor> { Some(golden.array(name).unwrap()?.whole().unwrap()) };
    for weight in ["normal", "ragged", "odd_blocks", "half", "odd"] {
        for (bits, block) in [(4, 32), (4, 128), (8, 32), (8, 128)] {
            for zero_points in [ZeroPoints::Symmetric, ZeroPoints::Asymmetric] {
                let kind = if zero_points == ZeroPoints::Symmetric { "sym" } else { "asym" };
                let case = format!("{weight}_{bits}_{block}_{kind}");
                let weight = array(&format!("{case}/weight")).unwrap();
                let rows = weight.transposed();
                let granularity = Granularity::Block(block);
                let scheme =
                    Scheme { bits, zero_points, granularity, range: Range::Full, superblock: None };
                let (n, k) = (rows.shape[0], rows.shape[1]);
                let shape = scheme.shape(n, k, weight.dtype);
                let values = rows.rows_f32(0..n).unwrap();
                let view = ArrayView2::from_shape((n, k), &values).unwrap();
                let q = Rtn.solve(view, &scheme, shape, None);
                let parts = [
                    ("codes", Part::Quantized),
                    ("scales", Part::Scales),
                    ("zeros", Part::ZeroPoints),
                ];
                for (name, part) in parts {
                    let Some(expected) = array(&format!("{case}/{name}")) else {
                        assert_eq!((name, zero_points), ("zeros", ZeroPoints::Symmetric));
                        continue;
                    };
                    let actual = Packing::NBits.pack(&q, part);
                    assert!(actual == expected.bytes().unwrap(), "{case}/{name}");
                }
            }
        }
    }
}
