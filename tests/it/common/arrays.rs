//! Data for tests, in the files that numpy writes.

use std::io::{Cursor, Write};

use onnxq_ir::tensor::{DType, Tensor};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::random::Random;

/// Floats in -1..1, the same for the same seed.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
    Random(seed).tensor(DType::F32, shape.to_vec())
}

pub(crate) fn npy(tensor: &Tensor) -> Vec<u8> {
    let (descr, shape) = match tensor.dtype {
        DType::F32 => ("<f4", &tensor.shape),
        DType::I64 => ("<i8", &tensor.shape),
        other => panic!("{other:?}"),
    };
    let dims: String = shape.iter().map(|it| format!("{it}, ")).collect();
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let header = format!("{text:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend_from_slice(&tensor.bytes().unwrap());
    bytes
}

pub(crate) fn npz(arrays: &[(&str, Tensor)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, tensor) in arrays {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(&npy(tensor)).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Rows of an array of int64 of two dimensions, in this order, cut to `width`.
pub(crate) fn rows(npy: &[u8], order: &[usize], width: usize) -> Tensor {
    let start = npy.iter().position(|it| *it == b'\n').unwrap() + 1;
    let header = String::from_utf8_lossy(&npy[..start]);
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let columns: usize = shape.split(',').nth(1).unwrap().trim().parse().unwrap();
    let row = |at: &usize| {
        let from = start + at * columns * 8;
        npy[from..from + width * 8]
            .chunks_exact(8)
            .map(|it| i64::from_le_bytes(it.try_into().unwrap()))
    };
    Tensor::from_i64(&[order.len(), width], order.iter().flat_map(row))
}
