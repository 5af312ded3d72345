//! Every timed run of both models, as dots along one scale.

use super::{
    super::number::milliseconds,
    WIDTH,
    axes::{Axes, range},
    svg::{Anchor, Svg},
};
use crate::{Latency, summary::percentile};

const HEIGHT: f64 = 150.0;
/// Dots of a row.
const MAX: usize = 300;

pub(crate) fn plot(it: &Latency) -> Option<String> {
    let rows =
        [("original", &it.reference_runs_ms, "2"), ("quantized", &it.candidate_runs_ms, "1")];
    let (low, high) = range(rows.iter().flat_map(|it| it.1.iter().copied()))?;
    let pad = ((high - low) * 0.05).max(high.abs() * 0.01).max(1e-6);
    // From zero the ratio is seen; times that are close need the room.
    let from = if low < 0.8 * high { 0.0 } else { low - pad };
    let axes = Axes { left: 84.0, ..Axes::new(HEIGHT, (from, high + pad), (0.0, 1.0)) };
    let medians = [it.reference_ms, it.candidate_ms].map(|it| it.map_or("–".into(), milliseconds));
    let label = format!("Runs of both models; medians {} and {}", medians[0], medians[1]);
    let mut svg = Svg::new(WIDTH, HEIGHT, &label);
    axes.draw_x(&mut svg, "milliseconds");
    for (at, (side, runs, color)) in rows.iter().enumerate() {
        row(&mut svg, &axes, 26.0 + 48.0 * at as f64, (side, runs, color));
    }
    Some(svg.finish())
}

fn row(svg: &mut Svg, axes: &Axes, y: f64, (side, runs, color): (&str, &[f64], &str)) {
    svg.text((axes.left - 10.0, y + 4.0), Anchor::End, "label", side);
    let mut sorted: Vec<f32> = runs.iter().map(|it| *it as f32).collect();
    sorted.retain(|it| it.is_finite());
    sorted.sort_unstable_by(f32::total_cmp);
    if sorted.is_empty() {
        return;
    }
    let (p10, p90) = (axes.x(percentile(&sorted, 0.1)), axes.x(percentile(&sorted, 0.9)));
    svg.rect(
        (p10, y - 13.0),
        (p90 - p10, 26.0),
        &format!("soft{color}"),
        "10 % … 90 % of the runs",
    );
    let every = runs.len().div_ceil(MAX).max(1);
    for (at, it) in runs.iter().enumerate().step_by(every) {
        // Dots of equal times lie beside each other.
        let jitter = [0.0, -6.0, 6.0, -3.0, 3.0][at % 5];
        svg.dot((axes.x(*it), y + jitter), 2.6, &format!("dot{color}"), &milliseconds(*it));
    }
    let x = axes.x(percentile(&sorted, 0.5));
    svg.line((x, y - 17.0), (x, y + 17.0), &format!("median{color}"));
}
