//! A strip of all nodes with weights, coloured by what their weights are stored in.

use std::collections::BTreeMap;

use super::{
    super::number::plural,
    WIDTH,
    svg::{Anchor, Svg},
};
use crate::document::PrecisionRow;
use onnxq_ir::human::bytes;

const STRIP: f64 = 56.0;
/// Cells that can be told apart.
const MAX: usize = 380;
const COLUMNS: usize = 4;

/// The class of a precision's colour; the page has no more of them than these.
pub(crate) fn class(precision: &str) -> &'static str {
    match precision {
        "float" => "float",
        "float16" | "bfloat16" => "float16",
        "int8" | "uint8" => "int8",
        "int4" | "uint4" => "int4",
        "int2" | "uint2" => "int2",
        // The second name stands in reports of earlier versions.
        "scales and zero points" | "scales and zeros" => "scales",
        _ => "other",
    }
}

pub(crate) fn plot(rows: &[PrecisionRow]) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let totals = totals(rows);
    let lines = totals.len().min(2 * COLUMNS).div_ceil(COLUMNS);
    let height = STRIP + 14.0 + 22.0 * lines as f64;
    let words: Vec<String> =
        totals.iter().map(|it| format!("{}: {}", it.0, plural(it.1.0, "node"))).collect();
    let mut svg = Svg::new(WIDTH, height, &format!("Precision of nodes. {}", words.join(", ")));
    strip(&mut svg, rows);
    legend(&mut svg, &totals);
    Some(svg.finish())
}

/// Of each precision: nodes and bytes; most bytes first.
fn totals(rows: &[PrecisionRow]) -> Vec<(&str, (usize, u64))> {
    let mut map: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for it in rows {
        let total = map.entry(&it.precision).or_default();
        *total = (total.0 + 1, total.1.saturating_add(it.bytes));
    }
    let mut list: Vec<_> = map.into_iter().collect();
    list.sort_by_key(|it| std::cmp::Reverse(it.1.1));
    list
}

fn strip(svg: &mut Svg, rows: &[PrecisionRow]) {
    let stretch = rows.len().div_ceil(MAX).max(1);
    let cells = rows.len().div_ceil(stretch);
    let width = WIDTH / cells as f64;
    let gap = if width > 5.0 { 1.0 } else { 0.0 };
    for (at, chunk) in rows.chunks(stretch).enumerate() {
        let most = totals(chunk)[0].0;
        let tip = match chunk {
            [it] => format!("{}: {}, {}", it.precision, bytes(it.bytes), it.node),
            _ => format!("mostly {most}: {}", plural(chunk.len(), "node")),
        };
        svg.rect((at as f64 * width, 0.0), (width - gap, STRIP), class(most), &tip);
    }
}

fn legend(svg: &mut Svg, totals: &[(&str, (usize, u64))]) {
    let column = WIDTH / COLUMNS as f64;
    for (at, (precision, (nodes, size))) in totals.iter().take(2 * COLUMNS).enumerate() {
        let x = (at % COLUMNS) as f64 * column;
        let y = STRIP + 14.0 + 22.0 * (at / COLUMNS) as f64;
        svg.rect((x, y), (12.0, 12.0), class(precision), "");
        let text = format!("{precision} · {} · {}", plural(*nodes, "node"), bytes(*size));
        svg.text((x + 18.0, y + 10.5), Anchor::Start, "label", &text);
    }
}
