//! Files that lie: each is refused with the file, the place, and what is wrong.

use onnxq_ir::diag::{Code, Diagnostic};

use super::parse;
use crate::gguf::GgmlType;

/// The bytes of a file, field by field.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Bytes {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// A key and a type.
    fn key(self, key: &str, kind: u32) -> Bytes {
        self.text(key).u32(kind)
    }

    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Bytes {
        let named = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(named, |it, dim| it.u64(*dim)).u32(kind).u64(offset)
    }

    fn data(mut self, len: usize) -> Bytes {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }
}

/// The header of a file that has so many tensors and values.
fn file(tensors: u64, values: u64) -> Bytes {
    Bytes(b"GGUF".to_vec()).u32(3).u64(tensors).u64(values)
}

fn one(dims: &[u64], kind: GgmlType, offset: u64) -> Bytes {
    file(1, 0).tensor("w", dims, kind.id(), offset)
}

fn two(second: u64) -> Bytes {
    file(2, 0).tensor("a", &[16], 0, 0).tensor("b", &[16], 0, second)
}

/// An array of `depth` arrays in each other.
fn nested(depth: usize) -> Bytes {
    let outer = (1..depth).fold(file(0, 1).key("k", 9), |it, _| it.u32(9).u64(1));
    outer.u32(0).u64(1).raw(&[7])
}

fn alignment(value: u32) -> Bytes {
    file(0, 1).key("general.alignment", 4).u32(value)
}

const MANY: u64 = u64::MAX;

fn headers() -> Vec<(Bytes, &'static str)> {
    let bytes = |it: &[u8]| Bytes(it.to_vec());
    vec![
        (bytes(b""), "the header needs 4 bytes, but 0 are left in the file"),
        (bytes(b"GG"), "the header needs 4 bytes, but 2 are left"),
        (bytes(b"GGML").u32(3), "it is no GGUF file: it does not begin with GGUF"),
        (bytes(b"FUGG").u32(3), "it is no GGUF file"),
        (bytes(b"GGUF"), "the header needs 4 bytes, but 0 are left"),
        (bytes(b"GGUF").u32(3).u64(0), "the metadata's needs 8 bytes"),
        (bytes(b"GGUF").u32(3).u32(0), "the header needs 8 bytes, but 4 are left"),
        (file(0, 1), "the metadata's count 1 is more than the 0 bytes left can hold"),
        (file(0, MANY), "count 18446744073709551615 is more than the 0 bytes left"),
        (file(0, 1 << 60).raw(&[0; 99]), "count 1152921504606846976 is more than the 99"),
        (file(1, 0), "the tensors' count 1 is more than the 0 bytes left can hold"),
        (file(MANY, 0).raw(&[0; 99]), "the tensors' count 18446744073709551615"),
    ]
}

fn values() -> Vec<(Bytes, &'static str)> {
    let kv = |kind| file(0, 1).key("k", kind);
    let short = |kind| kv(kind).raw(&[0]);
    vec![
        (file(0, 1).u64(MANY).raw(&[0; 9]), "the key of metadata 0 needs 18446744073709551615"),
        (file(0, 1).u64(99).raw(&[0; 9]), "the key of metadata 0 needs 99 bytes, but 9 are left"),
        (file(0, 1).u64(0).u32(0).raw(&[0; 9]), "the key of metadata 0 is empty"),
        (file(0, 1).u64(2).raw(b"\xff\xfe").raw(&[0; 9]), "metadata 0 is not UTF-8"),
        (short(13), "metadata `k` is of type 13, which is none"),
        (short(u32::MAX), "metadata `k` is of type 4294967295"),
        (short(4), "metadata `k` needs 4 bytes, but 1 are left"),
        (short(12), "metadata `k` needs 8 bytes, but 1 are left"),
        (kv(7).raw(&[2]), "metadata `k` is a bool of value 2"),
        (kv(8).u64(MANY), "metadata `k` needs 18446744073709551615 bytes, but 0 are left"),
        (kv(8).u64(1 << 40), "metadata `k` needs 1099511627776 bytes"),
        (kv(8).u64(2).raw(b"\xc3\x28"), "metadata `k` is not UTF-8"),
        (kv(9).u32(13).u64(0), "metadata `k` is an array of type 13"),
        (kv(9).u32(0).u64(MANY), "metadata `k` count 18446744073709551615 is more than the 0"),
        (kv(9).u32(8).u64(1 << 61).raw(&[0; 64]), "count 2305843009213693952 is more than the 64"),
        (kv(9).u32(12).u64(1 << 61).raw(&[0; 64]), "count 2305843009213693952 is more than"),
        (kv(9).u32(8).u64(1).u64(9), "metadata `k` needs 9 bytes, but 0 are left"),
        (kv(9).u32(8).u64(1).u64(1).raw(b"\xff"), "metadata `k` is not UTF-8"),
        (kv(9).u32(7).u64(2).raw(&[1, 9]), "metadata `k` is a bool of value 9"),
        (kv(9).u32(9).u64(1).u32(9).u64(MANY), "metadata `k` count 18446744073709551615"),
        (nested(5), "metadata `k` has arrays deeper than 4"),
        (nested(5000), "metadata `k` has arrays deeper than 4"),
        (file(0, 2).key("k", 0).raw(&[1]).key("k", 0).raw(&[2]), "metadata `k` is there twice"),
        (file(0, 1).key("a\x1b[2J\n", 13).raw(&[0]), r"metadata `a\u{1b}[2J\u{a}` is of type 13"),
        (alignment(0), "metadata `general.alignment` is 0, not a power of two up to 65536"),
        (alignment(24), "metadata `general.alignment` is 24, not a power of two"),
        (alignment(1 << 17), "metadata `general.alignment` is 131072"),
        (alignment(1 << 31), "metadata `general.alignment` is 2147483648"),
        (file(0, 1).key("general.alignment", 10).u64(32), "must be of type uint32"),
    ]
}

fn tensors() -> Vec<(Bytes, &'static str)> {
    let named = |len| file(1, 0).u64(len).raw(&[0; 64]);
    let large = 1u64 << 32;
    let mut broken = vec![
        (named(MANY), "the name of tensor 0 needs 18446744073709551615 bytes, but 64 are left"),
        (named(0), "the name of tensor 0 is empty"),
        (file(1, 0).u64(1).raw(&[0xff; 64]), "the name of tensor 0 is not UTF-8"),
        (one(&[1; 5], GgmlType::F32, 0), "tensor `w` has 5 dimensions, more than 4"),
        (file(1, 0).text("w").u32(u32::MAX).raw(&[1; 64]), "tensor `w` has 4294967295 dimensions"),
        (one(&[4, 0], GgmlType::F32, 0), "tensor `w` has a dimension of 0"),
        (one(&[large, large], GgmlType::F32, 0), "whose product is too large"),
        (one(&[32, large, large], GgmlType::Q4_0, 0), "whose product is too large"),
        (one(&[MANY], GgmlType::F32, 0), "tensor `w` has the shape [18446744073709551615]"),
        (one(&[MANY - 31, 1], GgmlType::Q4_0, 0), "whose product is too large"),
        (one(&[4, 1 << 61], GgmlType::F32, 0), "whose product is too large"),
        (one(&[33], GgmlType::Q4_0, 0), "has rows of 33 elements, but Q4_0 has blocks of 32"),
        (one(&[128, 2], GgmlType::Q6K, 0), "rows of 128 elements, but Q6_K has blocks of 256"),
        (one(&[], GgmlType::Q8_0, 0), "rows of 1 elements, but Q8_0 has blocks of 32"),
        (one(&[16], GgmlType::F32, 8).data(99), "begins at 8, which is no multiple of 32"),
        (one(&[16], GgmlType::F32, 0), "tensor `w` needs 64 bytes at 0 behind the header"),
        (one(&[16], GgmlType::F32, 0).data(63), "needs 64 bytes at 0 behind the header, but"),
        (one(&[16], GgmlType::F32, MANY - 31), "needs 64 bytes at 18446744073709551584"),
        (one(&[16], GgmlType::F32, 1 << 63).data(64), "at 9223372036854775808 behind the header"),
        (two(0).data(128), "tensor `b` overlaps with `a`"),
        (two(32).data(128), "tensor `b` overlaps with `a`"),
        (file(1, 0).text("w").u32(1).u64(1).raw(&[0; 4]), "tensor `w` needs 8 bytes, but 0 are"),
    ];
    let twice = file(2, 0).tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32).data(64);
    broken.push((twice, "tensor `a` is there twice"));
    broken
}

#[test]
fn broken_files_are_refused_with_their_place() {
    let probes: Vec<_> = [headers(), values(), tensors()].concat();
    assert!(probes.len() >= 60, "{}", probes.len());
    for (bytes, expected) in probes {
        let error = parse(bytes.0).expect_err(expected);
        let text = error.to_string();
        assert!(text.starts_with("x.gguf: ") && text.contains(expected), "{text}\n{expected}");
        assert_eq!(error.code(), Code::E123, "{text}");
    }
}

#[test]
fn what_is_not_implemented_is_named() {
    let version = |it: u32| Bytes(b"GGUF".to_vec()).u32(it).u64(0).u64(0);
    let cases = [
        (version(1), "x.gguf is GGUF of version 1; versions 2 and 3 are read"),
        (version(4), "x.gguf is GGUF of version 4; versions 2 and 3 are read"),
        (version(0), "x.gguf is GGUF of version 0; versions 2 and 3 are read"),
        (version(3u32.swap_bytes()), "x.gguf is big-endian GGUF; little-endian files are read"),
        (
            file(1, 0).tensor("w", &[32], 4, 0),
            "x.gguf: not implemented: tensor `w` is of type Q4_2 (which llama.cpp has taken out)",
        ),
        (
            file(1, 0).tensor("w", &[32], 99, 0),
            "x.gguf: not implemented: tensor `w` is of type number 99",
        ),
    ];
    for (bytes, expected) in cases {
        let error = parse(bytes.0).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.code(), Code::E122);
    }
    let file = parse(one(&[256], GgmlType::Iq2Xxs, 0).data(66).0).unwrap();
    let error = file.tensor("w").unwrap_err();
    let expected = "x.gguf: not implemented: tensor `w` is of type IQ2_XXS";
    assert_eq!((error.to_string().as_str(), error.code()), (expected, Code::E122));
    assert!(error.hint().unwrap().contains("F32, F16, Q4_0, Q4_1, Q5_0"));
}

#[test]
fn what_is_allowed_is_read() {
    let order = file(2, 0).tensor("b", &[8], 0, 32).tensor("a", &[8], 0, 0).data(64);
    assert_eq!(parse(order.0).unwrap().tensors().map(|it| it.0).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(
        parse(one(&[], GgmlType::F32, 0).data(4).0).unwrap().info("w").unwrap().shape,
        [0; 0]
    );
    let dims = parse(one(&[32, 2, 3], GgmlType::Q4_0, 0).data(6 * 18).0).unwrap();
    assert_eq!(dims.tensor("w").unwrap().shape, [3, 2, 32]);
    assert_eq!(dims.tensor("w").unwrap().to_f32().unwrap(), vec![0.0; 192]);
    let second = Bytes(b"GGUF".to_vec()).u32(2).u64(0).u64(0);
    assert_eq!(parse(second.0).unwrap().version(), 2);
    assert_eq!(parse(nested(4).0).unwrap().metadata().len(), 1);
    assert_eq!(parse(alignment(4096).0).unwrap().alignment(), 4096);
}
