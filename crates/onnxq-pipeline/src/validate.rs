//! Comparing two models in ONNX Runtime: everything that a report holds, step by step.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Error, Execution, Outcome,
    attribution::{self, Attribute},
    execution,
    facts::{self, Told},
    isolation::isolation,
    judged::{Judged, judged, names_outputs},
    open, origin, untrue,
};
use onnxq_formats::gguf::is_gguf;
use onnxq_ir::{
    ctx::Ctx,
    diag::Code,
    onnx::{Loaded, OpenOptions},
};
use onnxq_quant::recipe::{Gate, metrics::Measure};
use onnxq_report::{
    Comparison, Footprints, Kernels, Report, Role, Size, baseline,
    document::{self, ModelFacts, Provenance, RecipeFacts, Warning},
    gate,
};
use onnxq_run::{
    compare::{self, CompareError, CompareOptions, compare, decode},
    data::{Batches, DataError, Dataset, Vocabulary, fitting},
    engine::{EngineError, IoInfo, Located, Runtime, Session, SessionOptions},
    worker::{self, FootprintJob},
};

/// What to measure besides the outputs. What a gate limits is measured in any case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measures {
    /// Times of runs, and the instructions that they execute.
    pub latency: bool,
    /// Steps with a cache of keys and values, if the models have one.
    pub decode: bool,
    /// The weights' error apart from the deployment's.
    pub isolation: bool,
    /// Load time and memory, each model in a process of its own.
    pub footprint: bool,
    /// Where the error enters.
    pub layers: bool,
    /// Times of runs until they are known well enough to decide.
    pub steady: bool,
}

impl Measures {
    /// Everything.
    pub const FULL: Measures = Measures {
        latency: true,
        decode: true,
        isolation: true,
        footprint: true,
        layers: true,
        steady: false,
    };

    /// With what gates need.
    fn for_gates(mut self, gates: &[Gate]) -> Measures {
        for metric in gates.iter().filter_map(|it| it.known().ok()) {
            match metric.measured_by {
                Measure::Outputs => {}
                Measure::Latency => (self.latency, self.steady) = (true, true),
                Measure::Decode => self.decode = true,
                Measure::Isolation => self.isolation = true,
                Measure::Footprint => self.footprint = true,
            }
        }
        self
    }
}

/// How to compare two models.
#[derive(Clone)]
pub struct Validate<'a> {
    pub reference: &'a Path,
    pub candidate: &'a Path,
    /// What the report calls the reference, if it is no file of the user's.
    pub reference_as: Option<&'a Path>,
    /// What the report calls the candidate, if it lies elsewhere until it is judged.
    pub candidate_as: Option<&'a Path>,
    pub data: Dataset,
    pub open: OpenOptions,
    pub gates: &'a [Gate],
    /// An older report; what is worse than there fails.
    pub baseline: Option<&'a Path>,
    pub measures: Measures,
    pub threads: usize,
    /// Bytes for inner values, where the error is looked for.
    pub memory: u64,
    pub runtime: Runtime<'a>,
    /// The command line, for the report.
    pub command: Vec<String>,
    /// This program, to measure a model in a process of its own.
    pub program: Option<PathBuf>,
}

impl<'a> Validate<'a> {
    /// What the report calls the candidate.
    pub(super) fn named(&self) -> &'a Path {
        self.candidate_as.unwrap_or(self.candidate)
    }

    /// Compares outputs only.
    pub fn new(reference: &'a Path, candidate: &'a Path, data: Dataset) -> Validate<'a> {
        Validate {
            reference,
            candidate,
            reference_as: None,
            candidate_as: None,
            data,
            open: OpenOptions::default(),
            gates: &[],
            baseline: None,
            measures: Measures::default(),
            threads: 1,
            memory: 2 << 30,
            runtime: Runtime::default(),
            command: Vec::new(),
            program: None,
        }
    }
}

/// Runs both models in ONNX Runtime on the same data. `outcome` says how the candidate was made,
/// if it just was.
pub fn validate(job: &Validate, outcome: Option<&Outcome>, ctx: &Ctx) -> Result<Report, Error> {
    // ONNX Runtime sees only what our own reader accepts.
    let loaded = [
        onnxq_formats::open(job.reference, &job.open)?,
        onnxq_formats::open(job.candidate, &job.open)?,
    ];
    if ![job.reference, job.candidate].into_iter().any(is_gguf) || !job.measures.latency {
        return validate_loaded(loaded, job, outcome, ctx);
    }
    // What runs here is the float graph of the file, not llama.cpp.
    let text =
        "a GGUF file is compared by what it computes; its speed is llama.cpp's, and not measured";
    ctx.progress.warn(&onnxq_ir::diag::Warning::remark(text));
    let measures = Measures { latency: false, footprint: false, ..job.measures };
    validate_loaded(loaded, &Validate { measures, ..job.clone() }, outcome, ctx)
}

/// The same of models that were read already, or that are in memory; `job` names their paths.
pub fn validate_loaded(
    loaded: [Loaded; 2],
    job: &Validate,
    outcome: Option<&Outcome>,
    ctx: &Ctx,
) -> Result<Report, Error> {
    let before = job.baseline.map(document::read).transpose()?;
    let library = job.runtime.ensure()?;
    let mut run = Run::open(loaded, job, library, ctx)?;
    let figures = run.figures()?;
    let mut report = run.report(figures, outcome)?;
    report.gates = job.gates.iter().map(|it| gate::check(it, &report.figures)).collect();
    if let Some((path, before)) = job.baseline.zip(before) {
        let path = path.display().to_string();
        report.baseline = Some(baseline::compare(&path, &before, &report)?);
    }
    report.judge();
    Ok(report)
}

/// Both models, loaded.
struct Run<'a> {
    job: &'a Validate<'a>,
    ctx: &'a Ctx<'a>,
    measures: Measures,
    library: Located,
    loaded: [Loaded; 2],
    session: SessionOptions,
    /// As the files say.
    whole: [Box<dyn Session>; 2],
    judged: Option<Judged>,
    batches: Batches,
    /// What could not be measured.
    notes: Vec<Warning>,
}

/// Samples of the processor's place that a verdict wants, and how long more runs may go on for it.
const PLACES: usize = 100;
const MORE_RUNS: Duration = Duration::from_millis(1500);

impl<'a> Run<'a> {
    fn open(
        mut loaded: [Loaded; 2],
        job: &'a Validate,
        library: Located,
        ctx: &'a Ctx<'a>,
    ) -> Result<Run<'a>, Error> {
        let session = SessionOptions { threads: job.threads, ..SessionOptions::default() };
        let [reference, candidate] = [
            open_session(&loaded[0], job.reference, &session, &job.runtime)?,
            open_session(&loaded[1], job.candidate, &session, &job.runtime)?,
        ];
        let mut notes = Vec::new();
        let reference = match untrue_names(&mut loaded[0], reference.inputs(), job, &mut notes)? {
            true => {
                let Loaded { model, files, .. } = &loaded[0];
                open::session(model, files, "the reference", &session, &job.runtime)?
            }
            false => reference,
        };
        let judged = judged(&loaded, job, &session, &mut notes)?;
        names_outputs(job.gates, reference.outputs(), judged.as_ref())?;
        let mut batches = fitting(job.data.batches(reference.inputs())?, &loaded[0].model)?;
        if judged.is_some() {
            // How large an output is then depends on the samples beside one.
            batches.one_by_one();
        }
        let mut measures = job.measures.for_gates(job.gates);
        measures.steady |= job.baseline.is_some();
        let left_out = compare::left_out(reference.left_out());
        let left_out = left_out.and_then(|it| Some((it.code?, it.message)));
        notes.extend(left_out.map(|(code, text)| Warning::new(code, job.reference, text)));
        let whole = [reference, candidate];
        Ok(Run { job, ctx, measures, library, loaded, session, whole, judged, batches, notes })
    }

    fn figures(&mut self) -> Result<Comparison, Error> {
        let samples = self.measures.latency && self.judging()[1].sample();
        let mut comparison = match self.outputs() {
            Err(error) if self.separates(&error) => self.outputs()?,
            done => done?,
        };
        if samples {
            comparison.kernels = self.kernels()?;
        }
        let [reference, candidate] = [&self.loaded[0], &self.loaded[1]];
        comparison.size = Some(Size::new(reference.files.size(), candidate.files.size()));
        if self.measures.isolation {
            let (batches, candidate) = (self.fresh_batches()?, (self.job.candidate, candidate));
            let (session, runtime) = (&self.session, &self.job.runtime);
            let isolated = isolation(reference, candidate, batches, session, runtime, self.ctx)?;
            comparison.isolation = Some(isolated);
        }
        if self.measures.footprint {
            comparison.footprint = self.footprints();
        }
        self.name_tokens(&mut comparison)?;
        self.name_samples(&mut comparison)?;
        Ok(comparison)
    }

    /// What comes of running both models on the data from its start.
    fn outputs(&mut self) -> Result<Comparison, Error> {
        self.batches.rewind();
        let options = self.compare_options();
        let (batches, ctx) = (&mut self.batches, self.ctx);
        let (latency, measures) = (options.latency, self.measures);
        let [reference, candidate] = match &mut self.judged {
            Some(it) => &mut it.sessions,
            None => &mut self.whole,
        };
        // Sessions that are judged apart from the models say nothing of times.
        let of_outputs = CompareOptions { latency: latency && options.sizes.is_none(), ..options };
        let mut comparison =
            compare(&mut **reference, &mut **candidate, batches, &of_outputs, ctx)?;
        let [reference, candidate] = &mut self.whole;
        if latency && self.judged.is_some() {
            batches.rewind();
            if let Some(batch) = batches.next() {
                let batch = batch?;
                comparison.latency =
                    compare::times(&mut **reference, &mut **candidate, &batch, &of_outputs)?;
            }
        }
        if measures.decode {
            batches.rewind();
            comparison.decode = decode(&mut **reference, &mut **candidate, batches, ctx)?;
        }
        Ok(comparison)
    }

    fn compare_options(&self) -> CompareOptions {
        let (latency, steady) = (self.measures.latency, self.measures.steady);
        let samples = self.batches.samples();
        let (sizes, splits) = match &self.judged {
            Some(it) => (Some(it.sizes.clone()), it.splits.clone()),
            None => (None, compare::splits(&self.loaded[0].model)),
        };
        let pictures = true;
        CompareOptions {
            latency,
            samples,
            steady,
            splits,
            sizes,
            pictures,
            ..CompareOptions::default()
        }
    }

    /// Whether single samples may run where a batch failed to; from now on they are used.
    fn separates(&mut self, error: &Error) -> bool {
        let failed = error.downcast_ref::<CompareError>();
        let ran = matches!(failed, Some(CompareError::Engine { source: EngineError::Run(_), .. }));
        let batch = self.batches.batch();
        self.batches.one_by_one();
        if !ran || self.batches.batch() == batch {
            return false;
        }
        let text =
            format!("the model does not run on {batch} samples at once, so they ran one by one");
        self.notes.push(Warning::new(Code::W212, self.job.reference, text));
        true
    }

    /// What cannot be measured is a warning.
    fn footprints(&mut self) -> Option<Footprints> {
        let program = self.job.program.as_deref()?;
        self.ctx.progress.start("footprint", 2);
        let of = |model: &'a Path, loaded: &Loaded| {
            let job = FootprintJob {
                model: model.to_owned(),
                data: self.job.data.path().to_owned(),
                tokenizer: self.job.data.options().tokenizer.clone(),
                preprocess: self.job.data.options().preprocess.clone(),
                open: self.job.open,
                threads: self.job.threads.max(1),
                library: self.library.path.clone(),
                custom_ops: self.job.runtime.custom_ops().to_vec(),
            };
            let measured = worker::footprint(program, loaded.files.size(), job);
            self.ctx.progress.step(1);
            measured.map_err(|error| {
                let message = format!("load time and memory are not measured: {error}");
                Warning::new(Code::W202, model, message)
            })
        };
        let both =
            [of(self.job.reference, &self.loaded[0]), of(self.job.candidate, &self.loaded[1])];
        self.ctx.progress.done("each model alone in a process");
        match both {
            [Ok(reference), Ok(candidate)] => Some(Footprints { reference, candidate }),
            failed => {
                self.notes.extend(failed.into_iter().filter_map(Result::err));
                None
            }
        }
    }

    fn fresh_batches(&self) -> Result<Batches, Error> {
        let mut batches = self.job.data.batches(self.whole[0].inputs())?;
        if self.batches.batch() == 1 {
            batches.one_by_one();
        }
        Ok(batches)
    }

    /// Lets the candidate run on if too few samples were taken to say what it executes.
    fn kernels(&mut self) -> Result<Option<Kernels>, Error> {
        self.batches.rewind();
        if let Some(batch) = self.batches.next() {
            let batch = batch?;
            let only = std::slice::from_ref(&batch);
            let start = Instant::now();
            let sizes = self.judged.as_ref().map(|it| it.sizes.clone());
            let options = CompareOptions { sizes, ..CompareOptions::default() };
            let [reference, candidate] = self.judging();
            let few = |it: &mut dyn Session| it.sampled().is_some_and(|it| it.taken < PLACES);
            while start.elapsed() < MORE_RUNS && few(&mut **candidate) {
                let mut again = only.iter().cloned().map(Ok);
                let silent = Ctx::silent();
                compare(&mut **reference, &mut **candidate, &mut again, &options, &silent)?;
            }
        }
        Ok(self.judging()[1].sampled().map(|it| Kernels {
            samples: it.samples,
            avx512_vnni: it.avx512_vnni,
            avx_vnni: it.avx_vnni,
            amx_int8: it.amx,
            vpmaddubsw: it.vpmaddubsw,
            verdict: it.verdict(),
        }))
    }

    /// The sessions whose outputs are compared.
    fn judging(&mut self) -> &mut [Box<dyn Session>; 2] {
        match &mut self.judged {
            Some(it) => &mut it.sessions,
            None => &mut self.whole,
        }
    }

    /// Gives the worst tokens their text, if there is a tokenizer.
    fn name_tokens(&self, comparison: &mut Comparison) -> Result<(), Error> {
        let Some(tokenizer) = &self.job.data.options().tokenizer else { return Ok(()) };
        let decoder = Vocabulary::open(tokenizer)?;
        let outputs = comparison.outputs.values_mut().filter(|it| it.role == Role::Logits);
        for token in outputs.flat_map(|it| &mut it.worst_tokens) {
            token.context = decoder.text(&token.context_ids);
            token.reference_text = decoder.text(&[token.reference]);
            token.candidate_text = decoder.text(&[token.candidate]);
            token.next_text = token.next.and_then(|it| decoder.text(&[it]));
        }
        Ok(())
    }

    /// Says which samples are the worst: their files, or how their texts begin.
    fn name_samples(&self, comparison: &mut Comparison) -> Result<(), Error> {
        const TOKENS: usize = 24;
        let outputs = comparison.outputs.values_mut();
        let worst: Vec<_> = outputs.flat_map(|it| &mut it.worst_samples).collect();
        let Some(last) = worst.iter().map(|it| it.sample).max() else { return Ok(()) };
        let mut batches = self.fresh_batches()?;
        let mut texts: Vec<Option<String>> = Vec::new();
        if let Some(tokenizer) = &self.job.data.options().tokenizer {
            let decoder = Vocabulary::open(tokenizer)?;
            while texts.len() <= last {
                let Some(batch) = batches.next() else { break };
                let batch = batch?;
                let ids = batch.get("input_ids").filter(|it| it.shape.len() == 2);
                let Some((ids, shape)) = ids.and_then(|it| Some((it.to_i64().ok()?, &it.shape)))
                else {
                    break;
                };
                let rows = ids.chunks(shape[1].max(1));
                texts.extend(rows.map(|it| decoder.text(&it[..it.len().min(TOKENS)])));
            }
        }
        for it in worst {
            it.text = texts.get(it.sample).cloned().flatten();
            let file = batches.file_of(it.sample);
            it.file = file.and_then(|it| Some(it.file_name()?.to_string_lossy().into_owned()));
        }
        Ok(())
    }

    /// Figures and facts together.
    fn report(&self, figures: Comparison, outcome: Option<&Outcome>) -> Result<Report, Error> {
        let job = self.job;
        let models = document::Models {
            reference: facts::model_facts(
                job.reference_as.unwrap_or(job.reference),
                &self.loaded[0],
            )?,
            candidate: facts::model_facts(job.named(), &self.loaded[1])?,
        };
        let candidate = &self.loaded[1];
        let asked;
        let execution = match outcome.and_then(|it| it.execution.as_ref()) {
            Some(it) => it,
            None => {
                asked = execution(&candidate.model, &candidate.files, &job.runtime);
                &asked
            }
        };
        let provenance = self.provenance(&models.candidate)?;
        // A model that was made before says itself how.
        let told = Told::read(models.candidate.metadata.get(origin::DECISIONS));
        let mut report = Report {
            schema: document::SCHEMA.into(),
            precision: facts::precision(&candidate.model, Some(execution)),
            kept: outcome.map_or(told.kept, |it| facts::kept(&it.nodes)),
            decisions: outcome.map_or(told.decisions, facts::decisions),
            environment: facts::environment(&self.library, job.threads, &job.runtime),
            warnings: self.warnings(&provenance, execution, outcome),
            models,
            figures,
            provenance,
            ..Report::default()
        };
        if self.measures.layers {
            let job = Attribute {
                reference: job.reference,
                candidate: job.candidate,
                data: job.data.clone(),
                open: job.open,
                memory: job.memory,
                threads: job.threads,
                runtime: job.runtime.clone(),
            };
            report.attribution = Some(attribution::attribute(&job, self.ctx)?);
        }
        report.warnings.extend(self.notes.iter().cloned());
        Ok(report)
    }

    fn provenance(&self, candidate: &ModelFacts) -> Result<Provenance, Error> {
        let metadata = &candidate.metadata;
        let recipe = metadata.get("onnxq.recipe").map(|name| RecipeFacts {
            name: name.clone(),
            sha256: metadata.get("onnxq.recipe_sha256").cloned().unwrap_or_default(),
            yaml: metadata.get("onnxq.recipe_yaml").cloned(),
        });
        let batches = self.fresh_batches()?;
        Ok(Provenance {
            command: self.job.command.clone(),
            recipe,
            evaluation: facts::samples(self.job.data.path(), &batches)?,
            calibration: facts::calibrated_on(metadata),
            overlap: facts::overlap(metadata, &batches)?,
        })
    }

    fn warnings(
        &self,
        provenance: &Provenance,
        execution: &Execution,
        outcome: Option<&Outcome>,
    ) -> Vec<Warning> {
        let mut list = Vec::new();
        let overlap = provenance.overlap.as_ref();
        list.extend(overlap.and_then(|it| facts::overlap_warning(it, self.job.data.path())));
        let samples = self.batches.samples();
        if samples == 1 {
            let message = "compared on 1 sample: its figures have no interval, so gates on them \
                           depend on chance";
            list.push(Warning::new(Code::W205, self.job.data.path(), message.to_owned()));
        }
        let differing = execution.differing().len();
        if differing > 0 {
            let message = format!("{differing} nodes run slowly or otherwise than declared");
            list.push(Warning::new(Code::W203, self.job.named(), message));
        }
        let read = self.loaded[1].warnings.iter().filter_map(|it| Some((it.code?, &it.message)));
        list.extend(read.map(|(code, it)| Warning::new(code, self.job.named(), it.clone())));
        // What was noticed of the reference again is said once.
        let is_noted = |it: &onnxq_ir::diag::Warning| {
            self.notes.iter().any(|note| it.code.is_some_and(|it| note.code == it.name()))
        };
        let made = outcome.map_or(&[][..], |it| &it.warnings).iter();
        let made = made.filter(|it| !is_noted(it)).map(ToString::to_string);
        list.extend(made.map(|it| Warning::new(Code::W204, self.job.named(), it)));
        list
    }
}

/// Whether names of dimensions were not true and are forgotten now.
fn untrue_names(
    reference: &mut Loaded,
    inputs: &[IoInfo],
    job: &Validate,
    notes: &mut Vec<Warning>,
) -> Result<bool, Error> {
    let first = job.data.batches(inputs)?.next();
    if !matches!(first, Some(Err(DataError::Symbol { .. }))) {
        return Ok(false);
    }
    let Loaded { model, files, .. } = reference;
    let untrue = untrue::forget(model, files, &|it| Ok(job.data.batches(it)?), &job.runtime)?;
    let note =
        |it: onnxq_ir::diag::Warning| Some(Warning::new(it.code?, job.reference, it.message));
    notes.extend(untrue.into_iter().filter_map(note));
    Ok(true)
}

/// The model as its file says, or as it was built or is in memory.
pub(super) fn open_session(
    loaded: &Loaded,
    path: &Path,
    options: &SessionOptions,
    runtime: &Runtime,
) -> Result<Box<dyn Session>, Error> {
    let what = format!("`{}`", path.display());
    if !loaded.files.hold_model() {
        return open::session(&loaded.model, &loaded.files, &what, options, runtime);
    }
    runtime.check(&loaded.model, &what)?;
    Ok(runtime.open(path, options)?)
}
