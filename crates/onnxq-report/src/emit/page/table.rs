//! Tables of cells that know how they sort.

use serde::Serialize;

use super::{super::number, Limits, name, sentence};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// For links that sort it: fixed text of the program, safe in HTML.
    pub id: &'static str,
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// `… and 99,600 more`.
    pub more: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Column {
    pub label: String,
    /// Aligned at the right, and sorted as numbers.
    pub number: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    pub text: String,
    /// What the column sorts by, if not by the text.
    pub sort: Option<f64>,
    pub tone: Tone,
    /// A word that gets a small patch of its own colour: a precision.
    pub patch: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warn,
}

impl Table {
    pub fn new(id: &'static str, caption: impl Into<String>) -> Table {
        Table { id, caption: sentence(&caption.into()), ..Table::default() }
    }

    pub fn words(mut self, labels: &[&str]) -> Table {
        self.columns.extend(labels.iter().map(|it| Column { label: name(it), number: false }));
        self
    }

    pub fn numbers(mut self, labels: &[&str]) -> Table {
        self.columns.extend(labels.iter().map(|it| Column { label: name(it), number: true }));
        self
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.id);
        self.rows.push(cells);
    }

    /// A row for each item, as far as the limit allows.
    pub fn fill<T>(
        mut self,
        items: impl ExactSizeIterator<Item = T>,
        limits: Limits,
        mut row: impl FnMut(T) -> Vec<Cell>,
    ) -> Table {
        let count = items.len();
        for it in items.take(limits.rows) {
            self.row(row(it));
        }
        let left = count.saturating_sub(limits.rows);
        self.more = (left > 0).then(|| format!("… and {} more", number::count(left)));
        self
    }
}

impl Cell {
    pub fn name(raw: &str) -> Cell {
        Cell { text: name(raw), ..Cell::default() }
    }

    pub fn sentence(raw: &str) -> Cell {
        Cell { text: sentence(raw), ..Cell::default() }
    }

    pub fn maybe(raw: Option<&str>) -> Cell {
        raw.map_or_else(Cell::none, Cell::name)
    }

    pub fn none() -> Cell {
        Cell { text: number::NONE.to_owned(), ..Cell::default() }
    }

    /// A number as `show` writes it.
    pub fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> Cell {
        match value {
            Some(it) => Cell { text: show(it), sort: Some(it), ..Cell::default() },
            None => Cell::none(),
        }
    }

    pub fn number(value: Option<f64>) -> Cell {
        Cell::shown(value, number::number)
    }

    /// A number in full: a limit is not rounded.
    pub fn exactly(value: Option<f64>) -> Cell {
        Cell::shown(value, |it| it.to_string())
    }

    pub fn count(value: usize) -> Cell {
        Cell::shown(Some(value as f64), |_| number::count(value))
    }

    pub fn bytes(value: u64) -> Cell {
        Cell::shown(Some(value as f64), |_| onnxq_ir::human::bytes(value))
    }

    pub fn percent(value: Option<f64>) -> Cell {
        Cell::shown(value, number::percent)
    }

    pub fn milliseconds(value: Option<f64>) -> Cell {
        Cell::shown(value, number::milliseconds)
    }

    pub fn decibel(value: Option<f64>) -> Cell {
        Cell::shown(value, number::decibel)
    }

    pub fn times(value: Option<f64>) -> Cell {
        Cell::shown(value, number::times)
    }

    pub fn verdict(pass: bool) -> Cell {
        let (text, tone) = if pass { ("pass", Tone::Good) } else { ("FAIL", Tone::Bad) };
        Cell { text: text.to_owned(), tone, ..Cell::default() }
    }

    pub fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }

    pub fn patched(self, patch: &'static str) -> Cell {
        Cell { patch: Some(patch), ..self }
    }
}
