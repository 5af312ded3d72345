//! Flags that several subcommands share, and what they mean together.

use std::path::PathBuf;

use super::{Failure, Global, Ui};
use crate::{
    calibrate::DataOptions,
    ctx::Ctx,
    engine::RuntimeOptions,
    onnx::{self, OpenOptions, SaveOptions},
    recipe::{self, Gate, Recipe, gate::GateError},
};

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

pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

impl RecipeArgs {
    /// The recipe with what the command line changes in it.
    pub fn load(&self) -> Result<Recipe, Failure> {
        let mut recipe = recipe::load(&self.recipe)?;
        for set in &self.set {
            recipe = recipe::apply_set(&recipe, set)?;
        }
        self.exclude.iter().for_each(|it| recipe.exclude(it));
        self.include.iter().for_each(|it| recipe.include(it));
        Ok(recipe)
    }
}

impl DataArgs {
    pub fn options(&self) -> DataOptions {
        DataOptions {
            tokenizer: self.tokenizer.clone(),
            samples: self.samples,
            ..DataOptions::default()
        }
    }

    /// The recipe's gates and those of the command line.
    pub fn gates(&self, recipe: Option<&Recipe>) -> Result<Vec<Gate>, Failure> {
        let mut gates = recipe.and_then(|it| it.gates.clone()).unwrap_or_default();
        for text in &self.gate {
            gates.push(text.parse::<Gate>().map_err(|error: GateError| error)?);
        }
        Ok(gates)
    }
}

impl InputArgs {
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            external: match self.policy() {
                ExternalPolicy::Contained => onnx::ExternalPolicy::Contained,
                ExternalPolicy::None => onnx::ExternalPolicy::None,
                ExternalPolicy::Strict => onnx::ExternalPolicy::Strict,
            },
            allow_unknown_opset: self.allow_unknown_opset,
            drop_unknown: self.drop_unknown,
            ..OpenOptions::default()
        }
    }
}

impl ExternalData {
    pub fn save(self, force: bool) -> SaveOptions {
        let external = match self {
            ExternalData::Always => onnx::ExternalData::Always,
            ExternalData::Auto => onnx::ExternalData::Auto,
            ExternalData::Never => onnx::ExternalData::Never,
        };
        SaveOptions { external, force }
    }
}

impl Global {
    /// Threads of one session; 1 unless the user asks for more, as servers run one per core.
    pub fn session_threads(&self) -> usize {
        self.threads.map_or(1, usize::from)
    }

    pub fn runtime<'a>(&self, ui: &'a Ui) -> RuntimeOptions<'a> {
        RuntimeOptions {
            library: self.ort_lib.clone(),
            offline: self.offline,
            progress: ui,
            ..RuntimeOptions::default()
        }
    }
}

impl Ui {
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx { progress: self, trace: None, max_rewrites: usize::MAX }
    }
}
