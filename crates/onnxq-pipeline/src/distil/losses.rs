//! What the outputs of a student lose.

use super::{cache::Top, teacher::Says};
use onnxq_quant::recipe::LossName;
use onnxq_train::{
    loss::{self, Aim},
    trainer::Loss,
};

/// What the outputs of a group are to be.
pub(super) struct Target {
    /// What the teacher says, output by output; empty if none was asked.
    pub teacher: Vec<Says>,
    /// By token: what a loss there counts. They sum up to one over a step.
    pub weights: Vec<f32>,
    /// By token: the token that follows, if it counts.
    pub labels: Vec<Option<usize>>,
    /// Samples of the group, and what one of them counts for a vector of the whole sample.
    pub samples: usize,
    pub sample_weight: f32,
}

impl Target {
    /// Of what the teacher says.
    pub(super) fn bytes(&self) -> usize {
        let of = |it: &Says| match it {
            Says::Whole(it) => size_of_val(&it[..]),
            Says::Top(it) => it.bytes_in_memory(),
        };
        self.teacher.iter().map(of).sum()
    }
}

/// How one output is judged.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Judge {
    /// Rows of logits of so many values.
    Kl {
        width: usize,
        temperature: f32,
        labels: f32,
    },
    Ce {
        width: usize,
    },
    /// Vectors of so many values.
    Cosine {
        width: usize,
    },
    Square {
        width: usize,
    },
    /// Hidden states of so many values, which count so much in training and nothing in a look.
    Hidden {
        width: usize,
        part: f32,
    },
}

impl Judge {
    pub(super) fn new(name: LossName, width: usize, temperature: f32, labels: f32) -> Judge {
        match name {
            LossName::Kl => Judge::Kl { width, temperature, labels },
            LossName::Ce => Judge::Ce { width },
            LossName::Cosine => Judge::Cosine { width },
            LossName::Square => Judge::Square { width },
        }
    }
}

/// The judges of the outputs, in their order.
#[derive(Clone)]
pub(super) struct Losses(pub Vec<Judge>);

impl Losses {
    /// What the outputs themselves lose.
    pub(super) fn without_hidden(&self) -> Losses {
        let seen = |it: &Judge| match *it {
            Judge::Hidden { width, .. } => Judge::Hidden { width, part: 0.0 },
            other => other,
        };
        Losses(self.0.iter().map(seen).collect())
    }
}

impl Loss<Target> for Losses {
    fn of(&self, target: &Target, outputs: &[&[f32]], gradients: &mut [Vec<f32>]) -> f64 {
        let mut sum = 0.0;
        for (index, judge) in self.0.iter().enumerate() {
            let teacher = target.teacher.get(index);
            sum += judge.of(target, teacher, outputs[index], &mut gradients[index]);
        }
        sum
    }
}

impl Judge {
    fn of(
        self,
        target: &Target,
        says: Option<&Says>,
        student: &[f32],
        gradient: &mut [f32],
    ) -> f64 {
        let teacher = match says {
            Some(Says::Whole(it)) => &it[..],
            _ => &[],
        };
        match self {
            Judge::Kl { width, temperature, labels } => {
                let logits = Rows { target, teacher, student, width };
                let top = match says {
                    Some(Says::Top(it)) => Some(it),
                    _ => None,
                };
                let by_teacher = logits.divergence((top, temperature), 1.0 - labels, gradient);
                by_teacher + if labels > 0.0 { logits.entropy(labels, gradient) } else { 0.0 }
            }
            Judge::Ce { width } => Rows { target, teacher, student, width }.entropy(1.0, gradient),
            Judge::Cosine { width } => Rows { target, teacher, student, width }.vectors(gradient),
            Judge::Square { width } => {
                Rows { target, teacher, student, width }.squares(1.0, gradient)
            }
            Judge::Hidden { part: 0.0, .. } => 0.0,
            Judge::Hidden { width, part } => {
                Rows { target, teacher, student, width }.squares(part, gradient)
            }
        }
    }
}

/// Rows of an output, one for each token or sample.
struct Rows<'a> {
    target: &'a Target,
    teacher: &'a [f32],
    student: &'a [f32],
    width: usize,
}

impl Rows<'_> {
    /// What each row counts: a token's weight, or, where there is a row for each sample, a sample's.
    fn weight(&self, row: usize) -> f32 {
        let rows = self.student.len() / self.width.max(1);
        if rows == self.target.weights.len() {
            return self.target.weights[row];
        }
        self.target.sample_weight * self.target.samples as f32 / rows.max(1) as f32
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        row * self.width..(row + 1) * self.width
    }

    /// The rows that count, with their weights.
    fn counted(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        let rows = self.student.len() / self.width.max(1);
        (0..rows).map(|it| (it, self.weight(it))).filter(|it| it.1 > 0.0)
    }

    /// From all that the teacher says of a row, or from its likeliest values.
    fn divergence(
        &self,
        (top, temperature): (Option<&Top>, f32),
        part: f32,
        gradient: &mut [f32],
    ) -> f64 {
        let mut scratch = Vec::new();
        let mut sum = 0.0;
        for (row, weight) in self.counted() {
            let (range, weight) = (self.range(row), weight * part);
            let aim = match top {
                Some(top) => top.aim(row),
                None => Aim::Logits(&self.teacher[range.clone()]),
            };
            let (student, gradient) = (&self.student[range.clone()], &mut gradient[range]);
            let own = loss::row(aim, student, temperature, weight, gradient, &mut scratch);
            sum += f64::from(weight) * own;
        }
        sum
    }

    fn entropy(&self, part: f32, gradient: &mut [f32]) -> f64 {
        let mut scratch = Vec::new();
        let mut sum = 0.0;
        for (row, weight) in self.counted() {
            let Some(label) = self.target.labels.get(row).copied().flatten() else { continue };
            let (range, weight) = (self.range(row), weight * part);
            let (student, gradient) = (&self.student[range.clone()], &mut gradient[range]);
            let own = loss::row(Aim::Label(label), student, 1.0, weight, gradient, &mut scratch);
            sum += f64::from(weight) * own;
        }
        sum
    }

    /// Half for the vectors of tokens, half for the mean of each sample, which is what embeddings are
    /// made of; the error of a token in proportion adds its length.
    fn vectors(&self, gradient: &mut [f32]) -> f64 {
        let mut sum = 0.0;
        for (row, weight) in self.counted() {
            let range = self.range(row);
            let (teacher, student) = (&self.teacher[range.clone()], &self.student[range.clone()]);
            let half = 0.5 * weight;
            let own = loss::cosine(teacher, student, half, &mut gradient[range.clone()])
                + loss::relative_square(teacher, student, half, &mut gradient[range]);
            sum += f64::from(half) * own;
        }
        let rows = self.student.len() / self.width.max(1);
        if rows != self.target.weights.len() || self.target.samples == 0 {
            return sum;
        }
        let tokens = rows / self.target.samples;
        for sample in 0..self.target.samples {
            sum += self.mean(sample * tokens..(sample + 1) * tokens, gradient);
        }
        sum
    }

    /// The cosine of the means of a sample's tokens.
    fn mean(&self, tokens: std::ops::Range<usize>, gradient: &mut [f32]) -> f64 {
        let counted: Vec<usize> = tokens.filter(|it| self.target.weights[*it] > 0.0).collect();
        if counted.is_empty() {
            return 0.0;
        }
        let part = 1.0 / counted.len() as f32;
        let mean = |values: &[f32]| {
            let mut mean = vec![0.0f32; self.width];
            for row in &counted {
                mean.iter_mut().zip(&values[self.range(*row)]).for_each(|(it, v)| *it += part * v);
            }
            mean
        };
        let (teacher, student) = (mean(self.teacher), mean(self.student));
        let weight = 0.5 * self.target.sample_weight;
        let mut own = vec![0.0; self.width];
        let loss = loss::cosine(&teacher, &student, weight, &mut own);
        for row in &counted {
            gradient[self.range(*row)].iter_mut().zip(&own).for_each(|(it, g)| *it += part * g);
        }
        f64::from(weight) * loss
    }

    fn squares(&self, part: f32, gradient: &mut [f32]) -> f64 {
        let mut sum = 0.0;
        for (row, weight) in self.counted() {
            let weight = part * weight;
            let range = self.range(row);
            let (teacher, student) = (&self.teacher[range.clone()], &self.student[range.clone()]);
            let own = loss::relative_square(teacher, student, weight, &mut gradient[range]);
            sum += f64::from(weight) * own;
        }
        sum
    }
}
