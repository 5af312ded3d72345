//! A training while it lasts: steps, looks at held-out samples, the best state, going on after a kill.

use std::time::Instant;

use onnxq_quant::recipe::{Group as Part, LossName};
use onnxq_run::{data::Batch, engine::threads};
use onnxq_train::{
    params::{Change, Weights},
    trainer::{Group, Trainer},
};

use super::{
    Learnt, NothingGained, Point,
    examples::Split,
    groups::{GROUPS, Stacked, by_value, stack},
    losses::{Losses, Target},
    state::{Facts, State, StateFile},
    teacher::{Says, Teacher},
    train::{KEEP_EVERY, NothingToTrain, Training, outputs},
};
use crate::Error;

/// The part of `--memory` that what a teacher says of held-out samples may take.
const KEPT_PART: usize = 8;

/// A training while it lasts.
pub(super) struct Run<'a> {
    job: &'a Training<'a>,
    split: Split,
    trainer: Trainer<'a>,
    teacher: Option<Teacher<'a>>,
    losses: Losses,
    loss: LossName,
    /// Held-out samples with what the teacher says of them, as many as are kept: pieces of a look.
    held_out: Vec<Vec<Group<Target>>>,
    /// All of them, once they were counted.
    whole: Option<Whole>,
    pub(super) facts: Facts,
    /// The numbers of the best step; none before one was better than the beginning.
    best: Vec<Vec<f32>>,
    file: Option<StateFile>,
    kept: Instant,
    began: Instant,
    began_at: (usize, u64),
    latest: f64,
}

impl<'a> Run<'a> {
    pub(super) fn new(job: &'a Training<'a>, split: Split) -> Result<Run<'a>, Error> {
        let (model, spec) = (job.student.model, job.spec);
        let first = stack(vec![job.examples.get(split.train[0])?])?.remove(0);
        let names = outputs(model);
        let threads = threads(job.threads);
        let weights = Weights::new(job.selection());
        let memory = usize::try_from(job.memory).unwrap_or(usize::MAX) / threads;
        let settings = (job.schedule(), threads, memory);
        let inputs = by_value(model, &first.inputs);
        let mut trainer = Trainer::new(model, weights, names.clone(), &inputs, settings)?;
        job.check_frozen(&trainer.weights)?;
        if trainer.weights.trained_numbers() == 0 {
            let parts = Part::ALL.iter().filter(|it| spec.trains(it.1));
            return Err(NothingToTrain { parts: parts.map(|it| it.0.to_owned()).collect() }.into());
        }
        let (loss, judges) = job.judges(&mut trainer, &names, &inputs, &first.inputs)?;
        let needs_teacher = loss != LossName::Ce;
        let teacher = job.teacher.filter(|_| needs_teacher);
        let runtime = (&job.runtime, threads);
        let of_teacher: Vec<String> = names.iter().map(|it| job.name_of_teacher(it)).collect();
        let mut teacher = teacher.map(|it| Teacher::new(it, &of_teacher, runtime));
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
            whole: None,
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
    pub(super) fn resume(&mut self) -> Result<usize, Error> {
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
    pub(super) fn step(&mut self) -> Result<(), Error> {
        let spec = self.job.spec;
        let chosen = self.split.of_step(self.facts.step, spec.batch, spec.seed);
        let groups = self.groups(&chosen, None)?;
        let (loss, _) = self.trainer.step(&groups, &self.losses)?;
        self.latest = loss;
        self.facts.step += 1;
        self.facts.sum += loss;
        self.facts.count += 1;
        self.facts.tokens += groups.iter().map(|it| it.target.weights.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Samples as groups, with what the teacher says of them. `whole`: what they are a part of.
    fn groups(
        &mut self,
        chosen: &[usize],
        whole: Option<Whole>,
    ) -> Result<Vec<Group<Target>>, Error> {
        let stacked = self.stacked(chosen)?;
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
        let model = self.job.student.model;
        let both = stacked.iter().zip(answers);
        let group = |(it, teacher): (&Stacked, Vec<Says>)| {
            let target = target(it, teacher, self.only_labels());
            Group { inputs: by_value(model, &it.inputs), target }
        };
        let mut groups: Vec<Group<Target>> = both.map(group).collect();
        let whole = whole.unwrap_or_else(|| Whole::of(groups.iter().map(|it| &it.target)));
        groups.iter_mut().for_each(|it| whole.share(&mut it.target));
        Ok(groups)
    }

    fn stacked(&self, chosen: &[usize]) -> Result<Vec<Stacked>, Error> {
        let examples = chosen.iter().map(|it| self.job.examples.get(*it));
        stack(examples.collect::<Result<Vec<_>, _>>()?)
    }

    /// Whether only what a label says counts.
    fn only_labels(&self) -> bool {
        let by_label = self.loss == LossName::Ce || self.job.spec.labels > 0.0;
        by_label && self.teacher.is_none()
    }

    /// The loss of held-out samples, as the student is now. They run in pieces of the size of a step;
    /// what the teacher says of them is kept as far as it is small.
    pub(super) fn look(&mut self) -> Result<f64, Error> {
        let losses = self.losses.without_hidden();
        let chosen = self.split.held_out.clone();
        let whole = match self.whole {
            Some(it) => it,
            None => self.counted(&chosen)?,
        };
        self.whole = Some(whole);
        let mut room = self.job.memory as usize / KEPT_PART;
        let mut sum = 0.0;
        let mut known = std::mem::take(&mut self.held_out);
        for (at, piece) in chosen.chunks(self.job.spec.batch.max(GROUPS)).enumerate() {
            if let Some(groups) = known.get(at) {
                sum += self.trainer.evaluate(groups, &losses)?;
                continue;
            }
            let groups = self.groups(piece, Some(whole))?;
            sum += self.trainer.evaluate(&groups, &losses)?;
            let bytes: usize = groups.iter().map(|it| it.target.bytes()).sum();
            if known.len() == at && bytes <= room {
                room -= bytes;
                known.push(groups);
            }
        }
        self.held_out = known;
        Ok(sum)
    }

    /// What all held-out samples are together.
    fn counted(&self, chosen: &[usize]) -> Result<Whole, Error> {
        let mut targets = Vec::with_capacity(chosen.len());
        for index in chosen {
            let stacked = self.stacked(&[*index])?;
            targets.extend(stacked.iter().map(|it| target(it, Vec::new(), self.only_labels())));
        }
        Ok(Whole::of(targets.iter()))
    }

    /// Before the first step; a run that goes on knows it already.
    pub(super) fn begin(&mut self, held_out: f64) {
        if self.facts.step == 0 {
            (self.facts.before, self.facts.best) = (held_out, held_out);
            self.facts.curve = vec![Point { step: 0, loss: f64::NAN, held_out }];
        }
    }

    pub(super) fn note(&mut self, held_out: f64) {
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
    pub(super) fn keep(&mut self, last: bool) -> Result<(), Error> {
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
    pub(super) fn told(&self) -> String {
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

    pub(super) fn finish(mut self) -> Result<(Vec<Change>, Learnt), Error> {
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

/// Samples whose losses make one mean.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    /// How many places count.
    count: f32,
    samples: usize,
}

impl Whole {
    fn of<'a>(targets: impl Iterator<Item = &'a Target>) -> Whole {
        let mut whole = Whole { count: 0.0, samples: 0 };
        for it in targets {
            whole.count += it.weights.iter().sum::<f32>();
            whole.samples += it.samples;
        }
        whole
    }

    /// Weights of all of them sum up to one.
    fn share(self, target: &mut Target) {
        target.weights.iter_mut().for_each(|it| *it /= self.count.max(1.0));
        target.sample_weight = 1.0 / self.samples.max(1) as f32;
    }
}
