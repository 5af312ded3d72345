//! The gradients of a step: groups of samples add theirs leaf by leaf, in the order of the groups.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Kind, LeafId, Weights};
use crate::tape::{Gradient, Grads, Program, SlotId, Source};

/// Buffers that are used again, by their length. It takes back as many as it gave: a step that brings
/// others makes it no larger.
#[derive(Default)]
pub struct Pool(Mutex<BTreeMap<usize, Shelf>>);

#[derive(Default)]
struct Shelf {
    /// How many are elsewhere.
    out: usize,
    buffers: Vec<Vec<f32>>,
}

impl Pool {
    /// A buffer with whatever was in it.
    fn take(&self, len: usize) -> Vec<f32> {
        let found = {
            let mut shelves = lock(&self.0);
            let shelf = shelves.entry(len).or_default();
            shelf.out += 1;
            shelf.buffers.pop()
        };
        found.unwrap_or_else(|| vec![0.0; len])
    }

    pub fn give(&self, buffer: Vec<f32>) {
        let mut shelves = lock(&self.0);
        let shelf = shelves.entry(buffer.len()).or_default();
        if shelf.out > 0 {
            shelf.out -= 1;
            shelf.buffers.push(buffer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the run; what was locked is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sums of a step. Where only scales are trained, the gradient of the weight itself is reduced to
/// those of its scales at once, so that it never takes memory for longer than an operator.
pub struct StepGrads<'a> {
    weights: &'a Weights,
    pool: &'a Pool,
    leaves: Vec<Mutex<LeafSum>>,
}

/// The sum of a leaf so far. A group that comes before its turn waits here, so that what is added
/// to what does not depend on which group is faster.
#[derive(Default)]
struct LeafSum {
    /// The group whose turn it is.
    next: usize,
    /// Empty: nothing yet.
    sum: Vec<f32>,
    early: BTreeMap<usize, Option<Vec<f32>>>,
}

impl LeafSum {
    fn add(&mut self, part: Option<Vec<f32>>, pool: &Pool) {
        self.next += 1;
        let Some(part) = part else { return };
        if self.sum.is_empty() {
            self.sum = part;
            return;
        }
        self.sum.iter_mut().zip(&part).for_each(|(it, more)| *it += *more);
        pool.give(part);
    }
}

impl<'a> StepGrads<'a> {
    pub fn new(weights: &'a Weights, pool: &'a Pool) -> StepGrads<'a> {
        let leaves = (0..weights.leaf_count()).map(|_| Mutex::default()).collect();
        StepGrads { weights, pool, leaves }
    }

    /// Where group number `group` of the step, which runs `program`, puts its gradients.
    pub fn group(&self, group: usize, program: &Program<f32>) -> GroupGrads<'_> {
        let mut left = vec![0; self.leaves.len()];
        for input in program.steps.iter().flat_map(|it| &it.inputs) {
            let slot = program.slot(*input);
            if let (Source::Leaf(leaf), true) = (&slot.source, slot.wanted) {
                left[leaf.0] += 1;
            }
        }
        GroupGrads { step: self, group, left, parts: BTreeMap::new() }
    }

    /// By leaf: the sum of all groups; empty where no gradient came. Of a weight of which only scales
    /// are trained it is that of their logarithms.
    pub fn sums(self) -> Vec<Vec<f32>> {
        let sum =
            |leaf: Mutex<LeafSum>| leaf.into_inner().unwrap_or_else(PoisonError::into_inner).sum;
        self.leaves.into_iter().map(sum).collect()
    }

    fn put(&self, group: usize, leaf: LeafId, part: Option<Vec<f32>>) {
        let mut sum = lock(&self.leaves[leaf.0]);
        if sum.next != group {
            sum.early.insert(group, part);
            return;
        }
        sum.add(part, self.pool);
        loop {
            let next = sum.next;
            let Some(part) = sum.early.remove(&next) else { return };
            sum.add(part, self.pool);
        }
    }

    /// What is kept of a leaf's gradient.
    fn kept(&self, leaf: LeafId, gradient: Vec<f32>) -> Vec<f32> {
        let (index, flipped) = self.weights.behind(leaf);
        let weight = &self.weights.list[index];
        match &weight.kind {
            Kind::Quantized(it) if weight.rounded_from().is_none() => {
                let mut sums = self.pool.take(weight.theta.len());
                sums.fill(0.0);
                let dw = weight.returned(gradient, flipped);
                it.reduce(&weight.theta, &dw, &mut sums);
                self.pool.give(dw);
                sums
            }
            _ => gradient,
        }
    }
}

/// The gradients of one group, until its last use of a leaf.
pub struct GroupGrads<'a> {
    step: &'a StepGrads<'a>,
    group: usize,
    /// How often each leaf will still be given.
    left: Vec<usize>,
    parts: BTreeMap<LeafId, Gradient<f32>>,
}

impl GroupGrads<'_> {
    /// The reverse pass is over: leaves that no gradient reached have none.
    pub fn finish(mut self) {
        for index in 0..self.left.len() {
            if self.left[index] > 0 {
                self.hand_over(LeafId(index));
            }
        }
    }

    fn hand_over(&mut self, leaf: LeafId) {
        let part = self.parts.remove(&leaf);
        let kept = match part {
            Some(part) if part.fresh => {
                self.step.pool.give(part.values);
                None
            }
            Some(part) => Some(self.step.kept(leaf, part.values)),
            None => None,
        };
        self.step.put(self.group, leaf, kept);
    }
}

impl Grads<f32> for GroupGrads<'_> {
    fn take(&mut self, leaf: LeafId) -> Gradient<f32> {
        self.parts.remove(&leaf).unwrap_or_else(|| {
            let len = self.step.weights.shape(leaf).iter().product();
            Gradient { values: self.step.pool.take(len), fresh: true }
        })
    }

    fn give(&mut self, leaf: LeafId, gradient: Gradient<f32>) {
        match self.parts.get_mut(&leaf) {
            // A weight that is two inputs of one step.
            Some(part) if part.fresh => *part = gradient,
            Some(part) if !gradient.fresh => part.add(|i| gradient.values[i]),
            Some(_) => {}
            None => drop(self.parts.insert(leaf, gradient)),
        }
        self.left[leaf.0] -= 1;
        if self.left[leaf.0] == 0 {
            self.hand_over(leaf);
        }
    }

    fn see(&mut self, _: SlotId, _: &[f32]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_no_larger_than_what_was_taken() {
        let pool = Pool::default();
        let [a, b] = [pool.take(3), pool.take(3)];
        for buffer in [a, b, vec![0.0; 3], vec![0.0; 4], Vec::new()] {
            pool.give(buffer);
        }
        let kept: usize = lock(&pool.0).values().map(|it| it.buffers.len()).sum();
        assert_eq!(kept, 2);
    }

    #[test]
    fn groups_are_added_in_their_order() {
        let (weights, pool) = (Weights::new(|_, _, _| None), Pool::default());
        let mut step = StepGrads::new(&weights, &pool);
        step.leaves.push(Mutex::default());
        // In another order the small number would be lost.
        let parts = [Some(1e8f32), None, Some(-1e8), Some(1.0)];
        for group in [3, 1, 0, 2] {
            step.put(group, LeafId(0), parts[group].map(|it| vec![it]));
        }
        assert_eq!(step.sums(), [vec![1.0]]);
    }
}
