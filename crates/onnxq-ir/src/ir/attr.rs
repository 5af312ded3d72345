//! Attributes of nodes, in the order of the file.

use std::sync::Arc;

use bytes::Bytes;

use super::{GraphId, Name, Sparse};
use crate::tensor::Tensor;

#[derive(Clone, Debug)]
pub enum Attr {
    Float(f32),
    Int(i64),
    /// UTF-8 by the standard, any bytes in practice.
    String(Bytes),
    Tensor(Tensor),
    Graph(GraphId),
    Sparse(Arc<Sparse>),
    /// An encoded `TypeProto`.
    Type(Bytes),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Bytes>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<GraphId>),
    Sparses(Vec<Arc<Sparse>>),
    Types(Vec<Bytes>),
    /// In a function body: the attribute of that name of the calling node.
    /// `kind` is the number of `AttributeProto.AttributeType`.
    Ref {
        name: Name,
        kind: i32,
    },
}

/// What it holds, if it is of the kind.
impl Attr {
    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Attr::String(it) => Some(it),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f32> {
        match self {
            Attr::Float(it) => Some(*it),
            _ => None,
        }
    }

    pub fn as_floats(&self) -> Option<&[f32]> {
        match self {
            Attr::Floats(it) => Some(it),
            _ => None,
        }
    }

    pub fn as_graph(&self) -> Option<GraphId> {
        match self {
            Attr::Graph(it) => Some(*it),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Attr::Int(it) => Some(*it),
            _ => None,
        }
    }

    pub fn as_ints(&self) -> Option<&[i64]> {
        match self {
            Attr::Ints(it) => Some(it),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Attrs(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    name: Name,
    doc: String,
    value: Attr,
}

impl Attrs {
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.iter().find(|it| *it.name == *name).map(|it| &it.value)
    }

    /// Adds or replaces.
    pub fn set(&mut self, name: &str, value: Attr) {
        match self.0.iter_mut().find(|it| *it.name == *name) {
            Some(it) => it.value = value,
            None => self.0.push(Entry { name: name.into(), doc: String::new(), value }),
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<Attr>) -> Attrs {
        self.set(name, value.into());
        self
    }

    pub fn remove(&mut self, name: &str) -> Option<Attr> {
        let at = self.0.iter().position(|it| *it.name == *name)?;
        Some(self.0.remove(at).value)
    }

    pub(crate) fn push(&mut self, name: Name, doc: String, value: Attr) {
        self.0.push(Entry { name, doc, value });
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Attr)> {
        self.0.iter().map(|it| (&it.name, &it.value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Name, &mut Attr)> {
        self.0.iter_mut().map(|it| (&it.name, &mut it.value))
    }

    /// `(name, doc, value)`, for the writer.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str, &Attr)> {
        self.0.iter().map(|it| (&*it.name, &*it.doc, &it.value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The subgraphs among the attributes.
    pub fn graphs(&self) -> impl Iterator<Item = GraphId> {
        self.0.iter().flat_map(|it| match &it.value {
            Attr::Graph(id) => std::slice::from_ref(id).iter().copied(),
            Attr::Graphs(list) => list.iter().copied(),
            _ => [].iter().copied(),
        })
    }
}

impl From<i64> for Attr {
    fn from(it: i64) -> Attr {
        Attr::Int(it)
    }
}

impl From<usize> for Attr {
    fn from(it: usize) -> Attr {
        Attr::Int(it as i64)
    }
}

impl From<f32> for Attr {
    fn from(it: f32) -> Attr {
        Attr::Float(it)
    }
}

impl From<Vec<i64>> for Attr {
    fn from(it: Vec<i64>) -> Attr {
        Attr::Ints(it)
    }
}

impl From<&str> for Attr {
    fn from(it: &str) -> Attr {
        Attr::String(Bytes::copy_from_slice(it.as_bytes()))
    }
}

impl From<Tensor> for Attr {
    fn from(it: Tensor) -> Attr {
        Attr::Tensor(it)
    }
}
