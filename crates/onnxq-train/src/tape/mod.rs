//! A program of operators with fixed shapes, run forward and in reverse.
//!
//! A [`Program`] says what is computed; a [`Tape`] has the buffers of one run. Values that the
//! reverse pass does not read are freed as soon as nothing needs them, and their buffers are used again.

mod buffers;
mod io;
mod plan;
mod run;

use std::collections::BTreeMap;

use onnxq_ir::{NodeId, ValueId, tensor::Tensor};

pub(crate) use self::plan::plan_of;
pub use self::{
    io::{Backward, Forward, Gradient, Keeps},
    run::{Grads, Tape},
};
use crate::{params::LeafId, real::Real};

/// An operator at one place of a program: shapes and attributes are its fields.
pub trait Op<R: Real>: Send + Sync {
    /// Computes the output.
    fn forward(&self, at: &mut Forward<'_, R>);

    /// Adds to the gradients of those inputs that want one.
    fn backward(&self, at: &mut Backward<'_, R>);

    /// What the reverse pass reads.
    fn keeps(&self) -> Keeps;

    /// Elements of each buffer that the forward pass fills for the reverse one.
    fn saves(&self) -> Vec<usize> {
        Vec::new()
    }
}

/// A value of a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub(crate) usize);

/// Where the elements of a slot come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A step computes it.
    Step(usize),
    /// A weight, the same for every run until the optimizer changes it.
    Leaf(LeafId),
    /// A value that has no gradient, computed by the reference evaluator.
    Host(ValueId),
}

pub struct Slot {
    pub shape: Vec<usize>,
    pub source: Source,
    /// Whether a gradient of it is of use.
    pub wanted: bool,
    /// The value of the model.
    pub value: ValueId,
}

pub struct Step<R> {
    pub node: NodeId,
    pub op: Box<dyn Op<R>>,
    pub inputs: Vec<SlotId>,
    pub output: SlotId,
}

/// A node without gradients that depends on the inputs, so that each run evaluates it again.
#[derive(Clone, Debug)]
pub struct HostStep {
    pub node: NodeId,
}

/// What a model computes for inputs of some shapes.
pub struct Program<R> {
    pub slots: Vec<Slot>,
    pub steps: Vec<Step<R>>,
    pub hosts: Vec<HostStep>,
    /// Values without gradients that are the same in each run.
    pub constants: BTreeMap<ValueId, Tensor>,
    /// The slots of the model's outputs, by name.
    pub outputs: BTreeMap<String, SlotId>,
    pub(crate) plan: plan::Plan,
}

impl<R: Real> Program<R> {
    pub fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id.0]
    }

    /// Bytes that a run takes at its peak, gradients included.
    pub fn bytes(&self) -> usize {
        self.plan.peak * size_of::<R>()
    }

    /// In how many pieces a run is computed: the values of all but the last are computed twice.
    pub fn segments(&self) -> usize {
        self.plan.segments.len()
    }
}
