//! What the float model says, asked in ONNX Runtime.

use std::path::Path;

use onnxq_ir::{
    Model,
    diag::{Code, Diagnostic},
    onnx::Files,
    tensor::Tensor,
    untrusted::Untrusted,
};
use onnxq_run::{
    compare,
    data::Batch,
    engine::{Runtime, Session, SessionOptions},
};
use rayon::prelude::*;

use super::cache::{Cache, Top};
use crate::{Error, open};

/// Teacher and student do not speak of the same things.
#[derive(Debug, thiserror::Error)]
#[error(
    "output `{}` has {teacher} numbers of the teacher and {student} of the student for the same sample",
    Untrusted(name)
)]
struct Mismatch {
    name: String,
    teacher: usize,
    student: usize,
}

impl Diagnostic for Mismatch {
    fn code(&self) -> Code {
        Code::E644
    }

    fn hint(&self) -> Option<String> {
        Some(
            "let the teacher answer prompts (`onnxq run TEACHER --jsonl prompts.jsonl`), and train the \
             student on the answers with --loss ce"
                .into(),
        )
    }
}

/// What the teacher says of a group in one output.
pub(super) enum Says {
    /// All its numbers.
    Whole(Vec<f32>),
    /// The likeliest values of each row.
    Top(Top),
}

/// The float model, and what of its answers is kept.
pub(super) struct Teacher<'a> {
    model: &'a Model,
    files: &'a Files,
    runtime: &'a Runtime<'a>,
    threads: usize,
    outputs: Vec<String>,
    /// Of each row so many of the likeliest values count, and their number of each output.
    top: Option<(usize, Vec<usize>)>,
    cache: Option<Cache>,
    /// One for each run at the same time, once anything is asked that no file answers.
    sessions: Vec<Box<dyn Session>>,
}

impl<'a> Teacher<'a> {
    pub(super) fn new(
        (model, files): (&'a Model, &'a Files),
        outputs: &[String],
        (runtime, threads): (&'a Runtime<'a>, usize),
    ) -> Teacher<'a> {
        let (outputs, sessions) = (outputs.to_vec(), Vec::new());
        Teacher { model, files, runtime, threads, outputs, top: None, cache: None, sessions }
    }

    /// Of each row of these widths only so many values count; they are kept in a file, if one is named.
    pub(super) fn keep_top(
        &mut self,
        count: usize,
        widths: Vec<usize>,
        file: Option<(&Path, String)>,
    ) -> Result<(), Error> {
        if let Some((path, key)) = file {
            self.cache = Some(Cache::open(path, key, (count, widths.clone()))?);
        }
        self.top = Some((count, widths));
        Ok(())
    }

    fn open(&mut self) -> Result<(), Error> {
        if !self.sessions.is_empty() {
            return Ok(());
        }
        let options = SessionOptions { threads: 1, lean: true, ..SessionOptions::default() };
        let mut model = self.model.clone();
        model.remove_all_dead();
        let open = |_| open::session(&model, self.files, "the teacher", &options, self.runtime);
        self.sessions = (0..self.threads).map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Whether it says what a student with outputs of these shapes can learn.
    pub(super) fn check(&mut self, batch: &Batch, shapes: &[Vec<usize>]) -> Result<(), Error> {
        // Answers in a file are of outputs of these widths.
        if self.cache.as_ref().is_some_and(|it| !it.is_empty()) {
            return Ok(());
        }
        self.open()?;
        let Some(session) = self.sessions.first_mut() else { return Ok(()) };
        let answers = answer(&mut **session, batch, &self.outputs)?;
        for ((name, own), shape) in self.outputs.iter().zip(&answers).zip(shapes) {
            let (teacher, student) = (own.len(), shape.iter().product::<usize>());
            if teacher != student {
                return Err(Mismatch { name: name.clone(), teacher, student }.into());
            }
        }
        Ok(())
    }

    /// What it says of each group, in the order of the outputs. A group has the numbers of its samples.
    pub(super) fn ask(&mut self, groups: &[(&Batch, &[usize])]) -> Result<Vec<Vec<Says>>, Error> {
        let mut answers = Vec::with_capacity(groups.len());
        for (_, samples) in groups {
            answers.push(self.kept(samples)?);
        }
        let open: Vec<usize> = (0..groups.len()).filter(|it| answers[*it].is_none()).collect();
        if !open.is_empty() {
            self.open()?;
        }
        for wave in open.chunks(self.sessions.len().max(1)) {
            let (outputs, top) = (&self.outputs, &self.top);
            let parts: Vec<Result<Vec<Says>, Error>> = wave
                .par_iter()
                .zip(&mut self.sessions)
                .map(|(at, session)| {
                    let whole = answer(&mut **session, groups[*at].0, outputs)?;
                    Ok(says(whole, top.as_ref()))
                })
                .collect();
            for (at, part) in wave.iter().zip(parts) {
                let part = part?;
                self.keep(groups[*at].1, &part)?;
                answers[*at] = Some(part);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// What a file has of all these samples.
    fn kept(&mut self, samples: &[usize]) -> Result<Option<Vec<Says>>, Error> {
        let Some(cache) = &mut self.cache else { return Ok(None) };
        let mut says = Vec::with_capacity(self.outputs.len());
        for output in 0..self.outputs.len() {
            let mut parts = Vec::with_capacity(samples.len());
            for sample in samples {
                let Some(part) = cache.get(*sample, output)? else { return Ok(None) };
                parts.push(part);
            }
            says.push(Says::Top(Top::joined(parts)));
        }
        Ok(Some(says))
    }

    fn keep(&mut self, samples: &[usize], says: &[Says]) -> Result<(), Error> {
        let Some(cache) = &mut self.cache else { return Ok(()) };
        for (output, it) in says.iter().enumerate() {
            let Says::Top(top) = it else { continue };
            for (sample, part) in samples.iter().zip(top.pieces(samples.len())) {
                cache.put(*sample, output, &part)?;
            }
        }
        Ok(())
    }
}

/// What of whole answers counts.
fn says(whole: Vec<Vec<f32>>, top: Option<&(usize, Vec<usize>)>) -> Vec<Says> {
    match top {
        None => whole.into_iter().map(Says::Whole).collect(),
        Some((count, widths)) => {
            let of = |(it, width): (&Vec<f32>, &usize)| Says::Top(Top::of(it, *width, *count));
            whole.iter().zip(widths).map(of).collect()
        }
    }
}

fn answer(
    session: &mut dyn Session,
    batch: &Batch,
    names: &[String],
) -> Result<Vec<Vec<f32>>, Error> {
    // Its caches may be those of layers that the student does not have.
    let inputs = compare::inputs(session.inputs(), "the teacher", batch)?;
    let given: Vec<(&str, &Tensor)> =
        inputs.iter().map(|(name, it)| (name.as_str(), &**it)).collect();
    let outputs = session.run(&given)?;
    let of = |name: &String| -> Result<Vec<f32>, Error> {
        let found = outputs.iter().find(|it| it.0 == *name);
        Ok(found.map_or_else(|| Ok(Vec::new()), |it| it.1.to_f32())?)
    };
    names.iter().map(of).collect()
}
