//! What an operator sees: its attributes, inputs and version.

use super::{EvalError, index, scope::Scope, values};
use crate::{
    ir::{Attr, Attrs, GraphId, Op},
    tensor::{DType, Tensor},
    untrusted::Untrusted,
};

pub struct Call<'a> {
    pub op: &'a Op,
    /// References to attributes of a function's caller are resolved.
    pub attrs: &'a Attrs,
    pub inputs: &'a [Option<Tensor>],
    /// How many outputs the node has.
    pub outputs: usize,
    /// The version of the operator set that the operator belongs to.
    pub opset: i64,
    pub(super) scope: &'a Scope<'a>,
}

impl<'a> Call<'a> {
    pub fn input(&self, index: usize) -> Result<&'a Tensor, EvalError> {
        let missing =
            || EvalError::MissingInput { name: format!("input {index} of {}", self.shown()) };
        self.optional(index).ok_or_else(missing)
    }

    pub fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index)?.as_ref()
    }

    /// Every input from `first` on, each of which must be given.
    pub fn inputs_from(&self, first: usize) -> Result<Vec<&'a Tensor>, EvalError> {
        (first..self.inputs.len()).map(|it| self.input(it)).collect()
    }

    /// The elements of a float input.
    pub fn reals(&self, index: usize) -> Result<Vec<f64>, EvalError> {
        values::reals(self.input(index)?)
    }

    pub fn int(&self, name: &str, default: i64) -> Result<i64, EvalError> {
        Ok(self.attr(name, Attr::as_int, "is not an integer")?.unwrap_or(default))
    }

    /// 0 or 1: what anything else means is up to the runtime.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, EvalError> {
        match self.int(name, default.into())? {
            0 => Ok(false),
            1 => Ok(true),
            it => Err(self.unsupported(&format!("with a `{name}` of {it}"))),
        }
    }

    /// A float attribute, widened: the default is rounded to `f32` as a stored one is.
    pub fn float(&self, name: &str, default: f32) -> Result<f64, EvalError> {
        Ok(self.attr(name, Attr::as_float, "is not a float")?.unwrap_or(default).into())
    }

    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, EvalError> {
        self.attr(name, Attr::as_ints, "is not a list of integers")
    }

    /// An argument that was an attribute and became input `index` in a later version.
    pub fn ints_or_input(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>, EvalError> {
        match (self.ints(name)?, self.optional(index)) {
            (Some(it), _) => Ok(Some(it.to_vec())),
            (None, Some(it)) => Ok(Some(values::ints(it)?)),
            (None, None) => Ok(None),
        }
    }

    pub fn text(&self, name: &str, default: &'a str) -> Result<&'a str, EvalError> {
        match self.attr(name, Attr::as_bytes, "is not a string")? {
            None => Ok(default),
            Some(it) => std::str::from_utf8(it).map_err(|_| wrong(name, "is not UTF-8")),
        }
    }

    pub fn graph(&self, name: &str) -> Result<GraphId, EvalError> {
        self.attrs.get(name).and_then(Attr::as_graph).ok_or_else(|| wrong(name, "is not a graph"))
    }

    /// An attribute of a kind; `None` if it is missing.
    fn attr<T>(
        &self,
        name: &str,
        read: impl Fn(&'a Attr) -> Option<T>,
        what: &'static str,
    ) -> Result<Option<T>, EvalError> {
        let found = self.attrs.get(name);
        found.map(|it| read(it).ok_or_else(|| wrong(name, what))).transpose()
    }

    /// An attribute that holds the number of an element type.
    pub fn dtype(&self, name: &str) -> Result<Option<DType>, EvalError> {
        let number = self.int(name, 0)?;
        if number == 0 {
            return Ok(None);
        }
        let number = i32::try_from(number).ok();
        let dtype = number.and_then(DType::from_number);
        dtype.map(Some).ok_or_else(|| wrong(name, "is not an element type"))
    }

    /// The attribute `axis`, for a value of `rank` dimensions.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize, EvalError> {
        index::axis(self.int("axis", default)?, rank)
    }

    pub fn unsupported(&self, what: &str) -> EvalError {
        EvalError::Unsupported { op: format!("{} {}", self.shown(), Untrusted(what)) }
    }

    pub fn shape_error(&self, what: &str) -> EvalError {
        let shapes: Vec<_> = self.inputs.iter().flatten().map(|it| &it.shape).collect();
        EvalError::Shape { what: format!("{} of shapes {shapes:?}: {what}", self.shown()) }
    }

    fn shown(&self) -> String {
        format!("`{}`", Untrusted(&self.op.to_string()))
    }
}

pub(super) fn wrong(name: &str, what: &'static str) -> EvalError {
    EvalError::Attribute { name: Untrusted(name).to_string(), what }
}
