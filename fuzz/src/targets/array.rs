//! Arrays as data: `.npy`, `.npz`, and the `.pb` of test data sets.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use bytes::Bytes;
use onnxq_ir::onnx::tensor_from_pb;
use onnxq_run::data::{DataError, npy::Npy, npz::Npz};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{Outcome, Target, refusal};
use crate::mutate::Grammar;

pub(super) const TARGET: Target = Target {
    name: "array",
    about: "npy, npz and TensorProto: headers, then every element",
    run,
    grammar: Grammar::Array,
    seeds,
    words: &[
        "'<f4'",
        "'<f2'",
        "'<i8'",
        "'>i8'",
        "'|b1'",
        "'|u1'",
        "'|O'",
        "'<U4'",
        "'<c8'",
        "True",
        "False",
        "(",
        ")",
        "(1,)",
        "(0,)",
        "(2, 3)",
        "()",
        "(4294967296, 4294967296)",
        "18446744073709551615",
        "'descr'",
        "'fortran_order'",
        "'shape'",
        "a.npy",
        "../a.npy",
        "\x00",
        "PK\x01\x02",
        "PK\x03\x04",
        "PK\x05\x06",
        "PK\x06\x06",
        "PK\x06\x07",
    ],
};

fn run(bytes: &[u8]) -> Outcome {
    let path = Path::new("fuzz");
    let read = if bytes.starts_with(b"PK") {
        archive(path, bytes)
    } else if bytes.starts_with(b"\x93NUMPY") {
        Npy::open(path, Cursor::new(bytes.to_vec())).and_then(elements)
    } else {
        let tensor = tensor_from_pb(Bytes::copy_from_slice(bytes)).map_err(|it| refusal(&it))?.1;
        return Ok(format!("pb {} {}", tensor.dtype, tensor.shape.len()));
    };
    read.map_err(|it| refusal(&it))
}

fn archive(path: &Path, bytes: &[u8]) -> Result<String, DataError> {
    let mut npz = Npz::read(path, Cursor::new(bytes.to_vec()))?;
    let mut word = String::new();
    for name in npz.names() {
        if let Some(npy) = npz.array(&name)? {
            word = elements(npy)?;
        }
    }
    Ok(format!("npz {word}"))
}

/// The whole array, and the same row by row.
fn elements(mut npy: Npy) -> Result<String, DataError> {
    let whole = npy.whole()?;
    assert_eq!((whole.dtype, &whole.shape), (npy.dtype, &npy.shape));
    if let Some(&rows) = npy.shape.first().filter(|it| (1..=64).contains(*it)) {
        let mut bytes = Vec::new();
        for row in 0..rows {
            let part = npy.rows(row..row + 1)?;
            bytes.extend_from_slice(&part.bytes().expect("numbers have bytes"));
        }
        assert_eq!(bytes, whole.bytes().expect("numbers have bytes"), "rows differ from the whole");
    }
    Ok(format!("{} {}", whole.dtype, whole.shape.len()))
}

fn seeds() -> Vec<Vec<u8>> {
    let types = [("b1", 1), ("f2", 2), ("f4", 4), ("f8", 8), ("i4", 4), ("i8", 8), ("u1", 1)];
    let arrays: Vec<Vec<u8>> = types
        .iter()
        .flat_map(|&(kind, size)| {
            ["<", ">"].map(|order| {
                let data: Vec<u8> = (0..6 * size).map(|it| it as u8).collect();
                npy(&format!("'{order}{kind}'"), "(2, 3)", &data)
            })
        })
        .chain([
            npy("'<i8'", "()", &[0; 8]),
            npy("'<f4'", "(0,)", &[]),
            npy("'<f4'", "(4,)", &[0; 16]),
        ])
        .collect();
    let mut seeds = arrays.clone();
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        seeds.push(zipped(&arrays[..1], method));
        seeds.push(zipped(&arrays[2..5], method));
    }
    // A TensorProto: two dimensions, float, raw data, a name.
    seeds.push(b"\x08\x02\x08\x01\x10\x01\x4a\x08\0\0\0\0\0\0\x80\x3f\x42\x01x".to_vec());
    seeds.push(b"\x08\x02\x10\x07\x3a\x02\x01\x02\x42\x01x".to_vec());
    seeds
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

fn zipped(arrays: &[Vec<u8>], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (at, array) in arrays.iter().enumerate() {
        zip.start_file(format!("a{at}.npy"), options).expect("names are unique");
        zip.write_all(array).expect("memory takes it");
    }
    zip.finish().expect("memory takes it").into_inner()
}
