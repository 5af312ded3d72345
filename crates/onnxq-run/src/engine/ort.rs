//! ONNX Runtime through `ort`: the only file that imports it.
//!
//! `ort` panics when anything of it is used before a library is loaded, an error included. So
//! nothing here touches it before [`start`].

use std::{
    ffi::CStr,
    path::Path,
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use half::{bf16, f16};
use ort::{
    environment::Environment,
    ep,
    logging::LogLevel,
    memory::{Allocator, MemoryInfo},
    session::{
        self, SessionInputValue,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
    value::{
        DynTensor, DynTensorValueType, DynValue, Outlet, PrimitiveTensorElementType, Shape,
        TensorElementType, TensorRefMut, ValueType,
    },
};

use super::{EngineError, IoInfo, Located, Reject, Session, SessionOptions, match_inputs};
use onnxq_ir::tensor::{DType, Dim, Tensor, TensorType};

pub enum Source<'a> {
    File(&'a Path),
    Bytes { model: &'a [u8], folder: Option<&'a Path> },
}

/// The library that this process uses already; an error if another one is asked for.
pub fn loaded(requested: Option<&Path>) -> Result<Option<Located>, EngineError> {
    let Some(runtime) = LOADED.get() else { return Ok(None) };
    let located = runtime.located.clone();
    let Some(requested) = requested else { return Ok(Some(located)) };
    let real = |it: &Path| it.canonicalize().unwrap_or_else(|_| it.to_owned());
    let (loaded, wanted) = (real(&located.path), real(requested));
    if loaded == wanted || loaded.parent() == Some(&wanted) {
        return Ok(Some(located));
    }
    Err(EngineError::OtherLibrary { loaded: located.path, requested: requested.to_owned() })
}

pub fn open(
    located: &Located,
    source: Source<'_>,
    options: &SessionOptions,
) -> Result<Box<dyn Session>, EngineError> {
    let runtime = start(located)?;
    let session = commit(&runtime.environment, &source, options)
        .map_err(|it| refused(&source, runtime, it.message()))?;
    let inputs = session.inputs().iter().map(io_info).collect::<Result<_, _>>()?;
    let outputs = session.outputs().iter().map(io_info).collect::<Result<_, _>>()?;
    Ok(Box::new(OrtSession { session, inputs, outputs }))
}

/// The execution providers that the library was built with.
pub fn providers(located: &Located) -> Result<Vec<String>, EngineError> {
    start(located)?;
    let (mut names, mut count) = (ptr::null_mut(), 0);
    // SAFETY: ONNX Runtime fills both out-pointers, or returns a status and leaves them.
    let status = unsafe { (ort::api().GetAvailableProviders)(&raw mut names, &raw mut count) };
    // SAFETY: the status comes from the call above and is consumed here.
    unsafe { ort::Error::result_from_status(status) }.map_err(run_error)?;
    let name = |i: usize| {
        // SAFETY: the array has `count` entries, each a C string, until it is released below.
        unsafe { CStr::from_ptr(*names.add(i)) }.to_string_lossy().into_owned()
    };
    let list = (0..usize::try_from(count).unwrap_or(0)).map(name).collect();
    // SAFETY: the array comes from the call above and is not used again.
    let status = unsafe { (ort::api().ReleaseAvailableProviders)(names, count) };
    // SAFETY: as above.
    unsafe { ort::Error::result_from_status(status) }.map_err(run_error)?;
    Ok(list)
}

/// The version of a library, asked without `ort`: that accepts only one library per process.
pub fn version(library: &Path) -> Result<String, Reject> {
    type GetBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: loading runs the initialisers of a library that the user or the system chose as
    // their ONNX Runtime; it would run them in this process anyway.
    let library = unsafe { libloading::Library::new(library) }
        .map_err(|it| Reject::Load(with_causes(&it)))?;
    // SAFETY: every version of ONNX Runtime exports this symbol with this type.
    let base = unsafe { library.get::<GetBase>(b"OrtGetApiBase") }.map_err(|_| Reject::Foreign)?;
    // SAFETY: the function takes nothing and returns a pointer to a static table.
    let Some(base) = (unsafe { base().as_ref() }) else { return Err(Reject::Foreign) };
    // SAFETY: the table's second entry returns a static C string in every version.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    Ok(version.to_string_lossy().into_owned())
}

struct Loaded {
    environment: Environment,
    located: Located,
}

/// The one thing that belongs to the process and not to a value: a library that is loaded cannot
/// be replaced, and ONNX Runtime allows one environment in it, until the process ends.
static LOADED: OnceLock<Loaded> = OnceLock::new();

fn start(located: &Located) -> Result<&'static Loaded, EngineError> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded(Some(&located.path))?.is_some()
        && let Some(loaded) = LOADED.get()
    {
        return Ok(loaded);
    }
    let failed = |reason: String| EngineError::Load { path: located.path.clone(), reason };
    let builder = ort::init_from(&located.path).map_err(|it| failed(load_error(&it)))?;
    let environment = builder
        .with_name("onnxq")
        .with_telemetry(false)
        .build()
        .map_err(|it| failed(it.message().to_owned()))?;
    // The environment begins at the most verbose level and would format each line for nobody.
    environment.set_log_level(LogLevel::Warning);
    Ok(LOADED.get_or_init(|| Loaded { environment, located: located.clone() }))
}

fn commit(
    environment: &Environment,
    source: &Source<'_>,
    options: &SessionOptions,
) -> ort::Result<session::Session> {
    let mut builder = configure(session::Session::builder(environment)?, options)?;
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

struct OrtSession {
    session: session::Session,
    inputs: Vec<IoInfo>,
    outputs: Vec<IoInfo>,
}

impl Session for OrtSession {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let tensors = match_inputs(&self.inputs, inputs)?;
        let mut feeds = Vec::with_capacity(tensors.len());
        for (input, tensor) in self.inputs.iter().zip(tensors) {
            feeds.push(Feed::new(&input.name, tensor)?);
        }
        let values: Vec<SessionInputValue<'_>> =
            feeds.iter().map(Feed::value).collect::<Result<_, _>>()?;
        let outputs = self.session.run(&values[..]).map_err(run_error)?;
        // Each value is freed after its copy, so that only one output exists twice at a time.
        outputs.into_iter().map(|(name, it)| Ok((name.to_owned(), read(name, it)?))).collect()
    }
}

/// An input, with its bytes kept alive while ONNX Runtime reads them.
struct Feed<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    /// Empty for strings.
    bytes: Bytes,
}

impl<'a> Feed<'a> {
    fn new(name: &'a str, tensor: &'a Tensor) -> Result<Feed<'a>, EngineError> {
        if tensor.dtype == DType::String {
            return Ok(Feed { name, tensor, bytes: Bytes::new() });
        }
        let unreadable = |source| EngineError::Unreadable { name: name.to_owned(), source };
        Ok(Feed { name, tensor, bytes: tensor.bytes().map_err(unreadable)? })
    }

    fn value(&self) -> Result<SessionInputValue<'_>, EngineError> {
        match self.tensor.dtype {
            DType::Bool => self.view::<bool>(),
            DType::BF16 => self.view::<bf16>(),
            DType::F16 => self.view::<f16>(),
            DType::F32 => self.view::<f32>(),
            DType::F64 => self.view::<f64>(),
            DType::I8 => self.view::<i8>(),
            DType::I16 => self.view::<i16>(),
            DType::I32 => self.view::<i32>(),
            DType::I64 => self.view::<i64>(),
            DType::String => self.strings(),
            DType::U8 => self.view::<u8>(),
            DType::U16 => self.view::<u16>(),
            DType::U32 => self.view::<u32>(),
            DType::U64 => self.view::<u64>(),
            _ => self.copy(),
        }
    }

    /// ONNX Runtime reads our bytes where they lie.
    fn view<T: PrimitiveTensorElementType + std::fmt::Debug>(
        &self,
    ) -> Result<SessionInputValue<'_>, EngineError> {
        // A slice of a mapped file may begin anywhere.
        if !self.bytes.as_ptr().cast::<T>().is_aligned() {
            return self.copy();
        }
        let data = self.bytes.as_ptr().cast_mut().cast();
        // SAFETY: `Tensor::bytes` gives exactly the bytes of the shape; they are aligned, outlive
        // the value (it borrows `self`), and ONNX Runtime never writes to an input.
        let value =
            unsafe { TensorRefMut::<T>::from_raw(MemoryInfo::default(), data, self.shape()) };
        Ok(value.map_err(run_error)?.into())
    }

    fn copy(&self) -> Result<SessionInputValue<'_>, EngineError> {
        let ty = ELEMENTS.iter().find(|(dtype, _)| *dtype == self.tensor.dtype);
        let Some((_, ty)) = ty else {
            return Err(element(self.name, self.tensor.dtype.name()));
        };
        let mut value =
            DynTensor::new(&Allocator::default(), *ty, self.shape()).map_err(run_error)?;
        if !self.bytes.is_empty() {
            assert_eq!(value.size(), Some(self.bytes.len()), "both sizes follow from the shape");
            let data = value.data_ptr_mut().cast();
            // SAFETY: the new tensor has as many bytes as ours, in memory of its own.
            unsafe { ptr::copy_nonoverlapping(self.bytes.as_ptr(), data, self.bytes.len()) };
        }
        Ok(value.into())
    }

    fn strings(&self) -> Result<SessionInputValue<'_>, EngineError> {
        let list = self.tensor.string_values().unwrap_or_default();
        let list: Vec<String> = list
            .iter()
            .map(|it| String::from_utf8(it.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|_| element(self.name, "string that is not UTF-8"))?;
        let value =
            ort::value::Tensor::from_string_array((self.shape(), &list[..])).map_err(run_error)?;
        Ok(value.into())
    }

    fn shape(&self) -> Shape {
        self.tensor.shape.iter().map(|&it| it as i64).collect()
    }
}

/// Copies an output: its memory is the session's, or even ours if the graph passes an input through.
fn read(name: &str, value: DynValue) -> Result<Tensor, EngineError> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(EngineError::NotTensor {
            name: name.to_owned(),
            ty: value.dtype().to_string(),
        });
    };
    let dtype = dtype(name, *ty)?;
    let shape: Vec<usize> = shape.iter().map(|&it| usize::try_from(it).unwrap_or(0)).collect();
    if dtype == DType::String {
        let (_, list) = value.try_extract_strings().map_err(run_error)?;
        let list: Vec<Bytes> = list.into_iter().map(Bytes::from).collect();
        return Ok(Tensor::strings(shape, list));
    }
    let value = value.downcast::<DynTensorValueType>().map_err(run_error)?;
    let (Some(size), data) = (value.size(), value.data_ptr().cast::<u8>()) else {
        return Err(element(name, dtype.name()));
    };
    if size == 0 || data.is_null() {
        return Ok(Tensor::new(dtype, shape, Bytes::new()));
    }
    // SAFETY: only the CPU provider is ever used, so the memory is ours to read, and ONNX Runtime
    // states its size.
    let bytes = unsafe { std::slice::from_raw_parts(data, size) };
    Ok(Tensor::new(dtype, shape, Bytes::copy_from_slice(bytes)))
}

const ELEMENTS: &[(DType, TensorElementType)] = &[
    (DType::BF16, TensorElementType::Bfloat16),
    (DType::Bool, TensorElementType::Bool),
    (DType::C128, TensorElementType::Complex128),
    (DType::C64, TensorElementType::Complex64),
    (DType::F16, TensorElementType::Float16),
    (DType::F32, TensorElementType::Float32),
    (DType::F4E2M1, TensorElementType::Float4E2M1),
    (DType::F64, TensorElementType::Float64),
    (DType::F8E4M3FN, TensorElementType::Float8E4M3FN),
    (DType::F8E4M3FNUZ, TensorElementType::Float8E4M3FNUZ),
    (DType::F8E5M2, TensorElementType::Float8E5M2),
    (DType::F8E5M2FNUZ, TensorElementType::Float8E5M2FNUZ),
    (DType::F8E8M0, TensorElementType::Float8E8M0),
    (DType::I16, TensorElementType::Int16),
    (DType::I2, TensorElementType::Int2),
    (DType::I32, TensorElementType::Int32),
    (DType::I4, TensorElementType::Int4),
    (DType::I64, TensorElementType::Int64),
    (DType::I8, TensorElementType::Int8),
    (DType::String, TensorElementType::String),
    (DType::U16, TensorElementType::Uint16),
    (DType::U2, TensorElementType::Uint2),
    (DType::U32, TensorElementType::Uint32),
    (DType::U4, TensorElementType::Uint4),
    (DType::U64, TensorElementType::Uint64),
    (DType::U8, TensorElementType::Uint8),
];

fn dtype(name: &str, ty: TensorElementType) -> Result<DType, EngineError> {
    let known = ELEMENTS.iter().find(|(_, it)| *it == ty);
    known.map(|(dtype, _)| *dtype).ok_or_else(|| element(name, &ty.to_string()))
}

fn element(name: &str, dtype: &str) -> EngineError {
    EngineError::Element { name: name.to_owned(), dtype: dtype.to_owned() }
}

fn run_error<R>(error: ort::Error<R>) -> EngineError {
    EngineError::Run(error.message().to_owned())
}

fn load_error(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => with_causes(error),
        _ => error.to_string(),
    }
}

/// `dlopen` tells what failed; only its cause tells why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Places, Runtime, RuntimeOptions,
            probe::{field, model, probe, value, varint},
            testing::runtime,
        },
        *,
    };
    use onnxq_ir::diag::{Code, Diagnostic};

    const OPSET: u64 = 21;

    fn wrap(graph: &[Vec<u8>], opset: u64) -> Vec<u8> {
        let opset = varint(2, opset);
        [varint(1, 10), field(8, &opset), field(7, &graph.concat())].concat()
    }

    /// `y = Identity(x)`, both [m, 3]; and `x` itself as a second output.
    fn identity(dtype: DType) -> Vec<u8> {
        let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")];
        let [x, y] = ["x", "y"].map(|it| value(it, dtype, 3));
        let mut graph = vec![field(2, b"g"), field(11, &x), field(12, &x)];
        // No operator takes the narrow types as they are.
        if dtype.bits() != 4 {
            graph.extend([field(1, &node.concat()), field(12, &y)]);
        }
        wrap(&graph, OPSET)
    }

    /// `y = x + w`, where `w` = float[3] lies in the file `data`.
    fn external() -> Vec<u8> {
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        let weight = [
            varint(1, 3),
            varint(2, 1),
            field(8, b"w"),
            entry("location", "data"),
            entry("length", "12"),
            varint(14, 1),
        ];
        let node = [field(1, b"x"), field(1, b"w"), field(2, b"y"), field(4, b"Add")];
        let [x, y] = ["x", "y"].map(|it| value(it, DType::F32, 3));
        let graph = [
            field(1, &node.concat()),
            field(2, b"g"),
            field(5, &weight.concat()),
            field(11, &x),
            field(12, &y),
        ];
        wrap(&graph, OPSET)
    }

    fn session(model: &[u8]) -> Box<dyn Session> {
        runtime().open_bytes(model, None, &SessionOptions::default()).unwrap()
    }

    #[test]
    fn the_probe_gives_one_of_the_two_known_sums() {
        let located = runtime().ensure().unwrap();
        let probe = probe(&located).unwrap();
        assert!(probe.exact() || probe.saturates(), "{probe:?}");
        assert!(providers(&located).unwrap().contains(&"CPUExecutionProvider".to_owned()));
        assert_eq!(version(&located.path).unwrap(), located.version);
    }

    #[test]
    fn every_element_type_passes_in_both_directions() {
        use DType::*;
        for dtype in [Bool, BF16, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, I4, U4] {
            let mut session = session(&identity(dtype));
            assert_eq!(session.inputs()[0].ty.to_string(), format!("{dtype}[m,3]"));
            // An odd start, and no rows at all, are both possible.
            for rows in [2, 0] {
                let size = dtype.nbytes(rows * 3).unwrap();
                let bytes = Bytes::from(vec![1u8; size + 1]).slice(1..);
                let x = Tensor::new(dtype, vec![rows, 3], bytes.clone());
                let outputs = session.run(&[("x", &x)]).unwrap();
                assert_eq!(outputs[0].0, "x");
                for (_, y) in outputs {
                    assert_eq!((y.dtype, &y.shape), (dtype, &x.shape));
                    assert_eq!(y.bytes().unwrap(), bytes, "{dtype}");
                }
            }
        }
    }

    #[test]
    fn strings_pass_in_both_directions() {
        let mut session = session(&identity(DType::String));
        let list = ["", "a", "größer"].map(|it| Bytes::from(it.as_bytes()));
        let x = Tensor::strings(vec![1, 3], list.to_vec());
        let outputs = session.run(&[("x", &x)]).unwrap();
        assert_eq!(outputs[1].1.string_values().unwrap(), list);
        let bad = Tensor::strings(vec![1, 3], vec![Bytes::from_static(b"\xff"); 3]);
        assert_eq!(session.run(&[("x", &bad)]).unwrap_err().code(), Code::E803);
    }

    #[test]
    fn external_data_is_found_beside_a_file_and_in_the_given_folder() {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = [1f32, 2., 3.].iter().flat_map(|it| it.to_le_bytes()).collect();
        std::fs::write(dir.path().join("data"), data).unwrap();
        let file = dir.path().join("m.onnx");
        std::fs::write(&file, external()).unwrap();
        let options = SessionOptions {
            optimize: false,
            optimized_model: Some(dir.path().join("o.onnx")),
            ..SessionOptions::default()
        };
        let runtime = runtime();
        let sessions = [
            runtime.open(&file, &options).unwrap(),
            runtime.open_bytes(&external(), Some(dir.path()), &SessionOptions::default()).unwrap(),
        ];
        assert!(dir.path().join("o.onnx").is_file());
        for mut session in sessions {
            let x = Tensor::from_f32(&[1, 3], [10., 20., 30.]);
            let outputs = session.run(&[("x", &x)]).unwrap();
            assert_eq!(outputs[0].1.to_f32().unwrap(), [11., 22., 33.]);
        }
    }

    #[test]
    fn refusals_name_the_model_and_the_reason() {
        let refusal = |model: &[u8]| {
            runtime().open_bytes(model, None, &SessionOptions::default()).err().unwrap()
        };
        assert_eq!(refusal(b"garbage").code(), Code::E803);
        let mut newer = identity(DType::F32);
        newer[1] = 99; // the IR version
        let error = refusal(&newer);
        assert_eq!(error.code(), Code::E802, "{error}");
        let node = [field(1, b"x"), field(2, b"y"), field(4, b"Nonsense\n")];
        let [x, y] = ["x", "y"].map(|it| value(it, DType::F32, 3));
        let graph = [field(1, &node.concat()), field(2, b"g"), field(11, &x), field(12, &y)];
        let error = refusal(&wrap(&graph, OPSET));
        assert_eq!(error.code(), Code::E803);
        assert!(error.to_string().contains("Nonsense\\u{a}"), "{error}");
        let error = refusal(&wrap(&graph, 99));
        assert_eq!(error.code(), Code::E802, "{error}");
    }

    #[test]
    fn another_library_than_the_loaded_one_is_refused() {
        session(&model(64, 32));
        let places = Places { library: Some("/other/lib".into()), ..Places::default() };
        let other = Runtime::from(RuntimeOptions { places, ..RuntimeOptions::default() });
        let error = other.ensure().unwrap_err();
        assert!(matches!(error, EngineError::OtherLibrary { .. }), "{error}");
    }
}
