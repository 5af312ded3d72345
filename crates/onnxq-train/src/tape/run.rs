//! The buffers of a run, the forward pass and the reverse pass.

use std::{collections::BTreeMap, ops::Range};

use onnxq_ir::{
    Model, ValueId,
    eval::{self, EvalError},
    tensor::{DType, Tensor},
};

use super::{
    Program, SlotId, Source,
    buffers::Buffers,
    io::{Backward, Elements, Forward, Gradient},
    plan::size,
};
use crate::{
    params::{LeafId, Leaves},
    real::Real,
};

/// Where gradients of leaves go, and of values that somebody watches.
pub trait Grads<R> {
    /// The sum so far, to which a step will add.
    fn take(&mut self, leaf: LeafId) -> Gradient<R>;
    /// What [`Grads::take`] gave, with what was added.
    fn give(&mut self, leaf: LeafId, gradient: Gradient<R>);
    /// The whole gradient of a value that is computed, before the reverse pass goes through its step.
    fn see(&mut self, slot: SlotId, gradient: &[R]);
}

/// One run of a program at a time.
pub struct Tape<R> {
    /// By slot; empty where nothing is there.
    values: Vec<Vec<R>>,
    /// Integers that the host computed, by slot.
    ints: BTreeMap<SlotId, Vec<i64>>,
    /// By step.
    saved: Vec<Vec<Vec<R>>>,
    grads: Vec<Option<Gradient<R>>>,
    buffers: Buffers<R>,
}

impl<R: Real> Default for Tape<R> {
    fn default() -> Tape<R> {
        Tape {
            values: Vec::new(),
            ints: BTreeMap::new(),
            saved: Vec::new(),
            grads: Vec::new(),
            buffers: Buffers::default(),
        }
    }
}

impl<R: Real> Tape<R> {
    /// Computes the program for inputs of the shapes that it was made for. `reverse`: a reverse pass
    /// will follow.
    pub fn forward(
        &mut self,
        model: &Model,
        program: &Program<R>,
        leaves: &Leaves<R>,
        inputs: &BTreeMap<ValueId, Tensor>,
        reverse: bool,
    ) -> Result<(), EvalError> {
        self.clear(program);
        self.host(model, program, inputs)?;
        let last = program.plan.segments.len().saturating_sub(1);
        for (index, range) in program.plan.segments.iter().enumerate() {
            let kept = reverse && index == last;
            self.compute(program, leaves, range.clone(), kept, reverse);
        }
        Ok(())
    }

    /// The elements of an output, after [`Tape::forward`].
    pub fn output(&self, slot: SlotId) -> &[R] {
        &self.values[slot.0]
    }

    /// A gradient of zeros for an output, of the tape's own buffers, for [`Tape::backward`].
    pub fn zeros(&mut self, program: &Program<R>, slot: SlotId) -> Vec<R> {
        let mut buffer = self.buffers.take(size(program.slot(slot)));
        buffer.fill(R::default());
        buffer
    }

    /// What [`Tape::zeros`] gave and no reverse pass took.
    pub fn give_back(&mut self, buffer: Vec<R>) {
        self.buffers.give(buffer);
    }

    /// Goes back from gradients of outputs. [`Tape::forward`] was asked for it, and its values are
    /// gone afterwards.
    pub fn backward(
        &mut self,
        program: &Program<R>,
        leaves: &Leaves<R>,
        roots: Vec<(SlotId, Vec<R>)>,
        grads: &mut dyn Grads<R>,
    ) {
        for (slot, values) in roots {
            assert_eq!(values.len(), size(program.slot(slot)), "a gradient for each element");
            self.put(slot, Gradient { values, fresh: false });
        }
        let segments = &program.plan.segments;
        for (index, range) in segments.iter().enumerate().rev() {
            if index + 1 < segments.len() {
                self.compute(program, leaves, range.clone(), true, true);
            }
            for at in range.clone().rev() {
                self.reverse(program, leaves, at, grads);
                self.free(program.steps[at].output);
                for buffer in std::mem::take(&mut self.saved[at]) {
                    self.buffers.give(buffer);
                }
            }
        }
    }

    fn clear(&mut self, program: &Program<R>) {
        let values = self.values.drain(..).chain(self.saved.drain(..).flatten());
        let grads = self.grads.drain(..).flatten().map(|it| it.values);
        for buffer in values.chain(grads) {
            self.buffers.give(buffer);
        }
        self.ints.clear();
        self.values.resize_with(program.slots.len(), Vec::new);
        self.grads.resize_with(program.slots.len(), || None);
        self.saved.resize_with(program.steps.len(), Vec::new);
    }

    /// Evaluates what has no gradients and depends on the inputs.
    fn host(
        &mut self,
        model: &Model,
        program: &Program<R>,
        inputs: &BTreeMap<ValueId, Tensor>,
    ) -> Result<(), EvalError> {
        let mut known = inputs.clone();
        for step in &program.hosts {
            let node = model.node(step.node);
            let of = |it: &ValueId| known.get(it).or_else(|| program.constants.get(it)).cloned();
            let operands: Vec<Option<Tensor>> =
                node.inputs.iter().map(|it| it.as_ref().and_then(of)).collect();
            let outputs = eval::node(model, step.node, &operands)?;
            known.extend(node.outputs.iter().copied().zip(outputs));
        }
        for (index, slot) in program.slots.iter().enumerate() {
            let Source::Host(value) = slot.source else { continue };
            let tensor = known.get(&value).or_else(|| program.constants.get(&value));
            let tensor = tensor.expect("a host value was computed");
            if tensor.shape != slot.shape {
                let what = format!("a value has shape {:?}, not {:?}", tensor.shape, slot.shape);
                return Err(EvalError::Shape { what });
            }
            self.read(SlotId(index), tensor)?;
        }
        Ok(())
    }

    fn read(&mut self, slot: SlotId, tensor: &Tensor) -> Result<(), EvalError> {
        if tensor.dtype.is_float() {
            let mut buffer = self.buffers.take(tensor.numel());
            let values = match tensor.dtype {
                DType::F32 => tensor.f32s()?.to_vec(),
                _ => tensor.cast(DType::F32).to_f32()?,
            };
            buffer.iter_mut().zip(values).for_each(|(it, value)| *it = R::of_f32(value));
            self.values[slot.0] = buffer;
        } else {
            self.ints.insert(slot, tensor.to_i64()?);
        }
        Ok(())
    }

    fn elements<'a>(
        &'a self,
        program: &Program<R>,
        leaves: &'a Leaves<R>,
        slot: SlotId,
    ) -> Elements<'a, R> {
        match program.slot(slot).source {
            Source::Leaf(leaf) => Elements::Real(leaves.get(leaf)),
            _ => match self.ints.get(&slot) {
                Some(ints) => Elements::Ints(ints),
                None => Elements::Real(&self.values[slot.0]),
            },
        }
    }

    /// Computes the steps of a segment whose values are not there. `keep`: with all that its reverse
    /// pass reads; otherwise what crosses is left, if anything will be read in reverse.
    fn compute(
        &mut self,
        program: &Program<R>,
        leaves: &Leaves<R>,
        range: Range<usize>,
        keep: bool,
        reverse: bool,
    ) {
        for at in range {
            let step = &program.steps[at];
            let there = !self.values[step.output.0].is_empty();
            let saves = step.op.saves();
            // What crosses is there already, but what its step saved is not.
            if !there || (keep && !saves.is_empty()) {
                self.step(program, leaves, at, &saves);
            }
            if !keep || !program.plan.reversed[at] {
                for buffer in std::mem::take(&mut self.saved[at]) {
                    self.buffers.give(buffer);
                }
            }
            for input in step.inputs.iter().chain([&step.output]) {
                let slot = input.0;
                let read = program.plan.last_read[slot].is_some_and(|it| it > at);
                let needed =
                    reverse && (program.plan.crosses[slot] || keep && program.plan.kept[slot]);
                let is_step = matches!(program.slots[slot].source, Source::Step(_));
                if is_step && !read && !needed {
                    self.free(*input);
                }
            }
        }
    }

    fn step(&mut self, program: &Program<R>, leaves: &Leaves<R>, at: usize, saves: &[usize]) {
        let step = &program.steps[at];
        let mut y = std::mem::take(&mut self.values[step.output.0]);
        if y.is_empty() {
            y = self.buffers.take(size(program.slot(step.output)));
        }
        let mut saved: Vec<Vec<R>> = saves.iter().map(|it| self.buffers.take(*it)).collect();
        let inputs = step.inputs.iter().map(|it| self.elements(program, leaves, *it)).collect();
        step.op.forward(&mut Forward { inputs, y: &mut y, saved: &mut saved });
        self.values[step.output.0] = y;
        self.saved[at] = saved;
    }

    fn reverse(
        &mut self,
        program: &Program<R>,
        leaves: &Leaves<R>,
        at: usize,
        grads: &mut dyn Grads<R>,
    ) {
        let step = &program.steps[at];
        let Some(dy) = self.grads[step.output.0].take() else { return };
        grads.see(step.output, &dy.values);
        let taken: Vec<Option<Gradient<R>>> =
            step.inputs.iter().map(|it| self.gradient(program, *it, grads)).collect();
        let keeps = step.op.keeps();
        let inputs = step.inputs.iter().enumerate();
        let inputs = inputs
            .map(|(index, it)| keeps.input(index).then(|| self.elements(program, leaves, *it)))
            .collect();
        let y = keeps.output.then(|| &*self.values[step.output.0]);
        let saved = &self.saved[at];
        let mut io = Backward { inputs, y, dy: &dy.values, saved, grads: taken };
        step.op.backward(&mut io);
        let added = io.grads;
        for (input, gradient) in step.inputs.iter().zip(added) {
            let Some(gradient) = gradient else { continue };
            match program.slot(*input).source {
                Source::Leaf(leaf) => grads.give(leaf, gradient),
                _ => self.put(*input, gradient),
            }
        }
        self.buffers.give(dy.values);
    }

    /// The gradient of an input so far, if it is of use.
    fn gradient(
        &mut self,
        program: &Program<R>,
        slot: SlotId,
        grads: &mut dyn Grads<R>,
    ) -> Option<Gradient<R>> {
        let info = program.slot(slot);
        if !info.wanted {
            return None;
        }
        if let Source::Leaf(leaf) = info.source {
            return Some(grads.take(leaf));
        }
        let so_far = self.grads[slot.0].take();
        Some(
            so_far
                .unwrap_or_else(|| Gradient { values: self.buffers.take(size(info)), fresh: true }),
        )
    }

    /// Puts a gradient back; a value that is two inputs of a step has two.
    fn put(&mut self, slot: SlotId, gradient: Gradient<R>) {
        if gradient.fresh {
            self.buffers.give(gradient.values);
            return;
        }
        match &mut self.grads[slot.0] {
            Some(sum) => {
                sum.values.iter_mut().zip(&gradient.values).for_each(|(it, more)| *it += *more);
                self.buffers.give(gradient.values);
            }
            none => *none = Some(gradient),
        }
    }

    fn free(&mut self, slot: SlotId) {
        let buffer = std::mem::take(&mut self.values[slot.0]);
        self.buffers.give(buffer);
    }
}
