//! `onnxq check`: whether a model is sound.

use std::path::PathBuf;

use serde_json::json;

use super::{Failure, Ui, shared::InputArgs, stream::receive};
use onnxq_ir::ctx::Progress;
use onnxq_pipeline as pipeline;

/// Read a model, its external data too, and verify its structure
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: .onnx or .onnxtxt, or `-` for standard input
    pub model: PathBuf,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let _stdin = receive([&mut self.model])?;
        let loaded = onnxq_formats::open(&self.model, &self.input.options())?;
        loaded.warnings.iter().for_each(|it| ui.warn(it));
        loaded.model.verify().map_err(pipeline::Error::from)?;
        let nodes = loaded.model.node_count();
        if ui.global.json {
            ui.print_json(&json!({"ok": true, "nodes": nodes, "warnings": loaded.warnings}))?;
        } else {
            ui.print(&format!("ok  {nodes} nodes\n"))?;
        }
        Ok(0)
    }
}
