//! `onnxq calibrate`: what a model's layers see of data, in a file that solvers read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Failure, Table, Ui,
    places::{check_outputs, check_there},
    ranges,
    shared::{
        ADVANCED, InputArgs, NoData, RecipeArgs, SampleArgs, chat_template, size, with_samples,
    },
    stream::receive,
};
use onnxq_ir::{
    ctx::Progress,
    diag::{Code, Diagnostic, EXIT_NOTHING, Warning},
    human::grouped,
};
use onnxq_numerics::{observe::ObserverSpec, stats::Needs};
use onnxq_pipeline::{self as pipeline, Inputs, Job, Opened, Planned};
use onnxq_quant::recipe::Recipe;
use onnxq_run::{
    calibrate::{self, CollectOptions, Collector, Identity, Run, Stats, StatsFile, StatsRow, Want},
    data::{self, Batches, DataOptions, Dataset},
};

/// What `--samples` means here, where all data is there to learn from.
const SAMPLES: &str = "How many samples of --data to learn from [default: what the recipe says, or \
                       all]; the same as --set calibration.samples=N";

/// Run a model on data and keep what its layers see, for solvers, or print its ranges
#[derive(Debug, clap::Args)]
#[command(mut_arg("data", |arg| arg.alias("calibration")))]
#[command(mut_arg("samples", |arg| arg.alias("calibration-samples").help(SAMPLES)))]
pub struct Args {
    /// The float model: .onnx or .onnxtxt, or `-` for standard input
    #[arg(required_unless_present_any = ["show", "merge"])]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub data: SampleArgs,
    /// Take text as it is, not as what the user says in the chat template of the checkpoint
    #[arg(long, requires = "data", help_heading = ADVANCED)]
    pub plain_text: bool,
    /// Memory for statistics, as 500MB; with less, the model runs more often
    #[arg(help_heading = ADVANCED)]
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = size)]
    pub memory: u64,
    /// Keep the whole second moments, whatever the recipe's solvers need
    #[arg(long, help_heading = ADVANCED)]
    pub hessian: bool,
    #[arg(long, value_name = "NAME", value_parser = ranges::observer, help = ranges::help())]
    #[arg(conflicts_with_all = ["hessian", "merge", "output", "show"])]
    pub observer: Option<ObserverSpec>,
    /// Where to write the statistics
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["observer", "show"])]
    pub output: Option<PathBuf>,
    /// Print what a file of statistics holds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "merge"])]
    pub show: Option<PathBuf>,
    /// Merge files of statistics of one model into one
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "model")]
    pub merge: Vec<PathBuf>,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let _stdin = receive(&mut self.model)?;
        if let Some(path) = &self.show {
            return show(path, ui);
        }
        let Some(model) = &self.model else {
            let Some(output) = &self.output else { return Ok(0) };
            check_outputs([output.as_path()])?;
            calibrate::merge(&self.merge, output)?;
            return show(output, ui);
        };
        let Some(data) = &self.data.data else { return Err(NoData("run the model on").into()) };
        let recipe = with_samples(self.recipe.load(ui)?, self.data.samples)?;
        check_there(&[("--data", Some(data)), ("--tokenizer", self.data.tokenizer.as_deref())])?;
        check_outputs(self.output.as_deref())?;
        let inputs = Inputs { skip_nonfinite: true, ..Inputs::default() };
        let ctx = ui.ctx();
        let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
        let mut model = Opened::read_for(model, &self.input.options(), &recipe, &ctx)?;
        let samples = Dataset::of_path(data, self.data.options(&model.files.model));
        model.forget_untrue_names(&samples, &ui.global.runtime(ui), &ctx)?;
        let planned = model.prepare(&job)?.plan(&job)?;
        if let Some(spec) = self.observer {
            return ranges::run(
                self.run_over(&planned, self.batches(&planned, &recipe, data)?, ui),
                spec,
                ui,
            );
        }
        let Some(output) = &self.output else { return Ok(0) };
        if !self.hessian && self.learn(&recipe, (data, output), ui)? {
            return show(output, ui);
        }
        let wants = self.wants(&planned, ui);
        if wants.is_empty() {
            return Ok(EXIT_NOTHING);
        }
        self.collect((&planned, &recipe), wants, data, output, ui)?;
        show(output, ui)
    }

    /// Learns what `quantize` would with this recipe: of transformed layers, and in a sequential recipe
    /// of layers whose inputs come from quantized ones. Whether the recipe learns anything for solvers.
    fn learn(
        &self,
        recipe: &Recipe,
        (data, output): (&Path, &Path),
        ui: &Ui,
    ) -> Result<bool, Failure> {
        let path = self.model.as_deref().unwrap_or(Path::new(""));
        if Stats::read(output).is_ok() {
            // Otherwise it would be taken for what is wanted.
            fs::remove_file(output)
                .map_err(|source| NotReplaced { path: output.into(), source })?;
        }
        // What activations get is chosen after everything was learnt.
        let recipe = Recipe { adapt: None, ..recipe.clone() };
        let inputs = Inputs {
            data: Some(Dataset::of_path(data, self.options(&recipe))),
            stats: Some(output.to_owned()),
            memory: self.memory,
            threads: ui.global.threads.map_or(0, usize::from),
            runtime: ui.global.runtime(ui),
            skip_nonfinite: true,
            ..Inputs::default()
        };
        let ctx = ui.ctx();
        let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
        let opened = Opened::read_for(path, &self.input.options(), &recipe, &ctx)?;
        pipeline::quantize(opened, &job)?;
        Ok(output.is_file())
    }

    /// As `quantize` takes samples for this recipe.
    fn options(&self, recipe: &Recipe) -> DataOptions {
        let model = self.model.as_deref().unwrap_or(Path::new(""));
        let spec = recipe.calibration.unwrap_or_default();
        let mut options = self.data.options(model);
        options.samples = spec.samples;
        options.sequence = spec.sequence.unwrap_or(options.sequence);
        DataOptions { batch: 1, chat: chat_template(model, self.plain_text), ..options }
    }

    /// The inputs of the layers that the recipe quantizes.
    fn wants(&self, planned: &Planned, ui: &Ui) -> Vec<Want> {
        let m = &planned.model;
        let least = if self.hessian { Needs::Hessian } else { Needs::Diagonal };
        let mut wants = Vec::new();
        for it in &planned.plan.sites {
            let needs = least.max(it.needs(m));
            match calibrate::observable(m, it) {
                Ok(None) => {}
                Ok(Some(operand)) => wants.push(Want::of(operand, needs)),
                Err(reason) => ui.warn(&Warning::remark(reason.to_string())),
            }
        }
        wants
    }

    fn batches(&self, planned: &Planned, recipe: &Recipe, data: &Path) -> Result<Batches, Failure> {
        let inputs = calibrate::model_inputs(&planned.model);
        let batch = DataOptions::default().batch;
        let options = DataOptions { batch, ..self.options(recipe) };
        Ok(data::open(data, &inputs, &options)?)
    }

    fn run_over<'a>(&self, planned: &'a Planned, batches: Batches, ui: &'a Ui) -> Run<'a> {
        let threads = ui.global.threads.map_or(0, usize::from);
        Run {
            model: &planned.model,
            files: &planned.files,
            batches,
            options: CollectOptions { memory: self.memory, threads, sequential: false },
            runtime: ui.global.runtime(ui),
        }
    }

    fn collect(
        &self,
        (planned, recipe): (&Planned, &Recipe),
        wants: Vec<Want>,
        data: &Path,
        output: &Path,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let batches = self.batches(planned, recipe, data)?;
        let runtime = ui.global.runtime(ui);
        let identity = Identity {
            origin: pipeline::origin::stats_origin(&batches, &runtime)?,
            model: calibrate::model_sha256(&planned.files),
            data: vec![batches.sha256().to_owned()],
            samples: batches.samples() as u64,
            prefix: String::new(),
            guide: String::new(),
        };
        let store = StatsFile::begin(output, identity, true)?;
        let run = self.run_over(planned, batches, ui);
        let mut collector = Collector::new(run, wants, Some(store))?;
        while collector.next(&[], &ui.ctx())?.is_some() {}
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{} could not be replaced", .path.display())]
struct NotReplaced {
    path: PathBuf,
    source: io::Error,
}

impl Diagnostic for NotReplaced {
    fn code(&self) -> Code {
        Code::E901
    }
}

fn show(path: &Path, ui: &Ui) -> Result<u8, Failure> {
    let rows = calibrate::describe(&Stats::read(path)?)?;
    if ui.global.json {
        ui.print_json(&rows)?;
    } else {
        ui.print(&table(&rows))?;
    }
    Ok(0)
}

fn table(rows: &[StatsRow]) -> String {
    let header =
        ["input", "width", "rows", "top 1 %", "max", "least", "median", "most", "dead", ""];
    let mut table = Table::new(header).right(&[1, 2, 3, 4, 5, 6, 7, 8]);
    for it in rows {
        let [least, median, most] = it.mean_square.map(|it| format!("{it:.3e}"));
        table.row([
            &it.name,
            &grouped(it.k as u64),
            &grouped(it.rows),
            &format!("{:.1} %", 100.0 * it.top_share),
            &format!("{:.3}", it.max_abs),
            &least,
            &median,
            &most,
            &it.dead.to_string(),
            if it.hessian { "hessian" } else { "" },
        ]);
    }
    table.to_string()
}
