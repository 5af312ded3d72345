//! Signal to noise of every layer, local and accumulated, along the order of execution.

use super::{
    super::{
        number::{count, decibel},
        page::tail,
    },
    WIDTH,
    axes::{Axes, range},
    svg::{Anchor, Svg},
};
use crate::document::LayerError;

const HEIGHT: f64 = 340.0;
/// Points of a curve; of more layers the worst in each stretch is drawn.
const MAX: usize = 500;
/// Layers that get their rank as a mark, and their name below.
const MARKED: usize = 6;
const LINE: f64 = 20.0;
/// Characters of a name: half of the picture.
const NAME: usize = 46;

type Of = fn(&LayerError) -> Option<f64>;

pub(crate) fn plot(layers: &[LayerError]) -> Option<String> {
    let (local, accumulated): (Of, Of) = (noise, |it| it.accumulated_sqnr_db.filter(is_noise));
    let values = layers.iter().flat_map(|it| [local(it), accumulated(it)]).flatten();
    let (low, high) = range(values)?;
    let pad = ((high - low) * 0.08).max(1.0);
    let x = (0.5, layers.len() as f64 + 0.5);
    let axes = Axes { top: 44.0, ..Axes::new(HEIGHT, x, (low - pad, high + pad)) };
    let label = format!(
        "Signal to noise of {} layers, from {} to {}",
        count(layers.len()),
        decibel(low),
        decibel(high)
    );
    let mut marked: Vec<(usize, &LayerError)> =
        layers.iter().enumerate().filter(|it| is_marked(it.1)).collect();
    marked.sort_by_key(|it| it.1.rank);
    let height = HEIGHT + 14.0 + LINE * marked.len().div_ceil(2) as f64;
    let mut svg = Svg::new(WIDTH, height, &label);
    axes.draw_y(&mut svg, "signal to noise, dB");
    place_names(&mut svg, &axes, layers);
    legend(&mut svg, &axes);
    curve(&mut svg, &axes, layers, accumulated, "line2");
    // Local errors have nothing to do with their neighbours': dots, as long as they can be told apart.
    if layers.len() > MAX {
        curve(&mut svg, &axes, layers, local, "line1");
    }
    dots(&mut svg, &axes, layers);
    names(&mut svg, &marked);
    Some(svg.finish())
}

fn is_marked(layer: &LayerError) -> bool {
    (1..=MARKED).contains(&layer.rank)
}

fn noise(it: &LayerError) -> Option<f64> {
    it.local_sqnr_db.filter(is_noise)
}

/// What float32 rounds is as good as exact, and would flatten everything else.
fn is_noise(db: &f64) -> bool {
    *db < 100.0
}

fn legend(svg: &mut Svg, axes: &Axes) {
    let x = axes.right - 300.0;
    svg.dot((x + 20.0, 16.0), 3.5, "fill1", "");
    svg.text((x + 34.0, 20.0), Anchor::Start, "label", "local error");
    svg.line((x + 140.0, 16.0), (x + 166.0, 16.0), "line2");
    svg.text((x + 174.0, 20.0), Anchor::Start, "label", "accumulated error");
}

/// Below the axis: where each block of the model begins, if names number them; else plain numbers.
fn place_names(svg: &mut Svg, axes: &Axes, layers: &[LayerError]) {
    let Some(starts) = blocks(layers) else {
        return axes.draw_x(svg, "layers in the order of execution");
    };
    svg.line((axes.left, axes.bottom), (axes.right, axes.bottom), "axis");
    let every = starts.len().div_ceil(20);
    for (at, block) in starts.iter().step_by(every) {
        let x = axes.x(*at as f64 + 0.5);
        svg.line((x, axes.top), (x, axes.bottom + 4.0), "grid");
        svg.text((x + 3.0, axes.bottom + 17.0), Anchor::Start, "tick", &format!("block {block}"));
    }
    axes.name_x(svg, "layers in the order of execution");
}

/// The first layer of each block. `None` if there are fewer than two, or they are mixed.
fn blocks(layers: &[LayerError]) -> Option<Vec<(usize, u32)>> {
    let mut starts: Vec<(usize, u32)> = Vec::new();
    for (at, it) in layers.iter().enumerate() {
        let Some(block) = block_of(&it.node) else { continue };
        match starts.last() {
            Some((_, last)) if *last == block => {}
            Some((_, last)) if *last > block => return None,
            _ => starts.push((at, block)),
        }
    }
    (starts.len() > 1).then_some(starts)
}

/// `3` of `/model/layers.3/mlp/MatMul`.
fn block_of(name: &str) -> Option<u32> {
    const WORDS: [&str; 6] = ["layers", "layer", "blocks", "block", "h", "stages"];
    let mut parts = name.split(['/', '.', '_']);
    parts.find(|it| WORDS.contains(it))?;
    parts.next()?.parse().ok()
}

/// Exact values have no finite ratio: the line goes on behind them.
fn curve(svg: &mut Svg, axes: &Axes, layers: &[LayerError], of: Of, class: &str) {
    let stretch = layers.len().div_ceil(MAX).max(1);
    let points = layers.chunks(stretch).enumerate().filter_map(|(chunk, layers)| {
        let worst = layers.iter().enumerate().filter_map(|(at, it)| Some((at, of(it)?)));
        let (at, value) = worst.min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Some(axes.at((chunk * stretch + at + 1) as f64, value)))
    });
    svg.curve(points.collect::<Vec<_>>(), class);
}

/// A dot for each layer, if they are few, marks of the worst, and a name wherever the pointer is.
fn dots(svg: &mut Svg, axes: &Axes, layers: &[LayerError]) {
    let few = layers.len() <= MAX;
    for (at, it) in layers.iter().enumerate() {
        let is_marked = is_marked(it);
        let value = match noise(it) {
            Some(local) if is_marked || few => Some(local),
            // Exact by itself, and yet it hurts: by what it got.
            None if is_marked => Some(it.accumulated_sqnr_db.unwrap_or(axes.y.1)),
            _ => None,
        };
        if let Some(value) = value {
            let place = axes.at((at + 1) as f64, value);
            let (radius, class) = if is_marked { (5.0, "fill3") } else { (3.0, "fill1") };
            svg.dot(place, radius, class, &tip(at, it));
            if is_marked {
                let beside = (place.0 + 9.0, place.1 + 4.5);
                svg.text(beside, Anchor::Start, "mark", &it.rank.to_string());
            }
        }
        if few {
            let left = axes.x(at as f64 + 0.5);
            let size = (axes.x(at as f64 + 1.5) - left, axes.bottom - axes.top);
            svg.rect((left, axes.top), size, "hit", &tip(at, it));
        }
    }
}

fn tip(at: usize, layer: &LayerError) -> String {
    let db = |it: Option<f64>| it.map_or("exact".to_owned(), decibel);
    let (local, accumulated) = (db(layer.local_sqnr_db), db(layer.accumulated_sqnr_db));
    format!("{}. {}: local {local}, accumulated {accumulated}", at + 1, layer.node)
}

/// The names of the marked ones, in two columns.
fn names(svg: &mut Svg, marked: &[(usize, &LayerError)]) {
    let lines = marked.len().div_ceil(2);
    for (at, (_, it)) in marked.iter().enumerate() {
        let x = 24.0 + (at / lines) as f64 * WIDTH / 2.0;
        let y = HEIGHT + 14.0 + (at % lines) as f64 * LINE;
        let db = noise(it).map_or("exact".to_owned(), decibel);
        svg.text((x, y), Anchor::End, "mark", &it.rank.to_string());
        let text = format!("{}, local {db}", tail(&it.node, NAME));
        svg.text((x + 8.0, y), Anchor::Start, "label", &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_from_names() {
        assert_eq!(block_of("/model/layers.12/mlp/MatMul"), Some(12));
        assert_eq!(block_of("/encoder/layer.3/output"), Some(3));
        assert_eq!(block_of("p2o.Conv.24"), None);
        let layers = |names: &[&str]| -> Vec<LayerError> {
            let layer = |it: &&str| LayerError { node: (*it).into(), ..LayerError::default() };
            names.iter().map(layer).collect()
        };
        let found = blocks(&layers(&["embed", "layers.0/a", "norm", "layers.0/b", "layers.1/a"]));
        assert_eq!(found, Some(vec![(1, 0), (4, 1)]));
        assert_eq!(blocks(&layers(&["layers.1/a", "layers.0/a"])), None);
        assert_eq!(blocks(&layers(&["layers.1/a", "head"])), None);
    }
}
