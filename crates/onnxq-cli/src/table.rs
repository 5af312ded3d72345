//! Tables of text: columns aligned by what a terminal shows, untrusted cells escaped.

use std::{borrow::Cow, fmt};

use unicode_width::UnicodeWidthStr;

use super::term;
use onnxq_ir::untrusted::escape;

/// Rows of cells under a header.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of numbers.
    right: Vec<usize>,
}

const GAP: &str = "  ";

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Table {
        Table { rows: vec![header.map(escape).to_vec()], right: Vec::new() }
    }

    /// As [`Table::new`], with columns that are known when the program runs.
    pub fn of(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|cell| escape(cell)).collect()], right: Vec::new() }
    }

    /// A row of as many cells as the header has; missing ones are empty.
    pub fn push(&mut self, cells: &[String]) {
        let width = self.rows[0].len();
        let cells = cells.iter().map(|cell| escape(cell));
        self.rows.push(cells.chain(std::iter::repeat_with(String::new)).take(width).collect());
    }

    /// These columns are aligned at their right edge.
    pub fn right(mut self, columns: &[usize]) -> Table {
        self.right = columns.to_vec();
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        debug_assert_eq!(N, self.rows[0].len(), "cells of a row");
        self.rows.push(cells.map(escape).to_vec());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = 0..self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|it| it[column].width()).max();
        columns.map(|it| width(it).unwrap_or(0)).collect()
    }
}

/// Columns of text are not narrowed further.
const LEAST: usize = 10;

/// Takes what a line is too long by from its widest columns of text.
fn narrow(widths: &mut [usize], right: &[usize], most: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > most {
        let texts = (0..widths.len()).filter(|it| !right.contains(it) && widths[*it] > LEAST);
        let Some(widest) = texts.max_by_key(|it| widths[*it]) else { break };
        widths[widest] -= 1;
    }
}

/// Both ends of a cell: names differ at their ends, sentences begin with what counts.
pub(crate) fn shortened(cell: &str, width: usize) -> Cow<'_, str> {
    if cell.width() <= width {
        return cell.into();
    }
    let letters: Vec<char> = cell.chars().collect();
    let (mut head, mut tail) = (width / 2, width.saturating_sub(width / 2 + 1));
    loop {
        let end = letters.len().saturating_sub(tail);
        let cut: String = letters[..head].iter().chain(&['…']).chain(&letters[end..]).collect();
        if cut.width() <= width || head == 0 {
            return cut.into();
        }
        (head, tail) = (head - 1, tail.saturating_sub(1));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = self.widths();
        if let Some(most) = term::width() {
            narrow(&mut widths, &self.right, most);
        }
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let cell = &*shortened(cell, widths[column]);
                let padding = " ".repeat(widths[column] - cell.width());
                let (left, right) =
                    if self.right.contains(&column) { (&*padding, "") } else { ("", &*padding) };
                line.extend([if column > 0 { GAP } else { "" }, left, cell, right]);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_takes_from_columns_of_text() {
        let mut widths = [40, 8, 20];
        narrow(&mut widths, &[1], 50);
        assert_eq!(widths, [19, 8, 19]);
        narrow(&mut widths, &[1], 10);
        assert_eq!(widths, [10, 8, 10]);
        assert_eq!(shortened("/model/layers.0/q_proj", 12), "/model…_proj");
        assert!(shortened("日本語の名前", 7).width() <= 7);
    }

    #[test]
    fn columns_align_and_cells_cannot_move_the_cursor() {
        let mut table = Table::new(["node", "bytes", "why"]).right(&[1]);
        table.row(["a\x1b[2J", "5", "x"]);
        table.row(["日本", "1,024", ""]);
        let expected = "\
node        bytes  why
a\\u{1b}[2J      5  x
日本        1,024
";
        assert_eq!(table.to_string(), expected);
    }
}
