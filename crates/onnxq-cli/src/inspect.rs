//! `onnxq inspect`: what is in a model.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::json;

use super::{
    Failure, Table, Ui,
    lint::{self, FixArgs},
    shared::InputArgs,
    stream::receive,
};
use onnxq_ir::{
    Model, ValueId,
    ctx::Progress,
    diag::EXIT_GATE,
    human::{bytes, grouped},
    onnx::Loaded,
    untrusted::{Untrusted, escape},
};
use onnxq_pipeline::{self as pipeline, Census, Execution};
use onnxq_quant::{
    raise,
    saturation::{self, Safety},
};

/// Show what is in a model
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: .onnx or .onnxtxt, or `-` for standard input
    pub model: PathBuf,
    #[command(flatten)]
    pub view: View,
    #[command(flatten)]
    pub fix: FixArgs,
    #[command(flatten)]
    pub input: InputArgs,
}

/// What to show; a summary if nothing is chosen.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct View {
    /// The whole model in the ONNX text syntax
    #[arg(long)]
    pub text: bool,
    /// Inputs and outputs
    #[arg(long)]
    pub io: bool,
    /// Operators and how often they occur
    #[arg(long)]
    pub ops: bool,
    /// Weights with their types, shapes and sizes
    #[arg(long)]
    pub weights: bool,
    /// Forms that are slow or broken in ONNX Runtime, with their fixes; exit with 1 if there are
    /// any
    #[arg(long)]
    pub lint: bool,
    /// What ONNX Runtime makes of each quantized weight; exit with 1 if it is not what is declared
    #[arg(long)]
    pub executed: bool,
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let _stdin = receive([&mut self.model])?;
        let loaded = onnxq_formats::open(&self.model, &self.input.options())?;
        loaded.warnings.iter().for_each(|it| ui.warn(it));
        if self.view.lint {
            return self.fix.run(loaded, &self.input.options(), ui);
        }
        let m = &loaded.model;
        if self.view.executed {
            return executed(&loaded, ui);
        }
        let census = Census::of(m, loaded.files.size());
        if self.view.text {
            ui.print(&onnxq_ir::text::print(m))?;
        } else if ui.global.json {
            ui.print_json(&as_json(m, &census, &safety(m)?))?;
        } else if self.view.io {
            ui.print(&io(m))?;
        } else if self.view.ops {
            ui.print(&ops(&census))?;
        } else if self.view.weights {
            ui.print(&weights(m))?;
        } else {
            ui.print(&summary(m, &census, &safety(m)?))?;
        }
        Ok(0)
    }
}

fn safety(m: &Model) -> Result<Safety, pipeline::Error> {
    Ok(saturation::safety(m)?)
}

fn executed(loaded: &Loaded, ui: &Ui) -> Result<u8, Failure> {
    let runtime = ui.global.runtime(ui);
    // Asked for, so worth an installation.
    runtime.ensure()?;
    let execution = pipeline::execution(&loaded.model, &loaded.files, &runtime);
    match ui.global.json {
        true => ui.print_json(&execution)?,
        false => ui.print(&lint::execution(&execution, ui.global.verbose > 0))?,
    }
    let as_declared = matches!(execution, Execution::Checked { .. });
    Ok(if as_declared && execution.differing().is_empty() { 0 } else { EXIT_GATE })
}

fn summary(m: &Model, census: &Census, safety: &Safety) -> String {
    let opsets: Vec<String> = m
        .opsets
        .iter()
        .map(|(domain, version)| {
            let domain = if domain.is_empty() { "ai.onnx" } else { domain };
            format!("{} {version}", escape(domain))
        })
        .collect();
    let mut out = format!(
        "size          {}\nIR version    {}\noperator sets {}\nproducer      {}\n\
         nodes         {}\ninitializers  {}\n\n",
        bytes(census.bytes),
        m.ir_version,
        opsets.join(", "),
        escape(&format!("{} {}", m.producer_name, m.producer_version)),
        grouped(census.nodes as u64),
        grouped(census.initializers as u64),
    );
    out += &io(m);
    out.push('\n');
    out += &types(m);
    out.push('\n');
    out += &forms(m);
    if let Some(text) = safety.text() {
        out += &format!("{text}\n\n");
    }
    out += &ops(census);
    out
}

fn io(m: &Model) -> String {
    let mut table = Table::new(["", "name", "type"]);
    let graph = m.graph(m.main);
    let ends = [("input", &graph.inputs), ("output", &graph.outputs)];
    for (kind, values) in ends {
        for &value in values {
            let it = m.value(value);
            let ty = it.ty.as_ref().map_or("?".into(), |it| it.to_string());
            table.row([kind, &Untrusted(&it.name).to_string(), &ty]);
        }
    }
    table.to_string()
}

fn ops(census: &Census) -> String {
    let mut table = Table::new(["operator", "nodes"]).right(&[1]);
    for (op, count) in &census.ops {
        table.row([op, &count.to_string()]);
    }
    table.to_string()
}

/// How quantized nodes are stored, if there are any.
fn forms(m: &Model) -> String {
    let forms = raise::forms(m);
    if forms.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["quantized", "nodes"]).right(&[1]);
    for (form, count) in forms {
        table.row([&escape(&form), &count.to_string()]);
    }
    format!("{table}\n")
}

/// Bytes of constants by element type.
fn types(m: &Model) -> String {
    let mut totals: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (_, tensor) in m.constants() {
        let it = totals.entry(tensor.dtype.name()).or_default();
        *it = (it.0 + 1, it.1 + tensor.nbytes() as u64);
    }
    let mut table = Table::new(["constants", "tensors", "bytes"]).right(&[1, 2]);
    for (name, (count, size)) in totals {
        table.row([name, &count.to_string(), &grouped(size)]);
    }
    table.to_string()
}

fn weights(m: &Model) -> String {
    let mut table = Table::new(["name", "type", "bytes"]).right(&[2]);
    for (value, tensor) in m.constants() {
        let name = Untrusted(&m.value(value).name).to_string();
        let ty = format!("{tensor:?}");
        table.row([&name, &ty, &grouped(tensor.nbytes() as u64)]);
    }
    table.to_string()
}

fn as_json(m: &Model, census: &Census, safety: &Safety) -> serde_json::Value {
    let graph = m.graph(m.main);
    let ends = |list: &[ValueId]| -> Vec<serde_json::Value> {
        let end = |it: &ValueId| {
            let it = m.value(*it);
            json!({"name": &*it.name, "type": it.ty.as_ref().map(|it| it.to_string())})
        };
        list.iter().map(end).collect()
    };
    let weights: Vec<serde_json::Value> = m
        .constants()
        .map(|(value, it)| {
            json!({
                "name": &*m.value(value).name,
                "dtype": it.dtype.name(),
                "shape": it.shape,
                "bytes": it.nbytes(),
            })
        })
        .collect();
    let opsets: BTreeMap<&str, i64> =
        m.opsets.iter().map(|(it, version)| (&**it, *version)).collect();
    json!({
        "schema": "onnxq.inspect/1",
        "census": census,
        "ir_version": m.ir_version,
        "opsets": opsets,
        "producer": {"name": m.producer_name, "version": m.producer_version},
        "inputs": ends(&graph.inputs),
        "outputs": ends(&graph.outputs),
        "quantized": raise::forms(m),
        "int8": safety,
        "int8_exact_on": safety.safe_on(),
        "weights": weights,
    })
}
