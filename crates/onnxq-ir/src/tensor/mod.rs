//! Tensors: element type, shape, and bytes that may not exist yet.

mod cast;
mod dtype;
mod minifloat;
mod origin;
mod packed;
mod rows;
mod shape;

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use bytes::Bytes;

pub use self::{
    cast::{first_non_finite, from_f32, to_f32},
    dtype::DType,
    origin::{Arranged, Inputs, Origin},
    packed::{
        Packing, Part, QMatrix, QShape, QSource, Superblock, ZeroPoints, pack_bits, unpack_bits,
    },
    rows::Rows,
    shape::{Dim, Shape, TensorType, position},
};
use crate::diag::{Code, Diagnostic};

#[derive(Clone, Debug, thiserror::Error)]
pub enum TensorError {
    #[error("expected {expected} bytes for {dtype}{shape:?}, got {actual}")]
    Size { dtype: DType, shape: Vec<usize>, expected: usize, actual: usize },
    #[error("cannot read {0} elements as float")]
    NotFloat(DType),
    #[error("cannot read {0} elements as integers")]
    NotInteger(DType),
    #[error("weight `{name}` holds {what} at [{row}, {column}]")]
    NonFinite { name: String, what: &'static str, row: usize, column: usize },
    #[error("cannot read a weight back: {0}")]
    Io(String),
    #[error("cannot write a weight to a temporary file: {0}")]
    Scratch(String),
    #[error("a string tensor has no fixed size")]
    Strings,
}

impl Diagnostic for TensorError {
    fn code(&self) -> Code {
        match self {
            TensorError::Io(_) | TensorError::Scratch(_) => Code::E901,
            TensorError::NonFinite { .. } => Code::E501,
            _ => Code::E303,
        }
    }
}

/// A constant: cheap to clone, never copied by a rewrite.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: DType,
    pub shape: Vec<usize>,
    data: Data,
}

type Run = dyn Fn() -> Result<Bytes, TensorError> + Send + Sync;

#[derive(Clone)]
enum Data {
    /// A slice of a file mapping or of an owned buffer.
    Bytes(Bytes),
    /// One entry per element; ONNX strings are bytes, not necessarily UTF-8.
    Strings(Arc<[Bytes]>),
    /// Computed at each read, never cached: the writer reads it once.
    Lazy(Arc<Run>),
    /// A `[k, n]` view of an `[n, k]` tensor, so that a transposed weight is not copied.
    Transposed(Arc<Tensor>),
    /// The `[slices · n, k]` matrix of a `[…, k, n]` tensor: each slice transposed.
    TransposedSlices(Arc<Tensor>),
    /// The elements of another float tensor in this one's type.
    Cast(Arc<Tensor>),
    /// A matrix whose rows (axis 0) or columns (axis 1) are multiplied as they are read.
    Scaled { base: Arc<Tensor>, axis: usize, factors: Arc<[f32]> },
    /// A matrix whose rows something else makes.
    Rows(Arc<dyn Rows>),
    /// Some rows of another matrix, in this order.
    Picked { base: Arc<Tensor>, rows: Arc<[usize]> },
    /// One part of a quantized weight; parts that share a source are computed together.
    Packed { source: Arc<dyn QSource>, part: Part, packing: Packing },
}

impl Tensor {
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: impl Into<Bytes>) -> Tensor {
        Tensor { dtype, shape, data: Data::Bytes(bytes.into()) }
    }

    pub fn from_f32(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Tensor {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Tensor::new(DType::F32, shape.to_vec(), bytes)
    }

    pub fn from_i64(shape: &[usize], values: impl IntoIterator<Item = i64>) -> Tensor {
        let bytes: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
        Tensor::new(DType::I64, shape.to_vec(), bytes)
    }

    pub fn scalar(value: f32) -> Tensor {
        Tensor::from_f32(&[], [value])
    }

    pub fn strings(shape: Vec<usize>, values: impl Into<Arc<[Bytes]>>) -> Tensor {
        Tensor { dtype: DType::String, shape, data: Data::Strings(values.into()) }
    }

    pub fn lazy(
        dtype: DType,
        shape: Vec<usize>,
        run: impl Fn() -> Result<Bytes, TensorError> + Send + Sync + 'static,
    ) -> Tensor {
        Tensor { dtype, shape, data: Data::Lazy(Arc::new(run)) }
    }

    pub fn packed(source: Arc<dyn QSource>, part: Part, packing: Packing) -> Tensor {
        let (dtype, shape) = packing.layout(source.shape(), part);
        Tensor { dtype, shape, data: Data::Packed { source, part, packing } }
    }

    /// The matrix with its axes swapped: a view, whose bytes are made when read.
    pub fn transposed(&self) -> Tensor {
        assert_eq!(self.shape.len(), 2, "only matrices are transposed");
        match &self.data {
            Data::Transposed(base) => (**base).clone(),
            Data::Cast(base) => base.transposed().cast(self.dtype),
            Data::Scaled { base, axis, factors } => {
                base.transposed().scaled(1 - axis, factors.clone())
            }
            _ => Tensor {
                dtype: self.dtype,
                shape: vec![self.shape[1], self.shape[0]],
                data: Data::Transposed(Arc::new(self.clone())),
            },
        }
    }

    /// The `[slices · n, k]` matrix of a `[…, k, n]` tensor, its slices transposed and put below each
    /// other: a view, whose bytes are made when read.
    pub fn transposed_slices(&self) -> Tensor {
        let [slices @ .., k, n] = &self.shape[..] else { panic!("slices are matrices") };
        let shape = vec![slices.iter().product::<usize>() * n, *k];
        match &self.data {
            Data::Cast(base) => base.transposed_slices().cast(self.dtype),
            _ => {
                let data = Data::TransposedSlices(Arc::new(self.clone()));
                Tensor { dtype: self.dtype, shape, data }
            }
        }
    }

    /// The elements in another float type, rounded to nearest even: a view, which is computed when
    /// read. From a narrower type it is exact.
    pub fn cast(&self, dtype: DType) -> Tensor {
        assert!(self.dtype.is_float() && dtype.is_float(), "only floats are cast");
        if dtype == self.dtype {
            return self.clone();
        }
        Tensor { dtype, shape: self.shape.clone(), data: Data::Cast(Arc::new(self.clone())) }
    }

    /// What a view of float32 reads, if that takes fewer bytes.
    pub fn narrower(&self) -> Option<&Tensor> {
        match &self.data {
            Data::Cast(base) if base.dtype.bits() < self.dtype.bits() => Some(base),
            _ => None,
        }
    }

    /// The float matrix with row `i` (axis 0) or column `i` (axis 1) times `factors[i]`: a view,
    /// whose elements are computed when read, and rounded to its own type.
    pub fn scaled(&self, axis: usize, factors: impl Into<Arc<[f32]>>) -> Tensor {
        let factors = factors.into();
        assert_eq!(self.shape.len(), 2, "only matrices are scaled");
        assert_eq!(self.shape[axis], factors.len(), "one factor per row or column");
        let base = Arc::new(self.clone());
        Tensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            data: Data::Scaled { base, axis, factors },
        }
    }

    /// The same elements under another shape.
    ///
    /// Views and packed parts are bound to their shape, so they become lazy.
    pub fn reshaped(&self, shape: Vec<usize>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.numel(), "a reshape keeps the elements");
        match &self.data {
            // These have the same bytes, whatever the shape of a row or of the axis of slices.
            Data::Bytes(_)
            | Data::Strings(_)
            | Data::Lazy(_)
            | Data::Packed { packing: Packing::PerRow | Packing::PerSlice(_), .. } => {
                Tensor { dtype: self.dtype, shape, data: self.data.clone() }
            }
            Data::Cast(base) => base.reshaped(shape).cast(self.dtype),
            Data::Rows(_) | Data::Picked { .. } if self.shape == shape => self.clone(),
            Data::Rows(_)
            | Data::Picked { .. }
            | Data::Transposed(_)
            | Data::TransposedSlices(_)
            | Data::Scaled { .. }
            | Data::Packed { .. } => {
                let base = self.clone();
                Tensor::lazy(self.dtype, shape, move || base.bytes())
            }
        }
    }

    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Known before the bytes are, so a file can be laid out first and filled later.
    /// For strings: the sum of their lengths.
    pub fn nbytes(&self) -> usize {
        match &self.data {
            Data::Strings(list) => list.iter().map(Bytes::len).sum(),
            _ => (self.numel() * self.dtype.bits()).div_ceil(8),
        }
    }

    pub fn bytes(&self) -> Result<Bytes, TensorError> {
        let bytes = match &self.data {
            Data::Bytes(bytes) => bytes.clone(),
            Data::Strings(_) => return Err(TensorError::Strings),
            Data::Lazy(run) => run()?,
            Data::Transposed(base) => transpose(base)?,
            Data::TransposedSlices(base) => transpose_slices(base)?,
            Data::Cast(base) => from_f32(self.dtype, &base.to_f32()?)?.into(),
            Data::Rows(_) | Data::Picked { .. } | Data::Scaled { .. } => {
                from_f32(self.dtype, &self.rows_f32(0..self.shape[0])?)?.into()
            }
            Data::Packed { source, part, packing } => {
                let rows = 0..source.shape().n;
                packing.pack(&source.solve(rows)?, *part)
            }
        };
        if bytes.len() == self.nbytes() {
            return Ok(bytes);
        }
        Err(TensorError::Size {
            dtype: self.dtype,
            shape: self.shape.clone(),
            expected: self.nbytes(),
            actual: bytes.len(),
        })
    }

    pub fn string_values(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Strings(list) => Some(list),
            _ => None,
        }
    }

    /// Every element as `f32`. Only for small tensors: weights are read in [rows](Self::rows_f32).
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        let bytes = self.bytes()?;
        let mut out = vec![0.0; self.numel()];
        cast::to_f32(self.dtype, &bytes, &mut out)?;
        Ok(out)
    }

    /// Every element as `f32`: where they lie if they are stored so, or else made.
    pub fn f32s(&self) -> Result<Cow<'_, [f32]>, TensorError> {
        if let (DType::F32, Data::Bytes(bytes)) = (self.dtype, &self.data)
            && cfg!(target_endian = "little")
            && bytes.len() == self.nbytes()
            // Slices of a file may begin at an odd address.
            && let Ok(values) = bytemuck::try_cast_slice(bytes)
        {
            return Ok(Cow::Borrowed(values));
        }
        self.to_f32().map(Cow::Owned)
    }

    /// Every element of an integer or boolean tensor.
    pub fn to_i64(&self) -> Result<Vec<i64>, TensorError> {
        cast::to_i64(self.dtype, &self.bytes()?)
    }

    /// Rows of a float matrix as `f32`, row-major, without copying the rest of it.
    pub fn rows_f32(&self, rows: Range<usize>) -> Result<Vec<f32>, TensorError> {
        let [_, columns] = self.shape[..] else { panic!("rows of a matrix, not of {self:?}") };
        if let Data::Scaled { base, axis, factors } = &self.data {
            let mut out = base.rows_f32(rows.clone())?;
            scale(&mut out, columns, *axis, &factors[if *axis == 0 { rows } else { 0..columns }]);
            return self.rounded(out);
        }
        if let Data::Cast(base) = &self.data {
            return self.rounded(base.rows_f32(rows)?);
        }
        if let Data::Rows(_) | Data::Picked { .. } = &self.data {
            return self.part(rows, 0..columns);
        }
        let mut out = vec![0.0; rows.len() * columns];
        if let Data::Transposed(base) = &self.data {
            if let Data::Rows(_) | Data::Picked { .. } = &base.data {
                return rows::columns(base, rows);
            }
            cast::columns_to_f32(self.dtype, &base.bytes()?, base.shape[1], rows, &mut out)?;
            return Ok(out);
        }
        if let Data::TransposedSlices(base) = &self.data {
            let (bytes, n) = (base.bytes()?, base.shape[base.shape.len() - 1]);
            slices_to_f32(self.dtype, &bytes, n, columns, rows, &mut out)?;
            return Ok(out);
        }
        let width = self.dtype.bits() / 8;
        let bytes = self.bytes()?;
        let range = rows.start * columns * width..rows.end * columns * width;
        cast::to_f32(self.dtype, &bytes[range], &mut out)?;
        Ok(out)
    }

    /// What is left of `values` once they are stored.
    fn rounded(&self, mut values: Vec<f32>) -> Result<Vec<f32>, TensorError> {
        if self.dtype != DType::F32 {
            let bytes = from_f32(self.dtype, &values)?;
            cast::to_f32(self.dtype, &bytes, &mut values)?;
        }
        Ok(values)
    }

    /// The quantized weight behind this tensor, if it is a part of one.
    pub fn quantized(&self) -> Option<(&Arc<dyn QSource>, Part, Packing)> {
        match &self.data {
            Data::Packed { source, part, packing } => Some((source, *part, *packing)),
            _ => None,
        }
    }

    /// Where the bytes lie, if they exist: equal places mean equal tensors, at no cost.
    pub fn place(&self) -> Option<(usize, usize)> {
        match &self.data {
            Data::Bytes(bytes) => Some((bytes.as_ptr().addr(), bytes.len())),
            Data::Transposed(base) => base.place(),
            _ => None,
        }
    }

    /// What tells the bytes from those of other tensors, without making them; `None` for what is
    /// computed at each read, and for strings. It means something only as long as the tensor, or a
    /// clone of it, lives.
    pub fn identity(&self) -> Option<Identity> {
        let made_of = match &self.data {
            Data::Strings(_) | Data::Lazy(_) | Data::Scaled { .. } => return None,
            Data::Cast(base) => MadeOf::Cast(Box::new(base.identity()?)),
            Data::Bytes(it) => MadeOf::Bytes(it.as_ptr().addr()),
            Data::Transposed(base) | Data::TransposedSlices(base) => {
                MadeOf::Transposed(Box::new(base.identity()?))
            }
            Data::Rows(source) => MadeOf::Rows(source.place()),
            Data::Picked { base, rows } => MadeOf::Picked(Box::new(base.identity()?), rows.clone()),
            Data::Packed { source, part, packing } => {
                MadeOf::Packed(Arc::as_ptr(source).cast::<()>().addr(), *part, *packing)
            }
        };
        Some(Identity { dtype: self.dtype, shape: self.shape.clone(), made_of })
    }

    pub fn is_transposed(&self) -> bool {
        matches!(self.data, Data::Transposed(_))
    }

    /// Whether it is a matrix whose rows are made of another one, so that a large one need not be
    /// made at once.
    pub fn is_view(&self) -> bool {
        let is_view = matches!(
            self.data,
            Data::Transposed(_)
                | Data::Cast(_)
                | Data::Scaled { .. }
                | Data::Rows(_)
                | Data::Picked { .. }
        );
        // Through `f32`, which holds every value of these exactly.
        let exact = matches!(self.dtype, DType::F32 | DType::F16 | DType::BF16);
        is_view && exact && self.shape.len() == 2
    }

    /// The same tensor, with what views are made of in memory or in a file: reading a row computes
    /// nothing but that row.
    pub fn held(&self) -> Result<Tensor, TensorError> {
        Ok(match &self.data {
            Data::Bytes(_) | Data::Strings(_) | Data::Rows(_) => self.clone(),
            Data::Picked { base, rows } => base.held()?.picked(rows.clone()),
            Data::Transposed(base) => base.held()?.transposed(),
            Data::TransposedSlices(base) => base.held()?.transposed_slices(),
            Data::Cast(base) => base.held()?.cast(self.dtype),
            Data::Scaled { base, axis, factors } => base.held()?.scaled(*axis, factors.clone()),
            Data::Lazy(_) | Data::Packed { .. } => {
                Tensor::new(self.dtype, self.shape.clone(), self.bytes()?)
            }
        })
    }
}

/// See [`Tensor::identity`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    dtype: DType,
    shape: Vec<usize>,
    made_of: MadeOf,
}

/// Addresses of what the bytes are, or are made of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum MadeOf {
    Bytes(usize),
    Transposed(Box<Identity>),
    Cast(Box<Identity>),
    Rows(usize),
    Picked(Box<Identity>, Arc<[usize]>),
    Packed(usize, Part, Packing),
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Multiplies rows (axis 0) or columns (axis 1) of a row-major matrix.
fn scale(values: &mut [f32], columns: usize, axis: usize, factors: &[f32]) {
    let rows = values.chunks_exact_mut(columns.max(1));
    for (i, row) in rows.enumerate() {
        match axis {
            0 => row.iter_mut().for_each(|it| *it *= factors[i]),
            _ => row.iter_mut().zip(factors).for_each(|(it, factor)| *it *= factor),
        }
    }
}

fn transpose(base: &Tensor) -> Result<Bytes, TensorError> {
    let mut out = Vec::with_capacity(base.nbytes());
    transpose_into(&base.bytes()?, base, &mut out);
    Ok(out.into())
}

fn transpose_slices(base: &Tensor) -> Result<Bytes, TensorError> {
    let [.., rows, columns] = base.shape[..] else { panic!("slices are matrices") };
    let bytes = base.bytes()?;
    let mut out = Vec::with_capacity(bytes.len());
    for slice in bytes.chunks_exact((rows * columns * base.dtype.bits() / 8).max(1)) {
        transpose_into(slice, base, &mut out);
    }
    Ok(out.into())
}

/// The bytes of a matrix of the last two axes of `of`, column by column.
fn transpose_into(bytes: &[u8], of: &Tensor, out: &mut Vec<u8>) {
    let [.., rows, columns] = of.shape[..] else { panic!("a matrix has two axes") };
    let width = of.dtype.bits() / 8;
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * width;
            out.extend_from_slice(&bytes[at..at + width]);
        }
    }
}

/// Some rows of the transposed slices, `[k, n]` each, in `bytes`: slice by slice.
fn slices_to_f32(
    dtype: DType,
    bytes: &[u8],
    n: usize,
    k: usize,
    rows: Range<usize>,
    out: &mut [f32],
) -> Result<(), TensorError> {
    let size = n * k * dtype.bits() / 8;
    let mut at = rows.start;
    while at < rows.end {
        let (slice, end) = (at / n, rows.end.min((at / n + 1) * n));
        let columns = at - slice * n..end - slice * n;
        let own = &mut out[(at - rows.start) * k..(end - rows.start) * k];
        cast::columns_to_f32(dtype, &bytes[slice * size..][..size], n, columns, own)?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_view_reads_columns() {
        let base = Tensor::from_f32(&[2, 3], [1., 2., 3., 4., 5., 6.]);
        let view = base.transposed();
        assert_eq!(view.shape, [3, 2]);
        assert_eq!(view.to_f32().unwrap(), [1., 4., 2., 5., 3., 6.]);
        assert_eq!(view.rows_f32(1..3).unwrap(), [2., 5., 3., 6.]);
        assert_eq!(view.transposed().to_f32().unwrap(), base.to_f32().unwrap());
    }

    #[test]
    fn transposed_slices_are_read_row_by_row() {
        let base = Tensor::from_f32(&[2, 2, 3], (0..12).map(|it| it as f32));
        let view = base.transposed_slices();
        assert_eq!(view.shape, [6, 2]);
        let rows = [0., 3., 1., 4., 2., 5., 6., 9., 7., 10., 8., 11.];
        assert_eq!(view.to_f32().unwrap(), rows);
        assert_eq!(view.rows_f32(1..5).unwrap(), rows[2..10]);
        let half = base.cast(DType::F16).transposed_slices();
        assert_eq!(half.rows_f32(2..4).unwrap(), rows[4..8]);
        let back = view.reshaped(vec![2, 3, 2]).transposed_slices();
        assert_eq!(back.to_f32().unwrap(), base.to_f32().unwrap());
    }

    #[test]
    fn a_scaled_view_multiplies_what_is_read() {
        let base = Tensor::from_f32(&[2, 3], [1., 2., 3., 4., 5., 6.]);
        let columns = base.scaled(1, [1.0, 10.0, 100.0]);
        assert_eq!(columns.to_f32().unwrap(), [1., 20., 300., 4., 50., 600.]);
        assert_eq!(columns.rows_f32(1..2).unwrap(), [4., 50., 600.]);
        let both = columns.scaled(0, [1.0, -1.0]);
        assert_eq!(both.rows_f32(1..2).unwrap(), [-4., -50., -600.]);
        let turned = both.transposed();
        assert_eq!(turned.shape, [3, 2]);
        assert_eq!(turned.rows_f32(2..3).unwrap(), [300., -600.]);
        assert_eq!(turned.to_f32().unwrap(), [1., -4., 20., -50., 300., -600.]);
        assert_eq!(turned.transposed().to_f32().unwrap(), both.to_f32().unwrap());
        assert_eq!(both.reshaped(vec![6]).to_f32().unwrap(), both.to_f32().unwrap());
        assert_eq!((both.place(), both.nbytes()), (None, 24));
    }

    #[test]
    fn a_cast_view_converts_what_is_read() {
        let values = [1.0, -2.5, 3.0, 0.15625, 5.0, 6.0];
        let bytes = from_f32(DType::BF16, &values).unwrap();
        let base = Tensor::new(DType::BF16, vec![2, 3], bytes);
        let view = base.cast(DType::F32);
        assert_eq!((view.nbytes(), view.place(), view.is_view()), (24, None, true));
        assert_eq!(view.to_f32().unwrap(), values);
        assert_eq!(view.transposed().rows_f32(1..2).unwrap(), [-2.5, 5.0]);
        assert_eq!(view.transposed().to_f32().unwrap(), base.transposed().to_f32().unwrap());
        assert_eq!(view.identity(), base.cast(DType::F32).identity());
        assert_ne!(view.identity(), base.identity());
        assert_eq!(view.reshaped(vec![6]).to_f32().unwrap(), values);
        let lazy = Tensor::lazy(DType::F32, vec![2, 3], move || view.bytes());
        let narrow = lazy.transposed().cast(DType::F16);
        assert_eq!(narrow.held().unwrap().to_f32().unwrap(), narrow.to_f32().unwrap());
    }

    #[test]
    fn a_scaled_view_is_rounded_to_its_type() {
        let bytes = from_f32(DType::F16, &[1.0, 3.0]).unwrap();
        let view = Tensor::new(DType::F16, vec![1, 2], bytes).scaled(0, [1.0 / 3.0]);
        let stored = view.to_f32().unwrap();
        assert_ne!(stored[0], 1.0 / 3.0);
        assert_eq!(view.rows_f32(0..1).unwrap(), stored);
    }

    #[test]
    fn floats_are_read_where_they_lie() {
        let values = [1.5, -2.0, 3.25];
        let tensor = Tensor::from_f32(&[3], values);
        let place = tensor.bytes().unwrap().as_ptr().addr();
        let read = tensor.f32s().unwrap();
        assert_eq!(read[..], values);
        assert_eq!(matches!(read, Cow::Borrowed(_)), place.is_multiple_of(4));
        let odd: Vec<u8> = [0].into_iter().chain(tensor.bytes().unwrap().to_vec()).collect();
        for start in 0..2 {
            let bytes = Bytes::from([&vec![0; start][..], &odd].concat()).slice(start + 1..);
            assert_eq!(Tensor::new(DType::F32, vec![3], bytes).f32s().unwrap()[..], values);
        }
        let half = Tensor::new(DType::F16, vec![3], from_f32(DType::F16, &values).unwrap());
        assert_eq!(half.f32s().unwrap()[..], values);
        assert!(Tensor::new(DType::F32, vec![2], vec![0u8; 4]).f32s().is_err());
        assert!(Tensor::strings(vec![0], []).f32s().is_err());
    }

    #[test]
    fn missing_bytes_are_an_error_with_the_shape() {
        let short = Tensor::new(DType::F32, vec![2], vec![0u8; 4]);
        assert_eq!(short.bytes().unwrap_err().to_string(), "expected 8 bytes for float[2], got 4");
    }
}
