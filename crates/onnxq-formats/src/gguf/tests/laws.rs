//! What holds of every file.

use std::io::Write;

use onnxq_ir::tensor::TensorError;
use proptest::prelude::*;

use super::{fixture, parse, read};
use crate::gguf::{Array, File, GgmlType, SourceError, Value, WriteError, Writer};

/// A writer of what a file holds.
fn writer_of(file: &File) -> Writer<'_> {
    let mut writer = Writer::new();
    file.metadata().for_each(|(key, value)| writer.value(key, value.clone()));
    for (name, info) in file.tensors() {
        let source = |to: &mut dyn Write| Ok(to.write_all(&info.bytes)?);
        writer.tensor(name, info.kind, &info.shape, source).unwrap();
    }
    writer
}

fn written(writer: &Writer) -> Vec<u8> {
    let mut out = Vec::new();
    writer.write(&mut out).unwrap();
    let layout = writer.layout().unwrap();
    assert_eq!(out.len() as u64, layout.len);
    assert!(out.starts_with(&layout.header));
    out
}

#[test]
fn what_is_read_is_written_byte_for_byte() {
    for name in ["blocks.gguf", "rounded.gguf"] {
        assert_eq!(written(&writer_of(&read(name))), fixture(name), "{name}");
    }
}

#[test]
fn no_beginning_and_no_changed_byte_is_a_panic() {
    let bytes = fixture("blocks.gguf");
    for len in 0..bytes.len() {
        // The padding of the last tensor is all that may be missing.
        assert!(parse(bytes.slice(..len)).is_err() || len + 32 > bytes.len(), "{len}");
    }
    for at in 0..bytes.len() {
        for change in [0x01, 0x10, 0x80, 0xff] {
            let mut changed = bytes.to_vec();
            changed[at] ^= change;
            if let Ok(file) = parse(changed) {
                visit(&file);
            }
        }
    }
}

/// Everything that a file gives.
fn visit(file: &File) {
    for (_, value) in file.metadata() {
        value.array().into_iter().flat_map(Array::values).for_each(drop);
    }
    for (name, info) in file.tensors() {
        match file.tensor(name) {
            Ok(tensor) => assert_eq!(tensor.bytes().unwrap().len(), tensor.nbytes()),
            Err(_) => assert!(!info.kind.is_read()),
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[a-z▁日]{0,9}";
    let scalar = prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i64>().prop_map(Value::I64),
        (-1e9f32..1e9).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        text.prop_map(Value::String),
    ];
    let numbers = proptest::collection::vec(any::<u32>(), 0..5);
    let numbers = numbers.prop_map(|it| Value::Array(it.into_iter().collect()));
    let texts = proptest::collection::vec(text, 0..5);
    prop_oneof![scalar, numbers, texts.prop_map(|it| Value::Array(Array::of_texts(it)))]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        values in proptest::collection::btree_map("[a-z.]{1,9}", value(), 0..6),
        tensors in proptest::collection::btree_map(
            "[a-z.]{1,9}",
            (prop::sample::select(GgmlType::ALL), 1usize..3, 1usize..3, any::<u8>()),
            0..6,
        ),
        alignment in prop::option::of(0u32..8),
    ) {
        let mut writer = Writer::new();
        if let Some(shift) = alignment {
            writer.value("general.alignment", 1u32 << shift);
        }
        values.iter().for_each(|(key, value)| writer.value(key, value.clone()));
        for (name, (kind, rows, blocks, byte)) in &tensors {
            let bytes = vec![*byte; rows * blocks * kind.bytes()];
            let source = move |to: &mut dyn Write| Ok(to.write_all(&bytes)?);
            writer.tensor(name, *kind, &[*rows, blocks * kind.elements()], source).unwrap();
        }
        let bytes = written(&writer);
        let file = parse(bytes.clone()).unwrap();
        let own = file.metadata().filter(|(key, _)| *key != "general.alignment");
        prop_assert!(own.eq(values.iter().map(|(key, value)| (&**key, value))));
        for ((name, info), (own, (kind, rows, blocks, byte))) in file.tensors().zip(&tensors) {
            prop_assert_eq!((name, info.kind), (&**own, *kind));
            prop_assert_eq!(&info.shape, &[*rows, blocks * kind.elements()]);
            prop_assert!(info.bytes.iter().all(|it| it == byte));
        }
        prop_assert_eq!(file.tensors().len(), tensors.len());
        prop_assert_eq!(written(&writer_of(&file)), bytes);
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let none = |_: &mut dyn Write| Ok(());
    let refusal = |result: Result<(), WriteError>| result.unwrap_err().to_string();
    let mut writer = Writer::new();
    let long = refusal(writer.tensor(&"x".repeat(64), GgmlType::F32, &[1], none));
    assert!(long.ends_with("is no name of 1 to 63 bytes"), "{long}");
    let uneven = refusal(writer.tensor("w", GgmlType::Q4K, &[2, 32], none));
    let expected = "`w` has rows of 32 elements, but Q4_K has blocks of 256";
    assert_eq!(uneven, format!("cannot write GGUF: {expected}"));
    let deep = refusal(writer.tensor("w", GgmlType::F32, &[1; 5], none));
    assert!(deep.ends_with("not up to 4 dimensions above 0"), "{deep}");
    writer.value("a", 1u32);
    writer.value("a", 2u32);
    assert!(refusal(writer.layout().map(drop)).ends_with("`a` is there twice"));
    let mut writer = Writer::new();
    writer.value("", 1u32);
    assert!(refusal(writer.layout().map(drop)).ends_with("`` is no key"));
    let mut writer = Writer::new();
    writer.value("general.alignment", 3u32);
    assert!(refusal(writer.layout().map(drop)).ends_with("is no uint32 that is a power of two"));
}

#[test]
fn a_source_writes_as_many_bytes_as_the_type_needs() {
    let failing = |source: fn(&mut dyn Write) -> Result<(), SourceError>| {
        let mut writer = Writer::new();
        writer.tensor("w", GgmlType::F32, &[2], source).unwrap();
        writer.write(&mut Vec::new()).unwrap_err()
    };
    let few = failing(|to| Ok(to.write_all(&[0; 4])?)).to_string();
    assert_eq!(few, "cannot write GGUF: `w` has 4 of its 8 bytes too few");
    assert!(matches!(failing(|to| Ok(to.write_all(&[0; 9])?)), WriteError::Io(_)));
    let lost = failing(|_| Err(TensorError::Io("gone".into()).into())).to_string();
    assert_eq!(lost, "cannot write tensor `w`: cannot read a weight back: gone");
}
