//! Tensors on their way into ONNX Runtime and out of it.

use std::ptr::{self, NonNull};

use bytes::Bytes;
use half::{bf16, f16};
use ort::{
    memory::{Allocator, MemoryInfo},
    session::SessionInputValue,
    value::{
        DynTensor, DynTensorValueType, DynValue, PrimitiveTensorElementType, Shape,
        TensorElementType, TensorRefMut, ValueType,
    },
};

use super::{
    super::{EngineError, Logits, Rows},
    run_error,
};
use onnxq_ir::tensor::{DType, Tensor};

/// An input, with its bytes kept alive while ONNX Runtime reads them.
pub(super) struct Feed<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    /// Empty for strings.
    bytes: Bytes,
}

impl<'a> Feed<'a> {
    pub(super) fn new(name: &'a str, tensor: &'a Tensor) -> Result<Feed<'a>, EngineError> {
        if tensor.dtype == DType::String {
            return Ok(Feed { name, tensor, bytes: Bytes::new() });
        }
        let unreadable = |source| EngineError::Unreadable { name: name.to_owned(), source };
        Ok(Feed { name, tensor, bytes: tensor.bytes().map_err(unreadable)? })
    }

    pub(super) fn value(&self) -> Result<SessionInputValue<'_>, EngineError> {
        match self.tensor.dtype {
            DType::Bool => self.view::<bool>(),
            DType::BF16 => self.view::<bf16>(),
            DType::F16 => self.view::<f16>(),
            DType::F32 => self.view::<f32>(),
            DType::F64 => self.view::<f64>(),
            DType::I8 => self.view::<i8>(),
            DType::I16 => self.view::<i16>(),
            DType::I32 => self.view::<i32>(),
            DType::I64 => self.view::<i64>(),
            DType::String => self.strings(),
            DType::U8 => self.view::<u8>(),
            DType::U16 => self.view::<u16>(),
            DType::U32 => self.view::<u32>(),
            DType::U64 => self.view::<u64>(),
            _ => self.copy(),
        }
    }

    /// ONNX Runtime reads our bytes where they lie.
    fn view<T: PrimitiveTensorElementType + std::fmt::Debug>(
        &self,
    ) -> Result<SessionInputValue<'_>, EngineError> {
        let data = match self.bytes.is_empty() {
            // Attention of ONNX Runtime 1.23 takes an empty past without an address for none at all.
            true => NonNull::<T>::dangling().as_ptr(),
            false => self.bytes.as_ptr().cast_mut().cast::<T>(),
        };
        // A slice of a mapped file may begin anywhere.
        if !data.is_aligned() {
            return self.copy();
        }
        let data = data.cast();
        // SAFETY: `Tensor::bytes` gives exactly the bytes of the shape; they are aligned, outlive
        // the value (it borrows `self`), and ONNX Runtime never writes to an input.
        let value =
            unsafe { TensorRefMut::<T>::from_raw(MemoryInfo::default(), data, self.shape()) };
        Ok(value.map_err(run_error)?.into())
    }

    /// A copy in memory of ONNX Runtime.
    pub(super) fn copy(&self) -> Result<SessionInputValue<'_>, EngineError> {
        let ty = ELEMENTS.iter().find(|(dtype, _)| *dtype == self.tensor.dtype);
        let Some((_, ty)) = ty else {
            return Err(element(self.name, self.tensor.dtype.name()));
        };
        let mut value =
            DynTensor::new(&Allocator::default(), *ty, self.shape()).map_err(run_error)?;
        if !self.bytes.is_empty() {
            assert_eq!(value.size(), Some(self.bytes.len()), "both sizes follow from the shape");
            let data = value.data_ptr_mut().cast();
            // SAFETY: the new tensor has as many bytes as ours, in memory of its own.
            unsafe { ptr::copy_nonoverlapping(self.bytes.as_ptr(), data, self.bytes.len()) };
        }
        Ok(value.into())
    }

    fn strings(&self) -> Result<SessionInputValue<'_>, EngineError> {
        let list = self.tensor.string_values().unwrap_or_default();
        let list: Vec<String> = list
            .iter()
            .map(|it| String::from_utf8(it.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|_| element(self.name, "string that is not UTF-8"))?;
        let value =
            ort::value::Tensor::from_string_array((self.shape(), &list[..])).map_err(run_error)?;
        Ok(value.into())
    }

    fn shape(&self) -> Shape {
        self.tensor.shape.iter().map(|&it| it as i64).collect()
    }
}

/// Copies an output: its memory is the session's, or even ours if the graph passes an input through.
pub(super) fn read(name: &str, value: DynValue) -> Result<Tensor, EngineError> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(EngineError::NotTensor {
            name: name.to_owned(),
            ty: value.dtype().to_string(),
        });
    };
    let dtype = dtype(name, *ty)?;
    let shape: Vec<usize> = shape.iter().map(|&it| usize::try_from(it).unwrap_or(0)).collect();
    if dtype == DType::String {
        let (_, list) = value.try_extract_strings().map_err(run_error)?;
        let list: Vec<Bytes> = list.into_iter().map(Bytes::from).collect();
        return Ok(Tensor::strings(shape, list));
    }
    let value = value.downcast::<DynTensorValueType>().map_err(run_error)?;
    let (Some(size), data) = (value.size(), value.data_ptr().cast::<u8>()) else {
        return Err(element(name, dtype.name()));
    };
    if size == 0 || data.is_null() {
        return Ok(Tensor::new(dtype, shape, Bytes::new()));
    }
    // SAFETY: only the CPU provider is ever used, so the memory is ours to read, and ONNX Runtime
    // states its size.
    let bytes = unsafe { std::slice::from_raw_parts(data, size) };
    Ok(Tensor::new(dtype, shape, Bytes::copy_from_slice(bytes)))
}

/// The logits of one text as numbers: of `fed` tokens, which are the last that the run read. Only what is
/// wanted is copied.
pub(super) fn rows(value: &DynValue, wanted: Rows, fed: usize) -> Result<Logits, EngineError> {
    let failed = |fact: &str| EngineError::Cache(format!("the logits {fact}"));
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(failed("are no tensor"));
    };
    let shape: Vec<usize> = shape.iter().map(|&it| usize::try_from(it).unwrap_or(0)).collect();
    let Some((&width, outer)) = shape.split_last() else { return Err(failed("have no shape")) };
    let all: usize = outer.iter().product();
    let count = match wanted {
        Rows::None => 0,
        Rows::Last => 1,
        Rows::All => fed,
    };
    if count > all || width == 0 {
        return Err(failed(&format!("have shape {shape:?} after {fed} tokens")));
    }
    let range = (all - count) * width..all * width;
    let values = match ty {
        TensorElementType::Float32 => {
            value.try_extract_tensor::<f32>().map_err(run_error)?.1[range].to_vec()
        }
        TensorElementType::Float16 => {
            let halves = &value.try_extract_tensor::<f16>().map_err(run_error)?.1[range];
            halves.iter().map(|it| it.to_f32()).collect()
        }
        other => return Err(element("logits", &other.to_string())),
    };
    Ok(Logits { width, values })
}

/// A copy of the first tokens in a tensor that has room for more or fewer of them along an axis.
pub(super) fn resized(
    value: &DynTensor,
    axis: usize,
    (kept, room): (usize, usize),
) -> Result<DynTensor, EngineError> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(EngineError::Cache("it is no tensor".into()));
    };
    let old: Vec<usize> = shape.iter().map(|&it| usize::try_from(it).unwrap_or(0)).collect();
    if kept > room || old.get(axis).is_none_or(|it| kept > *it) {
        let fact = format!("{kept} tokens are not in shape {old:?}");
        return Err(EngineError::Cache(fact));
    }
    let mut new = shape.clone();
    new[axis] = room as i64;
    let mut copy = DynTensor::new(&Allocator::default(), *ty, new).map_err(run_error)?;
    let outer: usize = old[..axis].iter().product();
    let inner: usize = old[axis + 1..].iter().product();
    let size = |count: usize| ty.byte_size(count).unwrap_or(0);
    let (from, to, part) = (size(old[axis] * inner), size(room * inner), size(kept * inner));
    // SAFETY: both are tensors of the CPU with `outer` rows of `from` and `to` bytes, of which the
    // first `part` exist in both; the new one is memory of its own.
    unsafe {
        let source = value.data_ptr().cast::<u8>();
        let target = copy.data_ptr_mut().cast::<u8>();
        for row in 0..outer {
            ptr::copy_nonoverlapping(source.add(row * from), target.add(row * to), part);
        }
    }
    Ok(copy)
}

/// As ONNX Runtime calls it.
pub(super) fn element_type(name: &str, ty: DType) -> Result<TensorElementType, EngineError> {
    let known = ELEMENTS.iter().find(|(dtype, _)| *dtype == ty);
    known.map(|(_, ty)| *ty).ok_or_else(|| element(name, ty.name()))
}

const ELEMENTS: &[(DType, TensorElementType)] = &[
    (DType::BF16, TensorElementType::Bfloat16),
    (DType::Bool, TensorElementType::Bool),
    (DType::C128, TensorElementType::Complex128),
    (DType::C64, TensorElementType::Complex64),
    (DType::F16, TensorElementType::Float16),
    (DType::F32, TensorElementType::Float32),
    (DType::F4E2M1, TensorElementType::Float4E2M1),
    (DType::F64, TensorElementType::Float64),
    (DType::F8E4M3FN, TensorElementType::Float8E4M3FN),
    (DType::F8E4M3FNUZ, TensorElementType::Float8E4M3FNUZ),
    (DType::F8E5M2, TensorElementType::Float8E5M2),
    (DType::F8E5M2FNUZ, TensorElementType::Float8E5M2FNUZ),
    (DType::F8E8M0, TensorElementType::Float8E8M0),
    (DType::I16, TensorElementType::Int16),
    (DType::I2, TensorElementType::Int2),
    (DType::I32, TensorElementType::Int32),
    (DType::I4, TensorElementType::Int4),
    (DType::I64, TensorElementType::Int64),
    (DType::I8, TensorElementType::Int8),
    (DType::String, TensorElementType::String),
    (DType::U16, TensorElementType::Uint16),
    (DType::U2, TensorElementType::Uint2),
    (DType::U32, TensorElementType::Uint32),
    (DType::U4, TensorElementType::Uint4),
    (DType::U64, TensorElementType::Uint64),
    (DType::U8, TensorElementType::Uint8),
];

pub(super) fn dtype(name: &str, ty: TensorElementType) -> Result<DType, EngineError> {
    let known = ELEMENTS.iter().find(|(_, it)| *it == ty);
    known.map(|(dtype, _)| *dtype).ok_or_else(|| element(name, &ty.to_string()))
}

fn element(name: &str, dtype: &str) -> EngineError {
    EngineError::Element { name: name.to_owned(), dtype: dtype.to_owned() }
}
