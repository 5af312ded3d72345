//! How many tokens have which KL.

use super::{
    super::number::number,
    WIDTH,
    axes::Axes,
    svg::{Anchor, Svg},
};
use crate::Histogram;
use onnxq_ir::human::grouped;

const HEIGHT: f64 = 260.0;
/// Bars that can be told apart.
const MOST: usize = 40;

/// Bars of one width, whatever their edges: those of a KL are powers. `None` if it is empty.
pub(crate) fn plot(it: &Histogram) -> Option<String> {
    if it.edges.len() != it.counts.len() + 1 {
        return None;
    }
    let shown = &used(it)?;
    let highest = *shown.counts.iter().max()?;
    let bins = shown.counts.len();
    let axes = Axes::new(HEIGHT, (0.0, bins as f64), (0.0, highest as f64));
    let label = format!("Histogram of KL in {bins} bins; the highest holds {}", grouped(highest));
    let mut svg = Svg::new(WIDTH, HEIGHT, &label);
    axes.draw_y(&mut svg, "tokens");
    for (at, count) in shown.counts.iter().enumerate().filter(|it| *it.1 > 0) {
        bar(&mut svg, &axes, shown, at, *count);
    }
    svg.line((axes.left, axes.bottom), (axes.right, axes.bottom), "axis");
    for at in ticks(&shown.edges) {
        let x = axes.x(at as f64);
        svg.line((x, axes.bottom), (x, axes.bottom + 4.0), "axis");
        svg.text((x, axes.bottom + 17.0), Anchor::Middle, "tick", &short(shown.edges[at]));
    }
    axes.name_x(&mut svg, "KL divergence, nats");
    Some(svg.finish())
}

/// The bins from the first to the last that hold something, joined if they are many.
fn used(all: &Histogram) -> Option<Histogram> {
    let mut first = all.counts.iter().position(|it| *it > 0)?;
    let mut last = all.counts.iter().rposition(|it| *it > 0)?;
    // Between two powers of ten at least: they are what an axis is read by.
    if (first..=last + 1).filter(|at| is_round(all.edges[*at])).count() < 2 {
        first = (0..=first).rev().find(|at| is_round(all.edges[*at])).unwrap_or(first);
        last = (last..all.counts.len()).find(|at| is_round(all.edges[at + 1])).unwrap_or(last);
    }
    // Powers of two, so that a decade stays a whole number of bins.
    let mut join = 1;
    while (last + 1 - first / join * join).div_ceil(join) > MOST {
        join *= 2;
    }
    let (from, to) = (first / join * join, (last + 1).next_multiple_of(join).min(all.counts.len()));
    let counts: Vec<u64> = all.counts[from..to]
        .chunks(join)
        .map(|it| it.iter().fold(0, |sum: u64, it| sum.saturating_add(*it)))
        .collect();
    let mut edges: Vec<f64> = all.edges[from..to].iter().copied().step_by(join).collect();
    edges.push(all.edges[to]);
    Some(Histogram { edges, counts })
}

/// Edges that get a number: powers of ten if there are some, else a few.
fn ticks(edges: &[f64]) -> Vec<usize> {
    let round: Vec<usize> = (0..edges.len()).filter(|it| is_round(edges[*it])).collect();
    if round.len() > 1 {
        return round;
    }
    let every = edges.len().div_ceil(8).max(1);
    (0..edges.len()).step_by(every).collect()
}

fn is_round(edge: f64) -> bool {
    (edge.log10() - edge.log10().round()).abs() < 1e-6
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_ends_are_left_out_and_many_bins_joined() {
        let edges: Vec<f64> = (0..=80).map(|it| 10f64.powf(f64::from(it) / 8.0 - 8.0)).collect();
        let mut counts = vec![0; 80];
        counts[33] = 5;
        counts[43] = 2;
        let few = used(&Histogram { edges: edges.clone(), counts: counts.clone() }).unwrap();
        // From 1e-4 to 0.01: only 0.001 lies between what the bins hold.
        assert_eq!((few.counts.len(), few.counts[1], few.counts[11]), (16, 5, 2));
        assert_eq!(ticks(&few.edges), [0, 8, 16]);
        counts[0] = 1;
        let many = used(&Histogram { edges, counts }).unwrap();
        assert_eq!((many.counts.len(), many.edges.len()), (22, 23));
        assert_eq!(many.counts.iter().sum::<u64>(), 8);
        let labels: Vec<String> =
            ticks(&many.edges).iter().map(|it| short(many.edges[*it])).collect();
        assert_eq!(labels, ["1e-8", "1e-7", "1e-6", "1e-5", "1e-4", "0.001"]);
    }
}
