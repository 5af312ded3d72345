//! GGUF: metadata, then tensors as a whole, row by row and as columns.

use std::io::Write;

use bytes::Bytes;
use onnxq_formats::gguf::{Array, File, GgmlType, Value, Writer};
use onnxq_ir::tensor::{DType, Tensor};

use super::{Outcome, Target, unnamed};
use crate::mutate::Grammar;

pub(super) const TARGET: Target = Target {
    name: "gguf",
    about: "GGUF: values, every tensor in three ways; written, it is read as the same",
    run,
    grammar: Grammar::Gguf,
    seeds,
    words: &[
        "GGUF",
        "\x02\0\0\0",
        "\x03\0\0\0",
        "\x01\0\0\0\0\0\0\0",
        "general.alignment",
        "general.architecture",
        "tokenizer.ggml.tokens",
        "output.weight",
        "token_embd.weight",
        "\0",
        "",
    ],
};

/// Values of a tensor that are made.
const MOST: usize = 1 << 16;

fn run(bytes: &[u8]) -> Outcome {
    let file = File::parse(&Bytes::copy_from_slice(bytes), "fuzz").map_err(|it| unnamed(&it))?;
    let mut word = String::new();
    for (_, value) in file.metadata() {
        let items = value.array().into_iter().flat_map(Array::values);
        let items = items.map(|it| it.kind()).all(|it| Some(it) == value.array().map(Array::item));
        assert!(items, "an array has values of its type");
        word = value.kind().name().to_owned();
    }
    for (name, info) in file.tensors() {
        match file.tensor(name) {
            Ok(tensor) if tensor.numel() <= MOST => elements(&tensor),
            Ok(_) => {}
            Err(error) => assert!(!info.kind.is_read(), "{error}"),
        }
        word = info.kind.name().to_owned();
    }
    assert_written(&file);
    Ok(word)
}

/// The whole tensor, the same row by row, and the columns.
fn elements(tensor: &Tensor) {
    let whole = tensor.bytes().expect("its blocks are there");
    assert_eq!(whole.len(), tensor.nbytes());
    let &[rows, columns] = &tensor.shape[..] else { return };
    if tensor.dtype != DType::F32 || rows > 64 {
        return;
    }
    let bits = |it: Vec<f32>| it.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let values = bits(tensor.to_f32().expect("it has bytes"));
    let row = |row: usize| bits(tensor.rows_f32(row..row + 1).expect("a row"));
    assert_eq!((0..rows).flat_map(row).collect::<Vec<_>>(), values, "rows differ from the whole");
    let middle = columns / 2;
    let column = bits(tensor.transposed().rows_f32(middle..middle + 1).expect("a column"));
    let expected = values.chunks(columns).map(|it| it[middle]).collect::<Vec<_>>();
    assert_eq!(column, expected, "a column differs from the whole");
}

/// What the writer makes of a file is the same file, if the writer can name its tensors.
fn assert_written(file: &File) {
    let Some(bytes) = rewritten(file) else { return };
    let again = File::parse(&bytes.into(), "written").expect("what is written is read");
    assert!(same(again.metadata().map(|it| it.1), file.metadata().map(|it| it.1)), "values");
    assert!(again.tensors().eq(file.tensors()), "tensors differ once they are written");
}

/// Through their text: NaN is not equal to itself.
fn same<'a>(a: impl Iterator<Item = &'a Value>, b: impl Iterator<Item = &'a Value>) -> bool {
    a.map(|it| format!("{it:?}")).eq(b.map(|it| format!("{it:?}")))
}

fn rewritten(file: &File) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    file.metadata().for_each(|(key, value)| writer.value(key, value.clone()));
    for (name, info) in file.tensors() {
        let source = |to: &mut dyn Write| Ok(to.write_all(&info.bytes)?);
        writer.tensor(name, info.kind, &info.shape, source).ok()?;
    }
    let mut out = Vec::new();
    writer.write(&mut out).expect("memory takes it");
    Some(out)
}

/// A file of every type, and a small one for each.
fn seeds() -> Vec<Vec<u8>> {
    let one = |kind: GgmlType| {
        let mut writer = Writer::new();
        writer.value("general.architecture", "llama");
        writer.value("tokenizer.ggml.tokens", Array::of_texts(["<s>", "a"]));
        add(&mut writer, kind);
        write(&writer)
    };
    let mut all = Writer::new();
    all.value("general.alignment", 64u32);
    all.value("a", true);
    all.value("b", -1.5f64);
    all.value("c", [1i8, -1].into_iter().collect::<Array>());
    GgmlType::ALL.iter().for_each(|it| add(&mut all, *it));
    GgmlType::ALL.iter().map(|it| one(*it)).chain([write(&all)]).collect()
}

fn add(writer: &mut Writer, kind: GgmlType) {
    let shape = [2, kind.elements()];
    let bytes: Vec<u8> = (0..2 * kind.bytes()).map(|it| it as u8).collect();
    let source = move |to: &mut dyn Write| Ok(to.write_all(&bytes)?);
    writer.tensor(kind.name(), kind, &shape, source).expect("it has whole blocks");
}

fn write(writer: &Writer) -> Vec<u8> {
    let mut out = Vec::new();
    writer.write(&mut out).expect("memory takes it");
    out
}
