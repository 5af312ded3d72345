//! Signal to noise of every layer, local and accumulated, along the order of execution.

use super::{
    super::number::{count, decibel},
    WIDTH,
    axes::{Axes, range},
    svg::{Anchor, Svg},
};
use crate::document::LayerError;

const HEIGHT: f64 = 320.0;
/// Points of a curve; of more layers the worst in each stretch is drawn.
const MAX: usize = 500;
/// Layers that get their rank as a mark.
const MARKED: usize = 5;

type Of = fn(&LayerError) -> Option<f64>;

pub(crate) fn plot(layers: &[LayerError]) -> Option<String> {
    let (local, accumulated): (Of, Of) = (noise, |it| it.accumulated_sqnr_db.filter(is_noise));
    let values = layers.iter().flat_map(|it| [local(it), accumulated(it)]).flatten();
    let (low, high) = range(values)?;
    let pad = ((high - low) * 0.08).max(1.0);
    let axes = Axes {
        top: 34.0,
        ..Axes::new(HEIGHT, (1.0, layers.len() as f64), (low - pad, high + pad))
    };
    let label = format!(
        "Signal to noise of {} layers, from {} to {}",
        count(layers.len()),
        decibel(low),
        decibel(high)
    );
    let mut svg = Svg::new(WIDTH, HEIGHT, &label);
    axes.draw_y(&mut svg, "dB");
    axes.draw_x(&mut svg, "layers in the order of execution");
    legend(&mut svg, &axes);
    curve(&mut svg, &axes, layers, accumulated, "line2");
    curve(&mut svg, &axes, layers, local, "line1");
    dots(&mut svg, &axes, layers);
    Some(svg.finish())
}

fn noise(it: &LayerError) -> Option<f64> {
    it.local_sqnr_db.filter(is_noise)
}

/// What float32 rounds is as good as exact, and would flatten everything else.
fn is_noise(db: &f64) -> bool {
    *db < 100.0
}

fn legend(svg: &mut Svg, axes: &Axes) {
    let mut x = axes.right - 300.0;
    for (class, text) in [("line1", "local error"), ("line2", "accumulated error")] {
        svg.line((x, 16.0), (x + 26.0, 16.0), class);
        svg.text((x + 34.0, 20.0), Anchor::Start, "label", text);
        x += 140.0;
    }
}

/// Exact values have no finite ratio: a gap.
fn curve(svg: &mut Svg, axes: &Axes, layers: &[LayerError], of: Of, class: &str) {
    let stretch = layers.len().div_ceil(MAX).max(1);
    let points = layers.chunks(stretch).enumerate().map(|(chunk, layers)| {
        let worst = layers.iter().enumerate().filter_map(|(at, it)| Some((at, of(it)?)));
        let (at, value) = worst.min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(axes.at((chunk * stretch + at + 1) as f64, value))
    });
    svg.curve(points.collect::<Vec<_>>(), class);
}

/// A point to hover over for each layer, if they are few, and marks of the worst.
fn dots(svg: &mut Svg, axes: &Axes, layers: &[LayerError]) {
    for (at, it) in layers.iter().enumerate() {
        let is_marked = (1..=MARKED).contains(&it.rank);
        let value = match noise(it) {
            Some(local) if is_marked || layers.len() <= MAX => local,
            // Exact by itself, and yet it hurts: by what it got.
            None if is_marked => it.accumulated_sqnr_db.unwrap_or(axes.y.1),
            _ => continue,
        };
        let place = axes.at((at + 1) as f64, value);
        let tip = format!("{}: {}", it.node, decibel(value));
        let (radius, class) = if is_marked { (5.0, "fill3") } else { (2.5, "fill1") };
        svg.dot(place, radius, class, &tip);
        if is_marked {
            let beside = (place.0 + 9.0, place.1 + 4.5);
            svg.text(beside, Anchor::Start, "mark", &it.rank.to_string());
        }
    }
}
