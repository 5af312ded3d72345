//! Tables of cells that know how they sort.

use serde::Serialize;

use super::{super::number, Limits, name, sentence};

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Table {
    /// For links that sort it: fixed text of the program, safe in HTML.
    pub id: &'static str,
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
    /// `… and 99,600 more`.
    pub more: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Column {
    pub label: String,
    /// Aligned at the right, and sorted as numbers.
    pub number: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cell {
    pub text: String,
    /// What the column sorts by, if not by the text.
    pub sort: Option<f64>,
    pub tone: Tone,
    /// A word that gets a small patch of its own colour: a precision.
    pub patch: Option<&'static str>,
    /// What the text is short for; a pointer shows it.
    pub full: Option<String>,
    /// A name, which stays on one line.
    pub is_name: bool,
    /// The id of what the page says more of it: letters, digits and `-`.
    pub link: Option<String>,
}

/// Characters of the name of a node in a table: what a row of figures leaves room for.
const NAME: usize = 36;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warn,
}

impl Table {
    pub(crate) fn new(id: &'static str, caption: impl Into<String>) -> Table {
        Table { id, caption: sentence(&caption.into()), ..Table::default() }
    }

    pub(crate) fn words(mut self, labels: &[&str]) -> Table {
        self.columns.extend(labels.iter().map(|it| Column { label: name(it), number: false }));
        self
    }

    pub(crate) fn numbers(mut self, labels: &[&str]) -> Table {
        self.columns.extend(labels.iter().map(|it| Column { label: name(it), number: true }));
        self
    }

    /// Most lists have nothing to say in their last column.
    pub(crate) fn without_empty_last(mut self) -> Table {
        if self.rows.iter().all(|row| row.last().is_none_or(|cell| cell.text.is_empty())) {
            self.columns.pop();
            self.rows.iter_mut().for_each(|row| drop(row.pop()));
        }
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.id);
        self.rows.push(cells);
    }

    /// A row for each item, as far as the limit allows.
    pub(crate) fn fill<T>(
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
    pub(crate) fn name(raw: &str) -> Cell {
        Cell { text: name(raw), ..Cell::default() }
    }

    /// The name of a node: its end says most, as names begin alike.
    pub(crate) fn node(raw: &str) -> Cell {
        Cell::short(raw, tail(raw, NAME))
    }

    /// `MatMulNBits` of `com.microsoft.MatMulNBits`.
    pub(crate) fn operator(raw: &str) -> Cell {
        Cell::short(raw, raw.strip_prefix("com.microsoft.").unwrap_or(raw).to_owned())
    }

    fn short(raw: &str, text: String) -> Cell {
        let full = (text != raw).then(|| name(raw));
        Cell { text: name(&text), full, is_name: true, ..Cell::default() }
    }

    /// The text in full: for formats that no pointer reads.
    pub(crate) fn in_full(&self) -> &str {
        self.full.as_deref().unwrap_or(&self.text)
    }

    pub(crate) fn sentence(raw: &str) -> Cell {
        Cell { text: sentence(raw), ..Cell::default() }
    }

    pub(crate) fn maybe(raw: Option<&str>) -> Cell {
        raw.map_or_else(Cell::none, Cell::name)
    }

    pub(crate) fn none() -> Cell {
        Cell { text: number::NONE.to_owned(), ..Cell::default() }
    }

    /// A number as `show` writes it.
    pub(crate) fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> Cell {
        match value {
            Some(it) => Cell { text: show(it), sort: Some(it), ..Cell::default() },
            None => Cell::none(),
        }
    }

    pub(crate) fn number(value: Option<f64>) -> Cell {
        Cell::shown(value, number::number)
    }

    /// A number in full: a limit is not rounded.
    pub(crate) fn exactly(value: Option<f64>) -> Cell {
        Cell::shown(value, |it| it.to_string())
    }

    pub(crate) fn count(value: usize) -> Cell {
        Cell::shown(Some(value as f64), |_| number::count(value))
    }

    pub(crate) fn bytes(value: u64) -> Cell {
        Cell::shown(Some(value as f64), |_| onnxq_ir::human::bytes(value))
    }

    pub(crate) fn percent(value: Option<f64>) -> Cell {
        Cell::shown(value, number::percent)
    }

    pub(crate) fn milliseconds(value: Option<f64>) -> Cell {
        Cell::shown(value, number::milliseconds)
    }

    pub(crate) fn decibel(value: Option<f64>) -> Cell {
        Cell::shown(value, number::decibel)
    }

    pub(crate) fn times(value: Option<f64>) -> Cell {
        Cell::shown(value, number::times)
    }

    pub(crate) fn verdict(pass: bool) -> Cell {
        let (text, tone) = if pass { ("pass", Tone::Good) } else { ("FAIL", Tone::Bad) };
        Cell { text: text.to_owned(), tone, ..Cell::default() }
    }

    pub(crate) fn linked(self, id: String) -> Cell {
        Cell { link: Some(id), ..self }
    }

    pub(crate) fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }

    pub(crate) fn patched(self, patch: &'static str) -> Cell {
        Cell { patch: Some(patch), ..self }
    }
}

/// The end of a name in so many characters, from the start of a part of it if one is near.
pub(crate) fn tail(raw: &str, most: usize) -> String {
    let count = raw.chars().count();
    if count <= most {
        return raw.to_owned();
    }
    let end: String = raw.chars().skip(count - (most - 1)).collect();
    let part = end.find(['/', '.']).filter(|at| *at <= end.len() / 2);
    format!("…{}", &end[part.unwrap_or(0)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_beginning_and_keep_it_for_the_pointer() {
        let long = "/model/layers.11/self_attn/attention/q_proj/MatMul";
        let cell = Cell::node(long);
        assert_eq!(cell.text, "…/self_attn/attention/q_proj/MatMul");
        assert_eq!((cell.full.as_deref(), cell.in_full()), (Some(long), long));
        assert_eq!(Cell::node("/lm_head/MatMul").full, None);
        assert_eq!(tail(&"x".repeat(50), 10), format!("…{}", "x".repeat(9)));
        assert_eq!(Cell::operator("com.microsoft.MatMulNBits").text, "MatMulNBits");
        // What is escaped stays escaped wherever it is cut.
        assert!(!Cell::node(&"\u{202e}".repeat(60)).text.contains('\u{202e}'));
    }
}
