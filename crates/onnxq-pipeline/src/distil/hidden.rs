//! Hidden states as a part of the loss: what comes out of each layer that stays is to be what the
//! teacher has where the next one that stays begins.

use onnxq_ir::{Model, ValueId, infer};
use onnxq_rewrite::prune;

use crate::Error;

/// Outputs that are compared besides those of the model.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// By pair: what the value is called in the student and in the teacher.
    pub names: Vec<(String, String)>,
    /// What all of them count together, besides the loss of the outputs.
    pub part: f32,
}

/// The student and its teacher with their hidden states as outputs.
pub(super) struct Watched {
    pub student: Model,
    pub teacher: Model,
    pub hidden: Hidden,
}

/// `student` is what is left of `teacher`, with the layers `kept`.
///
/// # Errors
/// E412 if layers are not recognised.
pub(super) fn watch(
    (student, teacher): (&Model, &Model),
    kept: &[usize],
    part: f32,
) -> Result<Watched, Error> {
    let layers = prune::layers(teacher)?;
    let [mut student, mut teacher] = [student, teacher].map(Model::clone);
    let ends = kept.iter().skip(1).map(|it| it - 1).chain([layers.len() - 1]);
    let mut names = Vec::with_capacity(kept.len());
    for (own, end) in kept.iter().zip(ends) {
        let pair = (layers[*own].output, layers[end].output);
        let of_student = show(&mut student, pair.0);
        names.push((of_student, show(&mut teacher, pair.1)));
    }
    Ok(Watched { student, teacher, hidden: Hidden { names, part } })
}

/// Makes a value an output, if it is none, and returns its name.
fn show(m: &mut Model, value: ValueId) -> String {
    if !m.is_output(value) {
        if m.value(value).ty.is_none() {
            infer::run(m);
        }
        m.add_output(m.main, value);
    }
    m.value(value).name.to_string()
}
