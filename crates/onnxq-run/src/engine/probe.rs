//! Detects the int8 kernel that ONNX Runtime runs here by the saturation of a known sum.
//!
//! Without VNNI, AVX2 multiplies u8 by s8 with an instruction that adds two products in 16 bits and
//! saturates. 255 x 127 twice is beyond 16 bits, so the largest inputs show the difference.

use serde::{Deserialize, Serialize};

use super::{EngineError, Located, Session, SessionOptions, Source, ort};
use onnxq_ir::tensor::{DType, Tensor};

const K: usize = 64;
const N: usize = 32;

pub(super) const EXACT: i64 = 255 * 127 * K as i64;
/// Each pair of products stops at 32767.
pub(super) const SATURATED: i64 = 32767 * (K as i64 / 2);

/// Sums of u8 = 255 times s8 = 127 over 64 elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// For one row: the kernel of a matrix-vector product.
    pub one_row: i64,
    /// For four rows: the kernel of a matrix product.
    pub four_rows: i64,
}

impl Probe {
    pub fn exact(self) -> bool {
        (self.one_row, self.four_rows) == (EXACT, EXACT)
    }

    /// At least one kernel saturates, and both are otherwise right.
    pub fn saturates(self) -> bool {
        let plausible = |it| it == EXACT || it == SATURATED;
        plausible(self.one_row) && plausible(self.four_rows) && !self.exact()
    }
}

pub(super) fn probe(located: &Located) -> Result<Probe, EngineError> {
    let source = Source::Bytes { model: &model(K, N), folder: None };
    let mut session = ort::open(located, source, &SessionOptions::default(), &[])?;
    Ok(Probe { one_row: sum(&mut *session, 1)?, four_rows: sum(&mut *session, 4)? })
}

/// The sum that all elements of the product should have; -1 if they differ.
fn sum(session: &mut dyn Session, rows: usize) -> Result<i64, EngineError> {
    let a = Tensor::new(DType::U8, vec![rows, K], vec![255u8; rows * K]);
    let outputs = session.run(&[("a", &a)])?;
    let Some((_, y)) = outputs.into_iter().next() else { return Ok(-1) };
    let unreadable = |source| EngineError::Unreadable { name: "y".to_owned(), source };
    let sums = y.to_i64().map_err(unreadable)?;
    let equal = sums.len() == rows * N && sums.iter().all(|it| *it == sums[0]);
    Ok(if equal { sums[0] } else { -1 })
}

/// `y = MatMulInteger(a, b)` with `a` u8\[m, k\] and the constant `b` s8\[k, n\], as protobuf.
///
/// Written by hand: the probe must not depend on the code that writes users' models.
pub(super) fn model(k: usize, n: usize) -> Vec<u8> {
    let weight = constant("b", DType::I8, &[k, n], &vec![127; k * n]);
    let node = [field(1, b"a"), field(1, b"b"), field(2, b"y"), field(4, b"MatMulInteger")];
    let graph = [
        field(1, &node.concat()),
        field(2, b"probe"),
        field(5, &weight),
        field(11, &value("a", DType::U8, k)),
        field(12, &value("y", DType::I32, n)),
    ];
    let opset = varint(2, 13);
    [varint(1, 8), field(8, &opset), field(7, &graph.concat())].concat()
}

/// A `TensorProto`.
pub(super) fn constant(name: &str, dtype: DType, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|it| varint(1, *it as u64)).collect();
    let rest = [varint(2, element(dtype)), field(8, name.as_bytes()), field(9, bytes)];
    [dims, rest.concat()].concat()
}

/// A `ValueInfoProto` of shape [m, columns].
pub(super) fn value(name: &str, dtype: DType, columns: usize) -> Vec<u8> {
    let dims = [field(1, &field(2, b"m")), field(1, &varint(1, columns as u64))];
    let tensor = [varint(1, element(dtype)), field(2, &dims.concat())];
    [field(1, name.as_bytes()), field(2, &field(1, &tensor.concat()))].concat()
}

fn element(dtype: DType) -> u64 {
    u64::from(dtype.number().unsigned_abs())
}

/// A field of the wire type "varint".
pub(super) fn varint(number: u64, value: u64) -> Vec<u8> {
    [leb128(number << 3), leb128(value)].concat()
}

/// A field of the wire type "length-delimited".
pub(super) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [leb128(number << 3 | 2), leb128(bytes.len() as u64), bytes.to_vec()].concat()
}

fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sums_are_those_that_kernels_were_seen_to_give() {
        assert_eq!((EXACT, SATURATED), (2_072_640, 1_048_544));
        let probe = |one_row, four_rows| Probe { one_row, four_rows };
        assert!(probe(EXACT, EXACT).exact() && !probe(EXACT, EXACT).saturates());
        assert!(probe(EXACT, SATURATED).saturates());
        assert!(!probe(EXACT, 7).saturates() && !probe(EXACT, 7).exact());
    }
}
