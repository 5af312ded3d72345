//! `onnxq convert`: another form of the same model.

use std::{fmt::Write, path::PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::{
    Failure, Table, Ui,
    places::{check_outputs, check_there},
    shared::{AcceptArgs, InputArgs, KeepArgs, NoEffect, find, preprocess_help, size},
    show::{Reasons, comment, grouped_by_reason, needs},
    stream::{Output, receive},
};
use onnxq_formats::gguf::GgmlType;
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic, EXIT_NOTHING},
    human::{bytes, grouped},
    onnx::{self, SaveOptions},
    tensor::DType,
    text,
    untrusted::escape,
};
use onnxq_pipeline::{
    self as pipeline, Execution, ROUNDED,
    convert::{self, Calibration, Convert, Converted, HALVES, Shapes, Step},
};
use onnxq_quant::lower::{FORMS, Form};

/// Convert a model to another form
#[derive(Debug, clap::Args)]
#[command(override_usage = "onnxq convert <MODEL> [-o <FILE>] <CONVERSION>...")]
pub struct Args {
    /// The model, float or quantized by any tool: .onnx or .onnxtxt, or `-` for standard input
    pub model: PathBuf,
    /// Where to write the result; `-` is standard output [default: its text to stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub cache: CacheData,
    /// Write the model and exit with 0 even if the conversion changes nothing
    #[arg(long)]
    pub allow_noop: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub accept: AcceptArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub input: InputArgs,
}

/// What to convert; steps run in the order of this list.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true)]
pub struct What {
    /// The shape of an input: input_ids=1x128; `?` leaves a dimension open
    #[arg(long, value_name = "INPUT=DIMS", value_parser = shape)]
    pub fix_shape: Vec<(String, Vec<Option<usize>>)>,
    /// The size of a named dimension of the inputs: batch=1
    #[arg(long, value_name = "NAME=SIZE", value_parser = dim)]
    pub fix_dim: Vec<(String, usize)>,
    /// The standard operator set to raise the model to
    #[arg(long, value_name = "N")]
    pub opset: Option<i64>,
    /// Prepare the model as `quantize` does: folded constants, one node for each norm, attention, …
    #[arg(long)]
    pub fuse: bool,
    /// Give a decoder without one a cache of keys and values, named as optimum does
    #[arg(long)]
    pub add_kv_cache: bool,
    /// Store the cache of keys and values in eight bits; needs --calibration. Several tokens after
    /// a past then need a batch of 1 (ONNX Runtime 1.31)
    #[arg(long, value_name = "TYPE", requires = "calibration")]
    pub kv_cache: Option<CacheType>,
    /// The form of quantized nodes, whoever quantized them, or a narrow float type
    #[arg(long, value_name = "FORM", value_parser = to())]
    pub to: Option<To>,
    /// With --to gguf: what matrices are rounded to [default: the floats that they are; blocks
    /// become F32]
    #[arg(long = "type", value_name = "TYPE", requires = "to", value_parser = ggml_type())]
    pub kind: Option<GgmlType>,
    /// With --to float16 or bfloat16: inputs and outputs stay float32
    #[arg(long, requires = "to")]
    pub keep_io: bool,
    /// Take out doc strings, metadata, and types of inner values that can be inferred
    #[arg(long)]
    pub strip: bool,
    /// Where weights go: inline (the model file), one-file, or shard:SIZE (files of at most SIZE)
    #[arg(long, value_name = "WHERE", value_parser = storage)]
    pub external_data: Option<onnx::ExternalData>,
}

/// Samples that the scales of a cache come from.
#[derive(Debug, clap::Args)]
pub struct CacheData {
    /// Samples for --kv-cache and --to float16: text, .npy, .npz or a folder of them or of images
    #[arg(long, value_name = "PATH")]
    pub calibration: Option<PathBuf>,
    /// The tokenizer.json for text
    #[arg(long, value_name = "FILE", requires = "calibration")]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, value_name = "NAME|FILE", requires = "calibration", help = preprocess_help())]
    pub preprocess: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum CacheType {
    /// One scale for the keys and one for the values of each layer
    Int8,
}

/// What `--to` names.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// A form of quantized nodes.
    Form(&'static Form),
    /// A narrow float type.
    Half(DType),
    /// The file of llama.cpp.
    Gguf,
}

const GGUF: (&str, &str) =
    ("gguf", "a GGUF file for llama.cpp, of a checkpoint or of another GGUF file");

fn to() -> impl TypedValueParser<Value = To> {
    let forms = FORMS.iter().map(|it| (it.name, it.help));
    let halves = HALVES.iter().map(|it| (it.0.name(), it.1));
    let mut rows: Vec<(&str, &str)> = forms.chain(halves).chain([GGUF]).collect();
    rows.sort_unstable();
    let aliased = rows.into_iter().map(|(word, about)| {
        let aliases = HALF_WORDS.iter().filter(move |row| row.1 == word).map(|row| row.0);
        PossibleValue::new(word).help(about).aliases(aliases)
    });
    PossibleValuesParser::new(aliased).map(|word| {
        match HALVES.iter().find(|it| it.0.name() == canonical(&word)) {
            Some((dtype, _)) => To::Half(*dtype),
            None if word == GGUF.0 => To::Gguf,
            None => To::Form(find(FORMS, |it| it.name == word)),
        }
    })
}

/// The types that `--type` names, as llama.cpp spells them or in small letters.
fn ggml_type() -> impl TypedValueParser<Value = GgmlType> {
    let any = ROUNDED.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
    clap::builder::StringValueParser::new().try_map(move |word: String| {
        let found = ROUNDED.iter().find(|it| it.name().eq_ignore_ascii_case(&word));
        found.copied().ok_or_else(|| format!("expected one of {any}"))
    })
}

/// What other tools call narrow float types.
const HALF_WORDS: &[(&str, &str)] =
    &[("fp16", "float16"), ("half", "float16"), ("f16", "float16"), ("bf16", "bfloat16")];

fn canonical(word: &str) -> &str {
    HALF_WORDS.iter().find(|row| row.0 == word).map_or(word, |row| row.1)
}

/// `input_ids=1x128`.
fn shape(text: &str) -> Result<(String, Vec<Option<usize>>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("expected INPUT=DIMS, as input_ids=1x128")?;
    let dims = dims.split(['x', ',']).filter(|it| !it.is_empty()).map(|it| match it {
        "?" => Ok(None),
        it => it.parse().map(Some).map_err(|_| format!("`{it}` is no size")),
    });
    Ok((name.to_owned(), dims.collect::<Result<_, _>>()?))
}

/// `batch=1`.
fn dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("expected NAME=SIZE, as batch=1")?;
    Ok((name.to_owned(), size.parse().map_err(|_| format!("`{size}` is no size"))?))
}

fn storage(text: &str) -> Result<onnx::ExternalData, String> {
    match text.split_once(':') {
        None if text == "inline" => Ok(onnx::ExternalData::Never),
        None if text == "one-file" => Ok(onnx::ExternalData::Always),
        Some(("shard", it)) => Ok(onnx::ExternalData::Shards(size(it)?)),
        _ => Err("expected inline, one-file or shard:SIZE, as shard:2GB".to_owned()),
    }
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        check_there(&[
            ("--calibration", self.cache.calibration.as_deref()),
            ("--tokenizer", self.cache.tokenizer.as_deref()),
        ])?;
        let output = self.output.as_deref().map(|path| Output::at(path, ui)).transpose()?;
        check_outputs(output.as_ref().map(Output::path))?;
        let stdin = receive([&mut self.model])?;
        let what = self.what;
        let reads_data = what.kv_cache.is_some() || matches!(what.to, Some(To::Half(DType::F16)));
        if self.cache.calibration.is_some() && !reads_data {
            let without = "only --kv-cache and --to float16 look at data";
            return Err(NoEffect { asked: "--calibration", without }.into());
        }
        // The command line allows no --kv-cache without data.
        let calibration = self.cache.calibration.map(|data| Calibration {
            data,
            tokenizer: self.cache.tokenizer,
            preprocess: self.cache.preprocess,
            runtime: ui.global.runtime_options(),
            threads: ui.global.session_threads(),
        });
        let to_gguf = matches!(what.to, Some(To::Gguf));
        if let Some(asked) = what.beside_gguf().filter(|_| to_gguf) {
            let without = "a GGUF file is made of a checkpoint, whose graph llama.cpp knows";
            return Err(NoEffect { asked, without }.into());
        }
        if what.kind.is_some() && !to_gguf {
            let without = "only --to gguf has types of ggml";
            return Err(NoEffect { asked: "--type", without }.into());
        }
        let (to, half) = match what.to {
            None => (None, None),
            Some(To::Form(form)) => (Some(form), None),
            Some(To::Half(dtype)) => (None, Some(dtype)),
            Some(To::Gguf) => (None, None),
        };
        let job = Convert {
            model: self.model,
            open: self.keep.options(&self.input),
            shapes: Shapes { inputs: what.fix_shape, dims: what.fix_dim },
            opset: what.opset,
            fuse: what.fuse,
            add_kv_cache: what.add_kv_cache,
            kv_cache: calibration.clone().filter(|_| what.kv_cache.is_some()),
            ranges: calibration.filter(|_| half == Some(DType::F16)),
            to,
            half,
            keep_io: what.keep_io,
            strip: what.strip,
            allow_noop: self.allow_noop,
        };
        let external = what.external_data.unwrap_or_default();
        let save = SaveOptions { external, force: self.force, ..Default::default() };
        let Some(output) = output else {
            if to_gguf {
                return Err(NoText.into());
            }
            let done = convert::run(&job, &ui.ctx())?;
            ui.print(&(comment(&steps(&done.steps)) + &text::print(&done.model)))?;
            return Ok(0);
        };
        let (save, named) = (output.save(save)?, output.progress(ui));
        let ctx = Ctx { progress: &named, ..ui.ctx() };
        let place = self.accept.destination(output.path(), save, ui);
        let converted = match to_gguf {
            true => pipeline::to_gguf((&job, what.kind), &place, &ctx),
            false => convert::convert(&job, &place, &ctx),
        };
        let mut converted = converted.map_err(|error| output.explained(error.into()))?;
        converted.model = stdin.shown(&job.model).into();
        if output.is_stream() && converted.output.is_some() {
            converted.output = Some(output.shown().into());
            converted.files = vec![output.shown().into()];
        }
        output.deliver()?;
        if ui.global.json {
            ui.print_json(&converted)?;
        } else {
            ui.show(&show(&converted))?;
        }
        Ok(if converted.output.is_some() { 0 } else { EXIT_NOTHING })
    }
}

impl What {
    /// The first conversion of graphs that is asked for.
    fn beside_gguf(&self) -> Option<&'static str> {
        let given = [
            ("--fix-shape", !self.fix_shape.is_empty()),
            ("--fix-dim", !self.fix_dim.is_empty()),
            ("--opset", self.opset.is_some()),
            ("--fuse", self.fuse),
            ("--add-kv-cache", self.add_kv_cache),
            ("--kv-cache", self.kv_cache.is_some()),
            ("--keep-io", self.keep_io),
            ("--strip", self.strip),
            ("--external-data", self.external_data.is_some()),
        ];
        given.into_iter().find(|it| it.1).map(|it| it.0)
    }
}

/// A GGUF file has no text.
#[derive(Debug, thiserror::Error)]
#[error("a GGUF file cannot be shown as text")]
struct NoText;

impl Diagnostic for NoText {
    fn code(&self) -> Code {
        Code::E906
    }

    fn hint(&self) -> Option<String> {
        Some("name the output: -o FILE.gguf".into())
    }
}

fn steps(list: &[Step]) -> String {
    let mut out = String::new();
    for step in list {
        let _ = writeln!(out, "{}: {}", step.step, grouped(step.changed as u64));
        for line in &step.lines {
            let _ = writeln!(out, "  {}", escape(line));
        }
        out += &left(step);
    }
    out
}

fn show(it: &Converted) -> String {
    let out = format!("\n{}", steps(&it.steps));
    let Some(output) = &it.output else {
        let code = Code::N002;
        return out
            + &format!(
                "\nno-op [{code}]: the conversion changes nothing, so nothing is written\n"
            );
    };
    let mut table = Table::new(["", "before", "after"]).right(&[1, 2]);
    table.row(["size", &bytes(it.before.bytes), &bytes(it.after.bytes)]);
    let nodes = [it.before.nodes, it.after.nodes].map(|it| grouped(it as u64));
    table.row(["nodes", &nodes[0], &nodes[1]]);
    let files = match it.files.len() {
        0 | 1 => String::new(),
        count => format!("  {count} files"),
    };
    let path = escape(&output.display().to_string());
    let needs = it.needs.as_ref().map(needs).unwrap_or_default();
    let executes = match &it.execution {
        Some(it @ (Execution::Refused { .. } | Execution::NotChecked(_))) => {
            format!("{}\n", escape(&it.summary()))
        }
        _ => String::new(),
    };
    format!("{out}\n{table}\n{needs}{executes}ok  {path}{files}\n")
}

/// The nodes that a step leaves alone, grouped by reason.
fn left(step: &Step) -> String {
    let mut reasons = Reasons::new();
    for it in &step.left {
        reasons.entry((&it.reason, &it.op)).or_default().push(&it.node);
    }
    if reasons.is_empty() {
        return String::new();
    }
    let title = format!("  left as they were ({} nodes), and why:\n", step.left.len());
    grouped_by_reason(title, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_names_and_numbers() {
        assert_eq!(shape("a=b=1x?"), Ok(("a=b".into(), vec![Some(1), None])));
        assert_eq!(shape("scalar="), Ok(("scalar".into(), vec![])));
        assert!(shape("a").is_err() && shape("a=1xy").is_err() && shape("a=-1").is_err());
        assert_eq!(dim("batch=1"), Ok(("batch".into(), 1)));
        assert!(dim("batch").is_err() && dim("batch=").is_err());
    }

    #[test]
    fn weights_go_where_the_flag_says() {
        assert_eq!(storage("inline"), Ok(onnx::ExternalData::Never));
        assert_eq!(storage("shard:2GB"), Ok(onnx::ExternalData::Shards(2_000_000_000)));
        assert!(storage("shard").is_err() && storage("shard:0").is_err() && storage("x").is_err());
    }
}
