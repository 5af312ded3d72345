//! Numbers as people read them: four significant digits, one unit.

use crate::figures::Interval;
use onnxq_ir::human::{bytes, grouped};

/// What stands where nothing was measured.
pub const NONE: &str = "–";

/// `0.004123`, `12.34`, `123,456`, `1.234e-9`.
pub fn number(value: f64) -> String {
    let scientific = format!("{value:.3e}");
    // Of what is left after rounding: 999.96 has four digits before the point.
    let exponent = scientific.split_once('e').and_then(|it| it.1.parse::<i32>().ok());
    match exponent {
        _ if value == 0.0 => "0".to_owned(),
        Some(3..=8) => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", grouped(value.abs().round() as u64))
        }
        Some(exponent @ -4..=2) => format!("{value:.*}", (3 - exponent) as usize),
        _ => scientific,
    }
}

pub fn maybe(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), number)
}

/// Of a fraction.
pub fn percent(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

pub fn milliseconds(value: f64) -> String {
    if value >= 10_000.0 { number(value / 1000.0) + " s" } else { number(value) + " ms" }
}

pub fn times(ratio: f64) -> String {
    format!("× {}", number(ratio))
}

pub fn decibel(value: f64) -> String {
    format!("{value:.2} dB")
}

pub fn interval(it: Interval) -> String {
    format!("{} … {}", number(it.low), number(it.high))
}

/// `+3.1 MiB`.
pub fn growth(count: i64) -> String {
    let sign = if count < 0 { "-" } else { "+" };
    format!("{sign}{}", bytes(count.unsigned_abs()))
}

pub fn count(value: usize) -> String {
    grouped(value as u64)
}

/// `1 node`, `12 nodes`.
pub fn plural(value: usize, word: &str) -> String {
    let s = if value == 1 { "" } else { "s" };
    format!("{} {word}{s}", count(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let cases = [
            (0.0, "0"),
            (0.004_123_4, "0.004123"),
            (-0.5, "-0.5000"),
            (12.344_9, "12.34"),
            (0.2 - 0.21, "-0.01000"),
            (999.94, "999.9"),
            (999.96, "1,000"),
            (-123_456.4, "-123,456"),
            (1.234e-9, "1.234e-9"),
            (f64::MAX, "1.798e308"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!((percent(0.98442), growth(-2048)), ("98.44 %".into(), "-2.0 KiB".into()));
    }
}
