//! Tensors in a frame: what they are in its head, their bytes in its payload.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::channel::aligned;
use crate::engine::{EngineError, IoInfo};
use onnxq_ir::tensor::{DType, Dim, Tensor, TensorType};

/// A tensor whose bytes lie in the payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorHead {
    name: String,
    /// As ONNX text spells it.
    dtype: String,
    shape: Vec<usize>,
    at: u64,
    len: u64,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IoHead {
    name: String,
    dtype: String,
    shape: Option<Vec<Size>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Size {
    Fixed(usize),
    /// `None`: unknown.
    Symbol(Option<String>),
}

/// What a frame of these tensors consists of.
pub(super) fn pack<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(Vec<TensorHead>, Vec<Bytes>), EngineError> {
    let (mut heads, mut parts, mut at) = (Vec::new(), Vec::new(), 0);
    for (name, tensor) in tensors {
        let unreadable = |source| EngineError::Unreadable { name: name.to_owned(), source };
        let bytes = match tensor.string_values() {
            Some(list) => joined(list),
            None => tensor.bytes().map_err(unreadable)?,
        };
        let (dtype, shape) = (tensor.dtype.name().to_owned(), tensor.shape.clone());
        let len = bytes.len() as u64;
        heads.push(TensorHead { name: name.to_owned(), dtype, shape, at, len });
        parts.push(bytes);
        at = aligned(at + len);
    }
    Ok((heads, parts))
}

/// The tensors of a frame; `None` if it is not consistent.
pub(super) fn unpack(heads: Vec<TensorHead>, payload: &Bytes) -> Option<Vec<(String, Tensor)>> {
    heads.into_iter().map(|it| one(it, payload)).collect()
}

fn one(head: TensorHead, payload: &Bytes) -> Option<(String, Tensor)> {
    let TensorHead { name, dtype, shape, at, len } = head;
    let dtype = DType::from_name(&dtype)?;
    let (at, end) = (usize::try_from(at).ok()?, usize::try_from(at.checked_add(len)?).ok()?);
    let bytes = (end <= payload.len()).then(|| payload.slice(at..end))?;
    let count = shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it))?;
    if dtype == DType::String {
        let list = split(bytes)?;
        return (list.len() == count).then(|| (name, Tensor::strings(shape, list)));
    }
    (dtype.nbytes(count)? == bytes.len()).then(|| (name, Tensor::new(dtype, shape, bytes)))
}

/// Strings, each after its length.
fn joined(list: &[Bytes]) -> Bytes {
    let mut bytes = Vec::new();
    for it in list {
        bytes.extend((it.len() as u64).to_le_bytes());
        bytes.extend_from_slice(it);
    }
    bytes.into()
}

fn split(mut bytes: Bytes) -> Option<Vec<Bytes>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let (len, _) = bytes.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let rest = bytes.split_off(8);
        bytes = rest;
        if len > bytes.len() {
            return None;
        }
        list.push(bytes.split_to(len));
    }
    Some(list)
}

impl From<&IoInfo> for IoHead {
    fn from(info: &IoInfo) -> IoHead {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Size::Fixed(*size),
            Dim::Symbol(name) => Size::Symbol(Some(name.to_string())),
            Dim::Unknown => Size::Symbol(None),
        };
        let shape = info.ty.shape.as_ref().map(|it| it.iter().map(size).collect());
        IoHead { name: info.name.clone(), dtype: info.ty.dtype.name().to_owned(), shape }
    }
}

impl IoHead {
    pub(super) fn info(self) -> Option<IoInfo> {
        let dim = |size: Size| match size {
            Size::Fixed(size) => Dim::Fixed(size),
            Size::Symbol(Some(name)) => Dim::Symbol(name.into()),
            Size::Symbol(None) => Dim::Unknown,
        };
        let shape = self.shape.map(|it| it.into_iter().map(dim).collect());
        let dtype = DType::from_name(&self.dtype)?;
        Some(IoInfo { name: self.name, ty: TensorType { dtype, shape } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(parts: &[Bytes]) -> Bytes {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(part);
            bytes.resize(aligned(bytes.len() as u64) as usize, 0);
        }
        bytes.into()
    }

    #[test]
    fn tensors_of_every_kind_arrive() {
        let list = [
            ("a", Tensor::from_f32(&[2, 3], [1., 2., 3., 4., 5., 6.])),
            ("b", Tensor::new(DType::U4, vec![3], vec![0x21, 0x03])),
            ("c", Tensor::strings(vec![2], vec![Bytes::new(), Bytes::from_static(b"\xff x")])),
            ("d", Tensor::from_i64(&[0], [])),
        ];
        let (heads, parts) = pack(list.iter().map(|(name, it)| (*name, it))).unwrap();
        let back = unpack(heads.clone(), &payload(&parts)).unwrap();
        for ((name, sent), (other, got)) in list.iter().zip(&back) {
            assert_eq!((name, sent.dtype, &sent.shape), (&&**other, got.dtype, &got.shape));
            match sent.string_values() {
                Some(list) => assert_eq!(got.string_values().unwrap(), list),
                None => assert_eq!(got.bytes().unwrap(), sent.bytes().unwrap()),
            }
        }
        // Bytes that are not there, and fewer than the shape has.
        assert!(unpack(heads.clone(), &Bytes::new()).is_none());
        let mut wrong = heads;
        wrong[0].shape = vec![usize::MAX, 3];
        assert!(unpack(wrong, &payload(&parts)).is_none());
    }
}
