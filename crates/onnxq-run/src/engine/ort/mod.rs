//! ONNX Runtime through `ort`: the only folder that imports it.
//!
//! `ort` panics when anything of it is used before a library is loaded, an error included. So
//! nothing here touches it before [`start`].

mod decoder;
mod recomputing;
mod session;
mod shared;
mod tensors;

use std::{
    ffi::CStr,
    path::Path,
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

pub(super) use self::session::{open, open_decoder, register};
use super::{EngineError, Located, Reject};

/// The library that this process uses already; an error if another one is asked for.
pub(super) fn loaded(requested: Option<&Path>) -> Result<Option<Located>, EngineError> {
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

/// The execution providers that the library was built with.
pub(super) fn providers(located: &Located) -> Result<Vec<String>, EngineError> {
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
pub(super) fn version(library: &Path) -> Result<String, Reject> {
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
            Places, Runtime, RuntimeOptions, Session, SessionOptions,
            probe::{field, model, probe, value, varint},
            testing::runtime,
        },
        *,
    };
    use bytes::Bytes;
    use onnxq_ir::{
        diag::{Code, Diagnostic},
        tensor::{DType, Tensor},
    };

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
