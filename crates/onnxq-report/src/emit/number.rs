//! Figures of a report as people read them: four significant digits, one unit.

use crate::figures::Interval;
use onnxq_ir::human::{bytes, grouped};
pub(super) use onnxq_ir::human::{number, percent};

/// What stands where nothing was measured.
pub(super) const NONE: &str = "–";

pub(super) fn maybe(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), number)
}

pub(super) fn milliseconds(value: f64) -> String {
    if value >= 10_000.0 { number(value / 1000.0) + " s" } else { number(value) + " ms" }
}

pub(super) fn times(ratio: f64) -> String {
    format!("× {}", number(ratio))
}

pub(super) fn decibel(value: f64) -> String {
    format!("{value:.2} dB")
}

pub(super) fn interval(it: Interval) -> String {
    format!("{} … {}", number(it.low), number(it.high))
}

/// `+3.1 MB`.
pub(super) fn growth(count: i64) -> String {
    let sign = if count < 0 { "-" } else { "+" };
    format!("{sign}{}", bytes(count.unsigned_abs()))
}

pub(super) fn count(value: usize) -> String {
    grouped(value as u64)
}

/// `1 node`, `12 nodes`.
pub(super) fn plural(value: usize, word: &str) -> String {
    let s = if value == 1 { "" } else { "s" };
    format!("{} {word}{s}", count(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_differences_have_a_unit() {
        assert_eq!((percent(0.98442), growth(-2048)), ("98.44 %".into(), "-2.0 kB".into()));
    }
}
