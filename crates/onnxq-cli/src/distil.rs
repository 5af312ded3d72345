//! `onnxq distil`: a student learns from a model, or from answers.

mod asked;
mod lessons;
mod show;

use std::path::{Path, PathBuf};

use super::{
    Failure, Ui,
    places::{check_outputs, check_there},
    shared::{
        ADVANCED, AcceptArgs, InputArgs, KeepArgs, RecipeArgs, at_least_one, external_data, size,
    },
    show as shown,
};
use onnxq_ir::{
    ctx::Ctx,
    diag::{EXIT_NOTHING, Warning},
    onnx::{ExternalData, SaveOptions},
};
use onnxq_pipeline::{
    self as pipeline, Inputs, Job, Opened, OutputFile, Quantized,
    distil::{Cut, Distil, distil},
};
use onnxq_quant::recipe::{DistilSpec, Group, LossName, Recipe};

/// Train a student: quantized, smaller or given, against a model or on answers
///
/// Training runs on the CPU and changes weights only: inputs, outputs and their names stay. Minutes are
/// enough to give back what quantization took from models of up to some hundred million parameters. A
/// student that is to answer questions must be able to speak before.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model that teaches, or, with `--student given`, that is trained: .onnx or a folder
    pub model: PathBuf,
    /// Who learns: `quantized` (by --recipe), `layers=N` or `width=N` (what is left of MODEL),
    /// `given` (MODEL itself, without a teacher), or another float model
    #[arg(long, value_name = "WHO", default_value = "quantized", value_parser = who)]
    pub student: Who,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Where to write the student
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub how: How,
    /// Whether weights go into a file of their own
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = external_data())]
    #[arg(help_heading = ADVANCED)]
    pub external_data: ExternalData,
    /// Memory for the values of a run, as 500MB; with less, some are computed twice
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = size, help_heading = ADVANCED)]
    pub memory: u64,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub accept: AcceptArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub input: InputArgs,
}

/// What is learnt from.
#[derive(Debug, clap::Args)]
pub struct Data {
    /// Texts (.txt), lines of JSON (.jsonl: messages, prompt and response, text and label), or samples
    /// (.npy, .npz, a folder); may be given several times for texts
    #[arg(long, value_name = "PATH", required = true)]
    pub data: Vec<PathBuf>,
    /// Texts that the student is judged on, instead of a tenth of --data
    #[arg(long, value_name = "PATH")]
    pub held_out: Option<PathBuf>,
    /// The tokenizer.json for text [default: that beside the model]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Tokens of a sample, at most [default: what the recipe says, or 128]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub window: Option<usize>,
    /// Short examples share a window
    #[arg(long)]
    pub pack: bool,
    /// How many samples of texts solvers learn from, which need fewer [default: what the recipe says, or 128]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub calibration_samples: Option<usize>,
}

/// How it is learnt; each is a field of the recipe's `distil`.
#[derive(Debug, clap::Args)]
pub struct How {
    /// What is trained: scales, norms, biases, weights [default: scales and norms of quantized
    /// students, everything of others]
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = group)]
    pub train: Vec<Group>,
    /// Leave weights with matching names as they are: a glob, or re: and a regular expression
    #[arg(long, value_name = "PATTERN")]
    pub freeze: Vec<String>,
    /// Steps of the optimizer [default: 200]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub steps: Option<usize>,
    /// Samples of a step [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// What the student comes near to: kl, cosine or square of the teacher, or ce, the data itself
    /// [default: kl for logits, cosine for vectors]
    #[arg(long, value_name = "LOSS", value_parser = loss)]
    pub loss: Option<LossName>,
    /// The rate of weights, of quantized ones in steps of their grid; of scales, if no weights are trained
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f32>,
    /// Keep what the teacher says in FILE, of each token the 64 likeliest (or `distil.top`), and take
    /// from it what it has
    #[arg(long, value_name = "FILE", help_heading = ADVANCED)]
    pub cache_teacher: Option<PathBuf>,
    /// The part of the loss that the next token of the text has, besides the teacher: 0 to 1
    #[arg(long, value_name = "PART")]
    pub labels: Option<f32>,
    /// What hidden states behind each layer count besides the outputs, for layers=N and width=N [default: 0]
    #[arg(long, value_name = "PART")]
    pub hidden: Option<f32>,
    /// Which order samples come in [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Of each token so many of the teacher's likeliest are kept in a file.
const TOP: usize = 64;

/// Who learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    Quantized,
    Smaller(Cut),
    /// MODEL itself.
    Own,
    Given(PathBuf),
}

fn who(text: &str) -> Result<Who, String> {
    let number = |text: &str| match text.parse::<usize>() {
        Ok(it) if it > 0 => Ok(it),
        _ => Err(format!("`{text}` is no number of layers or channels")),
    };
    match text.split_once('=') {
        _ if text == "quantized" => Ok(Who::Quantized),
        _ if text == "given" => Ok(Who::Own),
        Some(("layers", it)) => Ok(Who::Smaller(Cut::Layers(number(it)?))),
        Some(("width", it)) => Ok(Who::Smaller(Cut::Width(number(it)?))),
        _ if Path::new(text).exists() => Ok(Who::Given(text.into())),
        _ => Err("expected quantized, layers=N, width=N, given, or the path of a model".to_owned()),
    }
}

fn group(text: &str) -> Result<Group, String> {
    let found = Group::ALL.iter().find(|it| it.0 == text);
    found.map(|it| it.1).ok_or_else(|| "expected scales, norms, biases or weights".to_owned())
}

fn loss(text: &str) -> Result<LossName, String> {
    let found = LossName::ALL.iter().find(|it| it.0 == text);
    found.map(|it| it.1).ok_or_else(|| "expected kl, ce, cosine or square".to_owned())
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let given = match &self.student {
            Who::Given(path) => Some(path.as_path()),
            _ => None,
        };
        check_there(&[("MODEL", Some(&self.model)), ("--student", given)])?;
        for path in &self.data.data {
            check_there(&[("--data", Some(path))])?;
        }
        check_there(&[
            ("--held-out", self.data.held_out.as_deref()),
            ("--tokenizer", self.data.tokenizer.as_deref()),
        ])?;
        check_outputs([self.output.as_path()])?;
        self.check()?;
        match &self.student {
            Who::Quantized => self.quantized(ui),
            _ => self.float(ui),
        }
    }

    /// What is learnt, with what the command line says of it.
    fn spec(&self, base: Option<&DistilSpec>) -> DistilSpec {
        let is_float = self.student != Who::Quantized;
        let mut spec = base.cloned().unwrap_or_default();
        let how = &self.how;
        if !how.train.is_empty() {
            spec.train.clone_from(&how.train);
        } else if is_float {
            spec.train = vec![Group::Norms, Group::Biases, Group::Weights];
        }
        spec.freeze.extend(how.freeze.iter().cloned());
        spec.steps = how.steps.unwrap_or(spec.steps);
        spec.batch = how.batch.unwrap_or(spec.batch);
        spec.sequence = self.data.window.unwrap_or(spec.sequence);
        spec.loss = how.loss.or(spec.loss);
        spec.labels = how.labels.unwrap_or(spec.labels);
        spec.hidden = how.hidden.unwrap_or(spec.hidden);
        spec.seed = how.seed.unwrap_or(spec.seed);
        if how.cache_teacher.is_some() {
            spec.top.get_or_insert(TOP);
        }
        if let Some(rate) = how.learning_rate {
            let rates = &mut spec.learning_rate;
            match (spec.train.contains(&Group::Weights), is_float) {
                (true, true) => rates.weights = Some(rate),
                (true, false) => rates.integers = Some(rate),
                (false, _) => rates.scales = Some(rate),
            }
        }
        spec
    }

    /// The recipe, whose `distil` is what the command line makes of it.
    fn checked(&self, recipe: Recipe) -> Result<Recipe, Failure> {
        let spec = self.spec(recipe.distil.as_ref());
        let value = serde_json::to_string(&spec).expect("plain data");
        Ok(onnxq_quant::recipe::apply_set(&recipe, &format!("distil={value}"))?)
    }

    fn quantized(&self, ui: &Ui) -> Result<u8, Failure> {
        let recipe = self.checked(self.recipe.load(ui)?)?;
        let spec = recipe.distil.clone().unwrap_or_default();
        let (lessons, calibration) = lessons::of(self, &recipe, &spec, ui)?;
        let save = self.save();
        save.check_free(&self.output)?;
        let inputs = Inputs {
            data: Some(calibration),
            training: Some(lessons),
            output: OutputFile { path: Some(self.output.clone()), save },
            allow_refused: self.accept.allow_refused,
            ..self.inputs(ui)
        };
        ui.note(&format!("onnxq {} · recipe {}", env!("CARGO_PKG_VERSION"), recipe.name));
        let ctx = ui.ctx();
        let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
        let model = Opened::read(&self.path(), &self.keep.options(&self.input), &ctx)?;
        let outcome = match pipeline::quantize(model, &job)? {
            Quantized::Lowered(lowered) => lowered.write(&self.output, &save, &job)?,
            Quantized::Nothing(outcome) => *outcome,
        };
        let code = if outcome.quantized_nodes == 0 { EXIT_NOTHING } else { 0 };
        if ui.global.json {
            ui.print_json(&serde_json::json!({"quantize": outcome, "validate": null}))?;
        } else {
            ui.show(&shown::outcome(&outcome, None))?;
        }
        Ok(code)
    }

    fn float(&self, ui: &Ui) -> Result<u8, Failure> {
        let recipe =
            self.checked(onnxq_quant::recipe::load_text("onnxq: 1\nname: distil\n", "distil")?)?;
        let spec = recipe.distil.clone().unwrap_or_default();
        let (lessons, samples) = lessons::of(self, &recipe, &spec, ui)?;
        let inputs = Inputs { data: Some(samples), ..self.inputs(ui) };
        let ctx = ui.ctx();
        let options = self.keep.options(&self.input);
        let read = |path: &Path| Opened::read(path, &options, &ctx);
        let (student, teacher, cut) = match &self.student {
            Who::Smaller(cut) => (read(&self.path())?, None, Some(*cut)),
            Who::Given(path) => (read(path)?, Some(read(&self.path())?), None),
            _ => (read(&self.path())?, None, None),
        };
        if teacher.is_none() && cut.is_none() && spec.loss != Some(LossName::Ce) {
            return Err(NoTeacher.into());
        }
        let place = self.accept.destination(&self.output, self.save(), ui);
        let job = Distil { student, teacher, cut, spec: &spec, lessons, inputs: &inputs, place };
        let mut distilled = distil(job, &ctx)?;
        distilled.model = self.model.clone();
        self.beside(&mut distilled.warnings, cut, &ctx);
        match ui.global.json {
            true => ui.print_json(&distilled)?,
            false => ui.show(&show::show(&distilled))?,
        }
        Ok(0)
    }

    /// Says what a file beside the model still says of its layers.
    fn beside(&self, warnings: &mut Vec<Warning>, cut: Option<Cut>, ctx: &Ctx) {
        let config = self.path().with_file_name("config.json");
        let (Some(cut), true) = (cut, config.is_file()) else { return };
        let (field, count) = match cut {
            Cut::Layers(count) => ("num_hidden_layers", count),
            Cut::Width(count) => ("intermediate_size", count),
        };
        let warning = Warning::remark(format!(
            "a copy of config.json beside the student must say \"{field}\": {count}"
        ));
        ctx.progress.warn(&warning);
        warnings.push(warning);
    }

    /// The model in a folder is its `model.onnx`, or the checkpoint.
    fn path(&self) -> PathBuf {
        let inside = self.model.join("model.onnx");
        if inside.is_file() { inside } else { self.model.clone() }
    }

    fn save(&self) -> SaveOptions {
        SaveOptions { external: self.external_data, force: self.force, ..Default::default() }
    }

    fn inputs<'a>(&self, ui: &'a Ui) -> Inputs<'a> {
        Inputs {
            memory: self.memory,
            threads: ui.global.threads.map_or(0, usize::from),
            runtime: ui.global.runtime(ui),
            answers: self.how.cache_teacher.clone(),
            ..Inputs::default()
        }
    }
}

/// A model is to be trained, and nothing says towards what.
#[derive(Debug, thiserror::Error)]
#[error("`--student given` trains MODEL itself, so there is no teacher to come near to")]
struct NoTeacher;

impl onnxq_ir::diag::Diagnostic for NoTeacher {
    fn code(&self) -> onnxq_ir::diag::Code {
        onnxq_ir::diag::Code::E641
    }

    fn hint(&self) -> Option<String> {
        Some("add --loss ce to learn from the data itself, or name the student's file".into())
    }
}
