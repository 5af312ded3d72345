//! How numbers are spread, and where a quantized range ends.

use super::{
    super::number::{number, percent},
    axes::{Axes, range},
    svg::{Anchor, Svg},
};
use crate::document::Spread;

/// Two fit beside each other.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 200.0;
/// Bars that are drawn: a report may have been edited.
const MOST: usize = 400;

/// Heights are logarithms: what is rare lies at the ends, where ranges clip. `None` if it is empty.
pub(crate) fn plot(spread: &Spread) -> Option<String> {
    let (edges, counts) = (&spread.histogram.edges, &spread.histogram.counts);
    let highest = counts.iter().copied().max().filter(|it| *it > 0)?;
    if edges.len() != counts.len() + 1 || counts.len() > MOST {
        return None;
    }
    let powers = (highest as f64).log10() + 1.0;
    let span = range(edges.iter().copied()).filter(|it| it.1 > it.0)?;
    let axes = Axes {
        left: 54.0,
        right: WIDTH - 14.0,
        top: 26.0,
        bottom: HEIGHT - 40.0,
        x: span,
        y: (0.0, powers),
    };
    let mut svg = Svg::new(WIDTH, HEIGHT, &label(spread));
    heights(&mut svg, &axes, powers);
    bars(&mut svg, &axes, edges, counts);
    axes.draw_x(&mut svg, if spread.unit == "grid" { "place on the grid" } else { "value" });
    ends(&mut svg, &axes, spread);
    Some(svg.finish())
}

fn label(spread: &Spread) -> String {
    let outside = spread.outside.map_or(String::new(), |it| format!("; {} outside", percent(it)));
    let range = spread.holds.map_or(String::new(), |it| {
        format!("; the range is {} to {}", number(it.low), number(it.high))
    });
    format!("Histogram of {}{range}{outside}", spread.name)
}

/// Lines across at 1, 10, 100, …: a single number is as high as one of these steps.
fn heights(svg: &mut Svg, axes: &Axes, powers: f64) {
    let every = (powers / 5.0).ceil().max(1.0) as usize;
    for power in (0..powers.floor() as usize).step_by(every) {
        let y = axes.y(power as f64 + 1.0);
        svg.line((axes.left, y), (axes.right, y), "grid");
        let text =
            if power < 4 { 10u32.pow(power as u32).to_string() } else { format!("1e{power}") };
        svg.text((axes.left - 6.0, y + 4.0), Anchor::End, "tick", &text);
    }
    svg.text((8.0, 12.0), Anchor::Start, "label", "numbers");
}

fn bars(svg: &mut Svg, axes: &Axes, edges: &[f64], counts: &[u64]) {
    let mut points = vec![(axes.left, axes.bottom)];
    for (at, count) in counts.iter().enumerate() {
        let height = if *count > 0 { (*count as f64).log10() + 1.0 } else { 0.0 };
        points.push(axes.at(edges[at], height));
        points.push(axes.at(edges[at + 1], height));
    }
    points.push((axes.right, axes.bottom));
    svg.area(points, "fill1");
}

/// Where quantized numbers end.
fn ends(svg: &mut Svg, axes: &Axes, spread: &Spread) {
    let Some(holds) = spread.holds else { return };
    for end in [holds.low, holds.high] {
        let x = axes.x(end);
        svg.line((x, axes.top - 8.0), (x, axes.bottom), "end");
    }
}
