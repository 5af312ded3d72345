//! `onnxq quantize`: the main job.

use std::path::PathBuf;

/// Quantize a model by a recipe
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Where to write the result; its weights go beside it if they are large
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Compare the result with the original on data: that of --data, or this
    #[arg(long, value_name = "DATA", num_args = 0..=1, require_equals = true)]
    pub validate: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Whether weights go into a file of their own
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub external_data: ExternalData,
    /// What to do with a weight that holds NaN or Inf
    #[arg(long, value_name = "ACTION", default_value = "error")]
    pub nonfinite: Nonfinite,
    /// Exit with 0 even if nothing could be quantized
    #[arg(long)]
    pub allow_noop: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

/// Which recipe, and what to change in it.
#[derive(Debug, clap::Args)]
pub struct RecipeArgs {
    /// A shipped recipe (see `onnxq recipe list`) or a file
    #[arg(short, long, value_name = "NAME|FILE", default_value = "avx512_vnni")]
    pub recipe: String,
    /// Change a value of the recipe: quantize.0.weight.range=reduced
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Leave nodes with matching names in float: a glob, or re: and a regular expression
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Take nodes with matching names back in that the recipe or --exclude leaves out
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
}

/// Data to compare on, and what to demand.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Samples: text, .npy, .npz or a folder of them
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// The tokenizer.json for text
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// How many samples to use [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub samples: Option<usize>,
    /// Fail with exit code 1 unless this holds: kl.mean<=0.05, logits:top1>=0.97
    #[arg(long, value_name = "EXPR")]
    pub gate: Vec<String>,
}

/// How far to trust the input.
#[derive(Debug, clap::Args)]
pub struct InputArgs {
    /// Lose fields of the model that this version does not know
    #[arg(long)]
    pub drop_unknown: bool,
    /// Accept an operator set newer than this version knows
    #[arg(long)]
    pub allow_unknown_opset: bool,
    /// The model comes from a stranger: --external-policy is strict at least
    #[arg(long)]
    pub untrusted: bool,
    /// Which external data files a model may refer to
    #[arg(long, value_name = "POLICY", default_value = "contained")]
    pub external_policy: ExternalPolicy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum ExternalData {
    /// Always
    Always,
    /// If the model would come near the limit of 2 GB
    #[default]
    Auto,
    /// Never; a model beyond 2 GB is an error
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Nonfinite {
    /// Stop: it would turn the whole output into NaN
    #[default]
    Error,
    /// Leave the weight in float
    Skip,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum ExternalPolicy {
    /// Files in the model's folder; links are followed if they stay there or in the folder of the
    /// real model file
    #[default]
    Contained,
    /// None at all
    None,
    /// Files in the model's folder; no links
    Strict,
}

impl InputArgs {
    /// The policy that the flags mean together.
    pub fn policy(&self) -> ExternalPolicy {
        match self.external_policy {
            ExternalPolicy::Contained if self.untrusted => ExternalPolicy::Strict,
            policy => policy,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}
