//! What the bytes of both models hold: two bars on one scale.

use super::{
    WIDTH,
    precision::class,
    svg::{Anchor, Svg},
};
use crate::document::{ModelFacts, Models};
use onnxq_ir::human::bytes;

const LEFT: f64 = 84.0;
const BAR: f64 = 34.0;
const PITCH: f64 = 50.0;

pub(crate) fn plot(models: &Models) -> Option<String> {
    let sides = [("original", &models.reference), ("quantized", &models.candidate)];
    if sides.iter().all(|it| it.1.weights.is_empty()) {
        return None;
    }
    let total = |it: &ModelFacts| parts(it).iter().map(|it| it.1).sum::<f64>();
    let largest = sides.iter().map(|it| total(it.1)).fold(1.0, f64::max);
    let words = sides.map(|(side, it)| format!("{side} {}", bytes(total(it) as u64)));
    let height = 2.0 * PITCH + 22.0;
    let mut svg = Svg::new(WIDTH, height, &format!("Size: {}", words.join(", ")));
    let scale = (WIDTH - LEFT - 90.0) / largest;
    for (row, (side, it)) in sides.iter().enumerate() {
        bar(&mut svg, row as f64 * PITCH, side, it, scale);
    }
    legend(&mut svg, models, 2.0 * PITCH + 4.0);
    Some(svg.finish())
}

fn bar(svg: &mut Svg, top: f64, side: &str, model: &ModelFacts, scale: f64) {
    svg.text((LEFT - 10.0, top + BAR / 2.0 + 4.0), Anchor::End, "label", side);
    let (mut x, mut total) = (LEFT, 0.0);
    for (kind, size) in parts(model) {
        let tip = format!("{side}, {kind}: {}", bytes(size as u64));
        svg.rect((x, top), (size * scale, BAR), class(&kind), &tip);
        x += size * scale;
        total += size;
    }
    svg.text((x + 8.0, top + BAR / 2.0 + 4.0), Anchor::Start, "label", &bytes(total as u64));
}

/// The kinds of weights, and what else the files hold.
fn parts(model: &ModelFacts) -> Vec<(String, f64)> {
    const MAX: usize = 40;
    let kinds = model.weights.iter().take(MAX).map(|it| (it.kind.clone(), it.bytes as f64));
    let mut list: Vec<_> = kinds.collect();
    let rest = model.bytes as f64 - list.iter().map(|it| it.1).sum::<f64>();
    if rest > 0.0 {
        list.push(("graph and names".to_owned(), rest));
    }
    list
}

fn legend(svg: &mut Svg, models: &Models, y: f64) {
    let mut kinds: Vec<String> = Vec::new();
    for (kind, _) in parts(&models.reference).into_iter().chain(parts(&models.candidate)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut x = LEFT;
    for kind in kinds.iter().take(5) {
        svg.rect((x, y), (12.0, 12.0), class(kind), "");
        svg.text((x + 18.0, y + 10.5), Anchor::Start, "label", kind);
        x += 38.0 + 7.0 * kind.chars().count().min(16) as f64;
    }
}
