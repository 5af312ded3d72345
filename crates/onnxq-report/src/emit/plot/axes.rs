//! A frame for numbers: where they lie, and lines to read them by.

use super::{
    super::number::number,
    WIDTH,
    svg::{Anchor, Svg},
};

/// A rectangle of the picture, and the numbers that it spans.
pub(super) struct Axes {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    pub x: (f64, f64),
    pub y: (f64, f64),
}

impl Axes {
    /// The usual room for labels at the left and below.
    pub(super) fn new(height: f64, x: (f64, f64), y: (f64, f64)) -> Axes {
        let (left, right, top, bottom) = (64.0, WIDTH - 24.0, 30.0, height - 40.0);
        Axes { left, right, top, bottom, x, y }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        place(value, self.x, (self.left, self.right))
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        place(value, self.y, (self.bottom, self.top))
    }

    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x(x), self.y(y))
    }

    /// Lines across, with their numbers at the left.
    pub(super) fn draw_y(&self, svg: &mut Svg, label: &str) {
        for value in ticks(self.y) {
            let y = self.y(value);
            svg.line((self.left, y), (self.right, y), "grid");
            svg.text((self.left - 8.0, y + 4.0), Anchor::End, "tick", &tick(value));
        }
        // Above the lines, so that none crosses it.
        svg.text((8.0, self.top - 14.0), Anchor::Start, "label", label);
    }

    /// Numbers below.
    pub(super) fn draw_x(&self, svg: &mut Svg, label: &str) {
        svg.line((self.left, self.bottom), (self.right, self.bottom), "axis");
        for value in ticks(self.x) {
            let x = self.x(value);
            svg.line((x, self.bottom), (x, self.bottom + 4.0), "axis");
            svg.text((x, self.bottom + 17.0), Anchor::Middle, "tick", &tick(value));
        }
        self.name_x(svg, label);
    }

    pub(super) fn name_x(&self, svg: &mut Svg, label: &str) {
        let middle = (self.left + self.right) / 2.0;
        svg.text((middle, self.bottom + 35.0), Anchor::Middle, "label", label);
    }
}

fn place(value: f64, from: (f64, f64), to: (f64, f64)) -> f64 {
    let span = from.1 - from.0;
    let share = if span > 0.0 { ((value - from.0) / span).clamp(0.0, 1.0) } else { 0.5 };
    to.0 + share * (to.1 - to.0)
}

/// Round numbers within a range, some four to seven of them.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) {
        return vec![low];
    }
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|it| it * power);
    let step = step.into_iter().find(|it| *it >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let values = (first..first.saturating_add(12)).map(|it| it as f64 * step);
    values.take_while(|it| *it <= high + step * 1e-9).collect()
}

/// A round number needs few digits.
fn tick(value: f64) -> String {
    let text = number(value);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// The finite ones' least and largest.
pub(super) fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|it| it.is_finite()).fold(None, |range, it| {
        let (low, high) = range.unwrap_or((it, it));
        Some((low.min(it), high.max(it)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks((0.0, 10.0)), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((13.0, 57.0)), [20.0, 30.0, 40.0, 50.0]);
        assert_eq!(ticks((3.0, 3.0)), [3.0]);
        for range in [(0.0, 1e-12), (-1e12, 1e12), (0.0, f64::MAX), (1.0, 1.0 + f64::EPSILON)] {
            assert!(ticks(range).len() <= 12, "{range:?}");
        }
        assert_eq!([0.5, 20.0, 1500.0].map(tick), ["0.5", "20", "1,500"]);
    }
}
