//! Sessions of ONNX Runtime: how they are set up, and how they run.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use ort::{
    environment::Environment,
    ep,
    session::{
        self, SessionInputValue, SessionOutputs,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, ValueType},
};

use super::{
    super::{
        Decoder, EngineError, IoInfo, KernelSamples, LeftOut, Located, Session, SessionOptions,
        Source, match_inputs, sampler::Sampler,
    },
    Loaded,
    decoder::decoder,
    run_error, start,
    tensors::{Feed, dtype, read},
};
use onnxq_ir::tensor::{Dim, Tensor, TensorType};

/// Loads a model into the library, which is started if it was not yet.
pub(crate) fn open(
    located: &Located,
    source: Source<'_>,
    options: &SessionOptions,
    custom_ops: &[PathBuf],
) -> Result<Box<dyn Session>, EngineError> {
    Ok(Box::new(load(located, source, options, custom_ops)?))
}

/// Loads a model that continues texts; `shared` if past and present may be one buffer.
pub(crate) fn open_decoder(
    located: &Located,
    source: Source<'_>,
    options: &SessionOptions,
    (custom_ops, shared): (&[PathBuf], bool),
) -> Result<Box<dyn Decoder>, EngineError> {
    decoder(load(located, source, options, custom_ops)?, shared)
}

fn load(
    located: &Located,
    source: Source<'_>,
    options: &SessionOptions,
    custom_ops: &[PathBuf],
) -> Result<OrtSession, EngineError> {
    let runtime = start(located)?;
    let builder = builder(&runtime.environment, custom_ops)?;
    let session =
        commit(builder, &source, options).map_err(|it| refused(&source, runtime, it.message()))?;
    let inputs = session.inputs().iter().map(io_info).collect::<Result<_, _>>()?;
    let is_tensor = |it: &&Outlet| matches!(it.dtype(), ValueType::Tensor { .. });
    let (tensors, others): (Vec<&Outlet>, Vec<&Outlet>) =
        session.outputs().iter().partition(is_tensor);
    let outputs = tensors.into_iter().map(io_info).collect::<Result<_, _>>()?;
    let left_out = |it: &Outlet| LeftOut { name: it.name().into(), ty: it.dtype().to_string() };
    let left_out = others.into_iter().map(left_out).collect();
    let library = runtime.located.clone();
    Ok(OrtSession { session, inputs, outputs, left_out, library, sampler: None })
}

/// An error if one of the libraries cannot be used.
pub(crate) fn register(located: &Located, custom_ops: &[PathBuf]) -> Result<(), EngineError> {
    builder(&start(located)?.environment, custom_ops).map(drop)
}

/// A session to be, which knows these operators.
fn builder(
    environment: &Environment,
    custom_ops: &[PathBuf],
) -> Result<SessionBuilder, EngineError> {
    let mut builder = session::Session::builder(environment).map_err(run_error)?;
    for path in custom_ops {
        let failed =
            |reason: &str| EngineError::CustomOps { path: path.clone(), reason: reason.into() };
        // The system's loader looks for a bare name elsewhere.
        let place = std::path::absolute(path).map_err(|it| failed(&it.to_string()))?;
        builder = builder.with_operator_library(place).map_err(|it| failed(it.message()))?;
    }
    Ok(builder)
}

fn commit(
    builder: SessionBuilder,
    source: &Source<'_>,
    options: &SessionOptions,
) -> ort::Result<session::Session> {
    let mut builder = configure(builder, options)?;
    match source {
        Source::File(path) => builder.commit_from_file(path),
        Source::Bytes { model, folder: None } => builder.commit_from_memory(model),
        Source::Bytes { model, folder: Some(folder) } => {
            let key = "session.model_external_initializers_file_folder_path";
            let folder = std::path::absolute(folder).map_err(ort::Error::wrap)?;
            builder.with_config_entry(key, folder.to_string_lossy())?.commit_from_memory(model)
        }
    }
}

fn configure(builder: SessionBuilder, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    // Otherwise `ort` would pick an accelerator where it finds one, with other numbers.
    let mut builder = builder.with_auto_device(AutoDevicePolicy::PreferCPU)?;
    if options.threads > 0 {
        builder = builder.with_intra_threads(options.threads)?;
    }
    if options.lean {
        // Packing copies each weight; arenas and patterns keep what one run needed.
        builder = builder
            .with_prepacking(false)?
            .with_memory_pattern(false)?
            .with_execution_providers([ep::CPU::default().with_arena_allocator(false).build()])?;
    }
    if options.exact {
        // Changes nothing where the CPU has VNNI.
        builder = builder.with_config_entry("session.x64quantprecision", "1")?;
    }
    if !options.optimize {
        builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
    }
    if let Some(path) = &options.optimized_model {
        // Beyond 2 GiB ONNX Runtime cannot save a model in one file.
        let key = "session.optimized_model_external_initializers_file_name";
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        builder = builder
            .with_optimized_model_path(path)?
            .with_config_entry(key, format!("{name}.data"))?;
    }
    if options.prepack {
        let key = "session.save_external_prepacked_constant_initializers";
        builder = builder.with_config_entry(key, "1")?;
    }
    Ok(builder)
}

fn refused(source: &Source<'_>, runtime: &Loaded, message: &str) -> EngineError {
    let model = match source {
        Source::File(path) => format!("`{}`", path.display()),
        Source::Bytes { .. } => "the model".to_owned(),
    };
    let (version, message) = (runtime.located.version.clone(), message.to_owned());
    let too_new = ["max supported IR version", "is till opset"];
    if too_new.iter().any(|it| message.contains(it)) {
        return EngineError::TooOld { model, version, message };
    }
    EngineError::Refused { model, version, message }
}

fn io_info(outlet: &Outlet) -> Result<IoInfo, EngineError> {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(EngineError::NotTensor { name, ty: outlet.dtype().to_string() });
    };
    let dim = |(&size, symbol): (&i64, &String)| match usize::try_from(size) {
        Ok(size) => Dim::Fixed(size),
        Err(_) if symbol.is_empty() => Dim::Unknown,
        Err(_) => Dim::Symbol(symbol.as_str().into()),
    };
    // ONNX Runtime tells a scalar and an unknown rank alike, so neither is promised.
    let shape =
        (!shape.is_empty()).then(|| shape.iter().zip(&**dimension_symbols).map(dim).collect());
    Ok(IoInfo { ty: TensorType { dtype: dtype(&name, *ty)?, shape }, name })
}

pub(super) struct OrtSession {
    pub(super) session: session::Session,
    pub(super) inputs: Vec<IoInfo>,
    pub(super) outputs: Vec<IoInfo>,
    left_out: Vec<LeftOut>,
    library: Located,
    sampler: Option<Sampler>,
}

impl Session for OrtSession {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let (outputs, _) = run(&mut self.session, &self.inputs, inputs, self.sampler.as_ref())?;
        // Each value is freed after its copy, so that only one output exists twice at a time.
        let left_out = &self.left_out;
        let tensors =
            outputs.into_iter().filter(|(name, _)| left_out.iter().all(|it| it.name != *name));
        tensors.map(|(name, it)| Ok((name.to_owned(), read(name, it)?))).collect()
    }

    fn time(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Duration, EngineError> {
        Ok(run(&mut self.session, &self.inputs, inputs, self.sampler.as_ref())?.1)
    }

    fn sample(&mut self) -> bool {
        if self.sampler.is_none() {
            self.sampler = Sampler::start();
        }
        self.sampler.is_some()
    }

    fn sampled(&mut self) -> Option<KernelSamples> {
        self.sampler.as_ref().map(|it| it.seen(&self.library))
    }
}

/// What a run computes, and how long it took.
fn run<'s>(
    session: &'s mut session::Session,
    expected: &[IoInfo],
    given: &[(&str, &Tensor)],
    sampler: Option<&Sampler>,
) -> Result<(SessionOutputs<'s>, Duration), EngineError> {
    let tensors = match_inputs(expected, given)?;
    let mut feeds = Vec::with_capacity(tensors.len());
    for (input, tensor) in expected.iter().zip(tensors) {
        feeds.push(Feed::new(&input.name, tensor)?);
    }
    let values: Vec<SessionInputValue<'_>> =
        feeds.iter().map(Feed::value).collect::<Result<_, _>>()?;
    sampler.inspect(|it| it.resume());
    let start = Instant::now();
    let outputs = session.run(&values[..]);
    let time = start.elapsed();
    sampler.inspect(|it| it.pause());
    Ok((outputs.map_err(run_error)?, time))
}
