//! AdamW with warm-up, a cosine and clipping.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

use rayon::prelude::*;

use crate::{
    params::{Kind, LeafId, Leaves, Pool, Weights},
    real::vectorized,
};

/// How steps follow from gradients.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    pub steps: usize,
    pub warm_up: usize,
    /// The part of the rate that is left at the end.
    pub least: f64,
    /// The largest norm of all gradients together.
    pub clip: f64,
    pub betas: [f32; 2],
    /// What is taken from float weights in proportion at each step, times the rate.
    pub decay: f32,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { steps: 200, warm_up: 20, least: 0.05, clip: 1.0, betas: [0.9, 0.95], decay: 0.0 }
    }
}

impl Schedule {
    /// The part of the rate that holds in a step.
    pub fn at(&self, step: usize) -> f64 {
        let warm = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let turn = std::f64::consts::PI * step as f64 / self.steps.max(1) as f64;
        warm * (0.5 * (1.0 + turn.cos()) * (1.0 - self.least) + self.least)
    }
}

/// First and second moments of each trained number.
#[derive(Clone, Default)]
pub struct Moments {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

impl Moments {
    fn new(len: usize) -> Moments {
        Moments { first: vec![0.0; len], second: vec![0.0; len] }
    }
}

/// The state of the optimizer.
pub struct AdamW {
    pub schedule: Schedule,
    pub step: usize,
    /// By weight: of the weight itself, and of the logarithms of its scales.
    moments: Vec<[Moments; 2]>,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Moved {
    /// The norm of all gradients before clipping.
    pub norm: f64,
}

impl AdamW {
    pub fn new(schedule: Schedule, weights: &Weights) -> AdamW {
        let of = |weight: &crate::params::Weight| {
            let Some(how) = weight.trained else { return [Moments::default(), Moments::default()] };
            let (rows, columns) = weight.extent();
            let own = if how.rate.is_some() { rows * columns } else { 0 };
            [Moments::new(own), Moments::new(weight.theta.len())]
        };
        AdamW { schedule, step: 0, moments: weights.list.iter().map(of).collect() }
    }

    /// First and second moments of all trained numbers.
    pub fn moments(&self) -> [Vec<&[f32]>; 2] {
        let list = || self.moments.iter().flatten();
        [list().map(|it| &it.first[..]).collect(), list().map(|it| &it.second[..]).collect()]
    }

    /// Takes what [`AdamW::moments`] gave after so many steps.
    pub fn set_moments(&mut self, step: usize, first: Vec<Vec<f32>>, second: Vec<Vec<f32>>) {
        self.step = step;
        for (own, (first, second)) in
            self.moments.iter_mut().flatten().zip(first.into_iter().zip(second))
        {
            (own.first, own.second) = (first, second);
        }
    }

    /// Changes what is trained. `grads` are no longer of use afterwards.
    pub fn apply(
        &mut self,
        weights: &mut Weights,
        leaves: &mut Leaves<f32>,
        (mut grads, pool): (Sums, &Pool),
    ) -> Moved {
        let norm = grads.norm();
        let factor = if norm > self.schedule.clip { self.schedule.clip / norm } else { 1.0 };
        let part = self.schedule.at(self.step) as f32;
        self.step += 1;
        let update = Update { schedule: &self.schedule, step: self.step, factor: factor as f32 };
        let mut values = leaves.trained(weights);
        let moments = self.moments.par_iter_mut().zip(&mut grads.own).zip(&mut grads.theta);
        let all = weights.list.par_iter_mut().zip(&mut values).zip(moments);
        all.for_each(|((weight, values), (([own, theta], dw), dtheta))| {
            let Some(how) = weight.trained else { return };
            if let Some(rate) = how.rate {
                let rate = rate * weight.unit();
                let values = match values {
                    Some(it) => &mut it[..],
                    None => &mut weight.shadow[..],
                };
                update.run(rate * part, update.schedule.decay, values, dw, own);
            }
            if !weight.theta.is_empty() {
                update.run(how.scale_rate * part, 0.0, &mut weight.theta, dtheta, theta);
            }
        });
        grads.give_back(pool);
        weights.refresh(leaves);
        Moved { norm }
    }
}

struct Update<'a> {
    schedule: &'a Schedule,
    step: usize,
    factor: f32,
}

impl Update<'_> {
    fn run(
        &self,
        rate: f32,
        decay: f32,
        values: &mut [f32],
        grads: &mut [f32],
        kept: &mut Moments,
    ) {
        let [a, b] = self.schedule.betas;
        let step = self.step as i32;
        let (first, second) = (1.0 - a.powi(step), 1.0 - b.powi(step));
        let factor = self.factor;
        vectorized(|| {
            let moments = kept.first.iter_mut().zip(&mut kept.second);
            for ((value, grad), (m, v)) in values.iter_mut().zip(grads).zip(moments) {
                let g = *grad * factor;
                *m = a * *m + (1.0 - a) * g;
                *v = b * *v + (1.0 - b) * g * g;
                let by = (*m / first) / ((*v / second).sqrt() + 1e-8);
                *value -= rate * (by + decay * *value);
            }
        });
    }
}

/// The gradients of a step, by weight, as its numbers lie.
pub struct Sums {
    /// Of the weight itself; empty where it is not trained.
    own: Vec<Vec<f32>>,
    /// Of the logarithms of scales.
    theta: Vec<Vec<f32>>,
}

impl Sums {
    /// From the sums of all groups, leaf by leaf.
    pub fn new(weights: &Weights, leaves: Vec<Vec<f32>>, pool: &Pool) -> Sums {
        let mut own: Vec<Vec<f32>> = vec![Vec::new(); weights.list.len()];
        let mut theta = own.clone();
        for (index, values) in leaves.into_iter().enumerate().filter(|it| !it.1.is_empty()) {
            let (weight, flipped) = weights.behind(LeafId(index));
            let list = &weights.list[weight];
            let is_reduced = !list.is_float() && list.rounded_from().is_none();
            let (sums, values) = match is_reduced {
                true => (&mut theta[weight], values),
                false => (&mut own[weight], list.returned(values, flipped)),
            };
            if sums.is_empty() {
                *sums = values;
            } else {
                sums.iter_mut().zip(&values).for_each(|(it, more)| *it += *more);
                pool.give(values);
            }
        }
        for (index, weight) in weights.list.iter().enumerate() {
            let Some(how) = weight.trained else { continue };
            // Moments go on where no gradient came.
            let (rows, columns) = weight.extent();
            own[index].resize(if how.rate.is_some() { rows * columns } else { 0 }, 0.0);
            theta[index].resize(weight.theta.len(), 0.0);
        }
        let both = own.par_iter_mut().zip(&mut theta);
        weights.list.par_iter().zip(both).for_each(|(weight, (own, theta))| {
            if let (Kind::Quantized(it), Some(shadow)) = (&weight.kind, weight.rounded_from()) {
                it.reduce_through(&weight.theta, shadow, own, theta);
            }
        });
        Sums { own, theta }
    }

    /// Its buffers are of use for the next step.
    fn give_back(self, pool: &Pool) {
        self.own.into_iter().chain(self.theta).for_each(|it| pool.give(it));
    }

    fn norm(&self) -> f64 {
        let square = |list: &Vec<f32>| -> f64 {
            // In eight lanes, whatever the CPU has.
            let mut lanes = [0.0f64; 8];
            vectorized(|| {
                for (i, it) in list.iter().enumerate() {
                    lanes[i % 8] += f64::from(*it) * f64::from(*it);
                }
            });
            lanes.iter().sum()
        };
        let squares: Vec<f64> = self.own.par_iter().chain(&self.theta).map(square).collect();
        squares.iter().sum::<f64>().sqrt()
    }
}
