//! How far a student is from what it is to say, and the gradient of that at its outputs.
//!
//! All losses are means over the places that count; a gradient is that of the mean.

use crate::{ops::softmax, real::vectorized};

/// What one row of logits is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Aim<'a> {
    /// The teacher's logits: KL(teacher ‖ student).
    Logits(&'a [f32]),
    /// Of the teacher's distribution the likeliest values and what all others have together.
    Top { ids: &'a [u32], probabilities: &'a [f32], rest: f32 },
    /// The value that came: cross entropy.
    Label(usize),
}

/// The loss of a row of logits in nats. Adds `weight` times its gradient to `gradient`.
///
/// With a temperature `T` the loss is `T² · KL(softmax(t / T) ‖ softmax(s / T))`, so that gradients keep
/// their size (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015). `scratch` is as
/// long as the row.
pub fn row(
    aim: Aim<'_>,
    student: &[f32],
    temperature: f32,
    weight: f32,
    gradient: &mut [f32],
    scratch: &mut Vec<f32>,
) -> f64 {
    match aim {
        Aim::Logits(teacher) => {
            divergence(teacher, student, temperature, weight, gradient, scratch)
        }
        Aim::Label(label) => cross_entropy(label, student, weight, gradient),
        Aim::Top { ids, probabilities, rest } => {
            most_likely((ids, probabilities, rest), student, weight, gradient)
        }
    }
}

/// ln Σ exp of a row, and the row's softmax in `out`.
fn distribution(row: &[f32], by: f32, out: &mut [f32]) -> f64 {
    vectorized(|| {
        let mut most = f32::NEG_INFINITY;
        for it in row {
            most = most.max(*it * by);
        }
        for (out, it) in out.iter_mut().zip(row) {
            *out = *it * by;
        }
        let at_most = out.iter().position(|it| *it == most).unwrap_or(0);
        softmax(out);
        // p(most) = exp(most − ln Σ exp).
        f64::from(most) - f64::from(out[at_most]).ln()
    })
}

fn divergence(
    teacher: &[f32],
    student: &[f32],
    temperature: f32,
    weight: f32,
    gradient: &mut [f32],
    scratch: &mut Vec<f32>,
) -> f64 {
    let (len, by) = (student.len(), 1.0 / temperature);
    scratch.resize(2 * len, 0.0);
    let (p, q) = scratch.split_at_mut(len);
    let (of_teacher, of_student) = (distribution(teacher, by, p), distribution(student, by, q));
    let (mut lanes, scale) = ([0.0f64; 8], weight * temperature);
    vectorized(|| {
        let logits = teacher.iter().zip(student);
        for (i, ((p, q), (t, s))) in p.iter().zip(q.iter()).zip(logits).enumerate() {
            lanes[i % 8] += f64::from(*p * ((*t - *s) * by));
            gradient[i] += scale * (*q - *p);
        }
    });
    let sum: f64 = lanes.iter().sum();
    // Rounding can leave a hair below zero.
    let kl = (sum - of_teacher + of_student).max(0.0);
    kl * f64::from(temperature) * f64::from(temperature)
}

fn cross_entropy(label: usize, student: &[f32], weight: f32, gradient: &mut [f32]) -> f64 {
    let mut q = vec![0.0; student.len()];
    let total = distribution(student, 1.0, &mut q);
    for (g, q) in gradient.iter_mut().zip(&q) {
        *g += weight * q;
    }
    gradient[label] -= weight;
    total - f64::from(student[label])
}

fn most_likely(
    (ids, probabilities, rest): (&[u32], &[f32], f32),
    student: &[f32],
    weight: f32,
    gradient: &mut [f32],
) -> f64 {
    let mut q = vec![0.0; student.len()];
    let total = distribution(student, 1.0, &mut q);
    let known: f64 = ids.iter().map(|it| f64::from(q[*it as usize])).sum();
    let others = (1.0 - known).max(1e-12);
    let rest = f64::from(rest).max(0.0);
    let mut sum = if rest > 0.0 { rest * (rest / others).ln() } else { 0.0 };
    // Others share their part of the gradient in proportion.
    let share = (1.0 - rest / others) as f32;
    for (g, q) in gradient.iter_mut().zip(&q) {
        *g += weight * q * share;
    }
    for (id, p) in ids.iter().zip(probabilities) {
        let (id, p) = (*id as usize, f64::from(*p));
        if p > 0.0 {
            sum += p * (p.ln() - (f64::from(student[id]) - total));
        }
        gradient[id] += weight * (q[id] - p as f32 - q[id] * share);
    }
    sum.max(0.0)
}

/// `1 − cos(teacher, student)` of two vectors, and `weight` times its gradient added.
pub fn cosine(teacher: &[f32], student: &[f32], weight: f32, gradient: &mut [f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let (a, b) = (dot(teacher, teacher).sqrt().max(1e-12), dot(student, student).sqrt().max(1e-12));
    let cosine = dot(teacher, student) / (a * b);
    for (i, it) in gradient.iter_mut().enumerate() {
        let slope = f64::from(teacher[i]) / (a * b) - cosine * f64::from(student[i]) / (b * b);
        *it -= weight * slope as f32;
    }
    1.0 - cosine
}

/// `‖student − teacher‖² / ‖teacher‖²` of two vectors, and `weight` times its gradient added.
pub fn relative_square(teacher: &[f32], student: &[f32], weight: f32, gradient: &mut [f32]) -> f64 {
    let signal: f64 = teacher.iter().map(|it| f64::from(*it).powi(2)).sum::<f64>().max(1e-12);
    let mut error = 0.0;
    for (i, it) in gradient.iter_mut().enumerate() {
        let difference = student[i] - teacher[i];
        error += f64::from(difference).powi(2);
        *it += weight * (2.0 * f64::from(difference) / signal) as f32;
    }
    error / signal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: usize = 7;

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-4.0f32..4.0, LEN)
    }

    /// The gradient is the slope of the loss along each axis.
    fn agrees(
        student: &[f32],
        of: &dyn Fn(&[f32], &mut [f32]) -> f64,
    ) -> Result<(), TestCaseError> {
        let mut gradient = vec![0.0; student.len()];
        of(student, &mut gradient);
        for at in 0..student.len() {
            let moved = |by: f32| {
                let mut student = student.to_vec();
                student[at] += by;
                of(&student, &mut vec![0.0; student.len()])
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            prop_assert!(
                (slope - f64::from(gradient[at])).abs() < 2e-3,
                "{slope} {}",
                gradient[at]
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn gradients_are_slopes(t in logits(), s in logits(), label in 0..LEN, heat in 0.5f32..3.0) {
            let scratch = || Vec::new();
            agrees(&s, &|s, g| row(Aim::Logits(&t), s, heat, 1.0, g, &mut scratch()))?;
            agrees(&s, &|s, g| row(Aim::Label(label), s, 1.0, 1.0, g, &mut scratch()))?;
            agrees(&s, &|s, g| cosine(&t, s, 1.0, g))?;
            let mut p = t.clone();
            softmax(&mut p);
            let (ids, some) = ([1u32, 4], [p[1], p[4]]);
            let rest = 1.0 - some[0] - some[1];
            let top = Aim::Top { ids: &ids, probabilities: &some, rest };
            agrees(&s, &|s, g| row(top, s, 1.0, 1.0, g, &mut scratch()))?;
        }

        #[test]
        fn nothing_is_lost_where_both_are_the_same(t in logits()) {
            let mut gradient = vec![0.0; LEN];
            prop_assert!(row(Aim::Logits(&t), &t, 1.0, 1.0, &mut gradient, &mut Vec::new()) < 1e-6);
            prop_assert!(gradient.iter().all(|it| it.abs() < 1e-6));
            prop_assert!(relative_square(&t, &t, 1.0, &mut gradient) == 0.0);
        }
    }
}
