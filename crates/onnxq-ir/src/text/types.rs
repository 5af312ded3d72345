//! Types of values: tensors as the IR knows them, and the others as encoded `TypeProto`s.

use std::fmt::Write;

use super::print::{name, quoted};
use crate::tensor::{DType, Dim, TensorType};

/// Types nest no deeper than anything else in a model.
const MAX_DEPTH: usize = 100;

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Type {
    Tensor(TensorType),
    Sparse(TensorType),
    Seq(Box<Type>),
    Map(DType, Box<Type>),
    Optional(Box<Type>),
    Opaque {
        domain: String,
        name: String,
    },
    /// Encoded, and beyond what the syntax can say.
    Raw(Vec<u8>),
}

/// Words that begin a type.
pub(super) fn is_type_word(word: &str) -> bool {
    const OTHERS: [&str; 6] = ["map", "opaque", "optional", "seq", "sparse_tensor", "type_proto"];
    OTHERS.contains(&word) || DType::from_name(word).is_some()
}

impl Type {
    /// The type in an encoded `TypeProto`.
    pub(super) fn of_proto(bytes: &[u8]) -> Type {
        decode(bytes, 0)
            .filter(|it| it.encode() == bytes)
            .unwrap_or_else(|| Type::Raw(bytes.to_vec()))
    }

    /// The type in an encoded `ValueInfoProto`.
    pub(super) fn of_value_info(bytes: &[u8]) -> Option<Type> {
        Some(Type::of_proto(fields(bytes)?.iter().find(|it| it.number == 2)?.bytes))
    }

    pub(super) fn value_info(&self, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, name.as_bytes());
        put_bytes(&mut out, 2, &self.encode());
        out
    }

    /// A `TypeProto`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut inner = Vec::new();
        let number = match self {
            Type::Tensor(ty) | Type::Sparse(ty) => {
                put_int(&mut inner, 1, ty.dtype.number() as u64);
                if let Some(dims) = &ty.shape {
                    put_bytes(&mut inner, 2, &encode_shape(dims));
                }
                if matches!(self, Type::Tensor(_)) { 1 } else { 8 }
            }
            Type::Seq(item) => {
                put_bytes(&mut inner, 1, &item.encode());
                4
            }
            Type::Map(key, value) => {
                put_int(&mut inner, 1, key.number() as u64);
                put_bytes(&mut inner, 2, &value.encode());
                5
            }
            Type::Optional(item) => {
                put_bytes(&mut inner, 1, &item.encode());
                9
            }
            Type::Opaque { domain, name } => {
                for (number, text) in [(1, domain), (2, name)] {
                    if !text.is_empty() {
                        put_bytes(&mut inner, number, text.as_bytes());
                    }
                }
                7
            }
            Type::Raw(bytes) => return bytes.clone(),
        };
        let mut out = Vec::new();
        put_bytes(&mut out, number, &inner);
        out
    }

    pub(super) fn print(&self) -> String {
        match self {
            Type::Tensor(ty) => print_tensor(ty),
            Type::Sparse(ty) => format!("sparse_tensor({})", print_tensor(ty)),
            Type::Seq(item) => format!("seq({})", item.print()),
            Type::Map(key, value) => format!("map({key}, {})", value.print()),
            Type::Optional(item) => format!("optional({})", item.print()),
            Type::Opaque { domain, name } if domain.is_empty() && name.is_empty() => {
                "opaque()".to_owned()
            }
            Type::Opaque { domain, name } if domain.is_empty() => {
                format!("opaque({})", dotted(name))
            }
            Type::Opaque { domain, name: it } => {
                format!("opaque({}, {})", dotted(domain), name(it))
            }
            Type::Raw(bytes) => format!("type_proto({})", quoted(bytes)),
        }
    }
}

/// `float[batch,128]`, `float[]` for any rank, `float` for a scalar.
pub(super) fn print_tensor(ty: &TensorType) -> String {
    let mut out = ty.dtype.to_string();
    match ty.shape.as_deref() {
        None => out.push_str("[]"),
        Some([]) => {}
        Some(dims) => {
            for (i, dim) in dims.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                match dim {
                    Dim::Fixed(it) => write!(out, "{it}").expect("writing to a string"),
                    Dim::Symbol(it) => out.push_str(&name(it)),
                    Dim::Unknown => out.push('?'),
                }
            }
            out.push(']');
        }
    }
    out
}

/// Names with dots between, each in quotes if need be.
pub(super) fn dotted(text: &str) -> String {
    text.split('.').map(name).collect::<Vec<_>>().join(".")
}

fn encode_shape(dims: &[Dim]) -> Vec<u8> {
    let mut out = Vec::new();
    for dim in dims {
        let mut inner = Vec::new();
        match dim {
            Dim::Fixed(it) => put_int(&mut inner, 1, *it as u64),
            Dim::Symbol(it) => put_bytes(&mut inner, 2, it.as_bytes()),
            Dim::Unknown => {}
        }
        put_bytes(&mut out, 1, &inner);
    }
    out
}

fn put_int(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of an encoded message: an integer or bytes.
struct Field<'a> {
    number: u64,
    int: u64,
    bytes: &'a [u8],
}

fn fields(mut rest: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut list = Vec::new();
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        let int = take_varint(&mut rest)?;
        let bytes = match tag & 7 {
            0 => &[][..],
            2 => rest.split_off(..usize::try_from(int).ok()?)?,
            _ => return None,
        };
        list.push(Field { number: tag >> 3, int, bytes });
    }
    Some(list)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn decode(bytes: &[u8], depth: usize) -> Option<Type> {
    let [field] = &fields(bytes)?[..] else { return None };
    if depth == MAX_DEPTH {
        return None;
    }
    let inner = fields(field.bytes)?;
    let get = |number| inner.iter().find(|it| it.number == number);
    let item = |number| decode(get(number)?.bytes, depth + 1).map(Box::new);
    let dtype = || DType::from_number(get(1)?.int.try_into().ok()?);
    let text = |number| get(number).map_or(Some(""), |it| std::str::from_utf8(it.bytes).ok());
    let tensor = || {
        let shape = match get(2) {
            Some(it) => Some(decode_shape(it.bytes)?),
            None => None,
        };
        Some(TensorType { dtype: dtype()?, shape })
    };
    Some(match field.number {
        1 => Type::Tensor(tensor()?),
        4 => Type::Seq(item(1)?),
        5 => Type::Map(dtype()?, item(2)?),
        7 => Type::Opaque { domain: text(1)?.to_owned(), name: text(2)?.to_owned() },
        8 => Type::Sparse(tensor()?),
        9 => Type::Optional(item(1)?),
        _ => return None,
    })
}

fn decode_shape(bytes: &[u8]) -> Option<Vec<Dim>> {
    fields(bytes)?
        .iter()
        .map(|dim| match &fields(dim.bytes)?[..] {
            [] => Some(Dim::Unknown),
            [it] if it.number == 1 => Some(Dim::Fixed(it.int.try_into().ok()?)),
            [it] if it.number == 2 && it.bytes.is_empty() => Some(Dim::Unknown),
            [it] if it.number == 2 => Some(Dim::Symbol(std::str::from_utf8(it.bytes).ok()?.into())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_survive_the_encoding() {
        let dims = [Dim::Fixed(300), Dim::Symbol("n".repeat(200).into()), Dim::Unknown];
        let tensor = TensorType::new(DType::F16, dims);
        let any = TensorType { dtype: DType::I64, shape: None };
        for ty in [
            Type::Tensor(tensor.clone()),
            Type::Tensor(any.clone()),
            Type::Optional(Box::new(Type::Seq(Box::new(Type::Sparse(tensor))))),
            Type::Map(DType::String, Box::new(Type::Tensor(any))),
            Type::Opaque { domain: "a.b".to_owned(), name: "c".to_owned() },
        ] {
            assert_eq!(Type::of_proto(&ty.encode()), ty);
            assert_eq!(Type::of_value_info(&ty.value_info("x")), Some(ty));
        }
        // float[2] as the official library encodes it.
        let bytes = [0x0a, 8, 8, 1, 0x12, 4, 0x0a, 2, 8, 2];
        assert_eq!(Type::of_proto(&bytes).print(), "float[2]");
        assert_eq!(Type::of_proto(&[0xff]).print(), r#"type_proto("\xff")"#);
    }
}
