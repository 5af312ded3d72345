//! A text as it was written: what the parser makes and the builder turns into a model.

use super::{lex::Ident, types::Type};
use crate::{
    ir::{Attr, Name, Op, Sparse},
    tensor::Tensor,
};

pub(super) struct File {
    pub header: Header,
    pub graph: Graph,
    pub functions: Vec<Function>,
}

/// The `<key: value, …>` before a model or a function.
#[derive(Default)]
pub(super) struct Header {
    pub ir_version: Option<i64>,
    pub opsets: Option<Vec<(Name, i64)>>,
    pub producer_name: String,
    pub producer_version: String,
    pub domain: String,
    pub overload: String,
    pub model_version: i64,
    pub doc: String,
    pub metadata: Vec<(String, String)>,
}

pub(super) struct Graph {
    pub name: Name,
    pub inputs: Vec<Typed>,
    pub outputs: Vec<Typed>,
    /// Initializers and types of computed values.
    pub locals: Vec<Typed>,
    pub nodes: Vec<Node>,
}

pub(super) struct Typed {
    pub name: Ident,
    pub ty: Option<Type>,
    pub data: Option<Data>,
}

pub(super) enum Data {
    Dense(Tensor),
    Sparse(Sparse),
}

pub(super) struct Node {
    pub name: Name,
    pub op: Op,
    pub attrs: Vec<(Ident, Value)>,
    /// An empty name is an input that is left out.
    pub inputs: Vec<Ident>,
    pub outputs: Vec<Ident>,
}

pub(super) enum Value {
    Plain(Attr),
    Graph(Graph),
    Graphs(Vec<Graph>),
}

pub(super) struct Function {
    pub header: Header,
    pub attributes: Vec<String>,
    pub defaults: Vec<(Ident, Value)>,
    pub graph: Graph,
}
