//! What the program takes from its environment beside flags: where ONNX Runtime may be, and where
//! it is fetched from.

use std::{
    env,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;

use onnxq_run::engine::{PackageIndex, Places, RuntimeOptions, pinned_version};

/// ONNX Runtime as the environment describes it; flags come on top.
pub fn runtime() -> RuntimeOptions {
    let offline = env::var_os("ONNXQ_OFFLINE").is_some_and(|it| !it.is_empty() && it != "0");
    RuntimeOptions { places: places(), offline, index: index(), custom_ops: Vec::new() }
}

/// This program, for processes of it.
pub fn program() -> Option<PathBuf> {
    env::current_exe().ok()
}

/// Where `serve` keeps what models took of memory.
#[cfg(feature = "serve")]
pub fn serve_state() -> Option<PathBuf> {
    let cache = etcetera::choose_base_strategy().ok()?.cache_dir();
    Some(cache.join("onnxq").join("serve.json"))
}

fn places() -> Places {
    let cache = etcetera::choose_base_strategy().ok().map(|it| it.cache_dir());
    Places {
        library: None,
        dylib_path: path("ORT_DYLIB_PATH"),
        executable: env::current_exe().and_then(|it| it.canonicalize()).ok(),
        virtual_env: path("VIRTUAL_ENV"),
        conda: path("CONDA_PREFIX"),
        cache: cache.map(|it| it.join("onnxq").join("runtime").join(pinned_version())),
        no_system: false,
    }
}

fn index() -> PackageIndex {
    let variables = ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"];
    let set = |it: &&str| env::var(it).ok().filter(|it| !it.is_empty());
    PackageIndex {
        url: None,
        configured: variables.iter().find_map(set),
        pip_files: pip_files(),
        proxy: true,
    }
}

/// pip's configuration files, the strongest first.
fn pip_files() -> Vec<PathBuf> {
    let name = if cfg!(windows) { "pip.ini" } else { "pip.conf" };
    let mut files: Vec<PathBuf> = path("PIP_CONFIG_FILE").into_iter().collect();
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path);
    files.extend(environments.map(|it| it.join(name)));
    if let Ok(strategy) = etcetera::choose_base_strategy() {
        files.push(strategy.config_dir().join("pip").join(name));
        files.push(strategy.home_dir().join(".pip").join(name));
    }
    if cfg!(unix) {
        files.push(Path::new("/etc").join(name));
    }
    files
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|it| !it.is_empty()).map(PathBuf::from)
}
