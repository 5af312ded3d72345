//! A walk over the wire format before anything is decoded: is it well formed, how deep, how much
//! memory would decoding take, and which fields does our schema not know?

use std::ops::Range;

use super::{Limits, LoadError, proto, schema::MESSAGES};

pub(super) struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

pub(super) struct Field {
    pub number: u32,
    pub wire: Wire,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed32,
    Fixed64,
    String,
    Bytes,
    /// An index into [`MESSAGES`].
    Message(usize),
}

/// A field that our schema does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub message: &'static str,
    pub number: u32,
    /// Where the field lies in the file, tag included.
    pub range: Range<usize>,
    /// Nesting of the message; 1 is the model itself, 2 its graph.
    pub depth: usize,
}

#[derive(Debug, Default)]
pub(super) struct Scan {
    pub unknown: Vec<Unknown>,
    /// An estimate, from above, of what decoding and the IR will allocate.
    pub heap: u64,
    /// Bytes of tensor data, which decoding does not copy.
    pub data: u64,
}

pub(super) fn scan(bytes: &[u8], root: &str, limits: &Limits) -> Result<Scan, LoadError> {
    let root = MESSAGES.iter().position(|it| it.name == root).expect("a message of the schema");
    let mut walk = Walk { bytes, limits, out: Scan::default() };
    walk.message(root, 0..bytes.len(), 1)?;
    Ok(walk.out)
}

struct Walk<'a> {
    bytes: &'a [u8],
    limits: &'a Limits,
    out: Scan,
}

impl Walk<'_> {
    fn message(&mut self, kind: usize, range: Range<usize>, depth: usize) -> Result<(), LoadError> {
        if depth > self.limits.depth {
            return Err(LoadError::Depth { limit: self.limits.depth });
        }
        let message = &MESSAGES[kind];
        self.charge(heap_of(message.name))?;
        let mut at = range.start;
        while at < range.end {
            let start = at;
            let tag = self.varint(&mut at, range.end)?;
            let (number, wire) = ((tag >> 3) as u32, tag & 7);
            if number == 0 || tag >> 3 > 0x1fff_ffff {
                return Err(self.broken(start, "a field number out of range"));
            }
            let body = self.body(wire, &mut at, range.end)?;
            match message.fields.iter().find(|it| it.number == number) {
                Some(field) => {
                    self.charge(heap_of_entry(message.name, number))?;
                    self.field(field, wire, body, depth)?;
                }
                None => {
                    self.charge((2 * size_of::<Unknown>() + at - start) as u64)?;
                    self.out.unknown.push(Unknown {
                        message: message.name,
                        number,
                        range: start..at,
                        depth,
                    });
                }
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        wire: u64,
        body: Range<usize>,
        depth: usize,
    ) -> Result<(), LoadError> {
        let fits = match field.wire {
            Wire::Varint => matches!(wire, 0 | 2),
            Wire::Fixed32 => matches!(wire, 5 | 2),
            Wire::Fixed64 => matches!(wire, 1 | 2),
            _ => wire == 2,
        };
        if !fits {
            return Err(self.broken(body.start, "a field of the wrong type"));
        }
        match field.wire {
            Wire::Message(kind) => self.message(kind, body, depth + 1),
            // A packed byte can become an integer of eight.
            Wire::Varint => self.charge(if wire == 2 { body.len() as u64 * 8 } else { 8 }),
            Wire::Fixed32 | Wire::Fixed64 => self.charge(body.len() as u64),
            Wire::String => self.charge(48 + 2 * body.len() as u64),
            Wire::Bytes => {
                self.out.data += body.len() as u64;
                self.charge(2 * size_of::<bytes::Bytes>() as u64)
            }
        }
    }

    fn body(&self, wire: u64, at: &mut usize, end: usize) -> Result<Range<usize>, LoadError> {
        let start = *at;
        let len = match wire {
            0 => {
                self.varint(at, end)?;
                return Ok(start..*at);
            }
            1 => 8,
            5 => 4,
            2 => {
                let len = self.varint(at, end)?;
                usize::try_from(len).map_err(|_| self.broken(start, "a length beyond the file"))?
            }
            _ => return Err(self.broken(start, "an unknown wire type")),
        };
        if len > end - *at {
            return Err(self.broken(start, "a field that ends beyond its message"));
        }
        let body = *at..*at + len;
        *at = body.end;
        Ok(body)
    }

    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, LoadError> {
        let start = *at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if *at >= end {
                return Err(self.broken(start, "a number cut off"));
            }
            let byte = self.bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.broken(start, "a number of more than 64 bits"))
    }

    fn charge(&mut self, heap: u64) -> Result<(), LoadError> {
        self.out.heap += heap;
        let metadata = self.bytes.len() as u64 - self.out.data;
        let limit = self.limits.heap + self.limits.heap_per_byte * metadata;
        if self.out.heap > limit {
            return Err(LoadError::Budget { limit });
        }
        Ok(())
    }

    fn broken(&self, offset: usize, what: &'static str) -> LoadError {
        LoadError::NotProtobuf { offset, what }
    }
}

/// What an empty message of this kind costs, as a protobuf struct and as a part of the IR.
fn heap_of(message: &str) -> u64 {
    use proto::{tensor_shape_proto, type_proto};
    let size = match message {
        "AttributeProto" => size_of::<proto::AttributeProto>() + size_of::<crate::ir::Attr>() + 64,
        "FunctionProto" => {
            size_of::<proto::FunctionProto>() + size_of::<crate::ir::Function>() + 256
        }
        "GraphProto" => size_of::<proto::GraphProto>() + size_of::<crate::ir::Graph>(),
        "ModelProto" => size_of::<proto::ModelProto>(),
        "NodeProto" => size_of::<proto::NodeProto>() + size_of::<crate::ir::Node>(),
        "SparseTensorProto" => {
            size_of::<proto::SparseTensorProto>() + size_of::<crate::ir::Sparse>()
        }
        "TensorProto" => size_of::<proto::TensorProto>() + size_of::<crate::ir::Value>(),
        "TensorShapeProto.Dimension" => 2 * size_of::<tensor_shape_proto::Dimension>(),
        "TrainingInfoProto" => 2 * size_of::<proto::TrainingInfoProto>(),
        "TypeProto" => 2 * size_of::<proto::TypeProto>(),
        "TypeProto.Tensor" => size_of::<type_proto::Tensor>(),
        // The writer makes the message once more; the value it describes is charged elsewhere.
        "ValueInfoProto" => size_of::<proto::ValueInfoProto>() + size_of::<crate::ir::Value>(),
        _ => 128,
    };
    size as u64
}

/// What an entry of this field costs besides its own bytes: an output of a node is a value.
fn heap_of_entry(message: &str, field: u32) -> u64 {
    match (message, field) {
        ("NodeProto", 2) => size_of::<crate::ir::Value>() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn bytes() -> Vec<u8> {
        let graph = proto::GraphProto { name: Some("g".into()), ..Default::default() };
        proto::ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn finds_fields_that_the_schema_does_not_know() {
        let mut bytes = bytes();
        let known = bytes.len();
        bytes.extend([15 << 3 | 2, 2, b'h', b'i']);
        let found = scan(&bytes, "ModelProto", &Limits::default()).unwrap();
        assert_eq!(found.unknown.len(), 1);
        assert_eq!(found.unknown[0].range, known..known + 4);
        assert_eq!((found.unknown[0].message, found.unknown[0].number), ("ModelProto", 15));
    }

    #[test]
    fn many_empty_messages_exceed_the_budget() {
        let graph: Vec<u8> = [0x0a, 0x00].repeat(5_000_000);
        let mut bytes = vec![7 << 3 | 2];
        prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
        bytes.extend(graph);
        let err = scan(&bytes, "ModelProto", &Limits::default()).unwrap_err();
        assert!(matches!(err, LoadError::Budget { .. }));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = scan(&bytes, "ModelProto", &Limits::default());
        }
    }
}
