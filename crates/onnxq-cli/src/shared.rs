//! Flags that several subcommands share, and what they mean together.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::{Failure, Global, Ui, environment};
use onnxq_formats::gguf;
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic},
    human,
    onnx::{ExternalData, ExternalPolicy, OpenOptions, SaveOptions},
};
use onnxq_pipeline::{Destination, Inputs, Measures, distil::Lessons};
use onnxq_quant::recipe::{self, AUTO, Gate, Recipe, for_this_cpu, gate::GateError};
use onnxq_run::{
    data::{DataOptions, Dataset, PRESETS},
    engine::{Runtime, RuntimeOptions},
    worker::{Limits, Pool},
};

/// The heading of flags that few need.
pub const ADVANCED: &str = "Advanced";

/// Which recipe, and what to change in it.
#[derive(Debug, clap::Args)]
pub struct RecipeArgs {
    /// A shipped recipe (`onnxq recipe list`), `auto` for the one that fits this CPU, or a file
    #[arg(short, long, value_name = "NAME|FILE", default_value = "avx512_vnni")]
    pub recipe: String,
    /// Change a value of the recipe: quantize.0.weight.range=reduced
    #[arg(long, value_name = "KEY=VALUE", help_heading = ADVANCED)]
    pub set: Vec<String>,
    /// Leave nodes with matching names in float: a glob, or re: and a regular expression
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Quantize nodes with matching names although the recipe or --exclude leaves them out
    #[arg(long, value_name = "PATTERN", help_heading = ADVANCED)]
    pub include: Vec<String>,
}

/// Samples, and how they become inputs.
#[derive(Debug, clap::Args)]
pub struct SampleArgs {
    /// Samples: text (.txt, .jsonl, .json, .csv), .npy, .npz, or a folder of them or of images
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// The tokenizer.json for text [default: that of the model, if it is a folder or GGUF]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, value_name = "NAME|FILE", help = preprocess_help())]
    pub preprocess: Option<String>,
    /// How many samples of --data to compare on [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub samples: Option<usize>,
}

/// Data to compare on, and what to demand.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    #[command(flatten)]
    pub from: SampleArgs,
    /// Fail with exit code 1 unless this holds: kl.mean<=0.05, logits:top1>=0.97; `onnxq explain`
    /// lists the metrics. Of an output that joins several quantities the worst part counts
    #[arg(long, value_name = "EXPR")]
    pub gate: Vec<String>,
}

/// What a comparison measures, and what it is held against.
#[derive(Debug, clap::Args)]
pub struct MeasureArgs {
    /// Measure no times, and not which instructions run
    #[arg(long)]
    pub no_latency: bool,
    /// Measure everything: also load time, memory, how much of the error comes from the weights
    /// alone, and in which layers it arises
    #[arg(long, conflicts_with = "no_latency")]
    pub full: bool,
    /// Measure in which layers the error arises, and what would help
    #[arg(long)]
    pub layers: bool,
    /// Fail with exit code 1 if a figure is worse than in this older report
    #[arg(long, value_name = "REPORT.json")]
    pub baseline: Option<PathBuf>,
}

impl MeasureArgs {
    pub fn measures(&self) -> Measures {
        match self.full {
            true => Measures::FULL,
            false => Measures {
                latency: !self.no_latency,
                decode: true,
                layers: self.layers,
                ..Measures::default()
            },
        }
    }
}

/// Samples that solvers, ranges and choices of activations are made from, and what that may take.
#[derive(Debug, clap::Args)]
pub struct CalibrationArgs {
    /// Samples like those the model will see, for recipes that learn from them: fixed ranges,
    /// solvers, and what `adapt` chooses. As --data, but never what the result is judged on
    #[arg(long, value_name = "PATH")]
    pub calibration: Option<PathBuf>,
    /// How many samples of --calibration to learn from [default: what the recipe says, or all]; the
    /// same as --set calibration.samples=N
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "calibration")]
    pub calibration_samples: Option<usize>,
    /// Store what is learnt from the samples in this file, or take it from there if it exists
    #[arg(long, value_name = "FILE", help_heading = ADVANCED)]
    pub stats: Option<PathBuf>,
    /// Memory for calibration; with less, the data is read more often
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = size)]
    #[arg(help_heading = ADVANCED)]
    pub memory: u64,
    /// Calibrate on text as it is, not as what the user says in the chat template of the checkpoint
    #[arg(long, requires = "calibration", help_heading = ADVANCED)]
    pub plain_text: bool,
}

/// A flag is given that nothing would read.
#[derive(Debug, thiserror::Error)]
#[error("{asked} has no effect: {without}")]
pub(crate) struct NoEffect {
    pub asked: &'static str,
    pub without: &'static str,
}

/// Fails if one of these flags is given, which nothing would read.
pub(crate) fn no_effect(
    flags: impl IntoIterator<Item = (&'static str, bool)>,
    without: &'static str,
) -> Result<(), Failure> {
    match flags.into_iter().find(|it| it.1) {
        Some((asked, _)) => Err(NoEffect { asked, without }.into()),
        None => Ok(()),
    }
}

impl Diagnostic for NoEffect {
    fn code(&self) -> Code {
        Code::E712
    }

    fn hint(&self) -> Option<String> {
        Some(format!("leave out {}", self.asked))
    }
}

/// Who must take the result.
#[derive(Debug, clap::Args)]
pub struct AcceptArgs {
    /// Write the result even if ONNX Runtime refuses it: it is for another runtime
    #[arg(long, help_heading = ADVANCED)]
    pub allow_refused: bool,
}

/// What of the model is the caller's to change.
#[derive(Debug, clap::Args)]
pub struct KeepArgs {
    /// Inputs with a default stay inputs; else those are taken as constants, with a warning
    #[arg(long, help_heading = ADVANCED)]
    pub keep_inputs: bool,
}

impl KeepArgs {
    pub fn options(&self, input: &InputArgs) -> OpenOptions {
        OpenOptions { keep_inputs: self.keep_inputs, ..input.options() }
    }
}

impl AcceptArgs {
    /// A place for a result that was not made by a recipe.
    pub fn destination<'a>(
        &self,
        path: &'a Path,
        save: SaveOptions,
        ui: &'a Ui,
    ) -> Destination<'a> {
        let place = Destination::new(path, save, ui.global.runtime(ui));
        Destination { allow_refused: self.allow_refused, ..place }
    }
}

/// How far to trust the input.
#[derive(Debug, clap::Args)]
pub struct InputArgs {
    /// Lose fields of the model that this version does not know
    #[arg(long, help_heading = ADVANCED)]
    pub drop_unknown: bool,
    /// Accept an operator set newer than this version knows
    #[arg(long, help_heading = ADVANCED)]
    pub allow_unknown_opset: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
}

/// Which files of a model are read.
#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// The model is untrusted: --external-policy is strict at least
    #[arg(long, help_heading = ADVANCED)]
    pub untrusted: bool,
    /// Which external data files a model may refer to
    #[arg(
        long, value_name = "POLICY", default_value = "contained", value_parser = external_policy(),
        help_heading = ADVANCED
    )]
    pub external_policy: ExternalPolicy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Nonfinite {
    /// Stop: it would turn the whole output into NaN
    #[default]
    Error,
    /// Leave the weight in float
    Skip,
}

/// The words of `--external-data`.
const EXTERNAL_DATA: &[Word<ExternalData>] = &[
    ("always", "Always", ExternalData::Always),
    (
        "auto",
        "If the input has a data file, or the model would come near the limit of 2 GB",
        ExternalData::Auto,
    ),
    ("never", "Never; a model beyond 2 GB is an error", ExternalData::Never),
];

/// The words of `--external-policy`.
const EXTERNAL_POLICIES: &[Word<ExternalPolicy>] = &[
    (
        "contained",
        "Files in the model's folder; links are followed if they stay there or in the folder of \
         the real model file",
        ExternalPolicy::Contained,
    ),
    ("none", "None at all", ExternalPolicy::None),
    ("strict", "Files in the model's folder; no links", ExternalPolicy::Strict),
];

/// What the user types, what help says of that, and what it means.
type Word<T> = (&'static str, &'static str, T);

/// Takes the words of `--external-data`.
pub fn external_data() -> impl TypedValueParser<Value = ExternalData> {
    meaning(EXTERNAL_DATA)
}

fn external_policy() -> impl TypedValueParser<Value = ExternalPolicy> {
    meaning(EXTERNAL_POLICIES)
}

fn meaning<T: Copy + Send + Sync + 'static>(
    table: &'static [Word<T>],
) -> impl TypedValueParser<Value = T> {
    let parser = words(table.iter().map(|it| (it.0, it.1)));
    parser.map(|word| {
        let row = table.iter().find(|it| it.0 == word);
        row.expect("the words come from the table").2
    })
}

impl TrustArgs {
    /// The policy that the flags mean together.
    pub fn policy(&self) -> ExternalPolicy {
        match self.external_policy {
            ExternalPolicy::Contained if self.untrusted => ExternalPolicy::Strict,
            policy => policy,
        }
    }
}

pub fn preprocess_help() -> String {
    let names: Vec<&str> = PRESETS.iter().map(|it| it.0).collect();
    format!("How images become inputs: {} or a YAML file", names.join(", "))
}

/// Takes one of these words; help lists them, each with what it means unless that is empty.
pub fn words(rows: impl IntoIterator<Item = (&'static str, &'static str)>) -> PossibleValuesParser {
    let value = |(word, about): (&'static str, &'static str)| {
        let value = PossibleValue::new(word);
        if about.is_empty() { value } else { value.help(about) }
    };
    PossibleValuesParser::new(rows.into_iter().map(value))
}

/// The row that a word of [`words`] stands for.
pub fn find<T>(table: &[&'static T], is: impl Fn(&T) -> bool) -> &'static T {
    table.iter().find(|it| is(it)).expect("the words come from the table")
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

/// `2GB`, `500MB`, `1048576`: bytes.
pub fn size(text: &str) -> Result<u64, String> {
    match human::parse_bytes(text.trim()) {
        Some(bytes @ 1..1_000_000_000_000_000_000) => Ok(bytes),
        Some(_) => Err(format!("`{text}` is out of range")),
        None => Err(format!("`{text}` is not a size: write {}", human::SIZES)),
    }
}

/// `30s`, `10m`: a time that is not zero.
pub fn time(text: &str) -> Result<Duration, String> {
    match human::parse_duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        Some(_) => Err("must be more than 0".to_owned()),
        None => Err(format!("`{text}` is not a time: write {}", human::TIMES)),
    }
}

/// The recipe with so many samples to learn from, if the command line says how many.
pub fn with_samples(recipe: Recipe, count: Option<usize>) -> Result<Recipe, Failure> {
    Ok(match count {
        Some(count) => recipe::apply_set(&recipe, &format!("calibration.samples={count}"))?,
        None => recipe,
    })
}

impl CalibrationArgs {
    /// What the command line says of calibration.
    pub fn inputs<'a>(
        &self,
        (from, model): (&SampleArgs, &Path),
        recipe: &Recipe,
        ui: &'a Ui,
    ) -> Inputs<'a> {
        let spec = recipe.calibration.unwrap_or_default();
        let sequence = spec.sequence.unwrap_or(DataOptions::default().sequence);
        let options = DataOptions {
            samples: spec.samples,
            sequence,
            batch: 1,
            chat: chat_template(model, self.plain_text),
            ..from.options(model)
        };
        // Training takes all samples, whatever solvers need.
        let training = recipe.distil.as_ref().zip(self.calibration.as_ref()).map(|(spec, path)| {
            let options = DataOptions { samples: None, sequence: spec.sequence, ..options.clone() };
            Lessons::Samples(Dataset::of_path(path, options))
        });
        Inputs {
            training,
            data: self.calibration.as_ref().map(|it| Dataset::of_path(it, options)),
            stats: self.stats.clone(),
            memory: self.memory,
            threads: ui.global.threads.map_or(0, usize::from),
            runtime: ui.global.runtime(ui),
            ..Inputs::default()
        }
    }
}

/// The tokenizer that a model brings: of its folder, or in its GGUF file.
pub fn own_tokenizer(model: &Path) -> Option<PathBuf> {
    if gguf::vocab::is_in(model) {
        return Some(model.to_owned());
    }
    Some(model.join("tokenizer.json")).filter(|it| model.is_dir() && it.is_file())
}

/// Where the chat template of a folder or a GGUF file is looked for.
pub fn chat_template(model: &Path, plain_text: bool) -> Option<PathBuf> {
    let config = match gguf::vocab::is_in(model) {
        true => model.to_owned(),
        false => Some(model.join("tokenizer_config.json")).filter(|_| model.is_dir())?,
    };
    Some(config).filter(|_| !plain_text)
}

/// The recipe that a word means: `auto` is chosen by the CPU, and said.
pub fn named(word: &str, ui: &Ui) -> String {
    if word != AUTO {
        return word.to_owned();
    }
    let (name, why) = for_this_cpu();
    ui.note(&format!("recipe {AUTO}: {name}, for {why}"));
    name.to_owned()
}

impl RecipeArgs {
    /// The recipe with what the command line changes in it.
    pub fn load(&self, ui: &Ui) -> Result<Recipe, Failure> {
        let mut recipe = recipe::load(&named(&self.recipe, ui))?;
        for set in &self.set {
            recipe = recipe::apply_set(&recipe, set)?;
        }
        self.exclude.iter().for_each(|it| recipe.exclude(it));
        self.include.iter().for_each(|it| recipe.include(it));
        Ok(recipe)
    }
}

impl SampleArgs {
    /// Data for a model: a folder and a GGUF file have their own tokenizer.
    pub fn options(&self, model: &Path) -> DataOptions {
        DataOptions {
            tokenizer: self.tokenizer.clone().or_else(|| own_tokenizer(model)),
            preprocess: self.preprocess.clone(),
            samples: self.samples,
            ..DataOptions::default()
        }
    }
}

impl DataArgs {
    /// The recipe's gates and those of the command line.
    pub fn gates(&self, recipe: Option<&Recipe>) -> Result<Vec<Gate>, Failure> {
        let mut gates = recipe.and_then(|it| it.gates.clone()).unwrap_or_default();
        for text in &self.gate {
            gates.push(text.parse::<Gate>().map_err(|error: GateError| error)?);
        }
        gates.iter().try_for_each(Gate::sensible)?;
        Ok(gates)
    }
}

impl InputArgs {
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            external: self.trust.policy(),
            allow_unknown_opset: self.allow_unknown_opset,
            drop_unknown: self.drop_unknown,
            ..OpenOptions::default()
        }
    }
}

/// A subcommand runs models, and nothing says on what.
#[derive(Debug, thiserror::Error)]
#[error("there is no data to {0}")]
pub struct NoData(pub &'static str);

impl Diagnostic for NoData {
    fn code(&self) -> Code {
        Code::E622
    }

    fn hint(&self) -> Option<String> {
        Some(
            "pass --data with text and --tokenizer, images and --preprocess, .npy, .npz or \
             test_data_set folders"
                .into(),
        )
    }
}

impl Global {
    /// Threads of one session; 1 unless the user asks for more, as servers run one per core.
    pub fn session_threads(&self) -> usize {
        self.threads.map_or(1, usize::from)
    }

    pub fn runtime<'a>(&self, ui: &'a Ui) -> Runtime<'a> {
        Runtime::new(self.runtime_options(), ui).hosted(ui.host())
    }

    /// Processes that models run in, unless they shall run in this one.
    pub fn pool(&self) -> Option<Pool> {
        let limits = Limits { time: self.run_timeout, memory: self.run_memory };
        let program = environment::program().filter(|_| !self.in_process)?;
        Some(Pool::new(program, limits))
    }

    /// What the flags and the environment say of ONNX Runtime.
    pub fn runtime_options(&self) -> RuntimeOptions {
        let mut options = environment::runtime();
        options.places.library = self.ort_lib.clone();
        options.offline |= self.offline;
        options.custom_ops = self.custom_ops.clone();
        options
    }
}

impl Ui {
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx { progress: self, trace: None, max_rewrites: usize::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [("2GiB", 2 << 30), ("1.5 MiB", 3 << 19), ("1kB", 1000), ("7", 7), ("7B", 7)];
        for (text, expected) in cases {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "-1", "0", "1e400", "x"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
