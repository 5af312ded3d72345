//! `onnxq import`: a checkpoint becomes a folder that clients load.

use std::{fmt::Write, path::PathBuf};

use clap::builder::TypedValueParser;

use super::{
    Failure, Table, Ui,
    shared::{CalibrationArgs, SampleArgs, TrustArgs, find, named, with_samples, words},
};
use onnxq_ir::human::{bytes, grouped};
use onnxq_pipeline::import::{FLOAT, Import, Imported, LAYOUTS, Layout, import};
use onnxq_quant::recipe::{self, Recipe};

/// Make a folder that clients load of a checkpoint: config.json and safetensors become ONNX models
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of the checkpoint
    pub checkpoint: PathBuf,
    /// The folder to make
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// For which client
    #[arg(long, value_name = "NAME", default_value = "plain", value_parser = layout())]
    pub layout: &'static Layout,
    /// A model by this recipe, or `float` for one without; may be given several times
    #[arg(short, long, value_name = "NAME|FILE", default_value = FLOAT)]
    pub recipe: Vec<String>,
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// The tokenizer.json for text [default: that of the checkpoint]
    #[arg(long, value_name = "FILE", requires = "calibration")]
    pub tokenizer: Option<PathBuf>,
    /// Replace the folder if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
}

fn layout() -> impl TypedValueParser<Value = &'static Layout> {
    words(LAYOUTS.iter().map(|it| (it.name, it.help)))
        .map(|word| find(LAYOUTS, |it| it.name == word))
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let load = |name: &String| -> Result<Option<Recipe>, Failure> {
            if name == FLOAT {
                return Ok(None);
            }
            let recipe = recipe::load(&named(name, ui))?;
            with_samples(recipe, self.calibration.calibration_samples).map(Some)
        };
        let recipes = self.recipe.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let samples =
            SampleArgs { data: None, tokenizer: self.tokenizer, preprocess: None, samples: None };
        let (calibration, checkpoint) = (self.calibration, &*self.checkpoint);
        let job = Import {
            checkpoint: &self.checkpoint,
            output: &self.output,
            layout: self.layout,
            recipes: &recipes,
            inputs: &|recipe| calibration.inputs((&samples, checkpoint), recipe, ui),
            runtime: ui.global.runtime(ui),
            policy: self.trust.policy(),
            force: self.force,
        };
        let imported = import(&job, &ui.ctx())?;
        if ui.global.json {
            ui.print_json(&imported)?;
        } else {
            ui.print(&show(&imported))?;
        }
        Ok(0)
    }
}

fn show(imported: &Imported) -> String {
    let mut table = Table::new(["model", "recipe", "size", "nodes", "needs"]).right(&[2, 3]);
    for it in &imported.models {
        let (size, nodes) = (bytes(it.bytes), grouped(it.nodes as u64));
        let needs = format!("ONNX Runtime {}", it.needs.onnxruntime);
        table.row([&it.file, &it.recipe, &size, &nodes, &needs]);
    }
    let mut out = table.to_string();
    let _ = writeln!(
        out,
        "\nok  {}: {} files, layout {}",
        imported.output.display(),
        imported.files.len(),
        imported.layout
    );
    out
}
