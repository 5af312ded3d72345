//! Which layers to leave out: one after the other, each time the one whose absence costs least.

use serde::Serialize;

use super::{NoStudent, SAMPLES, comparable, evaluator};
use crate::{
    Error, Inputs,
    search::evaluator::{Evaluator, Measure},
};
use onnxq_ir::{Model, ctx::Ctx, onnx::Files};
use onnxq_rewrite::prune;

/// Layers that a student leaves out, and what was measured to find them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChosenLayers {
    /// Those that stay, in ascending order, numbered as in the whole model.
    pub kept: Vec<usize>,
    /// In the order in which they went. The loss is that of all so far.
    pub removed: Vec<Removal>,
    pub rounds: Vec<Round>,
    /// What losses are.
    pub measure: Measure,
    /// Samples that losses were measured on.
    pub samples: usize,
}

/// A layer, and what the model loses without it and without those that went before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Removal {
    pub layer: usize,
    pub loss: f64,
}

/// What each layer that was left would have cost, from the cheapest on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Round {
    pub measured: Vec<Removal>,
}

/// Leaves out layers until `keep` are left. Each round measures every layer that is left, because what a
/// layer is worth depends on those that are gone.
///
/// # Errors
/// E412 if the layers are not recognised or fewer than `keep`, E610 without data.
pub fn choose_layers(
    model: &Model,
    files: &Files,
    inputs: &Inputs,
    keep: usize,
    ctx: &Ctx,
) -> Result<ChosenLayers, Error> {
    let whole = comparable(model)?;
    let count = prune::layers(&whole)?.len();
    if keep == 0 || keep > count {
        return Err(NoStudent::Layers { asked: keep, count }.into());
    }
    let evaluator = evaluator(&whole, files, inputs)?;
    evaluator.tell(ctx);
    let trials: usize = (keep + 1..=count).sum();
    ctx.progress.start("choose layers", trials as u64);
    let mut chosen = ChosenLayers {
        kept: (0..count).collect(),
        removed: Vec::new(),
        rounds: Vec::new(),
        measure: evaluator.measure(),
        samples: evaluator.samples(),
    };
    while chosen.kept.len() > keep {
        let round = round(&whole, &evaluator, &chosen, ctx)?;
        let cheapest = round.measured[0];
        chosen.kept.retain(|it| *it != cheapest.layer);
        chosen.removed.push(cheapest);
        chosen.rounds.push(round);
    }
    ctx.progress.done(&summary(&chosen));
    Ok(chosen)
}

fn round(
    whole: &Model,
    evaluator: &Evaluator,
    chosen: &ChosenLayers,
    ctx: &Ctx,
) -> Result<Round, Error> {
    let mut measured = Vec::new();
    for &layer in &chosen.kept {
        let gone: Vec<usize> =
            chosen.removed.iter().map(|it| it.layer).chain(std::iter::once(layer)).collect();
        let mut candidate = whole.clone();
        prune::remove_layers(&mut candidate, &gone)?;
        measured.push(Removal { layer, loss: evaluator.loss_of(&candidate, SAMPLES)? });
        ctx.progress.step(1);
    }
    // Of two that cost the same the later one goes: the first layers carry most.
    measured.sort_by(|a, b| a.loss.total_cmp(&b.loss).then(b.layer.cmp(&a.layer)));
    Ok(Round { measured })
}

fn summary(chosen: &ChosenLayers) -> String {
    let gone: Vec<String> = chosen.removed.iter().map(|it| it.layer.to_string()).collect();
    match chosen.removed.last() {
        None => "all layers stay".to_owned(),
        Some(last) => format!(
            "without layers {} ({} {:.4})",
            gone.join(", "),
            chosen.measure.name(),
            last.loss
        ),
    }
}
