//! Gradients at inner values, of losses that are drawn from what the model itself says.
//!
//! Around a model, the KL divergence of what little changes make of it is half the quadratic form of
//! the Fisher information, `E[∇ log p(y) ∇ log p(y)ᵀ]` with `y` drawn from the model's own distribution
//! (Martens, "New Insights and Perspectives on the Natural Gradient Method", 2020). So gradients of
//! drawn labels say how much an error at an inner value costs. For outputs that are no logits the
//! same holds of squared differences, with draws of normal noise.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use onnxq_ir::{Model, ValueId, tensor::Tensor};

use crate::{
    lower::{LowerError, Request, lower},
    ops::softmax,
    params::{LeafId, Leaves, Weights},
    tape::{Gradient, Grads, Program, SlotId, Tape},
};

/// How an output's loss is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Draw {
    /// Rows of so many logits: a label for each.
    Labels(usize),
    /// Rows of so many numbers: noise in proportion to the row's length.
    Noise(usize),
}

/// A model whose inner gradients are asked for, by several threads at the same time.
pub struct Fisher<'a> {
    model: &'a Model,
    outputs: Vec<String>,
    watched: BTreeSet<ValueId>,
    /// What a run may take.
    memory: usize,
    lowered: Mutex<Lowered>,
    leaves: OnceLock<Leaves<f32>>,
}

struct Lowered {
    weights: Weights,
    programs: BTreeMap<Vec<Vec<usize>>, Arc<Program<f32>>>,
}

/// What is seen of a watched value: its shape and its gradient.
pub type See<'a> = dyn FnMut(ValueId, &[usize], &[f32]) + 'a;

impl<'a> Fisher<'a> {
    pub fn new(
        model: &'a Model,
        outputs: Vec<String>,
        watched: Vec<ValueId>,
        memory: usize,
    ) -> Fisher<'a> {
        let (weights, programs) = (Weights::new(|_, _, _| None), BTreeMap::new());
        Fisher {
            model,
            outputs,
            watched: watched.into_iter().collect(),
            memory,
            lowered: Mutex::new(Lowered { weights, programs }),
            leaves: OnceLock::new(),
        }
    }

    /// The shape of each output for such inputs.
    pub fn shapes(
        &self,
        inputs: &BTreeMap<ValueId, Tensor>,
    ) -> Result<Vec<Vec<usize>>, LowerError> {
        let program = self.program(inputs)?;
        let shape = |name: &String| program.slot(program.outputs[name]).shape.clone();
        Ok(self.outputs.iter().map(shape).collect())
    }

    /// Goes back from drawn losses, so many times, and shows the gradient at each watched value each
    /// time. `counts` says which rows of outputs are no padding. The same `seed` draws the same.
    pub fn run(
        &self,
        inputs: &BTreeMap<ValueId, Tensor>,
        (draws, counts): (&[Draw], &[bool]),
        (times, seed): (usize, u64),
        tape: &mut Tape<f32>,
        see: &mut See<'_>,
    ) -> Result<(), LowerError> {
        let program = self.program(inputs)?;
        let leaves = self.leaves.get().expect("made with the first program");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..times {
            // A reverse pass frees what it has read.
            tape.forward(self.model, &program, leaves, inputs, true)?;
            let mut roots = Vec::new();
            for (name, draw) in self.outputs.iter().zip(draws) {
                let slot = program.outputs[name];
                let mut gradient = tape.zeros(&program, slot);
                draw.gradient(tape.output(slot), counts, &mut random, &mut gradient);
                roots.push((slot, gradient));
            }
            let mut watcher = Watcher { program: &program, watched: &self.watched, see };
            tape.backward(&program, leaves, roots, &mut watcher);
        }
        Ok(())
    }

    fn program(&self, inputs: &BTreeMap<ValueId, Tensor>) -> Result<Arc<Program<f32>>, LowerError> {
        // A panic elsewhere ends the run; what was locked is whole.
        let mut lowered = self.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(inputs);
        if let Some(program) = lowered.programs.get(&key) {
            return Ok(program.clone());
        }
        let (model, outputs, memory) = (self.model, &self.outputs[..], self.memory);
        let request = Request { model, inputs, outputs, watched: &self.watched, memory };
        let program = Arc::new(lower(&request, &mut lowered.weights)?);
        if self.leaves.get().is_none() {
            // All shapes of a model read the same weights.
            let leaves = lowered.weights.leaves()?;
            self.leaves.get_or_init(|| leaves);
        }
        lowered.programs.insert(key, program.clone());
        Ok(program)
    }
}

fn key(inputs: &BTreeMap<ValueId, Tensor>) -> Vec<Vec<usize>> {
    inputs.values().map(|it| it.shape.clone()).collect()
}

impl Draw {
    /// The gradient of a drawn loss at an output.
    fn gradient(
        self,
        output: &[f32],
        counts: &[bool],
        random: &mut fastrand::Rng,
        gradient: &mut [f32],
    ) {
        let (Draw::Labels(width) | Draw::Noise(width)) = self;
        let rows = output.len() / width.max(1);
        for row in 0..rows {
            let is_padding = counts.len() == rows && !counts[row];
            // Draws do not depend on padding.
            let chance = random.f32();
            if is_padding {
                continue;
            }
            let range: Range<usize> = row * width..(row + 1) * width;
            let (x, g) = (&output[range.clone()], &mut gradient[range]);
            match self {
                Draw::Labels(_) => label(x, chance, g),
                Draw::Noise(_) => noise(x, random, g),
            }
        }
    }
}

/// `p − 1` at a label drawn by `p`, `p` elsewhere.
fn label(logits: &[f32], chance: f32, gradient: &mut [f32]) {
    gradient.copy_from_slice(logits);
    softmax(gradient);
    let mut left = chance;
    let mut label = gradient.len() - 1;
    for (at, p) in gradient.iter().enumerate() {
        left -= p;
        if left < 0.0 {
            label = at;
            break;
        }
    }
    gradient[label] -= 1.0;
}

/// Normal noise by the inverse of the row's length (Box and Muller, 1958).
fn noise(row: &[f32], random: &mut fastrand::Rng, gradient: &mut [f32]) {
    let length = row.iter().map(|it| it * it).sum::<f32>().sqrt().max(1e-12);
    for it in gradient {
        let (a, b) = (1.0 - random.f32(), random.f32());
        *it = (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos() / length;
    }
}

/// Nothing is trained, so no leaf wants a gradient.
struct Watcher<'a, 'b> {
    program: &'a Program<f32>,
    watched: &'a BTreeSet<ValueId>,
    see: &'a mut See<'b>,
}

impl Grads<f32> for Watcher<'_, '_> {
    fn take(&mut self, _: LeafId) -> Gradient<f32> {
        unreachable!("no weight is trained")
    }

    fn give(&mut self, _: LeafId, _: Gradient<f32>) {
        unreachable!("no weight is trained")
    }

    fn see(&mut self, slot: SlotId, gradient: &[f32]) {
        let slot = self.program.slot(slot);
        if self.watched.contains(&slot.value) {
            (self.see)(slot.value, &slot.shape, gradient);
        }
    }
}
