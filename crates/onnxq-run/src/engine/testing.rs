//! ONNX Runtime for unit tests: where the program would look for it, or freshly installed.

use std::{env, path::PathBuf};

use etcetera::BaseStrategy;

use super::{Places, Runtime, RuntimeOptions, pinned_version};

pub(crate) fn runtime() -> Runtime<'static> {
    let variable = |name: &str| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let cache = etcetera::choose_base_strategy().ok().map(|it| it.cache_dir());
    let places = Places {
        dylib_path: variable("ORT_DYLIB_PATH"),
        virtual_env: variable("VIRTUAL_ENV"),
        conda: variable("CONDA_PREFIX"),
        cache: cache.map(|it| it.join("onnxq").join("runtime").join(pinned_version())),
        ..Places::default()
    };
    Runtime::from(RuntimeOptions { places, ..RuntimeOptions::default() })
}
