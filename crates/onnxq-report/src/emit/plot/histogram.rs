//! How many tokens have which KL.

use super::{
    super::number::number,
    WIDTH,
    axes::Axes,
    svg::{Anchor, Svg},
};
use crate::Histogram;
use onnxq_ir::human::grouped;

const HEIGHT: f64 = 250.0;

/// Bars of one width, whatever their edges: those of a KL are powers. `None` if it is empty.
pub(crate) fn plot(it: &Histogram) -> Option<String> {
    let highest = *it.counts.iter().max()?;
    if highest == 0 || it.edges.len() != it.counts.len() + 1 {
        return None;
    }
    let bins = it.counts.len();
    let axes = Axes::new(HEIGHT, (0.0, bins as f64), (0.0, highest as f64));
    let label = format!("Histogram of KL in {bins} bins; the highest holds {}", grouped(highest));
    let mut svg = Svg::new(WIDTH, HEIGHT, &label);
    axes.draw_y(&mut svg, "tokens");
    for (at, count) in it.counts.iter().enumerate().filter(|it| *it.1 > 0) {
        bar(&mut svg, &axes, it, at, *count);
    }
    svg.line((axes.left, axes.bottom), (axes.right, axes.bottom), "axis");
    let every = bins.div_ceil(8);
    for (at, edge) in it.edges.iter().enumerate().step_by(every) {
        let x = axes.x(at as f64);
        svg.line((x, axes.bottom), (x, axes.bottom + 4.0), "axis");
        svg.text((x, axes.bottom + 17.0), Anchor::Middle, "tick", &short(*edge));
    }
    axes.name_x(&mut svg, "KL divergence, nats");
    Some(svg.finish())
}

fn bar(svg: &mut Svg, axes: &Axes, it: &Histogram, at: usize, count: u64) {
    let (left, right) = (axes.x(at as f64), axes.x(at as f64 + 1.0));
    // Even a single token shows.
    let top = axes.y(count as f64).min(axes.bottom - 1.5);
    let gap = if right - left > 4.0 { 1.0 } else { 0.0 };
    let (low, high) = (number(it.edges[at]), number(it.edges[at + 1]));
    let tip = format!("{low} … {high}: {}", grouped(count));
    svg.rect((left + gap / 2.0, top), (right - left - gap, axes.bottom - top), "fill1", &tip);
}

/// `1e-6`, `0.01`: edges are round.
fn short(edge: f64) -> String {
    if edge == 0.0 || (1e-3..1e4).contains(&edge.abs()) {
        let text = format!("{edge:.4}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let text = format!("{edge:.1e}");
    text.replace(".0e", "e")
}
