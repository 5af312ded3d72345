//! What a rule of the table returns, and what the rules ask of nodes.

use onnxq_ir::{
    Attr, Attrs, Model, Name, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{DType, Tensor, from_f32},
};

/// One row of the table.
pub(super) struct Rule {
    pub op: &'static str,
    /// The version that changed the schema.
    pub version: i64,
    pub change: Change,
}

#[derive(Clone, Copy)]
pub(super) enum Change {
    /// Gets the model, the node and the version where the conversion ends.
    Edit(fn(&Model, NodeId, i64) -> Result<Edit, NoMatch>),
    /// Moves subgraphs, which a patch cannot.
    Surgery(fn(&mut Model, NodeId) -> Result<(), NoMatch>),
}

/// Edits of one node. It stays, with its name and outputs, unless `patch` replaces them.
pub(super) struct Edit {
    pub op: Option<&'static str>,
    pub attrs: Option<Attrs>,
    pub patch: Patch,
    /// Whether anything changes.
    pub changes: bool,
}

impl Edit {
    pub(super) fn keep(node: NodeId) -> Edit {
        Edit { op: None, attrs: None, patch: Patch::before(node), changes: false }
    }

    pub(super) fn attrs(node: NodeId, attrs: Attrs) -> Edit {
        Edit { attrs: Some(attrs), changes: true, ..Edit::keep(node) }
    }

    pub(super) fn replace(patch: Patch) -> Edit {
        Edit { op: None, attrs: None, patch, changes: true }
    }
}

/// An attribute becomes an input; collects several of them.
pub(super) struct Inputs<'a> {
    m: &'a Model,
    node: NodeId,
    attrs: Attrs,
    patch: Patch,
    changes: bool,
}

impl<'a> Inputs<'a> {
    /// The node must have at most `most` inputs: the others are to come.
    pub(super) fn of(m: &'a Model, node: NodeId, most: usize) -> Result<Inputs<'a>, NoMatch> {
        let it = m.node(node);
        if it.inputs.len() > most {
            return Err(no_match!("it has {} inputs, its version takes {most}", it.inputs.len()));
        }
        let (attrs, patch) = (it.attrs.clone(), Patch::before(node));
        Ok(Inputs { m, node, attrs, patch, changes: false })
    }

    /// Takes an attribute that is a list of integers off the node.
    pub(super) fn take_ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, NoMatch> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Ints(it)) => Ok(Some(it)),
            Some(_) => Err(no_match!("`{name}` is no list of integers")),
        }
    }

    pub(super) fn take_int(&mut self, name: &str) -> Result<Option<i64>, NoMatch> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Int(it)) => Ok(Some(it)),
            Some(_) => Err(no_match!("`{name}` is no integer")),
        }
    }

    pub(super) fn take_float(&mut self, name: &str) -> Result<Option<f32>, NoMatch> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Float(it)) => Ok(Some(it)),
            Some(_) => Err(no_match!("`{name}` is no number")),
        }
    }

    pub(super) fn take_floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, NoMatch> {
        match self.take(name) {
            None => Ok(None),
            Some(Attr::Floats(it)) => Ok(Some(it)),
            Some(_) => Err(no_match!("`{name}` is no list of numbers")),
        }
    }

    fn take(&mut self, name: &str) -> Option<Attr> {
        let it = self.attrs.remove(name);
        self.changes |= it.is_some();
        it
    }

    /// Input `index` is a new constant called after the node and `what`.
    pub(super) fn set(&mut self, index: usize, what: &str, tensor: Tensor) {
        let name = format!("{}.{what}", stem(self.m, self.node));
        let value = self.patch.constant(&name, tensor);
        let patch = std::mem::replace(&mut self.patch, Patch::before(self.node));
        self.patch = patch.rewire(self.node, index, value);
        self.changes = true;
    }

    /// Input `index` is left out.
    pub(super) fn unset(&mut self, index: usize) {
        let patch = std::mem::replace(&mut self.patch, Patch::before(self.node));
        self.patch = patch.rewire(self.node, index, Ref::None);
        self.changes = true;
    }

    pub(super) fn set_attr(&mut self, name: &str, value: impl Into<Attr>) {
        self.attrs.set(name, value.into());
        self.changes = true;
    }

    pub(super) fn done(self) -> Edit {
        let Inputs { attrs, patch, changes, .. } = self;
        Edit { op: None, attrs: Some(attrs), patch, changes }
    }
}

/// What to call new things after: the node, or its first output.
pub(super) fn stem(m: &Model, node: NodeId) -> Name {
    let it = m.node(node);
    if it.name.is_empty() { m.value(it.output()).name.clone() } else { it.name.clone() }
}

pub(super) fn ints(values: &[i64]) -> Tensor {
    Tensor::from_i64(&[values.len()], values.iter().copied())
}

/// One number of a float type.
pub(super) fn number(dtype: DType, value: f32) -> Result<Tensor, NoMatch> {
    let bytes = from_f32(dtype, &[value]).map_err(|err| no_match!("{err}"))?;
    Ok(Tensor::new(dtype, vec![], bytes))
}

/// The element type of an input, which a rule must know.
pub(super) fn known_dtype(m: &Model, value: ValueId) -> Result<DType, NoMatch> {
    let name = &m.value(value).name;
    m.dtype(value).ok_or_else(|| no_match!("the element type of `{name}` is not known"))
}

/// A string attribute.
pub(super) fn text<'a>(m: &'a Model, node: NodeId, name: &str, default: &'a str) -> &'a str {
    match m.node(node).attrs.get(name) {
        Some(Attr::String(it)) => std::str::from_utf8(it).unwrap_or(""),
        _ => default,
    }
}

/// Outputs after the first that are named or used.
pub(super) fn has_more_outputs(m: &Model, node: NodeId) -> bool {
    let more = m.node(node).outputs.iter().skip(1).map(|it| m.value(*it));
    more.into_iter().any(|it| !it.name.is_empty() || !it.uses.is_empty())
}
