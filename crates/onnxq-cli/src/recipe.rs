//! `onnxq recipe`: look at recipes and check one's own.

use serde_json::json;

use super::{Failure, Table, Ui};
use onnxq_quant::recipe::{self, Recipe};

/// List, show and check recipes
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Check a recipe of your own without a model
    Check {
        /// A file, or the name of a shipped recipe
        #[arg(value_name = "FILE")]
        recipe: String,
    },
    /// List the shipped recipes
    List,
    /// Print the JSON Schema of recipes, for editors
    Schema,
    /// Print a recipe
    Show {
        /// The name of a shipped recipe, or a file
        #[arg(value_name = "NAME")]
        recipe: String,
        /// With the recipes it extends merged in, as `--set` numbers the entries
        #[arg(long)]
        resolved: bool,
    },
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        match self.action {
            Action::Check { recipe } => check(ui, &recipe)?,
            Action::List => list(ui)?,
            Action::Schema => ui.print(&recipe::schema())?,
            Action::Show { recipe, resolved } => show(ui, &recipe, resolved)?,
        }
        Ok(0)
    }
}

fn check(ui: &Ui, name: &str) -> Result<(), Failure> {
    let recipe = recipe::load(name)?;
    if ui.global.json {
        return ui.print_json(&json!({"name": recipe.name, "ok": true}));
    }
    ui.print("ok\n")
}

fn list(ui: &Ui) -> Result<(), Failure> {
    let recipes = recipe::SHIPPED.iter().map(|it| recipe::load(it.0));
    let recipes = recipes.collect::<Result<Vec<Recipe>, _>>()?;
    if ui.global.json {
        let row = |it: &Recipe| {
            json!({
                "name": it.name,
                "target": it.target().name,
                "needs_calibration": it.needs_data(),
                "description": it.description,
            })
        };
        return ui.print_json(&recipes.iter().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new(["name", "target", "needs", "description"]);
    for it in &recipes {
        let needs = if it.needs_data() { "--calibration" } else { "" };
        table.row([&it.name, it.target().name, needs, first_sentence(&it.description)]);
    }
    ui.print(&table.to_string())
}

fn show(ui: &Ui, name: &str, resolved: bool) -> Result<(), Failure> {
    if ui.global.json {
        return ui.print_json(&recipe::load(name)?);
    }
    if resolved {
        return ui.print(&recipe::to_yaml(&recipe::load(name)?));
    }
    ui.print(&recipe::source(name)?)
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}
