//! Questions that rules ask of a model. Each miss says why.

use std::{borrow::Cow, fmt};

use super::{Attr, Def, Model, Node, NodeId, User, ValueId};
use crate::tensor::{DType, Shape, Tensor};

/// Why a rule or a format does not apply here. Not an error: most rules do not apply in most places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoMatch(pub Cow<'static, str>);

impl fmt::Display for NoMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A [`NoMatch`] with a formatted reason.
#[macro_export]
macro_rules! no_match {
    ($($arg:tt)*) => { $crate::ir::NoMatch(format!($($arg)*).into()) };
}

impl Model {
    /// Input `index`, which must be given.
    pub fn operand(&self, node: NodeId, index: usize) -> Result<ValueId, NoMatch> {
        let it = self.node(node);
        it.inputs
            .get(index)
            .copied()
            .flatten()
            .ok_or_else(|| no_match!("{} has no input {index}", it.op))
    }

    /// The node that computes `value`, which must be an `op`.
    pub fn producer(&self, value: ValueId, op: &str) -> Result<NodeId, NoMatch> {
        let it = self.value(value);
        match &it.def {
            Def::Node(id) if self.node(*id).op.is(op) => Ok(*id),
            Def::Node(id) => {
                Err(no_match!("`{}` comes from {}, not {op}", it.name, self.node(*id).op))
            }
            _ => Err(no_match!("`{}` is not computed", it.name)),
        }
    }

    /// Both inputs of a commutative node, the one computed by `op` first.
    pub fn either_operand(&self, node: NodeId, op: &str) -> Result<(NodeId, ValueId), NoMatch> {
        let (a, b) = (self.operand(node, 0)?, self.operand(node, 1)?);
        match (self.producer(a, op), self.producer(b, op)) {
            (Ok(it), _) => Ok((it, b)),
            (_, Ok(it)) => Ok((it, a)),
            (Err(reason), _) => Err(reason),
        }
    }

    /// The single node that uses `value`; a graph output counts as a use.
    pub fn only_use(&self, value: ValueId) -> Result<NodeId, NoMatch> {
        let it = self.value(value);
        match it.uses[..] {
            [only] => match only.user {
                User::Node(id) => Ok(id),
                _ => Err(no_match!("`{}` is an output of the graph", it.name)),
            },
            [] => Err(no_match!("`{}` has no use", it.name)),
            _ => Err(no_match!("`{}` has other uses", it.name)),
        }
    }

    pub fn is_output(&self, value: ValueId) -> bool {
        self.value(value).uses.iter().any(|it| matches!(it.user, User::Output(_)))
    }

    /// The tensor of an initializer or of a `Constant` node.
    pub fn constant(&self, value: ValueId) -> Result<&Tensor, NoMatch> {
        let it = self.value(value);
        match &it.def {
            Def::Const(tensor) => Ok(tensor),
            Def::Node(id) if self.node(*id).op.is("Constant") => {
                match self.node(*id).attrs.get("value") {
                    Some(Attr::Tensor(tensor)) => Ok(tensor),
                    _ => Err(no_match!("`{}` is a Constant without a tensor", it.name)),
                }
            }
            Def::Input(_, Some(_)) => Err(no_match!(
                "`{}` is an initializer that the caller may override (it is also an input)",
                it.name
            )),
            _ => Err(no_match!("`{}` is not constant", it.name)),
        }
    }

    /// A small float constant, read.
    pub fn small_f32(&self, value: ValueId) -> Result<Vec<f32>, NoMatch> {
        const SMALL: usize = 1 << 20;
        let tensor = self.constant(value)?;
        if tensor.numel() > SMALL {
            return Err(no_match!("`{}` is large ({tensor:?})", self.value(value).name));
        }
        tensor.to_f32().map_err(|err| no_match!("`{}`: {err}", self.value(value).name))
    }

    /// A small integer constant, read.
    pub fn small_i64(&self, value: ValueId) -> Result<Vec<i64>, NoMatch> {
        let tensor = self.constant(value)?;
        tensor.to_i64().map_err(|err| no_match!("`{}`: {err}", self.value(value).name))
    }

    pub fn float_attr(&self, node: NodeId, name: &str, default: f32) -> f32 {
        self.node(node).attrs.get(name).and_then(Attr::as_float).unwrap_or(default)
    }

    pub fn int_attr(&self, node: NodeId, name: &str, default: i64) -> i64 {
        self.node(node).attrs.get(name).and_then(Attr::as_int).unwrap_or(default)
    }

    pub fn ints_attr(&self, node: NodeId, name: &str) -> Option<&[i64]> {
        self.node(node).attrs.get(name).and_then(Attr::as_ints)
    }

    pub fn dtype(&self, value: ValueId) -> Option<DType> {
        Some(self.value(value).ty.as_ref()?.dtype)
    }

    /// The shape, if inference or the file says anything of it.
    pub fn shape(&self, value: ValueId) -> Result<&Shape, NoMatch> {
        let it = self.value(value);
        let shape = it.ty.as_ref().and_then(|it| it.shape.as_ref());
        shape.ok_or_else(|| no_match!("the shape of `{}` is not known", it.name))
    }

    pub fn rank(&self, value: ValueId) -> Option<usize> {
        self.value(value).ty.as_ref()?.rank()
    }
}

impl Node {
    /// The first output; every node has one.
    pub fn output(&self) -> ValueId {
        self.outputs[0]
    }
}
