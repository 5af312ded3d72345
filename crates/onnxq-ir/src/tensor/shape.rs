//! Shapes whose dimensions may be numbers, symbols or unknown.

use std::{fmt, sync::Arc};

use super::DType;

/// One dimension of a value's shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Dim {
    Fixed(usize),
    /// A name of the model (`batch`) or an expression over names (`past + sequence`).
    Symbol(Arc<str>),
    Unknown,
}

impl Dim {
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(it) => Some(*it),
            _ => None,
        }
    }

    /// Both are known, and the same whatever the symbols stand for.
    pub fn surely_equals(&self, other: &Dim) -> bool {
        self == other && *self != Dim::Unknown
    }
}

/// A position that counts from the end if negative, an axis or an index; `None` if out of range.
pub fn position(at: i64, len: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(i64::try_from(len).ok()?)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

impl From<usize> for Dim {
    fn from(it: usize) -> Dim {
        Dim::Fixed(it)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(it) => write!(f, "{it}"),
            Dim::Symbol(it) => f.write_str(it),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

pub type Shape = Vec<Dim>;

/// Element type and, if known, shape of a value. `shape: None` means that even the rank is unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Option<Shape>,
}

impl TensorType {
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = impl Into<Dim>>) -> TensorType {
        TensorType { dtype, shape: Some(dims.into_iter().map(Into::into).collect()) }
    }

    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The shape, if every dimension is a number.
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::fixed).collect()
    }
}

/// `float[batch,128]`, `float[]` for any rank, `float` for a scalar: the ONNX text syntax.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dtype)?;
        match self.shape.as_deref() {
            None => f.write_str("[]"),
            Some([]) => Ok(()),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(","))
            }
        }
    }
}
