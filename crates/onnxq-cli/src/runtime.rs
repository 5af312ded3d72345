//! `onnxq runtime`: the ONNX Runtime library that models run in.

use std::path::PathBuf;

use super::{Failure, Ui};
use onnxq_ir::untrusted::escape;
use onnxq_run::engine::Runtime;

/// Install ONNX Runtime, or say which one is used
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Install the tested version into onnxq's cache
    Install {
        /// Another of the tested versions, for instance that of production
        #[arg(value_name = "VERSION")]
        version: Option<String>,
        /// Take the library from this Python wheel, without the network
        #[arg(long, value_name = "FILE", conflicts_with = "index_url")]
        from_wheel: Option<PathBuf>,
        /// The Python package index to download from [default: that of pip's settings]
        #[arg(long, value_name = "URL")]
        index_url: Option<String>,
    },
    /// Print the path of the library that would be loaded
    Path,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let located = match self.action {
            Action::Install { version, from_wheel, index_url } => {
                let mut options = ui.global.runtime_options();
                options.index.url = index_url;
                Runtime::new(options, ui).install(version.as_deref(), from_wheel.as_deref())?
            }
            Action::Path => ui.global.runtime(ui).locate()?,
        };
        if ui.global.json {
            ui.print_json(&located)?;
        } else {
            ui.print(&(escape(&located.path.display().to_string()) + "\n"))?;
        }
        Ok(0)
    }
}
