//! Why a model cannot be read or written: what, where, and which rule.

use std::{io, path::PathBuf};

use crate::{
    diag::{Code, Diagnostic},
    fs::{read_code, read_hint},
    human,
    tensor::{DType, TensorError},
    untrusted::Untrusted,
};

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("not an ONNX model: {what} at byte {offset}")]
    NotProtobuf { offset: usize, what: &'static str },
    #[error("not an ONNX model but {}", Untrusted(kind))]
    Foreign { kind: String, hint: String },
    #[error("not an ONNX model")]
    Decode(#[source] prost::DecodeError),
    #[error("the file is empty")]
    Empty,
    #[error("messages nest deeper than {limit} levels")]
    Depth { limit: usize },
    #[error("decoding would take more than {}, far more than the file's size justifies", human::bytes(*limit))]
    Budget { limit: u64 },
    #[error("function `{}` calls itself, directly or through others", Untrusted(name))]
    FunctionCycle { name: String },
    #[error("inlining function `{}` would make more than {limit} nodes", Untrusted(name))]
    FunctionExpansion { name: String, limit: u64 },
    #[error("{message} has field {number}, which this version does not know and cannot keep")]
    UnknownField { message: &'static str, number: u32 },
    #[error("the model has no graph")]
    NoGraph,
    #[error("the model imports no operator set")]
    NoOpset,
    #[error("opset {version} of domain `{}` is newer than {known}", Untrusted(domain))]
    Opset { domain: String, version: i64, known: i64 },
    #[error("opset {version} of domain `{}` is negative", Untrusted(domain))]
    NegativeOpset { domain: String, version: i64 },
    #[error("more than {limit} operator sets are imported in one place")]
    Opsets { limit: usize },
    #[error("IR version {version} is newer than {known}")]
    IrVersion { version: i64, known: i64 },
    #[error("external data of `{}`: {problem}", Untrusted(tensor))]
    External { tensor: String, problem: ExternalProblem },
    #[error("tensor `{}`: {problem}", Untrusted(tensor))]
    Tensor { tensor: String, problem: TensorProblem },
    #[error("input `{}` has dimension {dim}", Untrusted(value))]
    NegativeDim { value: String, dim: i64 },
    #[error("the dimensions of `{}` multiply to more than memory can address", Untrusted(value))]
    TypeOverflow { value: String },
    #[error("two values of graph `{}` are called `{}`", Untrusted(graph), Untrusted(name))]
    DuplicateValue { graph: String, name: String },
    #[error("two initializers of graph `{}` are called `{}`", Untrusted(graph), Untrusted(name))]
    DuplicateInitializer { graph: String, name: String },
    #[error("two functions are called `{}`", Untrusted(name))]
    DuplicateFunction { name: String },
    #[error("the nodes of graph `{}` form a cycle through `{}`", Untrusted(graph), Untrusted(node))]
    Cycle { graph: String, node: String },
    #[error("`{}` uses `{}`, which nothing defines", Untrusted(user), Untrusted(name))]
    Missing { user: String, name: String },
    #[error("attribute `{}` of `{}` has no readable value", Untrusted(attribute), Untrusted(node))]
    Attribute { node: String, attribute: String },
    #[error("attribute `{}` of `{}` is given twice", Untrusted(attribute), Untrusted(node))]
    DuplicateAttribute { node: String, attribute: String },
    #[error("segmented tensor `{}` cannot be rewritten", Untrusted(tensor))]
    Segment { tensor: String },
    #[error(transparent)]
    Text(crate::text::ParseError),
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum ExternalProblem {
    #[error("location `{}` {why}", Untrusted(location))]
    Location { location: String, why: &'static str },
    #[error("`{}` is a link that leads out of the model's folder", Untrusted(location))]
    Escapes { location: String },
    #[error("`{}` is a link", Untrusted(location))]
    Link { location: String },
    #[error("`{}` is not a regular file", Untrusted(location))]
    NotFile { location: String },
    #[error("{key} `{}` is not a number that fits", Untrusted(value))]
    Number { key: &'static str, value: String },
    #[error(
        "bytes {offset} to {end} lie beyond the end of `{}` ({size} bytes)",
        Untrusted(location)
    )]
    BeyondEnd { location: String, offset: u64, end: u128, size: u64 },
    #[error("length {length} does not match {dtype}{shape:?}, which needs {expected} bytes")]
    Length { length: u64, dtype: DType, shape: Vec<usize>, expected: usize },
    #[error("`{}` was not found in {}", Untrusted(location), folder.display())]
    NotFound { location: String, folder: PathBuf },
    #[error("key `{}` is given twice", Untrusted(key))]
    DuplicateKey { key: String },
    #[error("the checksum does not match `{}`", Untrusted(location))]
    Checksum { location: String },
    #[error("`{}` cannot be read", Untrusted(location))]
    Io {
        location: String,
        #[source]
        source: io::Error,
    },
    #[error("external data is refused by --external-policy none")]
    Refused,
}

#[derive(Debug, thiserror::Error)]
pub enum TensorProblem {
    #[error("dimension {0} is negative")]
    NegativeDim(i64),
    #[error("{0} dimensions are more than any model has")]
    Rank(usize),
    #[error("dimensions {0:?} multiply to more than memory can address, or than there is data")]
    Overflow(Vec<i64>),
    #[error("{dtype}{shape:?} needs {expected} bytes, the file has {actual}")]
    Size { dtype: DType, shape: Vec<usize>, expected: usize, actual: usize },
    #[error("the data is stored twice, also as {0}")]
    Twice(&'static str),
    #[error("element type {0} does not exist")]
    DType(i32),
    #[error("{dtype} elements cannot be stored as {field}")]
    Field { dtype: DType, field: &'static str },
    #[error("value {value} does not fit {dtype}")]
    Value { dtype: DType, value: i64 },
    #[error("{0}")]
    Sparse(&'static str),
}

impl Diagnostic for LoadError {
    fn code(&self) -> Code {
        match self {
            LoadError::Io { source, .. } => read_code(source),
            LoadError::NotProtobuf { .. } | LoadError::Foreign { .. } | LoadError::Decode(_) => {
                Code::E101
            }
            LoadError::Empty => Code::E102,
            LoadError::Depth { .. } => Code::E103,
            LoadError::Budget { .. } | LoadError::Opsets { .. } => Code::E104,
            LoadError::FunctionCycle { .. } => Code::E105,
            LoadError::FunctionExpansion { .. } => Code::E106,
            LoadError::UnknownField { .. } => Code::E107,
            LoadError::NoGraph => Code::E110,
            LoadError::NoOpset => Code::E111,
            LoadError::Opset { .. } | LoadError::NegativeOpset { .. } => Code::E112,
            LoadError::IrVersion { .. } => Code::E113,
            LoadError::External { problem, .. } => problem.code(),
            LoadError::Tensor { problem, .. } => problem.code(),
            LoadError::NegativeDim { .. } => Code::E301,
            LoadError::TypeOverflow { .. } => Code::E302,
            LoadError::DuplicateValue { .. }
            | LoadError::DuplicateFunction { .. }
            | LoadError::DuplicateAttribute { .. } => Code::E401,
            LoadError::DuplicateInitializer { .. } => Code::E402,
            LoadError::Cycle { .. } => Code::E404,
            LoadError::Missing { .. } => Code::E406,
            LoadError::Attribute { .. } | LoadError::Segment { .. } => Code::E407,
            LoadError::Text(_) => Code::E408,
            LoadError::Changed { .. } => Code::E207,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            LoadError::Io { path, source } => return read_hint(path, source),
            LoadError::Foreign { hint, .. } => hint.clone(),
            LoadError::NotProtobuf { .. } | LoadError::Decode(_) | LoadError::Empty => {
                "the file may be truncated or of another format; compare its checksum with the source".into()
            }
            LoadError::Depth { .. } => {
                "31 nested subgraphs are the limit of onnx and ONNX Runtime too".into()
            }
            LoadError::Opset { known, .. } => {
                format!("export with opset {known} or older, or pass --allow-unknown-opset")
            }
            LoadError::NegativeOpset { .. } => "export again: versions start at 1".into(),
            LoadError::UnknownField { .. } => "pass --drop-unknown to lose the field".into(),
            LoadError::External { problem, .. } => return problem.hint(),
            LoadError::Changed { .. } => "run again when nothing writes to it".into(),
            _ => return None,
        })
    }
}

impl ExternalProblem {
    fn code(&self) -> Code {
        match self {
            ExternalProblem::Location { .. } | ExternalProblem::Refused => Code::E201,
            ExternalProblem::Escapes { .. } => Code::E202,
            ExternalProblem::Link { .. } => Code::E203,
            ExternalProblem::NotFile { .. } => Code::E204,
            ExternalProblem::Number { .. }
            | ExternalProblem::BeyondEnd { .. }
            | ExternalProblem::Length { .. } => Code::E205,
            ExternalProblem::NotFound { .. } => Code::E206,
            ExternalProblem::DuplicateKey { .. } => Code::E208,
            ExternalProblem::Checksum { .. } => Code::E209,
            ExternalProblem::Io { .. } => Code::E902,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            ExternalProblem::BeyondEnd { end, .. } => {
                format!("the data file looks truncated; at least {end} bytes are expected")
            }
            ExternalProblem::NotFound { .. } => "copy the data files beside the .onnx file".into(),
            ExternalProblem::Escapes { .. } => "copy the data file beside the model".into(),
            _ => return None,
        })
    }
}

impl TensorProblem {
    fn code(&self) -> Code {
        match self {
            TensorProblem::NegativeDim(_) => Code::E301,
            TensorProblem::Overflow(_) | TensorProblem::Rank(_) => Code::E302,
            TensorProblem::Size { dtype, .. } if dtype.bits() < 8 && dtype.bits() > 0 => Code::E307,
            TensorProblem::Size { .. } => Code::E303,
            TensorProblem::Twice(_) => Code::E304,
            TensorProblem::DType(_) => Code::E305,
            TensorProblem::Field { .. } | TensorProblem::Value { .. } => Code::E306,
            TensorProblem::Sparse(_) => Code::E308,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("cannot write {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} exists", path.display())]
    Exists { path: PathBuf },
    #[error("{} is a folder", path.display())]
    IsFolder { path: PathBuf },
    #[error("{} is a pipe or a device, which a model would replace", path.display())]
    NotRegular { path: PathBuf },
    #[error("there is no folder {} for the output", folder.display())]
    NoFolder { folder: PathBuf },
    #[error("{} is a data file of the input", path.display())]
    InputData { path: PathBuf },
    #[error("the model has {bytes} bytes; a single file holds at most 2 GiB")]
    TooLarge { bytes: u64 },
    #[error("weight `{}` holds {what} at [{row}, {column}]", Untrusted(weight))]
    NonFinite { weight: String, what: &'static str, row: usize, column: usize },
    #[error("cannot compute tensor `{}`", Untrusted(name))]
    Tensor { name: String, source: TensorError },
    #[error("{} needs {needed} bytes, its disk has {available} free", path.display())]
    NoSpace { path: PathBuf, needed: u64, available: u64 },
}

impl SaveError {
    /// Of a tensor that cannot be computed; it is called as in the output.
    pub(super) fn of_tensor(name: &str, source: TensorError) -> SaveError {
        match source {
            TensorError::NonFinite { name: weight, what, row, column } => {
                SaveError::NonFinite { weight, what, row, column }
            }
            source => SaveError::Tensor { name: name.to_owned(), source },
        }
    }
}

impl Diagnostic for SaveError {
    fn code(&self) -> Code {
        match self {
            SaveError::Io { .. } | SaveError::NoSpace { .. } => Code::E901,
            SaveError::IsFolder { .. }
            | SaveError::NotRegular { .. }
            | SaveError::NoFolder { .. } => Code::E905,
            SaveError::Exists { .. } => Code::E903,
            SaveError::InputData { .. } => Code::E904,
            SaveError::TooLarge { .. } => Code::E407,
            SaveError::NonFinite { .. } => Code::E501,
            SaveError::Tensor { .. } => Code::E902,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            SaveError::IsFolder { path } => {
                format!("name the file in it: {}", path.join("model.onnx").display())
            }
            SaveError::NotRegular { .. } => "name a file that is not there yet".into(),
            SaveError::NoFolder { folder } => {
                format!("make it first: mkdir -p {}", folder.display())
            }
            SaveError::Exists { .. } => "pass --force to replace it".into(),
            SaveError::InputData { .. } => "choose another output name".into(),
            SaveError::TooLarge { .. } => {
                "leave out --external-data, so that large weights get a file of their own".into()
            }
            SaveError::NonFinite { .. } => {
                "fix the checkpoint, or pass --nonfinite skip to leave the tensor in float".into()
            }
            _ => return None,
        })
    }
}
