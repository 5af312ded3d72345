//! One step: groups of samples forward and back, their gradients summed in order, the optimizer.
//!
//! Which samples make a group does not depend on threads, and sums are made group by group in their
//! order, so results are the same bytes for any number of threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use onnxq_ir::{Model, ValueId, tensor::Tensor};
use rayon::prelude::*;

use crate::{
    adamw::{AdamW, Moved, Schedule, Sums},
    lower::{LowerError, Request, lower},
    params::{Change, GroupGrads, Leaves, Pool, StepGrads, Weight, Weights},
    tape::{Program, Tape},
};

/// Samples of one shape that run together, and what their outputs are to be.
pub struct Group<T> {
    pub inputs: BTreeMap<ValueId, Tensor>,
    pub target: T,
}

/// What the outputs of a group lose: the sum over its places, and the gradients at the outputs.
pub trait Loss<T>: Sync {
    /// `outputs` are in the order of the names the trainer was made with; `gradients` are zero.
    /// Returns the group's part of the loss.
    fn of(&self, target: &T, outputs: &[&[f32]], gradients: &mut [Vec<f32>]) -> f64;
}

/// Shapes of inputs.
type Shapes = Vec<(ValueId, Vec<usize>)>;

/// A student on its way.
pub struct Trainer<'a> {
    model: &'a Model,
    pub weights: Weights,
    pub leaves: Leaves<f32>,
    pub optimizer: AdamW,
    outputs: Vec<String>,
    programs: BTreeMap<Shapes, Arc<Program<f32>>>,
    tapes: Vec<Tape<f32>>,
    pool: Pool,
    memory: usize,
}

impl<'a> Trainer<'a> {
    /// `example` are inputs of a usual shape; `memory` is what a run of a group may take.
    pub fn new(
        model: &'a Model,
        mut weights: Weights,
        outputs: Vec<String>,
        example: &BTreeMap<ValueId, Tensor>,
        (schedule, threads, memory): (Schedule, usize, usize),
    ) -> Result<Trainer<'a>, LowerError> {
        let watched = BTreeSet::new();
        let request =
            Request { model, inputs: example, outputs: &outputs, watched: &watched, memory };
        let program = lower(&request, &mut weights)?;
        let leaves = weights.leaves()?;
        let optimizer = AdamW::new(schedule, &weights);
        let programs = BTreeMap::from([(shapes(example), Arc::new(program))]);
        let tapes = (0..threads.max(1)).map(|_| Tape::default()).collect();
        let pool = Pool::default();
        Ok(Trainer { model, weights, leaves, optimizer, outputs, programs, tapes, pool, memory })
    }

    pub fn program(
        &mut self,
        inputs: &BTreeMap<ValueId, Tensor>,
    ) -> Result<Arc<Program<f32>>, LowerError> {
        let key = shapes(inputs);
        if let Some(program) = self.programs.get(&key) {
            return Ok(program.clone());
        }
        let (outputs, watched) = (&self.outputs, BTreeSet::new());
        let (model, memory) = (self.model, self.memory);
        let request = Request { model, inputs, outputs, watched: &watched, memory };
        let known = self.weights.leaf_count();
        let program = Arc::new(lower(&request, &mut self.weights)?);
        assert_eq!(known, self.weights.leaf_count(), "all shapes of a model read the same weights");
        self.programs.insert(key, program.clone());
        Ok(program)
    }

    /// One step of the optimizer. Returns the sum of the groups' losses.
    pub fn step<T: Sync>(
        &mut self,
        groups: &[Group<T>],
        loss: &dyn Loss<T>,
    ) -> Result<(f64, Moved), LowerError> {
        let programs = self.programs_of(groups)?;
        let grads = StepGrads::new(&self.weights, &self.pool);
        let run = Run { model: self.model, leaves: &self.leaves, outputs: &self.outputs };
        let total = run.groups((groups, &programs), &mut self.tapes, loss, Some(&grads))?;
        let sums = Sums::new(&self.weights, grads.sums(), &self.pool);
        let sums = (sums, &self.pool);
        let moved = self.optimizer.apply(&mut self.weights, &mut self.leaves, sums);
        Ok((total, moved))
    }

    /// The sum of the groups' losses, as the student is now.
    pub fn evaluate<T: Sync>(
        &mut self,
        groups: &[Group<T>],
        loss: &dyn Loss<T>,
    ) -> Result<f64, LowerError> {
        let programs = self.programs_of(groups)?;
        let run = Run { model: self.model, leaves: &self.leaves, outputs: &self.outputs };
        run.groups((groups, &programs), &mut self.tapes, loss, None)
    }

    fn programs_of<T>(
        &mut self,
        groups: &[Group<T>],
    ) -> Result<Vec<Arc<Program<f32>>>, LowerError> {
        groups.iter().map(|it| self.program(&it.inputs)).collect()
    }

    /// What training changes in the model.
    pub fn changes(&self) -> Vec<Change> {
        self.weights.changes(&self.leaves)
    }

    /// All trained numbers, in the order of the weights: scales, then the weight itself.
    pub fn numbers(&self) -> Vec<&[f32]> {
        let trained = self.weights.list.iter().filter(|it| it.trained.is_some());
        trained.flat_map(|it| self.numbers_of(it)).collect()
    }

    fn numbers_of<'b>(&'b self, weight: &'b Weight) -> [&'b [f32]; 2] {
        let float = match weight.rounded_from() {
            Some(shadow) => shadow,
            None if weight.is_float() => self.leaves.get(weight.first),
            None => &[],
        };
        [&weight.theta, float]
    }

    /// Takes numbers that [`Trainer::numbers`] gave.
    pub fn set_numbers(&mut self, numbers: &[Vec<f32>]) {
        let trained = self.weights.list.iter_mut().filter(|it| it.trained.is_some());
        for (weight, pair) in trained.zip(numbers.chunks_exact(2)) {
            weight.theta.clone_from(&pair[0]);
            if weight.is_float() {
                self.leaves.get_mut(weight.first).copy_from_slice(&pair[1]);
            } else {
                weight.shadow.clone_from(&pair[1]);
            }
        }
        self.weights.refresh(&mut self.leaves);
    }
}

/// What all groups of a step share.
struct Run<'a> {
    model: &'a Model,
    leaves: &'a Leaves<f32>,
    outputs: &'a [String],
}

impl Run<'_> {
    /// The sum of the groups' losses; as many run at the same time as there are tapes.
    fn groups<T: Sync>(
        &self,
        (groups, programs): (&[Group<T>], &[Arc<Program<f32>>]),
        tapes: &mut [Tape<f32>],
        loss: &dyn Loss<T>,
        grads: Option<&StepGrads<'_>>,
    ) -> Result<f64, LowerError> {
        let mut total = 0.0;
        let work: Vec<_> = groups.iter().zip(programs).enumerate().collect();
        for wave in work.chunks(tapes.len()) {
            let losses: Vec<Result<f64, LowerError>> = wave
                .par_iter()
                .zip(&mut *tapes)
                .map(|((index, (group, program)), tape)| {
                    let own = grads.map(|it| it.group(*index, program));
                    self.group(program, tape, group, loss, own)
                })
                .collect();
            for part in losses {
                total += part?;
            }
        }
        Ok(total)
    }

    fn group<T>(
        &self,
        program: &Program<f32>,
        tape: &mut Tape<f32>,
        group: &Group<T>,
        loss: &dyn Loss<T>,
        grads: Option<GroupGrads<'_>>,
    ) -> Result<f64, LowerError> {
        tape.forward(self.model, program, self.leaves, &group.inputs, grads.is_some())?;
        let slots: Vec<_> = self.outputs.iter().map(|it| program.outputs[it]).collect();
        let mut gradients: Vec<Vec<f32>> =
            slots.iter().map(|it| tape.zeros(program, *it)).collect();
        let outputs: Vec<&[f32]> = slots.iter().map(|it| tape.output(*it)).collect();
        let value = loss.of(&group.target, &outputs, &mut gradients);
        if let Some(mut grads) = grads {
            let roots = slots.into_iter().zip(gradients).collect();
            tape.backward(program, self.leaves, roots, &mut grads);
            grads.finish();
        } else {
            gradients.into_iter().for_each(|it| tape.give_back(it));
        }
        Ok(value)
    }
}

fn shapes(inputs: &BTreeMap<ValueId, Tensor>) -> Vec<(ValueId, Vec<usize>)> {
    inputs.iter().map(|(id, it)| (*id, it.shape.clone())).collect()
}
