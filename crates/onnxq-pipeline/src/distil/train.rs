//! What a training is: what is trained against what, what outputs are judged by, and the loop.

use std::{collections::BTreeMap, path::Path, time::Duration};

use onnxq_ir::{
    Model, ValueId,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    digest::sha256_hex,
    onnx::Files,
    tensor::Tensor,
    untrusted::Untrusted,
};
use onnxq_quant::recipe::{DistilSpec, Group as Part, LossName};
use onnxq_report::figures::Role;
use onnxq_run::{calibrate, compare, data::Batch, engine::Runtime};
use onnxq_train::{
    adamw::Schedule,
    params::{self, Change, Trained, Weights},
    trainer::Trainer,
};

use super::{Examples, Hidden, Learnt, examples::Split, losses::Judge, run::Run, teacher::Teacher};
use crate::Error;

/// What is trained, against what, and on what.
pub struct Training<'a> {
    pub student: Student<'a>,
    /// The float model; `None`: the data says what is right.
    pub teacher: Option<(&'a Model, &'a Files)>,
    pub spec: &'a DistilSpec,
    pub examples: &'a dyn Examples,
    pub runtime: Runtime<'a>,
    /// Groups that run at the same time; 0: one per core. Changes no result.
    pub threads: usize,
    /// Bytes for the values of a run.
    pub memory: u64,
    /// The state lies beside it, if there is one.
    pub output: Option<&'a Path>,
    /// Outputs of the student that are no outputs of the model, and what they are of the teacher.
    pub hidden: Option<&'a Hidden>,
    /// A file of the teacher's answers, which has them already or will.
    pub answers: Option<&'a Path>,
}

pub struct Student<'a> {
    pub model: &'a Model,
    /// Bits of its narrowest weights; `None`: it is a float model.
    pub bits: Option<u32>,
    /// A digest of what it was made of.
    pub key: String,
}

/// The data has nothing to learn from, or nothing to look at.
#[derive(Debug, thiserror::Error)]
#[error("{train} samples to train on and {held_out} held out are too few")]
pub(crate) struct TooFew {
    train: usize,
    held_out: usize,
}

impl Diagnostic for TooFew {
    fn code(&self) -> Code {
        Code::E606
    }

    fn hint(&self) -> Option<String> {
        Some("a tenth of the samples is held out: give at least 20, better some hundreds".into())
    }
}

/// Nothing that is to be trained is in the model.
#[derive(Debug, thiserror::Error)]
#[error("the model has no {}", parts.join(", "))]
pub(crate) struct NothingToTrain {
    pub(super) parts: Vec<String>,
}

impl Diagnostic for NothingToTrain {
    fn code(&self) -> Code {
        Code::E641
    }

    fn hint(&self) -> Option<String> {
        Some(
            "`distil.train` takes scales, norms, biases and weights; a float model has no scales"
                .into(),
        )
    }
}

/// A pattern of weights that are to stay names none.
#[derive(Debug, thiserror::Error)]
#[error("`distil.freeze`: `{}` matches no weight that would be trained", Untrusted(pattern))]
pub(crate) struct NothingFrozen {
    pattern: String,
    /// Some that there are.
    names: Vec<String>,
}

impl Diagnostic for NothingFrozen {
    fn code(&self) -> Code {
        Code::E641
    }

    fn hint(&self) -> Option<String> {
        let names: Vec<String> =
            self.names.iter().map(|it| format!("`{}`", Untrusted(it))).collect();
        Some(format!("names of weights are {}, …", names.join(", ")))
    }
}

/// Only distributions have likeliest values.
#[derive(Debug, thiserror::Error)]
#[error("`distil.top` keeps the likeliest values of logits, and the loss compares vectors")]
pub(crate) struct NoTop;

impl Diagnostic for NoTop {
    fn code(&self) -> Code {
        Code::E641
    }

    fn hint(&self) -> Option<String> {
        Some("leave it out: without it, all of the teacher's numbers count".to_owned())
    }
}

/// An output that a loss cannot judge.
#[derive(Debug, thiserror::Error)]
#[error(
    "output `{}` has rows of {width} numbers, and the loss {loss} needs {needs}",
    Untrusted(name)
)]
pub(crate) struct WrongLoss {
    name: String,
    width: usize,
    loss: &'static str,
    needs: &'static str,
}

impl Diagnostic for WrongLoss {
    fn code(&self) -> Code {
        Code::E641
    }
}

/// Time between two states on the disk, at the least; each look at held-out samples writes one too.
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(120);

impl Training<'_> {
    /// Trains, and returns what it changes in the student.
    ///
    /// # Errors
    /// E640 and E641 if no gradient passes, N003 if nothing was gained, E606 without enough samples, and
    /// what running the teacher says.
    pub fn run(&self, ctx: &Ctx) -> Result<(Vec<Change>, Learnt), Error> {
        let split = Split::new(self.examples, self.most_held_out())?;
        let (train, held_out) = (split.train.len(), split.held_out.len());
        if train == 0 || held_out == 0 {
            return Err(TooFew { train, held_out }.into());
        }
        ctx.progress.start("distil", self.spec.steps as u64);
        let mut run = Run::new(self, split)?;
        let resumed = run.resume()?;
        if resumed > 0 {
            ctx.progress.tell(&format!("goes on after step {resumed}"));
        }
        let looked = run.look()?;
        run.begin(looked);
        while run.facts.step < self.spec.steps {
            run.step()?;
            let last = run.facts.step == self.spec.steps;
            if run.facts.step.is_multiple_of(self.spec.every) || last {
                let looked = run.look()?;
                run.note(looked);
            }
            run.keep(last)?;
            ctx.progress.tell(&run.told());
            ctx.progress.step(1);
        }
        let (changes, learnt) = run.finish()?;
        ctx.progress.done(&learnt.summary());
        Ok((changes, learnt))
    }

    fn most_held_out(&self) -> usize {
        self.spec.held_out.min(self.examples.count().div_ceil(10))
    }

    /// A digest of all that the result depends on.
    pub(super) fn key(&self) -> String {
        let spec = serde_json::to_string(self.spec).expect("plain data");
        let version = env!("CARGO_PKG_VERSION");
        let teacher = self.teacher.is_some();
        let Student { bits, key, .. } = &self.student;
        let data = self.examples.sha256();
        sha256_hex(format!("{version}\n{spec}\n{key}\n{bits:?}\n{teacher}\n{data}"))
    }

    pub(super) fn selection(
        &self,
    ) -> impl Fn(params::Role, bool, &str) -> Option<Trained> + Send + Sync + 'static {
        let (spec, bits) = (self.spec.clone(), self.student.bits);
        let frozen = spec.frozen();
        move |role, quantized, name| {
            if frozen.iter().any(|it| it.matches(name)) {
                return None;
            }
            let all = spec.trains(Part::Weights);
            let rate = |part| Some(spec.rate(part, bits));
            let scale_rate = spec.rate(Part::Scales, bits);
            let part = match (quantized, role) {
                (true, _) if all => {
                    return Some(Trained { rate: Some(spec.integer_rate()), scale_rate });
                }
                (true, _) => {
                    let trained = Trained { rate: None, scale_rate };
                    return spec.trains(Part::Scales).then_some(trained);
                }
                (false, params::Role::Norm) => Part::Norms,
                (false, params::Role::Bias) => Part::Biases,
                (false, params::Role::Matrix) => Part::Weights,
                (false, params::Role::Other) => return None,
            };
            (all || spec.trains(part)).then(|| Trained { rate: rate(part), scale_rate })
        }
    }

    /// How each output is judged, and the name of the loss.
    pub(super) fn judges(
        &self,
        trainer: &mut Trainer<'_>,
        names: &[String],
        inputs: &BTreeMap<ValueId, Tensor>,
        batch: &Batch,
    ) -> Result<(LossName, Vec<Judge>), Error> {
        let spec = self.spec;
        let program = trainer.program(inputs)?;
        let mut judges = Vec::with_capacity(names.len());
        let mut first = None;
        for name in names {
            let shape = program.slot(program.outputs[name]).shape.clone();
            let width = shape.last().copied().unwrap_or(1);
            if let Some(hidden) = self.hidden_of(name) {
                let part = hidden.part / hidden.names.len() as f32;
                judges.push(Judge::Hidden { width, part });
                continue;
            }
            let role = compare::role_of(name, &shape, batch);
            let own = match role {
                Role::Logits | Role::Classes => LossName::Kl,
                Role::Hidden | Role::Embedding => LossName::Cosine,
                _ => LossName::Square,
            };
            let loss = spec.loss.unwrap_or(own);
            let is_logits = matches!(loss, LossName::Kl | LossName::Ce);
            if is_logits && width < 2 {
                let loss = LossName::ALL.iter().find(|it| it.1 == loss).map_or("", |it| it.0);
                let needs = "logits of several classes or tokens";
                return Err(WrongLoss { name: name.clone(), width, loss, needs }.into());
            }
            first.get_or_insert(loss);
            judges.push(Judge::new(loss, width, spec.temperature, spec.labels));
        }
        Ok((first.unwrap_or(LossName::Square), judges))
    }

    fn hidden_of(&self, name: &str) -> Option<&Hidden> {
        self.hidden.filter(|it| it.names.iter().any(|it| it.0 == name))
    }

    /// What an output of the student is called in the teacher.
    pub(super) fn name_of_teacher(&self, name: &str) -> String {
        let pairs = self.hidden.iter().flat_map(|it| &it.names);
        pairs.filter(|it| it.0 == name).map(|it| &*it.1).next().unwrap_or(name).to_owned()
    }

    /// Whether each pattern of weights that stay matches one.
    pub(super) fn check_frozen(&self, weights: &Weights) -> Result<(), Error> {
        for (text, pattern) in self.spec.freeze.iter().zip(self.spec.frozen()) {
            if !weights.list.iter().any(|it| pattern.matches(&it.name)) {
                let names = weights.list.iter().take(3).map(|it| it.name.clone()).collect();
                return Err(NothingFrozen { pattern: text.clone(), names }.into());
            }
        }
        Ok(())
    }

    /// What of the teacher's answers counts and is kept.
    pub(super) fn keep_top(
        &self,
        teacher: &mut Teacher<'_>,
        judges: &[Judge],
    ) -> Result<(), Error> {
        let Some(count) = self.spec.top else { return Ok(()) };
        let width = |it: &Judge| match it {
            Judge::Kl { width, .. } => Some(*width),
            _ => None,
        };
        let widths: Option<Vec<usize>> = judges.iter().map(width).collect();
        let widths = widths.ok_or(NoTop)?;
        let file = self.answers.map(|it| Ok::<_, Error>((it, self.questions()?))).transpose()?;
        teacher.keep_top(count, widths, file)
    }

    /// A digest of the teacher and of every sample.
    fn questions(&self) -> Result<String, Error> {
        let of_teacher = self.teacher.map(|it| calibrate::model_sha256(it.1));
        let mut all = of_teacher.unwrap_or_default().into_bytes();
        for index in 0..self.examples.count() {
            all.extend(self.examples.key(index)?);
        }
        Ok(sha256_hex(all))
    }

    pub(super) fn schedule(&self) -> Schedule {
        let DistilSpec { steps, clip, weight_decay, .. } = *self.spec;
        // A short training warms up for a part of it.
        let warm_up = 20.min(steps.div_ceil(5));
        let (clip, decay) = (f64::from(clip), weight_decay);
        Schedule { steps, warm_up, clip, decay, ..Schedule::default() }
    }
}

/// The outputs that a student is judged by: floats that are not kept for a next token.
pub(super) fn outputs(m: &Model) -> Vec<String> {
    let names = m.graph(m.main).outputs.iter().map(|it| m.value(*it).name.to_string());
    names.filter(|it| !compare::is_cache(it)).collect()
}
