//! AdamW with warm-up, a cosine and clipping.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

use crate::{
    params::{GroupGrads, Kind, LeafId, Leaves, Weights},
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
    pub fn moments(&self) -> [Vec<Vec<f32>>; 2] {
        let list = || self.moments.iter().flatten();
        [list().map(|it| it.first.clone()).collect(), list().map(|it| it.second.clone()).collect()]
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
        mut grads: Sums,
    ) -> Moved {
        let norm = grads.norm();
        let factor = if norm > self.schedule.clip { self.schedule.clip / norm } else { 1.0 };
        let part = self.schedule.at(self.step) as f32;
        self.step += 1;
        for (index, weight) in weights.list.iter_mut().enumerate() {
            let Some(how) = weight.trained else { continue };
            let [own, theta] = &mut self.moments[index];
            let (step, schedule) = (self.step, &self.schedule);
            let update = Update { schedule, step, factor: factor as f32 };
            if let Some(rate) = how.rate {
                let values = match weight.kind {
                    Kind::Float { .. } => leaves.get_mut(weight.first),
                    Kind::Quantized(_) => &mut weight.shadow[..],
                };
                update.run(rate * part, schedule.decay, values, &mut grads.own[index], own);
            }
            if !weight.theta.is_empty() {
                let rate = how.scale_rate * part;
                update.run(rate, 0.0, &mut weight.theta, &mut grads.theta[index], theta);
            }
        }
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

/// The gradients of a step, by weight.
pub struct Sums {
    /// Of the weight itself; empty where it is not trained.
    own: Vec<Vec<f32>>,
    /// Of the logarithms of scales.
    theta: Vec<Vec<f32>>,
}

impl Sums {
    /// From the sums of all groups, leaf by leaf.
    pub fn new(weights: &Weights, groups: GroupGrads<'_>) -> Sums {
        let GroupGrads { mut dense, mut theta, .. } = groups;
        let mut own: Vec<Vec<f32>> = vec![Vec::new(); weights.list.len()];
        for (index, gradient) in dense.iter_mut().enumerate() {
            let leaf = LeafId(index);
            let (weight, flipped) = weights.behind(leaf);
            if gradient.values.is_empty() {
                continue;
            }
            let mut values = std::mem::take(&mut gradient.values);
            if gradient.fresh {
                values.fill(0.0);
            }
            let (rows, columns) = weights.list[weight].extent();
            if flipped {
                values = crate::params::transposed(&values, columns, rows);
            }
            match own[weight].is_empty() {
                true => own[weight] = values,
                false => own[weight].iter_mut().zip(&values).for_each(|(it, more)| *it += *more),
            }
        }
        for (index, weight) in weights.list.iter().enumerate() {
            if let (Kind::Quantized(it), Some(shadow)) = (&weight.kind, weight.rounded_from()) {
                it.reduce_through(&weight.theta, shadow, &mut own[index], &mut theta[index]);
            }
        }
        Sums { own, theta }
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
        self.own.iter().chain(&self.theta).map(square).sum::<f64>().sqrt()
    }
}
