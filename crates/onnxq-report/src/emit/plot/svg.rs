//! A picture under construction: every text goes through one escaper.

use super::super::xml;
use onnxq_ir::untrusted::Untrusted;

pub(super) struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// `label` says what is seen to those who do not see it.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Svg {
        Svg { width, height, label: text(label), body: String::new() }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(unit);
        self.body +=
            &format!("<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" class=\"{class}\"/>");
    }

    /// With a text that a pointer shows, if there is one.
    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), class: &str, tip: &str) {
        let [x, y, width, height] = [at.0, at.1, size.0.max(0.0), size.1.max(0.0)].map(unit);
        let head = format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" class=\"{class}\""
        );
        self.body += &(head + &end("rect", tip));
    }

    /// Stripes in the colours of these classes, for `striped`.
    pub(super) fn stripes(&mut self, classes: &[&'static str]) {
        for class in classes {
            self.body += &format!(
                "<pattern id=\"stripes-{class}\" width=\"7\" height=\"7\" \
                 patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
                 <rect width=\"3\" height=\"7\" class=\"{class}\"/></pattern>"
            );
        }
    }

    /// A rectangle over another, which is seen between its stripes.
    pub(super) fn striped(
        &mut self,
        at: (f64, f64),
        size: (f64, f64),
        class: &'static str,
        tip: &str,
    ) {
        let [x, y, width, height] = [at.0, at.1, size.0.max(0.0), size.1.max(0.0)].map(unit);
        let head = format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
             fill=\"url(#stripes-{class})\""
        );
        self.body += &(head + &end("rect", tip));
    }

    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, class: &str, tip: &str) {
        let [x, y, r] = [at.0, at.1, radius].map(unit);
        let head = format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" class=\"{class}\"");
        self.body += &(head + &end("circle", tip));
    }

    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, raw: &str) {
        let [x, y] = [at.0, at.1].map(unit);
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let raw = text(raw);
        self.body += &format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"{class}\">{raw}</text>"
        );
    }

    /// Lines through points; `None` is a gap.
    pub(super) fn curve(
        &mut self,
        points: impl IntoIterator<Item = Option<(f64, f64)>>,
        class: &str,
    ) {
        let (mut path, mut pen_down) = (String::new(), false);
        for point in points {
            if let Some((x, y)) = point {
                path.push(if pen_down { 'L' } else { 'M' });
                path += &format!("{} {}", unit(x), unit(y));
            }
            pen_down = point.is_some();
        }
        self.body += &format!("<path d=\"{path}\" class=\"{class}\"/>");
    }

    /// What lies within these points.
    pub(super) fn area(&mut self, points: impl IntoIterator<Item = (f64, f64)>, class: &str) {
        self.curve(points.into_iter().map(Some), class);
    }

    pub(super) fn finish(self) -> String {
        let Svg { width, height, label, body } = self;
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{label}\"><title>{label}</title>\
             {body}</svg>",
            unit(width),
            unit(height),
        )
    }
}

fn end(element: &str, tip: &str) -> String {
    match tip {
        "" => "/>".to_owned(),
        tip => format!("><title>{}</title></{element}>", text(tip)),
    }
}

fn text(raw: &str) -> String {
    xml::text(&Untrusted(raw).to_string())
}

/// A tenth of a unit is less than anyone sees. What is no number stays at the origin.
fn unit(value: f64) -> String {
    let value = if value.is_finite() { (value * 10.0).round() / 10.0 } else { 0.0 };
    format!("{value}")
}
