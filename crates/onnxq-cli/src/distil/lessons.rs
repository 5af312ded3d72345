//! What a student learns from, as the command line names it.

use std::{path::Path, sync::Arc};

use super::{
    super::{
        Failure, Ui,
        shared::{NoEffect, own_tokenizer},
    },
    Args,
};
use onnxq_ir::{diag::Warning, digest::sha256_hex, human::grouped};
use onnxq_pipeline::distil::Lessons;
use onnxq_quant::recipe::{DistilSpec, Recipe};
use onnxq_run::{
    answer::{Beside, Place},
    data::{
        ChatTemplate, DataOptions, Dataset, Vocabulary,
        training::{self, Training, TrainingData},
    },
};

/// Samples for solvers and choices, if the recipe does not say how many.
const SAMPLES: usize = 128;

/// A tenth of the documents is held out.
const HELD_OUT: f64 = 0.1;

/// What is trained on, and what solvers and choices look at.
pub(super) fn of(
    args: &Args,
    recipe: &Recipe,
    spec: &DistilSpec,
    ui: &Ui,
) -> Result<(Lessons, Dataset), Failure> {
    let stated = recipe.calibration.and_then(|it| it.samples);
    let count = args.data.calibration_samples.or(stated).unwrap_or(SAMPLES);
    if !args.data.data.iter().all(|it| is_text(it)) {
        if args.data.held_out.is_some() {
            let without = "a tenth of samples that are no texts is held out";
            return Err(NoEffect { asked: "--held-out", without }.into());
        }
        return Ok(samples(args, spec, count));
    }
    let data = Arc::new(texts(args, spec)?);
    tell(&data, ui);
    let samples = data.train.iter().take(count).map(|it| {
        let ids = onnxq_ir::tensor::Tensor::from_i64(&[1, it.ids.len()], it.ids.iter().copied());
        [("input_ids".to_owned(), ids)].into()
    });
    let calibration = Dataset::of_samples(samples.collect());
    Ok((Lessons::Texts(data), calibration))
}

pub(super) fn is_text(path: &Path) -> bool {
    let ending = path.extension().and_then(|it| it.to_str()).unwrap_or("").to_ascii_lowercase();
    ["txt", "text", "md", "jsonl", "ndjson"].contains(&&*ending)
}

/// Arrays and images, as `quantize` takes them.
fn samples(args: &Args, spec: &DistilSpec, count: usize) -> (Lessons, Dataset) {
    let tokenizer = args.data.tokenizer.clone().or_else(|| own_tokenizer(&args.model));
    let options =
        DataOptions { tokenizer, sequence: spec.sequence, batch: 1, ..DataOptions::default() };
    let path = args.data.data[0].clone();
    let few = DataOptions { samples: Some(count), ..options.clone() };
    (Lessons::Samples(Dataset::of_path(&path, options)), Dataset::of_path(path, few))
}

fn texts(args: &Args, spec: &DistilSpec) -> Result<TrainingData, Failure> {
    let model = args.model.clone();
    let place = Place { model, tokenizer: args.data.tokenizer.clone(), ..Place::default() };
    let beside = Beside::find(&place)?;
    let vocabulary = Vocabulary::open(&beside.tokenizer)?;
    let template = ChatTemplate::beside(&beside.tokenizer_config)?;
    let how = Training {
        vocabulary: &vocabulary,
        template: template.as_ref(),
        end: beside.end(&vocabulary),
        labels: &beside.labels,
        window: spec.sequence.max(2),
        pack: args.data.pack,
        held_out: if args.data.held_out.is_some() { 0.0 } else { HELD_OUT },
    };
    let mut data = training::read(&args.data.data, &how)?;
    if let Some(file) = &args.data.held_out {
        let own = training::read(std::slice::from_ref(file), &how)?;
        data.facts.held_out_documents = own.facts.documents;
        data.facts.documents += own.facts.documents;
        data.facts.sha256 = sha256_hex(format!("{}\n{}", data.facts.sha256, own.facts.sha256));
        data.held_out = own.train;
    }
    Ok(data)
}

/// Nothing is left out in silence.
fn tell(data: &TrainingData, ui: &Ui) {
    let facts = &data.facts;
    let [tokens, counted] = [facts.tokens, facts.counted_tokens].map(|it| grouped(it as u64));
    let [documents, train, held_out] =
        [facts.documents, data.train.len(), data.held_out.len()].map(|it| grouped(it as u64));
    ui.note(&format!(
        "{documents} documents · {train} examples, and {held_out} held out · {tokens} tokens, \
         {counted} of them count"
    ));
    let lost = [
        (
            facts.cut_examples,
            format!(
                "examples are longer than the window and lose {} tokens at their end: --window takes more",
                grouped(facts.cut_tokens as u64)
            ),
        ),
        (
            facts.empty_examples,
            "examples have nothing left that counts, and are not used".to_owned(),
        ),
    ];
    for (count, what) in lost.into_iter().filter(|it| it.0 > 0) {
        onnxq_ir::ctx::Progress::warn(
            ui,
            &Warning::remark(format!("{} {what}", grouped(count as u64))),
        );
    }
}
