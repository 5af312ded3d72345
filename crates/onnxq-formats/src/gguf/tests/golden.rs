//! What the package `gguf` wrote, and what it makes of it: `fixtures/gguf/generate.py`.

use onnxq_ir::tensor::{DType, Tensor};

use super::{fixture, parse, read};
use crate::gguf::{Array, File, GgmlType, Value, ValueType, Writer};

#[test]
fn values_of_every_type_are_read() {
    let file = read("blocks.gguf");
    let value = |name: &str| file.value(&format!("test.{name}")).unwrap().clone();
    assert_eq!((file.version(), file.alignment()), (3, 32));
    assert_eq!(file.value("general.architecture").unwrap().text(), Some("test"));
    let numbers = [
        ("uint8", Value::U8(200)),
        ("int8", Value::I8(-100)),
        ("uint16", Value::U16(60_000)),
        ("int16", Value::I16(-30_000)),
        ("uint32", Value::U32(4_000_000_000)),
        ("int32", Value::I32(-2_000_000_000)),
        ("float32", Value::F32(0.1)),
        ("bool", Value::Bool(true)),
        ("string", "a ▁token\n".into()),
        ("uint64", Value::U64((1 << 63) + 1)),
        ("int64", Value::I64(-(1 << 62))),
        ("float64", Value::F64(0.1)),
    ];
    for (name, expected) in numbers {
        assert_eq!(value(name), expected);
        assert_eq!(value(name).kind().name(), name);
    }
    assert_eq!(value("int64").integer(), Some(-(1 << 62)));
    assert_eq!((value("float64").float(), value("bool").bool()), (Some(0.1), Some(true)));
    assert_eq!(file.value("test.none"), None);
}

#[test]
fn arrays_are_read_when_asked_for() {
    let file = read("blocks.gguf");
    let array = |name: &str| file.value(&format!("test.{name}")).unwrap().array().unwrap().clone();
    let texts = array("texts");
    assert_eq!((texts.item(), texts.len()), (ValueType::String, 4));
    assert_eq!(texts.texts().unwrap().collect::<Vec<_>>(), ["", "<s>", "Ġhello", "日本"]);
    assert_eq!(array("floats"), [0.5f32, -1.25].into_iter().collect());
    assert!(array("floats").texts().is_none());
    let bools: Vec<Value> = array("bools").values().collect();
    assert_eq!(bools, [Value::Bool(true), Value::Bool(false)]);
    let nested: Vec<Value> = array("nested").values().collect();
    let inner = |it: &[i32]| Value::Array(it.iter().copied().collect::<Array>());
    assert_eq!(nested, [inner(&[1, 2]), inner(&[3])]);
}

#[test]
fn every_type_is_read_as_the_package_reads_it() {
    let file = read("blocks.gguf");
    let expected = floats(&fixture("blocks.f32"));
    let mut at = 0;
    let (mut seen, mut kept) = (Vec::new(), Vec::new());
    for (name, info) in file.tensors() {
        assert_eq!(info.kind.name(), name);
        seen.push(info.kind);
        let tensor = file.tensor(name).unwrap();
        let values = match tensor.dtype {
            DType::F32 => tensor.to_f32().unwrap(),
            _ => tensor.to_i64().unwrap().iter().map(|it| *it as f32).collect(),
        };
        let own = &expected[at..at + values.len()];
        assert_eq!(bits(&values), bits(own), "{name}");
        at += values.len();
        if let Some(source) = tensor.origin().and_then(|it| it.integers) {
            let whole = source.solve(0..tensor.shape[0]).unwrap();
            assert_eq!(bits(whole.dequantize().as_slice().unwrap()), bits(own), "{name}");
            kept.push(info.kind);
        }
        if tensor.dtype == DType::F32 {
            parts_are_those_of_the_whole(&tensor, own);
        }
    }
    assert_eq!(at, expected.len());
    let readable: Vec<_> = GgmlType::ALL.iter().copied().filter(|it| it.is_read()).collect();
    assert_eq!(seen, readable);
    use GgmlType::{Q3K, Q4_0, Q5_0, Q6K, Q8_0};
    assert_eq!(kept, [Q4_0, Q5_0, Q8_0, Q3K, Q6K]);
}

/// Single rows, columns as rows, and rows in another order.
fn parts_are_those_of_the_whole(tensor: &Tensor, values: &[f32]) {
    let [rows, columns] = tensor.shape[..] else { panic!("a matrix") };
    for row in 0..rows {
        let own = tensor.rows_f32(row..row + 1).unwrap();
        assert_eq!(bits(&own), bits(&values[row * columns..][..columns]));
    }
    let turned = tensor.transposed();
    for column in [0..1, columns / 2 - 1..columns / 2 + 1, 1..columns] {
        let own = turned.rows_f32(column.clone()).unwrap();
        let at = |column: usize| (0..rows).map(move |row| values[row * columns + column]);
        assert_eq!(bits(&own), bits(&column.flat_map(at).collect::<Vec<_>>()));
    }
    let reversed = tensor.picked((0..rows).rev().collect::<Vec<_>>());
    let backwards = values.chunks(columns).rev().flatten().copied().collect::<Vec<_>>();
    assert_eq!(bits(&reversed.to_f32().unwrap()), bits(&backwards));
}

#[test]
fn rounded_rows_are_the_bytes_of_the_package() {
    let file = read("rounded.gguf");
    let rows = file.tensor("rows").unwrap().to_f32().unwrap();
    let mut count = 0;
    for (name, info) in file.tensors() {
        let Some(format) = info.kind.legacy() else { continue };
        let bytes = format.pack(&format.round(&rows));
        let blocks = bytes.chunks(info.kind.bytes()).zip(info.bytes.chunks(info.kind.bytes()));
        for (i, (own, expected)) in blocks.enumerate() {
            assert_eq!(own, expected, "{name}: block {i} of {:?}", &rows[i * 32..][..32]);
        }
        assert_eq!(bytes, info.bytes);
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn a_tensor_is_rounded_in_pieces() {
    let file = read("rounded.gguf");
    let rows = file.tensor("rows").unwrap();
    let mut writer = Writer::new();
    for (name, info) in file.tensors() {
        writer.rounded(name, info.kind, &rows).unwrap();
    }
    // In another order, so that they are no slice of the file.
    let reversed = rows.picked((0..rows.shape[0]).rev().collect::<Vec<_>>());
    writer.rounded("half", GgmlType::F16, &reversed).unwrap();
    writer.rounded("one", GgmlType::BF16, &rows.reshaped(vec![rows.numel()])).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let again = parse(bytes).unwrap();
    assert!(file.tensors().eq(again.tensors().take(6)));
    let half = again.tensor("half").unwrap().to_f32().unwrap();
    assert_eq!(bits(&half), bits(&reversed.cast(DType::F16).to_f32().unwrap()));
    let one = again.tensor("one").unwrap().to_f32().unwrap();
    assert_eq!(bits(&one), bits(&rows.cast(DType::BF16).to_f32().unwrap()));
    let refusal = writer.rounded("w", GgmlType::Q4K, &rows).unwrap_err().to_string();
    assert_eq!(refusal, "cannot write GGUF: `w` cannot be rounded to Q4_K");
}

#[test]
fn a_tensor_is_one_however_often_it_is_asked_for() {
    let file: File = read("blocks.gguf");
    for name in ["Q4_K", "F16", "F32"] {
        let [a, b] = [(); 2].map(|()| file.tensor(name).unwrap().identity());
        assert!(a.is_some() && a == b, "{name}");
    }
    let error = file.tensor("none").unwrap_err().to_string();
    assert_eq!(error, "tensor `none` is missing in the weights of x.gguf");
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap())).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|it| it.to_bits()).collect()
}
