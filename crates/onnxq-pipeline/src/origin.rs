//! What a written model says of how it was made: entries of its metadata that depend on inputs
//! only, never on the day, the folder or the number of threads.

use std::{collections::BTreeMap, path::Path, thread};

use super::{Error, Goal, Job, decide::Deciding, distil::Learnt, facts::Told};
use onnxq_ir::{
    Model,
    diag::{Code, Warning},
    digest::sha256_hex,
    onnx::{self, ExternalData, FileDigest, Files, LoadError, SaveOptions},
    releases::Needed,
};
use onnxq_quant::{
    plan::Plan,
    recipe::{self, Recipe},
};
use onnxq_report::document::RecipeFacts;
use onnxq_run::{
    calibrate::{Stats, StatsOrigin},
    data::{Batches, Contents},
    engine::{self, Cpu, Runtime},
};

pub const CALIBRATION_COUNT: &str = "onnxq.calibration_count";
pub const CALIBRATION_SAMPLES: &str = "onnxq.calibration_samples";
/// Of the samples, not of their file: neither its format nor their order changes what is learnt.
pub const CALIBRATION_SHA256: &str = "onnxq.calibration_sha256";
pub const COMMAND: &str = "onnxq.command";
pub const CPU: &str = "onnxq.cpu";
/// What stays in float, how activations were chosen, and what solvers achieved: JSON.
pub const DECISIONS: &str = "onnxq.decisions";
/// What a training did: its loss on held-out samples before and after, its samples. JSON.
pub const DISTIL: &str = "onnxq.distil";
/// The oldest release of ONNX Runtime that computes the model.
pub const MIN_ONNXRUNTIME: &str = "onnxq.min_onnxruntime";
pub const ONNXRUNTIME: &str = "onnxq.onnxruntime";
pub const RECIPE: &str = "onnxq.recipe";
pub const RECIPE_SHA256: &str = "onnxq.recipe_sha256";
pub const RECIPE_YAML: &str = "onnxq.recipe_yaml";
pub const SOURCE_SHA256: &str = "onnxq.source_sha256";
pub const VERSION: &str = "onnxq.version";

/// Every entry that is ours, in alphabetical order.
pub const KEYS: [&str; 14] = [
    CALIBRATION_COUNT,
    CALIBRATION_SAMPLES,
    CALIBRATION_SHA256,
    COMMAND,
    CPU,
    DECISIONS,
    DISTIL,
    MIN_ONNXRUNTIME,
    ONNXRUNTIME,
    RECIPE,
    RECIPE_SHA256,
    RECIPE_YAML,
    SOURCE_SHA256,
    VERSION,
];

/// What is known of a job before its result is written.
pub(super) struct Origin {
    /// Of the model's files, while other steps run.
    source: Option<thread::JoinHandle<Result<Vec<FileDigest>, LoadError>>>,
    command: String,
    recipe: RecipeFacts,
    learned: Option<Learned>,
    /// What training did, in the words of the model's metadata; before it, room for them.
    pub(super) distilled: Option<String>,
}

/// Samples that decided something.
pub(super) struct Learned {
    sha256: String,
    count: u64,
    /// What statistics of them say of themselves.
    pub origin: StatsOrigin,
}

/// Marks the float model of a checkpoint.
pub(super) fn mark_imported(
    model: &mut Model,
    checkpoint: &Path,
    files: &Files,
) -> Result<(), Error> {
    mark_made(model, &["import".to_owned(), file_name(checkpoint)], files)
}

/// Marks the same as a GGUF file.
pub(super) fn mark_exported(
    model: &mut Model,
    checkpoint: &Path,
    files: &Files,
) -> Result<(), Error> {
    let words = ["convert".to_owned(), file_name(checkpoint), "--to".to_owned(), "gguf".to_owned()];
    mark_made(model, &words, files)
}

fn mark_made(model: &mut Model, words: &[String], files: &Files) -> Result<(), Error> {
    let command = [&["onnxq".to_owned()], words].concat();
    let digest = onnx::combined(&onnx::digests(files)?);
    let entries = [
        (COMMAND, command.iter().map(|it| quoted(it)).collect::<Vec<_>>().join(" ")),
        (MIN_ONNXRUNTIME, Needed::by(model).onnxruntime.to_string()),
        (SOURCE_SHA256, digest),
        (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    model.metadata.extend(entries.map(|(key, it)| (key.to_owned(), it)));
    Ok(())
}

/// Marks a float student.
pub(super) fn mark_distilled(
    model: &mut Model,
    files: &Files,
    learnt: &Learnt,
    recipe: &Recipe,
) -> Result<(), Error> {
    let command = ["onnxq".to_owned(), "distil".to_owned(), file_name(&files.model)];
    let facts = recipe_facts(recipe);
    let entries = [
        (COMMAND, command.map(|it| quoted(&it)).join(" ")),
        (DECISIONS, Told::default().with_training(Some(learnt)).text()),
        (DISTIL, learnt.told()),
        (MIN_ONNXRUNTIME, Needed::by(model).onnxruntime.to_string()),
        (RECIPE_SHA256, facts.sha256),
        (RECIPE_YAML, facts.yaml.unwrap_or_default()),
        (SOURCE_SHA256, onnx::combined(&onnx::digests(files)?)),
        (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    model.metadata.retain(|it| !KEYS.contains(&it.0.as_str()));
    model.metadata.extend(entries.map(|(key, it)| (key.to_owned(), it)));
    Ok(())
}

/// What a model that onnxq wrote says it needs, now that it was changed.
pub(super) fn renew(model: &mut Model) {
    let needed = Needed::by(model).onnxruntime.to_string();
    if let Some(entry) = model.metadata.iter_mut().find(|it| it.0 == MIN_ONNXRUNTIME) {
        entry.1 = needed;
    }
}

impl Origin {
    pub(crate) fn new(model: &Path, drop_unknown: bool, job: &Job) -> Origin {
        let (command, recipe) = (command(model, drop_unknown, job), recipe_facts(job.recipe));
        let distilled = job.recipe.distil.as_ref().map(Learnt::room);
        Origin { source: None, command, recipe, learned: None, distilled }
    }

    /// Begins to read the source once more, for its digest.
    pub(crate) fn start_digest(&mut self, files: &Files) {
        let (in_memory, named) = (onnx::in_memory(files), files.named());
        self.source = Some(thread::spawn(move || match in_memory {
            Some(digest) => Ok(vec![digest]),
            None => onnx::digest_all(&named),
        }));
    }

    /// What stands for a digest that is not known: as long, so that sizes can be predicted.
    pub(crate) fn unknown() -> String {
        "0".repeat(64)
    }

    /// The source's digest; unknown if nobody asked for it.
    pub(crate) fn digest(&mut self) -> Result<String, Error> {
        let Some(reader) = self.source.take() else { return Ok(Origin::unknown()) };
        Ok(onnx::combined(&reader.join().expect("reading files does not panic")?))
    }

    /// Where the statistics that the job collects come from.
    pub(crate) fn of_stats(&self) -> StatsOrigin {
        self.learned.as_ref().map_or_else(StatsOrigin::default, |it| it.origin.clone())
    }

    /// Marks a model; what the original says of itself stays, except what onnxq said of an
    /// earlier quantization.
    pub(crate) fn mark(
        &self,
        model: &mut Model,
        (source, decisions): (&str, String),
        save: &SaveOptions,
    ) {
        let mut entries = self.entries(source, save);
        entries.insert(DECISIONS, decisions);
        entries.insert(MIN_ONNXRUNTIME, Needed::by(model).onnxruntime.to_string());
        model.metadata.retain(|it| !KEYS.contains(&it.0.as_str()));
        model.metadata.extend(entries.into_iter().map(|(key, it)| (key.to_owned(), it)));
    }

    fn entries(&self, source: &str, save: &SaveOptions) -> BTreeMap<&'static str, String> {
        let command = match save.external {
            ExternalData::Always => self.command.clone() + " --external-data always",
            ExternalData::Never => self.command.clone() + " --external-data never",
            ExternalData::Auto | ExternalData::Shards(_) => self.command.clone(),
        };
        let mut entries = BTreeMap::from([
            (COMMAND, command),
            (RECIPE, self.recipe.name.clone()),
            (RECIPE_SHA256, self.recipe.sha256.clone()),
            (RECIPE_YAML, self.recipe.yaml.clone().unwrap_or_default()),
            (SOURCE_SHA256, source.to_owned()),
            (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        entries.extend(self.distilled.clone().map(|it| (DISTIL, it)));
        let Some(it) = &self.learned else { return entries };
        entries.extend([
            (CALIBRATION_COUNT, it.count.to_string()),
            (CALIBRATION_SHA256, it.sha256.clone()),
        ]);
        let StatsOrigin { sketch, onnxruntime, cpu, .. } = it.origin.clone();
        let told = [(CALIBRATION_SAMPLES, sketch), (ONNXRUNTIME, onnxruntime), (CPU, cpu)];
        entries.extend(told.into_iter().filter(|it| !it.1.is_empty()));
        entries
    }
}

/// The entries of a model as a GGUF file has them: no runtime of ONNX computes it.
pub(crate) fn of_gguf(model: &Model) -> Vec<(String, String)> {
    let own = |it: &&(String, String)| {
        it.0 != MIN_ONNXRUNTIME && KEYS.contains(&it.0.as_str()) && !it.1.is_empty()
    };
    model.metadata.iter().filter(own).cloned().collect()
}

/// What the job learns from data, if it does: looked up before anything is measured, so that a
/// prediction of the size knows it too.
pub(super) fn record(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    if learns(&deciding.planned.plan, job) {
        let planned = &mut deciding.planned;
        planned.origin.learned = learned(&planned.model, job)?;
        if let Some(warning) = planned.origin.learned.as_ref().and_then(too_few) {
            job.ctx.progress.warn(&warning);
            planned.warnings.push(warning);
        }
    }
    Ok(deciding)
}

/// Samples below which what is learnt of them is chance.
const FEW: u64 = 8;

fn too_few(learned: &Learned) -> Option<Warning> {
    let count = learned.count;
    let s = if count == 1 { "" } else { "s" };
    let text = format!("calibrated on {count} sample{s}: more are needed, a hundred are advised");
    (count < FEW).then(|| Warning { code: Some(Code::W205), ..Warning::remark(text) })
}

fn learned(model: &Model, job: &Job) -> Result<Option<Learned>, Error> {
    let inputs = job.inputs;
    // If it is damaged, the step that needs it says so.
    let kept = inputs.stats.as_deref().filter(|it| it.exists());
    let kept = kept.and_then(|it| Stats::read(it).ok()).map(|it| it.identity);
    let here = || of_machine(&inputs.runtime);
    Ok(match (&inputs.data, kept) {
        (None, None) => None,
        (None, Some(kept)) => Some(Learned {
            sha256: Some(kept.origin.sha256.clone())
                .filter(|it| !it.is_empty())
                .unwrap_or_else(|| digest_of(&kept.data)),
            count: kept.samples,
            origin: kept.origin,
        }),
        (Some(_), kept) => {
            let batches = inputs.batches(model)?;
            let machine = kept.map_or_else(here, |it| it.origin);
            let origin = of_samples(&batches, machine)?;
            let (sha256, count) = (origin.sha256.clone(), batches.samples() as u64);
            Some(Learned { sha256, count, origin })
        }
    })
}

/// Whether data that is given decides anything.
fn learns(plan: &Plan, job: &Job) -> bool {
    job.inputs.goal.is_some()
        || job.recipe.needs_data()
        || job.recipe.adapt.is_some()
        || plan.sites.iter().any(|it| it.measured && it.activation.is_some())
}

/// What statistics of these samples, collected here, should say of themselves.
pub fn stats_origin(batches: &Batches, runtime: &Runtime) -> Result<StatsOrigin, Error> {
    of_samples(batches, of_machine(runtime))
}

fn of_samples(batches: &Batches, machine: StatsOrigin) -> Result<StatsOrigin, Error> {
    let Contents { sha256, sketch } = batches.contents()?;
    Ok(StatsOrigin { sha256, sketch: sketch.to_string(), ..machine })
}

fn of_machine(runtime: &Runtime) -> StatsOrigin {
    // If there is none yet, this one will be installed.
    let version = runtime.available().map(|it| it.version);
    let onnxruntime = version.unwrap_or_else(|_| engine::pinned_version().to_owned());
    StatsOrigin { onnxruntime, cpu: Cpu::of_process().model, ..StatsOrigin::default() }
}

/// One data set has its own digest, several that of the list.
fn digest_of(data: &[String]) -> String {
    match data {
        [only] => only.clone(),
        several => sha256_hex(several.join("\n")),
    }
}

/// The recipe in full.
pub fn recipe_facts(recipe: &Recipe) -> RecipeFacts {
    let yaml = recipe::to_yaml(recipe);
    let sha256 = sha256_hex(&yaml);
    RecipeFacts { name: recipe.name.clone(), sha256, yaml: Some(yaml) }
}

/// The command line as far as it decides bytes. What it changes in the recipe is in the recipe,
/// and calibration data is named by its digest.
fn command(model: &Path, drop_unknown: bool, job: &Job) -> String {
    let mut words = vec!["onnxq".to_owned(), "quantize".to_owned(), file_name(model)];
    words.extend(["--recipe".to_owned(), job.recipe.name.clone()]);
    let goal = match job.inputs.goal {
        Some(Goal::MaxSize(it)) => vec!["--max-size".to_owned(), it.to_string()],
        Some(Goal::MaxKl(it)) => vec!["--max-kl".to_owned(), it.to_string()],
        Some(Goal::TargetBpw(it)) => vec!["--target-bpw".to_owned(), it.to_string()],
        None => Vec::new(),
    };
    words.extend(goal);
    if job.inputs.skip_nonfinite {
        words.extend(["--nonfinite".to_owned(), "skip".to_owned()]);
    }
    if drop_unknown {
        words.push("--drop-unknown".to_owned());
    }
    words.iter().map(|it| quoted(it)).collect::<Vec<_>>().join(" ")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./:=+,".contains(it);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Inputs;
    use onnxq_ir::ctx::Ctx;

    #[test]
    fn the_command_has_no_folders_and_can_be_typed() {
        let recipe = recipe::load("int4").unwrap();
        let goal = Some(Goal::TargetBpw(4.5));
        let inputs = Inputs { skip_nonfinite: true, goal, ..Inputs::default() };
        let job = Job { recipe: &recipe, inputs: &inputs, ctx: &Ctx::silent() };
        let path = Path::new("/some/folder/it's a model.onnx");
        let text = r"onnxq quantize 'it'\''s a model.onnx' --recipe int4 --target-bpw 4.5 --nonfinite skip";
        assert_eq!(command(path, false, &job), text);
        let mut model = onnxq_ir::text::parse("main (float[1] x) => (float[1] y) { y = Abs (x) }");
        let model = model.as_mut().unwrap();
        model.metadata = vec![("mine".into(), "1".into()), (CPU.into(), "old".into())];
        Origin::new(path, false, &job).mark(
            model,
            (&Origin::unknown(), String::new()),
            &SaveOptions::default(),
        );
        let keys: Vec<&str> = model.metadata.iter().map(|it| &*it.0).collect();
        let ours = [
            COMMAND,
            DECISIONS,
            MIN_ONNXRUNTIME,
            RECIPE,
            RECIPE_SHA256,
            RECIPE_YAML,
            SOURCE_SHA256,
            VERSION,
        ];
        assert_eq!(keys, [&["mine"][..], &ours].concat());
        assert!(KEYS.is_sorted() && ours.iter().all(|it| KEYS.contains(it)));
    }
}
