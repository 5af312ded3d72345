//! The model file as pieces: the encoded graph, and the bytes of large initializers between them.

use std::{fs::File, path::Path};

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{
    SaveError,
    external::{Extent, Layout, fill, weights},
    proto::ModelProto,
    write::{Writer, entry},
};
use crate::{
    ctx::Ctx,
    fs::write_all_at,
    ir::{Def, Model, ValueId},
    tensor::Tensor,
};

/// Protobuf messages end here.
const MAX_FILE: u64 = (1 << 31) - 1;

/// The model file, cut where the bytes of streamed initializers go.
pub(super) struct Parts {
    /// Encoded bytes, and the initializer whose data follows them.
    pieces: Vec<(Vec<u8>, Option<ValueId>)>,
    /// Bytes of the whole file.
    pub total: u64,
}

impl Parts {
    pub(super) fn new(model: &Model, layout: &Layout) -> Result<Parts, SaveError> {
        let writer = Writer::new(model, layout);
        let mut proto = writer.model()?;
        let graph = proto.graph.take().unwrap_or_default();
        let mut tensors = Vec::new();
        let mut graph_len = graph.encoded_len() as u64;
        for (value, tensor) in streamed(model, layout) {
            let header = writer.tensor_of(value, tensor)?.encode_to_vec();
            let data = tensor.nbytes() as u64;
            let message = header.len() as u64 + field_len(RAW_DATA, data);
            graph_len += field_len(INITIALIZER, message);
            tensors.push((value, header, message, data));
        }
        let mut bytes = head(&proto, graph_len);
        bytes.extend_from_slice(&graph.encode_to_vec());
        let (mut pieces, mut total) = (Vec::new(), 0);
        for (value, header, message, data) in tensors {
            open_field(INITIALIZER, message, &mut bytes);
            bytes.extend_from_slice(&header);
            open_field(RAW_DATA, data, &mut bytes);
            total += bytes.len() as u64 + data;
            pieces.push((std::mem::take(&mut bytes), Some(value)));
        }
        bytes.extend_from_slice(&model.kept.unknown);
        total += bytes.len() as u64;
        pieces.push((bytes, None));
        if total > MAX_FILE {
            return Err(SaveError::TooLarge { bytes: total });
        }
        Ok(Parts { pieces, total })
    }

    /// Writes the whole file; `path` is what errors name.
    pub(super) fn write(
        &self,
        model: &Model,
        file: &File,
        path: &Path,
        ctx: &Ctx,
    ) -> Result<(), SaveError> {
        let io = |source| SaveError::Io { path: path.into(), source };
        file.set_len(self.total).map_err(io)?;
        let (mut offset, mut extents) = (0u64, Vec::new());
        for (bytes, value) in &self.pieces {
            write_all_at(file, bytes, offset).map_err(io)?;
            ctx.progress.step(bytes.len() as u64);
            offset += bytes.len() as u64;
            if let Some(value) = value {
                let extent = extent(model, *value, offset);
                offset += extent.tensor.nbytes() as u64;
                extents.push(extent);
            }
        }
        fill(file, &extents, ctx).map_err(|err| err.at(path))?;
        let Some((offset, text)) = self.late(model) else { return Ok(()) };
        write_all_at(file, text.as_bytes(), offset).map_err(io)
    }

    /// What the metadata says now that all weights are written, and where.
    fn late(&self, model: &Model) -> Option<(u64, String)> {
        let late = model.late.as_ref()?;
        let (key, now) = model.metadata.iter().find(|it| it.0 == late.key)?;
        let text = late.instead_of(now)?;
        // The model's own fields are in the first piece.
        let (head, entry) = (&self.pieces.first()?.0, entry(key, now).encode_to_vec());
        let at = head.windows(entry.len()).position(|it| it == entry)?;
        Some(((at + entry.len() - now.len()) as u64, text))
    }
}

/// A weight and where its bytes go.
pub(super) fn extent(model: &Model, value: ValueId, offset: u64) -> Extent<'_> {
    let it = model.value(value);
    let Def::Const(tensor) = &it.def else { unreachable!("only constants have a place") };
    Extent { name: &it.name, tensor, offset }
}

const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// The model's own fields in the order of their numbers, up to the start of the graph.
fn head(proto: &ModelProto, graph_len: u64) -> Vec<u8> {
    let mut bytes = proto.encode_to_vec();
    open_field(GRAPH, graph_len, &mut bytes);
    bytes
}

fn open_field(number: u32, len: u64, bytes: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(len, bytes);
}

fn field_len(number: u32, len: u64) -> u64 {
    key_len(number) as u64 + encoded_len_varint(len) as u64 + len
}

/// In the order of the graph's own list.
fn streamed<'a>(
    model: &'a Model,
    layout: &'a Layout,
) -> impl Iterator<Item = (ValueId, &'a Tensor)> {
    weights(model, true).into_iter().filter(|it| layout.is_streamed(it.0))
}
