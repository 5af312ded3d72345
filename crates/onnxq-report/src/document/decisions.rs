//! What was decided while a model was quantized, as every format shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One kind of decision: how activations or bits were chosen, what solvers achieved, what was trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Decision {
    /// `activations`, `bits`, `solvers` or `training`.
    pub kind: String,
    /// What comes before the table, a line each.
    pub before: Vec<String>,
    pub columns: Vec<DecisionColumn>,
    /// A cell for each column.
    pub rows: Vec<Vec<String>>,
    /// What comes after the table.
    pub after: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DecisionColumn {
    pub label: String,
    /// Aligned at the right.
    pub number: bool,
}

impl Decision {
    pub fn new(kind: &str) -> Decision {
        Decision { kind: kind.to_owned(), ..Decision::default() }
    }

    pub fn words(mut self, labels: &[&str]) -> Decision {
        self.columns.extend(labels.iter().map(|label| column(label, false)));
        self
    }

    pub fn numbers(mut self, labels: &[&str]) -> Decision {
        self.columns.extend(labels.iter().map(|label| column(label, true)));
        self
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.kind);
        self.rows.push(cells);
    }
}

fn column(label: &str, number: bool) -> DecisionColumn {
    DecisionColumn { label: label.to_owned(), number }
}
