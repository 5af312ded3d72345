//! A strip of all nodes with weights: the colour is what they compute in, stripes what they are
//! stored as.

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
const COLUMNS: usize = 2;

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

/// What a node computes in and what its weight is stored as: the same where nothing else is known.
type Kind<'a> = (&'a str, &'a str);

fn kind(row: &PrecisionRow) -> Kind<'_> {
    (row.computes.as_deref().unwrap_or(&row.precision), &row.precision)
}

fn named((computes, stored): Kind) -> String {
    if computes == stored {
        return stored.to_owned();
    }
    format!("{computes}, stored as {stored}")
}

pub(crate) fn plot(rows: &[PrecisionRow]) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let totals = totals(rows);
    let lines = totals.len().min(4 * COLUMNS).div_ceil(COLUMNS);
    let height = STRIP + 14.0 + 22.0 * lines as f64;
    let words: Vec<String> =
        totals.iter().map(|it| format!("{}: {}", named(it.0), plural(it.1.0, "node"))).collect();
    let mut svg = Svg::new(WIDTH, height, &format!("Precision of nodes. {}", words.join(", ")));
    svg.stripes(&stripes(&totals));
    strip(&mut svg, rows);
    legend(&mut svg, &totals);
    Some(svg.finish())
}

/// The colours that stripes are needed of.
fn stripes(totals: &[(Kind, (usize, u64))]) -> Vec<&'static str> {
    let differing = totals.iter().filter(|it| class(it.0.0) != class(it.0.1));
    let mut list: Vec<&str> = differing.map(|it| class(it.0.1)).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Of each kind: nodes and bytes; most bytes first.
fn totals(rows: &[PrecisionRow]) -> Vec<(Kind<'_>, (usize, u64))> {
    let mut map: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for it in rows {
        let total = map.entry(kind(it)).or_default();
        *total = (total.0 + 1, total.1.saturating_add(it.bytes));
    }
    let mut list: Vec<_> = map.into_iter().collect();
    list.sort_by_key(|it| std::cmp::Reverse(it.1.1));
    list
}

/// The colour of what it computes in, with stripes of what it is stored as.
fn patch(svg: &mut Svg, at: (f64, f64), size: (f64, f64), (computes, stored): Kind, tip: &str) {
    svg.rect(at, size, class(computes), tip);
    if class(computes) != class(stored) {
        svg.striped(at, size, class(stored), tip);
    }
}

fn strip(svg: &mut Svg, rows: &[PrecisionRow]) {
    let stretch = rows.len().div_ceil(MAX).max(1);
    let cells = rows.len().div_ceil(stretch);
    let width = WIDTH / cells as f64;
    let gap = if width > 5.0 { 1.0 } else { 0.0 };
    for (at, chunk) in rows.chunks(stretch).enumerate() {
        let most = totals(chunk)[0].0;
        let tip = match chunk {
            [it] => format!("{}: {}, {}", it.node, named(most), bytes(it.bytes)),
            _ => format!("mostly {}: {}", named(most), plural(chunk.len(), "node")),
        };
        patch(svg, (at as f64 * width, 0.0), (width - gap, STRIP), most, &tip);
    }
}

fn legend(svg: &mut Svg, totals: &[(Kind, (usize, u64))]) {
    let column = WIDTH / COLUMNS as f64;
    for (at, (kind, (nodes, size))) in totals.iter().take(4 * COLUMNS).enumerate() {
        let x = (at % COLUMNS) as f64 * column;
        let y = STRIP + 14.0 + 22.0 * (at / COLUMNS) as f64;
        patch(svg, (x, y), (12.0, 12.0), *kind, "");
        let text = format!("{} · {} · {}", named(*kind), plural(*nodes, "node"), bytes(*size));
        svg.text((x + 18.0, y + 10.5), Anchor::Start, "label", &text);
    }
}
