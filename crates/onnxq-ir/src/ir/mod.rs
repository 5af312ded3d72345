//! The graph: nodes and values in one arena, subgraphs included, edges by typed ids.
//!
//! A value captured by the body of an `If` is an ordinary use; names are for people and files.

mod attr;
mod edit;
mod extract;
mod matching;
mod names;
mod order;
mod patch;
mod places;
mod verify;

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use self::{
    attr::{Attr, Attrs},
    extract::{Extracted, Feed, extract},
    matching::NoMatch,
    names::{unique_names, unique_node_names},
    patch::{Made, Patch, Ref},
    verify::Broken,
};
use crate::{
    ops::{self, Layout, OpInfo, QuantizedOp, Set, Traits},
    tensor::{Tensor, TensorType},
};

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub(crate) u32);
        impl $name {
            /// The id that stands at `index` of the arena, if there is one.
            pub const fn at(index: u32) -> $name {
                $name(index)
            }

            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
id!(ValueId, "A value of the model; never reused.");
id!(NodeId, "A node of the model; never reused.");
id!(GraphId, "The main graph, a subgraph or a function body.");

pub type Name = Arc<str>;

/// A whole model. Fields that no rewrite looks at are kept as they were read.
#[derive(Clone)]
pub struct Model {
    pub ir_version: i64,
    /// `(domain, version)`; the standard domain is `""`.
    pub opsets: Vec<(Name, i64)>,
    pub producer_name: String,
    pub producer_version: String,
    pub domain: String,
    pub model_version: i64,
    pub doc: String,
    pub metadata: Vec<(String, String)>,
    /// What an entry of the metadata says once the weights are written.
    pub late: Option<Late>,
    pub functions: Vec<Function>,
    pub main: GraphId,
    /// Encoded messages that pass through: training info, device configurations, unknown fields.
    pub kept: KeptModel,
    graphs: Vec<Graph>,
    nodes: Vec<Option<Node>>,
    values: Vec<Value>,
}

/// An entry of the metadata whose text depends on weights that are computed while they are written.
/// Until then a text stands in its place, as long as the final one.
#[derive(Clone)]
pub struct Late {
    pub key: String,
    /// Asked when all weights are written.
    pub text: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Late {
    /// The final text; `None` if it does not fit in the place of the one that stands there.
    pub(crate) fn instead_of(&self, text: &str) -> Option<String> {
        (self.text)().filter(|it| it.len() == text.len())
    }
}

#[derive(Clone, Default)]
pub struct KeptModel {
    pub training_info: Vec<Bytes>,
    pub configuration: Vec<Bytes>,
    /// Fields of the model that our schema does not know, tags included.
    pub unknown: Bytes,
}

/// A model-local function; its body is an ordinary graph.
#[derive(Clone)]
pub struct Function {
    pub op: Op,
    pub body: GraphId,
    pub opsets: Vec<(Name, i64)>,
    /// Names of attributes without a default.
    pub attributes: Vec<String>,
    /// Attributes with a default.
    pub defaults: Attrs,
    pub doc: String,
    pub metadata: Vec<(String, String)>,
}

#[derive(Clone, Default)]
pub struct Graph {
    pub name: String,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// Initializers, dense and sparse.
    pub constants: Vec<ValueId>,
    /// The node whose attribute this graph is; `None` for the main graph and functions.
    pub parent: Option<NodeId>,
    pub doc: String,
    pub metadata: Vec<(String, String)>,
    pub annotations: Vec<Annotation>,
    pub unknown: Bytes,
    first: Option<NodeId>,
    last: Option<NodeId>,
}

/// Quantization parameters of a value, as `TensorAnnotation` states them.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    pub value: ValueId,
    /// `(key, value)`, as `("SCALE_TENSOR", x_scale)`.
    pub params: Vec<(String, ValueId)>,
}

/// The identity of an operator. Rewrites compare domain and name, never the name alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Op {
    pub domain: Name,
    pub name: Name,
    pub overload: Name,
}

#[derive(Clone)]
pub struct Node {
    pub op: Op,
    pub name: Name,
    pub inputs: Vec<Option<ValueId>>,
    /// An output that nobody names is a value with an empty name.
    pub outputs: Vec<ValueId>,
    pub attrs: Attrs,
    pub graph: GraphId,
    pub kept: Option<Box<KeptNode>>,
    /// Where each input stands in the use list of its value: a hint, checked before it is used.
    places: Vec<u32>,
    prev: Option<NodeId>,
    next: Option<NodeId>,
    /// Grows along the nodes of a graph.
    rank: u64,
}

#[derive(Clone, Default, PartialEq, Debug)]
pub struct KeptNode {
    pub doc: String,
    pub metadata: Vec<(String, String)>,
    /// Encoded `NodeDeviceConfigurationProto`s.
    pub device: Vec<Bytes>,
}

#[derive(Clone)]
pub struct Value {
    /// Imported: fixed. New: a stem, made unique when written.
    pub name: Name,
    pub ty: Option<TensorType>,
    /// The file states the type, so the writer does too.
    pub declared: bool,
    pub def: Def,
    /// One entry per use.
    pub uses: Vec<Use>,
    pub kept: Option<Box<KeptValue>>,
}

#[derive(Clone, Default, PartialEq, Debug)]
pub struct KeptValue {
    /// The encoded `ValueInfoProto`, where `ty` cannot say it all (sequences, denotations, docs).
    pub info: Option<Bytes>,
    /// The encoded `TensorProto` without its data, if it has a doc string or metadata.
    pub tensor: Option<Bytes>,
}

#[derive(Clone)]
pub enum Def {
    /// An input of a graph. With a default (an initializer of the same name) the caller may
    /// still override it, so it is not a constant.
    Input(GraphId, Option<Tensor>),
    Node(NodeId),
    Const(Tensor),
    Sparse(Arc<Sparse>),
}

/// A sparse initializer or attribute: `values[i]` lies at `indices[i]`.
#[derive(Clone, Debug)]
pub struct Sparse {
    pub values: Tensor,
    pub indices: Tensor,
    pub shape: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Use {
    pub user: User,
    pub index: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum User {
    /// Input `index` of a node.
    Node(NodeId),
    /// Output `index` of a graph.
    Output(GraphId),
    /// A quantization annotation of a graph.
    Annotation(GraphId),
}

/// `ai.onnx` and the empty string are the same domain.
pub(crate) fn normal_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

impl Op {
    /// An operator by its printed name: `MatMul`, `com.microsoft.MatMulNBits`.
    pub fn new(name: &str) -> Op {
        let (domain, name) = name.rsplit_once('.').unwrap_or(("", name));
        Op { domain: domain.into(), name: name.into(), overload: "".into() }
    }

    /// Whether this is the operator with the printed name `name`.
    pub fn is(&self, name: &str) -> bool {
        ops::is(&self.domain, &self.name, name)
    }

    /// What is known of the operator; `None` for those without a row.
    pub fn info(&self) -> Option<&'static OpInfo> {
        ops::find(&self.domain, &self.name)
    }

    /// Whether it is known to have one of the traits.
    pub fn has(&self, traits: Traits) -> bool {
        self.info().is_some_and(|it| it.has(traits))
    }

    /// Whether it belongs to a set of operators.
    pub fn is_in(&self, set: Set) -> bool {
        set.has(&self.domain, &self.name)
    }

    /// How its weight lies in memory, if that is a float.
    pub fn float_layout(&self) -> Option<Layout> {
        self.info()?.layout.filter(|_| !self.has(Traits::QUANTIZED))
    }

    /// Where it has quantized values and their scales, if it reads or makes any.
    pub fn quantized(&self) -> Option<&'static QuantizedOp> {
        self.info()?.quantized
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}.", self.domain)?;
        }
        f.write_str(&self.name)?;
        if !self.overload.is_empty() {
            write!(f, ":{}", self.overload)?;
        }
        Ok(())
    }
}

impl Model {
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("the node was removed")
    }

    pub fn graph(&self, id: GraphId) -> &Graph {
        &self.graphs[id.index()]
    }

    pub fn is_live(&self, id: NodeId) -> bool {
        self.nodes[id.index()].is_some()
    }

    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, it)| (ValueId(i as u32), it))
    }

    pub fn node_count(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    /// Nodes of one graph, in execution order.
    pub fn nodes_of(&self, graph: GraphId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.graph(graph).first, |it| self.node(*it).next)
    }

    /// Every node in execution order; the nodes of a subgraph come right before their owner.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut list = Vec::new();
        self.collect(self.main, &mut list);
        for function in &self.functions {
            self.collect(function.body, &mut list);
        }
        list
    }

    fn collect(&self, graph: GraphId, list: &mut Vec<NodeId>) {
        for node in self.nodes_of(graph) {
            for inner in self.node(node).attrs.graphs() {
                self.collect(inner, list);
            }
            list.push(node);
        }
    }

    /// The main graph or the function body around `graph`.
    pub fn root(&self, graph: GraphId) -> GraphId {
        let mut at = graph;
        while let Some(parent) = self.graph(at).parent {
            at = self.node(parent).graph;
        }
        at
    }

    /// Whether `graph` is the main graph or lies inside it, not in a function.
    pub fn in_main(&self, graph: GraphId) -> bool {
        self.root(graph) == self.main
    }

    /// Every live graph: the main graph, functions and their subgraphs.
    pub fn graphs(&self) -> Vec<GraphId> {
        let mut list = vec![self.main];
        list.extend(self.functions.iter().map(|it| it.body));
        let mut at = 0;
        while at < list.len() {
            for node in self.nodes_of(list[at]) {
                list.extend(self.node(node).attrs.graphs());
            }
            at += 1;
        }
        list
    }

    /// Constants of every graph that have a use, as the writer will store them.
    pub fn constants(&self) -> impl Iterator<Item = (ValueId, &Tensor)> {
        self.graphs().into_iter().flat_map(|graph| {
            self.graph(graph).constants.iter().filter_map(|&id| match &self.value(id).def {
                Def::Const(tensor) if !self.value(id).uses.is_empty() => Some((id, tensor)),
                _ => None,
            })
        })
    }

    pub fn function(&self, op: &Op) -> Option<&Function> {
        self.functions.iter().find(|it| it.op == *op)
    }

    /// The version of an operator set; 0 if it is not imported.
    pub fn opset(&self, domain: &str) -> i64 {
        self.opsets.iter().find(|(it, _)| **it == *domain).map_or(0, |(_, version)| *version)
    }

    /// How users know a node: its name, or its operator and first output.
    pub fn node_label(&self, id: NodeId) -> String {
        let node = self.node(id);
        if !node.name.is_empty() {
            return node.name.to_string();
        }
        let output = node.outputs.first().map_or("", |it| &*self.value(*it).name);
        format!("{} → {output}", node.op)
    }
}
