//! The error along a sequence.

use super::{
    super::number::number,
    WIDTH,
    axes::{Axes, range},
    svg::Svg,
};
use crate::PositionBin;
use onnxq_ir::human::grouped;

const HEIGHT: f64 = 236.0;
/// More bins than this are not told apart.
const MAX: usize = 400;

/// `None` unless a KL was measured somewhere.
pub(crate) fn plot(bins: &[PositionBin], what: &str) -> Option<String> {
    let every = bins.len().div_ceil(MAX).max(1);
    let bins: Vec<&PositionBin> = bins.iter().step_by(every).collect();
    let (_, highest) = range(bins.iter().filter_map(|it| it.kl))?;
    let end = bins.iter().map(|it| it.to).max()?;
    let highest = if highest > 0.0 { highest * 1.05 } else { 1.0 };
    let axes = Axes::new(HEIGHT, (0.0, end as f64), (0.0, highest));
    let mut svg = Svg::new(WIDTH, HEIGHT, &format!("Mean KL by {what}, from 0 to {end}"));
    axes.draw_y(&mut svg, "mean KL, nats");
    axes.draw_x(&mut svg, what);
    let points = bins.iter().map(|it| Some(axes.at(middle(it), it.kl?)));
    svg.curve(points.collect::<Vec<_>>(), "line1");
    for it in &bins {
        let Some(kl) = it.kl else { continue };
        let (from, to) = (grouped(it.from as u64), grouped(it.to as u64));
        svg.dot(axes.at(middle(it), kl), 3.0, "fill1", &format!("{from} … {to}: {}", number(kl)));
    }
    Some(svg.finish())
}

fn middle(it: &PositionBin) -> f64 {
    (it.from as f64 + it.to as f64) / 2.0
}
