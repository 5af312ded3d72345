//! `distil`: training a student against the model that it comes from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NamePattern;
use onnxq_numerics::specs::{Settings, Wrong};

/// Trains the result against the float model, on text or other samples of `--calibration`: what is
/// quantized stays quantized, and what is written is what was trained, bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistilSpec {
    /// What is trained. Default: scales and norms.
    pub train: Vec<Group>,
    /// Names of weights that stay as they are: globs, or `re:` and regular expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Steps of the optimizer. Default: 200.
    pub steps: usize,
    /// Samples of a step. Default: 4.
    pub batch: usize,
    /// Tokens of a sample that text is cut into, if the model leaves it open. Default: 128.
    pub sequence: usize,
    /// Rates of AdamW; each falls to a twentieth along a cosine after a warm-up of 20 steps.
    pub learning_rate: Rates,
    /// What the student is to come near to. Default: kl where outputs are logits or classes, cosine
    /// where they are hidden states or embeddings, else square.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossName>,
    /// What logits are divided by before they are compared by kl. Default: 1.
    pub temperature: f32,
    /// Of each of the teacher's distributions so many of the likeliest values count, and all others
    /// together. Default: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
    /// The part that the next token of the text has in the loss, besides the teacher: 0 to 1.
    /// Default: 0.
    pub labels: f32,
    /// What the hidden states behind each layer count besides the loss of the outputs, for students that
    /// are what is left of the teacher: the power of their difference in proportion to the teacher's.
    /// Default: 0.
    pub hidden: f32,
    /// The largest norm of all gradients of a step. Default: 1.
    pub clip: f32,
    /// AdamW's decay of float weights. Default: 0.
    pub weight_decay: f32,
    /// Steps between looks at samples that are held out of training. The best state is written.
    /// Default: 50.
    pub every: usize,
    /// Samples that are held out, at most a tenth of all. Default: 32.
    pub held_out: usize,
    /// Which order the samples come in. Default: 0.
    pub seed: u64,
}

/// Weights that are trained together.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The scales of quantized weights; their integers stay.
    Scales,
    /// Gains and shifts of normalizations.
    Norms,
    /// Vectors that are added.
    Biases,
    /// Every weight. The integers of quantized ones follow a float weight that is trained through the
    /// rounding.
    Weights,
}

impl Group {
    pub const ALL: [(&'static str, Group); 4] = [
        ("scales", Group::Scales),
        ("norms", Group::Norms),
        ("biases", Group::Biases),
        ("weights", Group::Weights),
    ];
}

/// What a student loses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// The KL divergence from the teacher's distribution, in nats.
    Kl,
    /// Cross entropy with what follows in the data: no teacher is asked.
    Ce,
    /// One minus the cosine to the teacher's vector, of each token and of their mean.
    Cosine,
    /// The power of the difference in proportion to the teacher's.
    Square,
}

impl LossName {
    pub const ALL: [(&'static str, LossName); 4] = [
        ("kl", LossName::Kl),
        ("ce", LossName::Ce),
        ("cosine", LossName::Cosine),
        ("square", LossName::Square),
    ];
}

/// Learning rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Of the logarithms of scales. Default: 0.01 with weights of 2 bits, or 0.002 if weights are trained
    /// too; with others 0.0005.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<f32>,
    /// Of gains and shifts of normalizations. Default: that of scales, or of weights if those are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norms: Option<f32>,
    /// Of biases. Default: that of weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub biases: Option<f32>,
    /// Of weights that stay float. Default: 0.0008 beside weights of 2 bits, 0.00015 beside others that
    /// are quantized, 0.0005 of a float student.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<f32>,
    /// Of the float weights that integers are rounded from, in mean steps of their grid. Default: 4 over
    /// the number of steps, so that in long runs a weight goes as far as in short ones; at most 0.02.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integers: Option<f32>,
}

impl Default for DistilSpec {
    fn default() -> DistilSpec {
        DistilSpec {
            train: vec![Group::Scales, Group::Norms],
            freeze: Vec::new(),
            steps: 200,
            batch: 4,
            sequence: 128,
            learning_rate: Rates::default(),
            loss: None,
            temperature: 1.0,
            top: None,
            labels: 0.0,
            hidden: 0.0,
            clip: 1.0,
            weight_decay: 0.0,
            every: 50,
            held_out: 32,
            seed: 0,
        }
    }
}

impl DistilSpec {
    pub fn trains(&self, group: Group) -> bool {
        self.train.contains(&group)
    }

    /// The patterns of names that stay as they are, checked before.
    pub fn frozen(&self) -> Vec<NamePattern> {
        self.freeze.iter().filter_map(|it| NamePattern::new(it).ok()).collect()
    }

    /// The rate of what integers are rounded from, in mean steps of their grid.
    pub fn integer_rate(&self) -> f32 {
        self.learning_rate.integers.unwrap_or((4.0 / self.steps.max(1) as f32).min(0.02))
    }

    /// The rate of a group, for a student whose narrowest weights have so many bits.
    pub fn rate(&self, group: Group, bits: Option<u32>) -> f32 {
        let rates = &self.learning_rate;
        let few = bits.is_some_and(|it| it <= 2);
        let weights = rates.weights.unwrap_or(match bits {
            None => 5e-4,
            Some(_) if few => 8e-4,
            Some(_) => 1.5e-4,
        });
        let all = self.trains(Group::Weights);
        let scales = rates.scales.unwrap_or(match (all, few) {
            (true, true) => 2e-3,
            (false, true) => 1e-2,
            (_, false) => 5e-4,
        });
        let around = if all || bits.is_none() { weights } else { scales };
        match group {
            Group::Scales => scales,
            Group::Norms => rates.norms.unwrap_or(around),
            Group::Biases => rates.biases.unwrap_or(weights),
            Group::Weights => weights,
        }
    }
}

impl Settings for DistilSpec {
    fn check(&self) -> Result<(), Wrong> {
        let positive = |name: &'static str, value: usize| match value {
            0 => Err(Wrong::new(name, "must be 1 or more")),
            _ => Ok(()),
        };
        positive("steps", self.steps)?;
        positive("batch", self.batch)?;
        positive("sequence", self.sequence)?;
        positive("every", self.every)?;
        positive("held_out", self.held_out)?;
        if self.train.is_empty() {
            return Err(Wrong::new("train", "names nothing to train"));
        }
        if let Some(what) = self.freeze.iter().find_map(|it| NamePattern::new(it).err()) {
            return Err(Wrong::about("freeze", what));
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Wrong::new("temperature", "must be a number above 0"));
        }
        if let Some(top) = self.top {
            positive("top", top)?;
            let by_kl = matches!(self.loss, None | Some(LossName::Kl));
            if !by_kl || self.temperature != 1.0 {
                return Err(Wrong::new("top", "goes with the loss kl at a temperature of 1"));
            }
        }
        if !(0.0..=1.0).contains(&self.labels) {
            return Err(Wrong::new("labels", "must be from 0 to 1"));
        }
        if !(self.hidden >= 0.0 && self.hidden.is_finite()) {
            return Err(Wrong::new("hidden", "must be 0 or more"));
        }
        if self.clip.is_nan() || self.clip <= 0.0 {
            return Err(Wrong::new("clip", "must be a number above 0"));
        }
        if !(0.0..1.0).contains(&self.weight_decay) {
            return Err(Wrong::new("weight_decay", "must be from 0 to below 1"));
        }
        let rates = &self.learning_rate;
        let list = [rates.scales, rates.norms, rates.biases, rates.weights, rates.integers];
        let bad = |it: &f32| !(*it > 0.0 && *it <= 1.0);
        match list.iter().flatten().any(bad) {
            true => Err(Wrong::new("learning_rate", "must be above 0 and at most 1")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_go_as_far_in_long_runs_and_never_fast() {
        let rate = |steps| DistilSpec { steps, ..DistilSpec::default() }.integer_rate();
        assert_eq!([1, 200, 400].map(rate), [0.02, 0.02, 0.01]);
    }
}
