//! Values of metadata: numbers, strings, and arrays, which stay bytes of the file.

use bytes::Bytes;

use super::cursor::{Cursor, Problem};

/// How deep arrays may lie in arrays. llama.cpp has no such arrays at all.
const DEEPEST: usize = 4;

macro_rules! value_types {
    ($($variant:ident($rust:ty) = $id:literal, $width:literal, $name:literal;)*) => {
        /// The type of a value.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ValueType { $($variant,)* Bool, String, Array }

        /// A value of metadata.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Value { $($variant($rust),)* Bool(bool), String(String), Array(Array) }

        impl ValueType {
            pub fn id(self) -> u32 {
                match self {
                    $(ValueType::$variant => $id,)*
                    ValueType::Bool => 7,
                    ValueType::String => 8,
                    ValueType::Array => 9,
                }
            }

            pub fn from_id(id: u32) -> Option<ValueType> {
                Some(match id {
                    $($id => ValueType::$variant,)*
                    7 => ValueType::Bool,
                    8 => ValueType::String,
                    9 => ValueType::Array,
                    _ => return None,
                })
            }

            pub fn name(self) -> &'static str {
                match self {
                    $(ValueType::$variant => $name,)*
                    ValueType::Bool => "bool",
                    ValueType::String => "string",
                    ValueType::Array => "array",
                }
            }

            /// Bytes of each; of strings and arrays, those of the shortest.
            fn least(self) -> usize {
                match self {
                    $(ValueType::$variant => $width,)*
                    ValueType::Bool => 1,
                    ValueType::String => 8,
                    ValueType::Array => 12,
                }
            }
        }

        impl Value {
            pub fn kind(&self) -> ValueType {
                match self {
                    $(Value::$variant(_) => ValueType::$variant,)*
                    Value::Bool(_) => ValueType::Bool,
                    Value::String(_) => ValueType::String,
                    Value::Array(_) => ValueType::Array,
                }
            }

            /// The bytes of the value, without its type.
            pub(super) fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Value::$variant(it) => out.extend(it.to_le_bytes()),)*
                    Value::Bool(it) => out.push(u8::from(*it)),
                    Value::String(it) => encode_text(it, out),
                    Value::Array(it) => it.encode(out),
                }
            }

            pub(super) fn read(
                kind: ValueType,
                from: &mut Cursor,
                depth: usize,
            ) -> Result<Value, Problem> {
                Ok(match kind {
                    $(ValueType::$variant => {
                        let bytes = from.take($width)?.try_into().expect("as many were taken");
                        Value::$variant(<$rust>::from_le_bytes(bytes))
                    })*
                    ValueType::Bool => match from.take(1)?[0] {
                        0 => Value::Bool(false),
                        1 => Value::Bool(true),
                        other => return Err(format!("is a bool of value {other}")),
                    },
                    ValueType::String => Value::String(from.text()?.to_owned()),
                    ValueType::Array => Value::Array(Array::read(from, depth)?),
                })
            }
        }

        $(impl From<$rust> for Value {
            fn from(value: $rust) -> Value {
                Value::$variant(value)
            }
        }

        impl FromIterator<$rust> for Array {
            fn from_iter<I: IntoIterator<Item = $rust>>(values: I) -> Array {
                Array::of(ValueType::$variant, values.into_iter().map(Value::$variant))
            }
        })*
    };
}

value_types! {
    U8(u8) = 0, 1, "uint8";
    I8(i8) = 1, 1, "int8";
    U16(u16) = 2, 2, "uint16";
    I16(i16) = 3, 2, "int16";
    U32(u32) = 4, 4, "uint32";
    I32(i32) = 5, 4, "int32";
    F32(f32) = 6, 4, "float32";
    U64(u64) = 10, 8, "uint64";
    I64(i64) = 11, 8, "int64";
    F64(f64) = 12, 8, "float64";
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        if let Value::String(it) = self { Some(it) } else { None }
    }

    pub fn bool(&self) -> Option<bool> {
        if let Value::Bool(it) = self { Some(*it) } else { None }
    }

    pub fn array(&self) -> Option<&Array> {
        if let Value::Array(it) = self { Some(it) } else { None }
    }

    /// A whole number, of any width.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(it) => it.into(),
            Value::I8(it) => it.into(),
            Value::U16(it) => it.into(),
            Value::I16(it) => it.into(),
            Value::U32(it) => it.into(),
            Value::I32(it) => it.into(),
            Value::U64(it) => it.into(),
            Value::I64(it) => it.into(),
            _ => return None,
        })
    }

    /// A number of a float type.
    pub fn float(&self) -> Option<f64> {
        match *self {
            Value::F32(it) => Some(it.into()),
            Value::F64(it) => Some(it),
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Value {
        Value::Array(value)
    }
}

/// Values of one type. They were checked when the file was read, and are made when asked for: the
/// pieces of a vocabulary are a hundred thousand strings.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    item: ValueType,
    len: usize,
    bytes: Bytes,
}

impl Array {
    /// Values that are all of type `item`.
    pub(super) fn of(item: ValueType, values: impl IntoIterator<Item = Value>) -> Array {
        let (mut len, mut bytes) = (0, Vec::new());
        for value in values {
            assert_eq!(value.kind(), item, "an array has values of one type");
            value.encode(&mut bytes);
            len += 1;
        }
        Array { item, len, bytes: bytes.into() }
    }

    pub fn of_texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Array {
        let (mut len, mut bytes) = (0, Vec::new());
        for text in texts {
            encode_text(text.as_ref(), &mut bytes);
            len += 1;
        }
        Array { item: ValueType::String, len, bytes: bytes.into() }
    }

    pub fn item(&self) -> ValueType {
        self.item
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Each value, made on the way.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        let mut from = Cursor::new(&self.bytes);
        let read = move |_| Value::read(self.item, &mut from, 0).expect("checked when it was read");
        (0..self.len).map(read)
    }

    /// Each string, where it lies; `None` of other arrays.
    pub fn texts(&self) -> Option<impl Iterator<Item = &str>> {
        let mut from = Cursor::new(&self.bytes);
        let read = move |_| from.text().expect("checked when it was read");
        (self.item == ValueType::String).then(|| (0..self.len).map(read))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.item.id().to_le_bytes());
        out.extend((self.len as u64).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    fn read(from: &mut Cursor, depth: usize) -> Result<Array, Problem> {
        if depth == DEEPEST {
            return Err(format!("has arrays deeper than {DEEPEST}"));
        }
        let id = from.u32()?;
        let item = ValueType::from_id(id).ok_or_else(|| format!("is an array of type {id}"))?;
        let len = from.count(item.least())?;
        let start = from.at;
        match item {
            ValueType::Bool | ValueType::Array => {
                (0..len).try_for_each(|_| Value::read(item, from, depth + 1).map(drop))?;
            }
            ValueType::String => (0..len).try_for_each(|_| from.text().map(drop))?,
            _ => drop(from.take((len * item.least()) as u64)?),
        }
        Ok(Array { item, len, bytes: from.since(start) })
    }
}

pub(super) fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
