//! Float students: given, or what is left of the teacher without some layers or channels.

use std::path::PathBuf;

use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::Warning,
    digest::sha256_hex,
    onnx::{self, Files},
    releases::Needed,
};
use onnxq_quant::recipe::{self, DistilSpec, Recipe};
use onnxq_rewrite::{self as rewrite, prune};
use onnxq_run::calibrate;
use serde::Serialize;

use super::{
    Learnt, Lessons, Student, Training, apply,
    hidden::{Watched, watch},
};
use crate::{
    Census, Delivered, Destination, Error, Execution, Inputs, Job, Opened,
    lower::share_tied,
    origin,
    student::{ChosenLayers, ChosenWidth, choose_layers, choose_width},
};

/// What a student leaves out of its teacher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// So many layers are left.
    Layers(usize),
    /// So many hidden channels of each feed-forward block are left.
    Width(usize),
}

/// A student to train.
pub struct Distil<'a> {
    pub student: Opened,
    /// `None`: the data says what is right.
    pub teacher: Option<Opened>,
    pub cut: Option<Cut>,
    pub spec: &'a DistilSpec,
    pub lessons: Lessons,
    pub inputs: &'a Inputs<'a>,
    pub place: Destination<'a>,
}

/// A student that was trained and written.
#[derive(Debug, Serialize)]
pub struct Distilled {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub model: PathBuf,
    pub output: PathBuf,
    pub before: Census,
    pub after: Census,
    pub needs: Needed,
    pub execution: Execution,
    /// Which layers were left out, and what each would have cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<ChosenLayers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<ChosenWidth>,
    pub learnt: Learnt,
    pub warnings: Vec<Warning>,
}

/// Trains a student and writes it.
///
/// # Errors
/// What [`Training::run`] says; E412 if nothing can be left out.
pub fn distil(job: Distil<'_>, ctx: &Ctx) -> Result<Distilled, Error> {
    let Distil { student, teacher, cut, spec, lessons, inputs, place } = job;
    onnx::check_place(place.path)?;
    place.save.check_free(place.path)?;
    let recipe = recipe_of(spec)?;
    let stages = Job { recipe: &recipe, inputs, ctx };
    let before = student.before.clone();
    let student = student.prepare(&stages)?.0;
    let teacher = teacher.map(|it| it.prepare(&stages)).transpose()?.map(|it| it.0);
    let Opened { mut model, files, warnings, options, .. } = student;
    let whole = model.clone();
    let (layers, width) = cut_out(&mut model, &files, cut, inputs, ctx)?;
    let own = (&whole, &files);
    let teacher = match (&teacher, cut) {
        (Some(it), _) => Some((&it.model, &it.files)),
        (None, Some(_)) => Some(own),
        (None, None) => None,
    };
    let kept = kept(&whole, cut, layers.as_ref()).filter(|_| spec.hidden > 0.0);
    let watched = kept.map(|it| watch((&model, &whole), &it, spec.hidden)).transpose()?;
    let pupil = Pupil { files: &files, teacher, watched: watched.as_ref() };
    let learnt = pupil.train(&mut model, spec, (&lessons, inputs), ctx, &place)?;
    rewrite::run(&mut model, rewrite::CLEAN_UP, ctx)?;
    // A table and a head that are one stay one in the file.
    share_tied(&mut model, &files, &place.save)?;
    origin::mark_distilled(&mut model, &files, &learnt, &recipe)?;
    let Delivered { saved, execution, .. } = place.deliver((&model, &files), &options, ctx)?;
    Ok(Distilled {
        schema: "onnxq.distil/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        model: files.model.clone(),
        output: place.path.to_owned(),
        before,
        after: Census::of(&model, saved.bytes()),
        needs: Needed::by(&model),
        execution,
        layers,
        width,
        learnt,
        warnings,
    })
}

/// What stands for a recipe where nothing is quantized.
fn recipe_of(spec: &DistilSpec) -> Result<Recipe, Error> {
    let mut recipe = recipe::load_text("onnxq: 1\nname: distil\n", "distil")?;
    recipe.distil = Some(spec.clone());
    Ok(recipe)
}

fn cut_out(
    m: &mut Model,
    files: &Files,
    cut: Option<Cut>,
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<(Option<ChosenLayers>, Option<ChosenWidth>), Error> {
    match cut {
        None => Ok((None, None)),
        Some(Cut::Layers(keep)) => {
            let chosen = choose_layers(m, files, inputs, keep, ctx)?;
            let gone: Vec<usize> = chosen.removed.iter().map(|it| it.layer).collect();
            prune::remove_layers(m, &gone)?;
            Ok((Some(chosen), None))
        }
        Some(Cut::Width(width)) => {
            let chosen = choose_width(m, files, inputs, width, ctx)?;
            for (layer, kept) in chosen.kept.iter().enumerate() {
                prune::narrow_feed_forward(m, layer, kept)?;
            }
            Ok((None, Some(chosen)))
        }
    }
}

/// The layers of the teacher that the student has.
fn kept(whole: &Model, cut: Option<Cut>, chosen: Option<&ChosenLayers>) -> Option<Vec<usize>> {
    match (cut?, chosen) {
        (Cut::Layers(_), chosen) => chosen.map(|it| it.kept.clone()),
        (Cut::Width(_), _) => prune::layers(whole).ok().map(|it| (0..it.len()).collect()),
    }
}

/// A student before its training.
struct Pupil<'a> {
    files: &'a Files,
    teacher: Option<(&'a Model, &'a Files)>,
    watched: Option<&'a Watched>,
}

impl Pupil<'_> {
    fn train(
        &self,
        m: &mut Model,
        spec: &DistilSpec,
        (lessons, inputs): (&Lessons, &Inputs),
        ctx: &Ctx,
        place: &Destination<'_>,
    ) -> Result<Learnt, Error> {
        let examples = lessons.examples(m)?;
        let own = calibrate::model_sha256(self.files);
        let of_teacher = self.teacher.map_or_else(String::new, |it| calibrate::model_sha256(it.1));
        let key = sha256_hex(format!("{own}\n{of_teacher}\n{}", m.node_count()));
        let (model, teacher) = match (self.watched, self.teacher) {
            (Some(it), Some((_, files))) => (&it.student, Some((&it.teacher, files))),
            (_, teacher) => (&*m, teacher),
        };
        let training = Training {
            student: Student { model, bits: None, key },
            teacher,
            spec,
            examples: &*examples,
            runtime: inputs.runtime.clone(),
            threads: inputs.threads,
            memory: inputs.memory,
            output: Some(place.path),
            hidden: self.watched.map(|it| &it.hidden),
            answers: inputs.answers.as_deref(),
        };
        let (changes, learnt) = training.run(ctx)?;
        apply(m, changes);
        Ok(learnt)
    }
}
