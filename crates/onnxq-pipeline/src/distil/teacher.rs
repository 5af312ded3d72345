//! What the float model says, asked in ONNX Runtime.

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

/// Sessions of the teacher, one for each run at the same time.
pub(super) struct Teacher {
    sessions: Vec<Box<dyn Session>>,
    outputs: Vec<String>,
}

impl Teacher {
    pub(super) fn new(
        model: &Model,
        files: &Files,
        outputs: &[String],
        (runtime, threads): (&Runtime, usize),
    ) -> Result<Teacher, Error> {
        let options = SessionOptions { threads: 1, lean: true, ..SessionOptions::default() };
        let mut model = model.clone();
        model.remove_all_dead();
        let open = |_| open::session(&model, files, "the teacher", &options, runtime);
        let sessions = (0..threads).map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Teacher { sessions, outputs: outputs.to_vec() })
    }

    /// Whether it says what a student with outputs of these shapes can learn.
    pub(super) fn check(&mut self, batch: &Batch, shapes: &[Vec<usize>]) -> Result<(), Error> {
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

    /// The outputs for each batch, in the order of the names.
    pub(super) fn ask(&mut self, batches: &[&Batch]) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let mut answers = Vec::with_capacity(batches.len());
        let outputs = &self.outputs;
        for wave in batches.chunks(self.sessions.len().max(1)) {
            let parts: Vec<Result<Vec<Vec<f32>>, Error>> = wave
                .par_iter()
                .zip(&mut self.sessions)
                .map(|(batch, session)| answer(&mut **session, batch, outputs))
                .collect();
            for part in parts {
                answers.push(part?);
            }
        }
        Ok(answers)
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
