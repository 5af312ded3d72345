//! The loop: steps, looks at held-out samples, the best state, going on after a kill.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

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
use onnxq_run::{
    calibrate, compare,
    data::Batch,
    engine::{Runtime, threads},
};
use onnxq_train::{
    adamw::Schedule,
    params::{self, Change, Trained, Weights},
    trainer::{Group, Trainer},
};

use super::{
    Examples, Learnt, NothingGained, Point,
    examples::Split,
    groups::{Stacked, by_value, stack},
    losses::{Judge, Losses, Target},
    state::{Facts, State, StateFile},
    teacher::{Says, Teacher},
};
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
    parts: Vec<String>,
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
const KEEP_EVERY: Duration = Duration::from_secs(120);

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
        let looked = run.look(true)?;
        run.begin(looked);
        while run.facts.step < self.spec.steps {
            run.step()?;
            let last = run.facts.step == self.spec.steps;
            if run.facts.step.is_multiple_of(self.spec.every) || last {
                let looked = run.look(false)?;
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
    fn key(&self) -> String {
        let spec = serde_json::to_string(self.spec).expect("plain data");
        let version = env!("CARGO_PKG_VERSION");
        let teacher = self.teacher.is_some();
        let Student { bits, key, .. } = &self.student;
        let data = self.examples.sha256();
        sha256_hex(format!("{version}\n{spec}\n{key}\n{bits:?}\n{teacher}\n{data}"))
    }

    fn selection(
        &self,
    ) -> impl Fn(params::Role, bool, &str) -> Option<Trained> + Send + Sync + 'static {
        let (spec, bits) = (self.spec.clone(), self.student.bits);
        move |role, quantized, _| {
            let all = spec.trains(Part::Weights);
            let rate = |part| Some(spec.rate(part, bits));
            let scale_rate = spec.rate(Part::Scales, bits);
            let part = match (quantized, role) {
                (true, _) if all => return Some(Trained { rate: rate(Part::Weights), scale_rate }),
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

    /// What of the teacher's answers counts and is kept.
    fn keep_top(&self, teacher: &mut Teacher<'_>, judges: &[Judge]) -> Result<(), Error> {
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

    fn schedule(&self) -> Schedule {
        let DistilSpec { steps, clip, weight_decay, .. } = *self.spec;
        // A short training warms up for a part of it.
        let warm_up = 20.min(steps.div_ceil(5));
        let (clip, decay) = (f64::from(clip), weight_decay);
        Schedule { steps, warm_up, clip, decay, ..Schedule::default() }
    }
}

/// A training while it lasts.
struct Run<'a> {
    job: &'a Training<'a>,
    split: Split,
    trainer: Trainer<'a>,
    teacher: Option<Teacher<'a>>,
    losses: Losses,
    loss: LossName,
    /// Held-out samples, with what the teacher says of them.
    held_out: Vec<Group<Target>>,
    facts: Facts,
    /// The numbers of the best step; none before one was better than the beginning.
    best: Vec<Vec<f32>>,
    file: Option<StateFile>,
    kept: Instant,
    began: Instant,
    began_at: (usize, u64),
    latest: f64,
}

impl<'a> Run<'a> {
    fn new(job: &'a Training<'a>, split: Split) -> Result<Run<'a>, Error> {
        let (model, spec) = (job.student.model, job.spec);
        let first = stack(vec![job.examples.get(split.train[0])?])?.remove(0);
        let names = outputs(model);
        let threads = threads(job.threads);
        let weights = Weights::new(job.selection());
        let memory = usize::try_from(job.memory).unwrap_or(usize::MAX) / threads;
        let settings = (job.schedule(), threads, memory);
        let inputs = by_value(model, &first.inputs);
        let mut trainer = Trainer::new(model, weights, names.clone(), &inputs, settings)?;
        if trainer.weights.trained_numbers() == 0 {
            let parts = Part::ALL.iter().filter(|it| spec.trains(it.1));
            return Err(NothingToTrain { parts: parts.map(|it| it.0.to_owned()).collect() }.into());
        }
        let (loss, judges) = judges(&mut trainer, &names, &inputs, &first.inputs, spec)?;
        let needs_teacher = loss != LossName::Ce;
        let teacher = job.teacher.filter(|_| needs_teacher);
        let runtime = (&job.runtime, threads);
        let mut teacher = teacher.map(|it| Teacher::new(it, &names, runtime));
        if let Some(teacher) = &mut teacher {
            job.keep_top(teacher, &judges)?;
            let program = trainer.program(&inputs)?;
            let sizes = names.iter().map(|it| program.slot(program.outputs[it]).shape.clone());
            teacher.check(&first.inputs, &sizes.collect::<Vec<_>>())?;
        }
        let file = job.output.map(|it| StateFile::beside(it, job.key()));
        let (kept, began) = (Instant::now(), Instant::now());
        Ok(Run {
            job,
            split,
            trainer,
            teacher,
            losses: Losses(judges),
            loss,
            held_out: Vec::new(),
            facts: Facts::default(),
            best: Vec::new(),
            file,
            kept,
            began,
            began_at: (0, 0),
            latest: f64::NAN,
        })
    }

    /// Takes what an earlier run left. Returns the step it had come to.
    fn resume(&mut self) -> Result<usize, Error> {
        let Some(state) = self.file.as_ref().map(StateFile::read).transpose()?.flatten() else {
            return Ok(0);
        };
        self.check(&state)?;
        let State { facts, lists: [numbers, first, second, best] } = state;
        self.trainer.set_numbers(&numbers);
        self.trainer.optimizer.set_moments(facts.step, first, second);
        (self.best, self.facts) = (best, facts);
        self.began_at = (self.facts.step, self.facts.tokens);
        Ok(self.facts.step)
    }

    /// Whether the lists of a state are those of this training.
    fn check(&self, state: &State) -> Result<(), Error> {
        let numbers = self.trainer.numbers();
        let [first, second] = self.trainer.optimizer.moments();
        let best = if state.facts.best_step > 0 { numbers.clone() } else { Vec::new() };
        let lengths = |it: &[Vec<f32>]| it.iter().map(Vec::len).collect::<Vec<_>>();
        for (list, own) in state.lists.iter().zip([numbers, first, second, best]) {
            if lengths(list) != own.iter().map(|it| it.len()).collect::<Vec<_>>() {
                let file = self.file.as_ref().expect("the state was read from it");
                return Err(file.damaged("its lists have other lengths".to_owned()).into());
            }
        }
        Ok(())
    }

    /// One step of the optimizer.
    fn step(&mut self) -> Result<(), Error> {
        let spec = self.job.spec;
        let chosen = self.split.of_step(self.facts.step, spec.batch, spec.seed);
        let groups = self.groups(&chosen)?;
        let (loss, _) = self.trainer.step(&groups, &self.losses)?;
        self.latest = loss;
        self.facts.step += 1;
        self.facts.sum += loss;
        self.facts.count += 1;
        self.facts.tokens += groups.iter().map(|it| it.target.weights.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Samples as groups, with what the teacher says of them.
    fn groups(&mut self, chosen: &[usize]) -> Result<Vec<Group<Target>>, Error> {
        let examples = chosen.iter().map(|it| self.job.examples.get(*it));
        let stacked = stack(examples.collect::<Result<Vec<_>, _>>()?)?;
        let mut left = chosen;
        let asked = stacked.iter().map(|it| {
            let (own, rest) = left.split_at(it.samples);
            left = rest;
            (&it.inputs, own)
        });
        let asked: Vec<(&Batch, &[usize])> = asked.collect();
        let answers = match &mut self.teacher {
            Some(teacher) => teacher.ask(&asked)?,
            None => asked.iter().map(|_| Vec::new()).collect(),
        };
        let by_label = self.loss == LossName::Ce || self.job.spec.labels > 0.0;
        let targets: Vec<Target> = stacked
            .iter()
            .zip(answers)
            .map(|(it, teacher)| target(it, teacher, by_label && self.teacher.is_none()))
            .collect();
        let model = self.job.student.model;
        let mut groups: Vec<Group<Target>> = stacked
            .iter()
            .zip(targets)
            .map(|(it, target)| Group { inputs: by_value(model, &it.inputs), target })
            .collect();
        share(&mut groups);
        Ok(groups)
    }

    /// The loss of held-out samples, as the student is now. `first`: they are gathered.
    fn look(&mut self, first: bool) -> Result<f64, Error> {
        if first {
            let chosen = self.split.held_out.clone();
            self.held_out = self.groups(&chosen)?;
        }
        Ok(self.trainer.evaluate(&self.held_out, &self.losses)?)
    }

    /// Before the first step; a run that goes on knows it already.
    fn begin(&mut self, held_out: f64) {
        if self.facts.step == 0 {
            (self.facts.before, self.facts.best) = (held_out, held_out);
            self.facts.curve = vec![Point { step: 0, loss: f64::NAN, held_out }];
        }
    }

    fn note(&mut self, held_out: f64) {
        let facts = &mut self.facts;
        let loss = facts.sum / facts.count.max(1) as f64;
        facts.curve.push(Point { step: facts.step, loss, held_out });
        (facts.sum, facts.count) = (0.0, 0);
        if held_out < facts.best {
            (facts.best, facts.best_step) = (held_out, facts.step);
            let numbers = self.trainer.numbers();
            self.best.resize_with(numbers.len(), Vec::new);
            for (best, own) in self.best.iter_mut().zip(numbers) {
                best.clear();
                best.extend_from_slice(own);
            }
        }
    }

    /// Writes the state, where it is time.
    fn keep(&mut self, last: bool) -> Result<(), Error> {
        let is_look = self.facts.step.is_multiple_of(self.job.spec.every);
        if last || !(is_look || self.kept.elapsed() > KEEP_EVERY) {
            return Ok(());
        }
        let Some(file) = &self.file else { return Ok(()) };
        let [first, second] = self.trainer.optimizer.moments();
        let best = self.best.iter().map(|it| &it[..]).collect();
        file.write(&self.facts, &[self.trainer.numbers(), first, second, best])?;
        self.kept = Instant::now();
        Ok(())
    }

    /// The progress line: loss, held-out loss, tokens in a second, time left.
    fn told(&self) -> String {
        let spent = self.began.elapsed();
        let (steps, tokens) =
            (self.facts.step - self.began_at.0, self.facts.tokens - self.began_at.1);
        let left =
            spent.mul_f64((self.job.spec.steps - self.facts.step) as f64 / steps.max(1) as f64);
        let pace = tokens as f64 / spent.as_secs_f64().max(1e-9);
        let held_out = self.facts.curve.last().map_or(f64::NAN, |it| it.held_out);
        let latest = self.latest;
        format!(
            "loss {latest:.4} · held out {held_out:.4} · {pace:.0} tokens/s · {:.0} s left",
            left.as_secs_f64()
        )
    }

    fn finish(mut self) -> Result<(Vec<Change>, Learnt), Error> {
        if let Some(file) = &self.file {
            file.remove();
        }
        let facts = &self.facts;
        let (before, after) = (facts.before, facts.best);
        if facts.best_step == 0 {
            let looks = facts.curve.iter().skip(1).map(|it| it.held_out);
            let best = looks.fold(f64::INFINITY, f64::min);
            return Err(NothingGained { before, best }.into());
        }
        self.trainer.set_numbers(&self.best);
        let word = LossName::ALL.iter().find(|it| it.1 == self.loss).map_or("", |it| it.0);
        let parts = Part::ALL.iter().filter(|it| self.job.spec.trains(it.1)).map(|it| it.0);
        let learnt = Learnt {
            loss: word,
            train: parts.collect(),
            trained_numbers: self.trainer.weights.trained_numbers(),
            samples: self.split.train.len(),
            held_out: self.split.held_out.len(),
            steps: facts.step,
            tokens: facts.tokens,
            before,
            after,
            best: facts.best_step,
            curve: facts.curve.clone(),
            sha256: self.job.examples.sha256(),
        };
        Ok((self.trainer.changes(), learnt))
    }
}

impl Learnt {
    /// What a model says of it in its metadata.
    pub(crate) fn told(&self) -> String {
        let Learnt { loss, train, before, after, best, steps, tokens, sha256, .. } = self;
        serde_json::json!({
            "loss": loss, "train": train, "before": before, "after": after, "best_step": best,
            "steps": steps, "tokens": tokens, "samples_sha256": sha256,
        })
        .to_string()
    }

    /// One line.
    pub fn summary(&self) -> String {
        let Learnt { loss, before, after, best, steps, .. } = self;
        format!(
            "{loss} of held-out samples {before:.5} → {after:.5}, best at step {best} of {steps}"
        )
    }
}

/// The outputs that a student is judged by: floats that are not kept for a next token.
fn outputs(m: &Model) -> Vec<String> {
    let names = m.graph(m.main).outputs.iter().map(|it| m.value(*it).name.to_string());
    names.filter(|it| !compare::is_cache(it)).collect()
}

/// How each output is judged, and the name of the loss.
fn judges(
    trainer: &mut Trainer<'_>,
    names: &[String],
    inputs: &BTreeMap<ValueId, Tensor>,
    batch: &Batch,
    spec: &DistilSpec,
) -> Result<(LossName, Vec<Judge>), Error> {
    let program = trainer.program(inputs)?;
    let mut judges = Vec::with_capacity(names.len());
    let mut first = None;
    for name in names {
        let shape = program.slot(program.outputs[name]).shape.clone();
        let width = shape.last().copied().unwrap_or(1);
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

/// What of a group counts. What is said of a token is what the one before it is to predict.
fn target(group: &Stacked, teacher: Vec<Says>, only_labels: bool) -> Target {
    let ids = group.inputs.get("input_ids");
    let samples = ids.map_or(group.samples, |it| it.shape.first().copied().unwrap_or(1));
    let tokens = group.counts.len() / samples.max(1);
    let known: Vec<i64> = match &group.labels {
        Some(labels) => labels.clone(),
        None => ids.and_then(|it| it.to_i64().ok()).unwrap_or_default(),
    };
    let of_samples = group.labels.is_some();
    let next = |at: usize| -> Option<usize> {
        if of_samples {
            return known.get(at).and_then(|it| usize::try_from(*it).ok());
        }
        let is_last = (at + 1).is_multiple_of(tokens.max(1));
        let counts = !is_last && group.counts.get(at + 1).copied().unwrap_or(false);
        if counts { known.get(at + 1).and_then(|it| usize::try_from(*it).ok()) } else { None }
    };
    let labels: Vec<Option<usize>> = (0..group.counts.len()).map(next).collect();
    let shifted = group.shifted || only_labels && !of_samples;
    let counts = |at: usize| if shifted { labels[at].is_some() } else { group.counts[at] };
    let weights = (0..group.counts.len()).map(|at| f32::from(u8::from(counts(at)))).collect();
    Target { teacher, weights, labels, samples, sample_weight: 1.0 }
}

/// Weights of all groups sum up to one.
fn share(groups: &mut [Group<Target>]) {
    let count: f32 = groups.iter().flat_map(|it| &it.target.weights).sum();
    let samples: usize = groups.iter().map(|it| it.target.samples).sum();
    for group in groups {
        group.target.weights.iter_mut().for_each(|it| *it /= count.max(1.0));
        group.target.sample_weight = 1.0 / samples.max(1) as f32;
    }
}
