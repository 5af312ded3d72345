//! The elements of a tensor, between braces, and filler where a text leaves them out.

use bytes::Bytes;
use half::{bf16, f16};

use super::{
    lex::{Lexer, Result, fail},
    print::quoted,
};
use crate::tensor::{DType, Tensor, TensorError, from_f32};

/// No tensor of a text is larger, as no message of the binary format is.
const MAX_BYTES: usize = 1 << 31;

/// Filler up to this size per model exists at once; what goes beyond is made when it is read,
/// so that a short text cannot fill the memory.
const EAGER_BYTES: usize = 1 << 24;

/// Reads `1, 2}`, up to and including the brace.
///
/// Half floats with a point, an exponent or a name (`1.0`, `inf`) are values. Without, they are
/// bit patterns, as for the reference parser; so are all narrower floats.
pub(super) fn parse(text: &mut Lexer, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let at = text.at();
    let count = checked_count(dtype, shape).ok_or_else(|| fail(at, "the tensor is too large"))?;
    let mut found = 0;
    let mut out = Elements::new(dtype);
    while !text.eat("}") {
        out.push(text)?;
        found += 1;
        if !text.eat(",") {
            text.expect("}")?;
            break;
        }
    }
    let expected = count * if is_complex(dtype) { 2 } else { 1 };
    if found != expected {
        return Err(fail(at, format!("expected {expected} elements, found {found}")));
    }
    Ok(out.tensor(shape))
}

/// `{1, 2}`, or `None` for more than `max` elements or if there are none to read.
pub(super) fn print(tensor: &Tensor, max: usize) -> Option<String> {
    if tensor.numel() > max {
        return None;
    }
    if let Some(strings) = tensor.string_values() {
        let list: Vec<String> = strings.iter().map(|it| quoted(it)).collect();
        return Some(format!("{{{}}}", list.join(", ")));
    }
    let bytes = tensor.bytes().ok()?;
    Some(format!("{{{}}}", print_list(tensor.dtype, &bytes, tensor.numel()).join(", ")))
}

/// A float as short as it can be, without a point if it is whole.
pub(super) fn print_f32(value: f32) -> String {
    short(&format!("{value:?}"))
}

/// Makes values where a text has none.
#[derive(Default)]
pub(super) struct Filler {
    made: usize,
}

impl Filler {
    /// `((i * 37 + 11) % 101 - 50) / 50` for floats, small integers from the same numbers else.
    pub(super) fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Option<Tensor> {
        let count = checked_count(dtype, shape)?;
        // A string takes the place of its handle, however short it is.
        let size = dtype.nbytes(count)?.max(if dtype == DType::String { 32 * count } else { 0 });
        let eager = self.made + size <= EAGER_BYTES;
        self.made += if eager { size } else { 0 };
        let shape = shape.to_vec();
        match (dtype, eager) {
            (DType::String, true) => Some(Tensor::strings(shape, vec![Bytes::new(); count])),
            (DType::String, false) => None,
            (_, true) => Some(Tensor::new(dtype, shape, fill(dtype, count).ok()?)),
            (_, false) => Some(Tensor::lazy(dtype, shape, move || fill(dtype, count))),
        }
    }
}

/// The number of elements, if that and their bytes are within the limits.
fn checked_count(dtype: DType, shape: &[usize]) -> Option<usize> {
    // A zero must not hide that the other dimensions overflow.
    let product = |least| shape.iter().try_fold(1, |n: usize, it| n.checked_mul((*it).max(least)));
    let bytes = product(1)?.checked_mul(dtype.bits().max(8))? / 8;
    if bytes > MAX_BYTES { None } else { product(0) }
}

fn fill(dtype: DType, count: usize) -> std::result::Result<Bytes, TensorError> {
    let number = |i: usize| (i % 101 * 37 + 11) % 101;
    // Subtracted first, so that the values print short.
    let float = |i: usize| (number(i) as f32 - 50.0) / 50.0;
    if dtype.is_float() {
        let values: Vec<f32> = (0..count).map(float).collect();
        return Ok(from_f32(dtype, &values)?.into());
    }
    match dtype {
        DType::C64 => Ok((0..2 * count).flat_map(|i| float(i).to_le_bytes()).collect()),
        DType::C128 => Ok((0..2 * count).flat_map(|i| f64::from(float(i)).to_le_bytes()).collect()),
        _ => {
            // The values repeat, and after this many at the beginning of a byte.
            const PERIOD: usize = 8 * 101;
            let integers = |count| {
                let mut out = Elements::new(dtype);
                (0..count).for_each(|i| out.push_int((number(i) % small(dtype)) as i128));
                out.bytes
            };
            let mut bytes = integers(PERIOD.min(count)).repeat((count / PERIOD).max(1));
            if count > PERIOD {
                bytes.extend(integers(count % PERIOD));
            }
            Ok(bytes.into())
        }
    }
}

/// Filler of these types stays below: indices and axes must not run out of bounds.
fn small(dtype: DType) -> usize {
    match dtype {
        DType::Bool | DType::I2 => 2,
        DType::I16 | DType::I32 | DType::I64 | DType::U16 | DType::U32 | DType::U64 => 4,
        DType::U2 => 4,
        DType::I4 => 8,
        DType::F4E2M1 | DType::U4 => 16,
        DType::F6E2M3 | DType::F6E3M2 => 64,
        _ => 101,
    }
}

/// Elements as they are read, one after the other.
struct Elements {
    dtype: DType,
    bytes: Vec<u8>,
    strings: Vec<Bytes>,
    /// Bits of the last byte that are taken already.
    shift: usize,
}

impl Elements {
    fn new(dtype: DType) -> Elements {
        Elements { dtype, bytes: Vec::new(), strings: Vec::new(), shift: 0 }
    }

    fn push(&mut self, text: &mut Lexer) -> Result<()> {
        if self.dtype == DType::String {
            self.strings.push(text.string()?.into());
            return Ok(());
        }
        if self.dtype == DType::Bool && matches!(text.peek_word(), "false" | "true") {
            self.bytes.push((text.word()? == "true").into());
            return Ok(());
        }
        let at = text.at();
        let word = text.number()?;
        let fits = match self.dtype {
            DType::F32 | DType::C64 => float(word).map(|it| self.bytes.extend(it.to_le_bytes())),
            DType::F64 | DType::C128 => double(word).map(|it| self.bytes.extend(it.to_le_bytes())),
            DType::F16 if !is_int(word) => float(word)
                .map(f16::from_f32)
                .filter(|it| !it.is_infinite() || names_infinity(word))
                .map(|it| self.bytes.extend(it.to_le_bytes())),
            DType::BF16 if !is_int(word) => float(word)
                .map(bf16::from_f32)
                .filter(|it| !it.is_infinite() || names_infinity(word))
                .map(|it| self.bytes.extend(it.to_le_bytes())),
            _ => word
                .parse()
                .ok()
                .filter(|it| int_range(self.dtype).contains(it))
                .map(|it| self.push_int(it)),
        };
        fits.ok_or_else(|| fail(at, format!("`{word}` does not fit {}", self.dtype)))
    }

    fn push_int(&mut self, value: i128) {
        let bits = self.dtype.bits();
        if bits >= 8 {
            self.bytes.extend(&value.to_le_bytes()[..bits / 8]);
            return;
        }
        // Low bits first; only 6-bit elements lie across bytes.
        let code = (value as u16 & ((1 << bits) - 1)) << self.shift;
        match self.bytes.last_mut() {
            Some(last) if self.shift != 0 => *last |= code as u8,
            _ => self.bytes.push(code as u8),
        }
        if self.shift + bits > 8 {
            self.bytes.push((code >> 8) as u8);
        }
        self.shift = (self.shift + bits) % 8;
    }

    fn tensor(self, shape: &[usize]) -> Tensor {
        if self.dtype == DType::String {
            return Tensor::strings(shape.to_vec(), self.strings);
        }
        Tensor::new(self.dtype, shape.to_vec(), self.bytes)
    }
}

fn is_int(word: &str) -> bool {
    word.bytes().all(|it| it.is_ascii_digit() || it == b'-')
}

fn names_infinity(word: &str) -> bool {
    word.trim_start_matches('-').starts_with(['i', 'I'])
}

pub(super) fn float(word: &str) -> Option<f32> {
    word.parse().ok().filter(|it: &f32| !it.is_infinite() || names_infinity(word))
}

fn double(word: &str) -> Option<f64> {
    word.parse().ok().filter(|it: &f64| !it.is_infinite() || names_infinity(word))
}

fn is_complex(dtype: DType) -> bool {
    matches!(dtype, DType::C64 | DType::C128)
}

fn is_signed(dtype: DType) -> bool {
    matches!(dtype, DType::I2 | DType::I4 | DType::I8 | DType::I16 | DType::I32 | DType::I64)
}

fn int_range(dtype: DType) -> std::ops::Range<i128> {
    let bits = dtype.bits();
    if is_signed(dtype) { -(1 << (bits - 1))..1 << (bits - 1) } else { 0..1 << bits }
}

fn print_list(dtype: DType, bytes: &[u8], count: usize) -> Vec<String> {
    fn each<const N: usize>(bytes: &[u8], print: impl Fn([u8; N]) -> String) -> Vec<String> {
        bytes.chunks_exact(N).map(|it| print(it.try_into().expect("a chunk of N bytes"))).collect()
    }
    match dtype {
        DType::F32 | DType::C64 => each(bytes, |it| print_f32(f32::from_le_bytes(it))),
        DType::F64 | DType::C128 => {
            each(bytes, |it| short(&format!("{:?}", f64::from_le_bytes(it))))
        }
        DType::F16 => each(bytes, |it| {
            print_half(f16::from_le_bytes(it).to_f32(), |it| f16::from_f32(it).to_f32())
        }),
        DType::BF16 => each(bytes, |it| {
            print_half(bf16::from_le_bytes(it).to_f32(), |it| bf16::from_f32(it).to_f32())
        }),
        _ => (0..count).map(|i| read_int(dtype, bytes, i).to_string()).collect(),
    }
}

/// `1` for `1.0`, and the names of the reference parser for what is not a number.
fn short(text: &str) -> String {
    match text {
        "NaN" => "nan".to_owned(),
        _ => text.strip_suffix(".0").unwrap_or(text).to_owned(),
    }
}

/// The shortest decimal that rounds to the same half float, with a point.
fn print_half(value: f32, round: impl Fn(f32) -> f32) -> String {
    if !value.is_finite() {
        return short(&format!("{value:?}"));
    }
    // Not 65500 for 65504.
    if value.fract() == 0.0 && value.abs() < 1e5 {
        return format!("{value:?}");
    }
    let candidates = (0..8).filter_map(|digits| format!("{value:.digits$e}").parse().ok());
    let shortest = candidates.into_iter().find(|it: &f32| round(*it) == value);
    format!("{:?}", shortest.unwrap_or(value))
}

fn read_int(dtype: DType, bytes: &[u8], index: usize) -> i128 {
    let bits = dtype.bits();
    let start = index * bits;
    let mut window = [0; 16];
    let slice = &bytes[start / 8..(start + bits).div_ceil(8)];
    window[..slice.len()].copy_from_slice(slice);
    let code = i128::from_le_bytes(window) >> (start % 8) & ((1 << bits) - 1);
    if is_signed(dtype) && code >> (bits - 1) != 0 { code - (1 << bits) } else { code }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_checked_before_anything_is_allocated() {
        let mut filler = Filler::default();
        assert!(filler.tensor(DType::F32, &[usize::MAX, 2, 0]).is_none());
        assert!(filler.tensor(DType::F32, &[1 << 30]).is_none());
        assert!(filler.tensor(DType::String, &[1 << 30]).is_none());
        let large = filler.tensor(DType::F32, &[1 << 28]).unwrap();
        assert_eq!((large.nbytes(), large.place()), (1 << 30, None));
        assert!(filler.tensor(DType::F32, &[1 << 10]).unwrap().place().is_some());
    }

    #[test]
    fn filler_of_floats_lies_between_minus_one_and_one() {
        let tensor = Filler::default().tensor(DType::F32, &[3]).unwrap();
        assert_eq!(tensor.to_f32().unwrap(), [-0.78, -0.04, 0.7]);
    }

    #[test]
    fn half_floats_print_short_and_are_bit_patterns_without_a_point() {
        let mut text = Lexer::new("0.1, 1.0, 15360, -inf, nan}");
        let tensor = parse(&mut text, DType::F16, &[5]).unwrap();
        assert_eq!(print(&tensor, 5).unwrap(), "{0.1, 1.0, 1.0, -inf, nan}");
    }

    proptest! {
        #[test]
        fn bytes_survive(at in 0..DType::ALL.len(), seed: [u8; 16], count in 0usize..9) {
            let dtype = DType::ALL[at];
            prop_assume!(dtype != DType::String);
            let bytes = if dtype.is_float() || is_complex(dtype) {
                seed.iter().cycle().map(|it| it & 0x3b).take(dtype.nbytes(count).unwrap()).collect()
            } else {
                let (range, mut out) = (int_range(dtype), Elements::new(dtype));
                (0..count).for_each(|i| {
                    let value = i128::from_le_bytes(seed) >> i;
                    out.push_int(value.rem_euclid(range.end - range.start) + range.start);
                });
                Bytes::from(out.bytes)
            };
            prop_assert_eq!(bytes.len(), dtype.nbytes(count).unwrap());
            let tensor = Tensor::new(dtype, vec![count], bytes.clone());
            let text = print(&tensor, count).unwrap();
            let back = parse(&mut Lexer::new(&text[1..]), dtype, &[count]).unwrap();
            prop_assert_eq!(back.bytes().unwrap(), bytes, "{}", text);
        }
    }
}
