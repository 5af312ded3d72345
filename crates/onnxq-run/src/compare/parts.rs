//! Figures of the parts of an output: sums for each channel, put together at the end.

use std::{collections::BTreeMap, ops::Range};

use pulp::Arch;

use super::{metrics::Errors, splits::Split};
use onnxq_report::{
    figures::{OutputMetrics, PartOf, Role},
    summary::finite,
};

/// Longer axes are places, not quantities.
const LONGEST: usize = 512;
/// Neighbours whose rms values differ by so many times are different quantities.
const UNLIKE: f64 = 30.0;
/// The sides of a picture are at least so many times as long as its channels are many.
const SIDES: usize = 2;
/// More groups are a slope, not quantities.
const MOST_GROUPS: usize = 8;

/// The sums along the axes of one output that may hold several quantities.
#[derive(Default)]
pub(super) struct Parts {
    /// What the graph joins; empty: whatever differs in magnitude.
    splits: Vec<Split>,
    axes: Vec<Channels>,
    samples: usize,
}

struct Channels {
    axis: usize,
    sums: Vec<Errors>,
    /// It has another size in another batch.
    is_broken: bool,
}

/// Whether outputs of a role may join several quantities.
fn may_join(role: Role, splits: &[Split]) -> bool {
    match role {
        Role::Values | Role::Image => true,
        Role::Classes => !splits.is_empty(),
        _ => false,
    }
}

/// The axes along which the channels of an output may lie, where the graph does not say.
fn channel_axes(role: Role, shape: &[usize]) -> Vec<usize> {
    let Some((last, own)) = shape.len().checked_sub(1).zip(shape.get(1..)) else {
        return Vec::new();
    };
    if role != Role::Image {
        return vec![1, last];
    }
    // A picture's margins are no quantity: of its axes, one much shorter than its sides is that of
    // the channels.
    let is_short = |at: &usize| {
        let others = own.iter().enumerate().filter(|it| it.0 + 1 != *at);
        others.map(|it| it.1).all(|side| shape[*at] * SIDES <= *side)
    };
    [1, last].into_iter().filter(is_short).collect()
}

impl Parts {
    /// For an output of that shape, of which the graph says `splits`.
    pub(super) fn new(role: Role, shape: &[usize], splits: &[Split]) -> Parts {
        if !may_join(role, splits) {
            return Parts::default();
        }
        let fits =
            |it: &&Split| shape.get(it.axis) == it.ranges().last().map(|it| it.1.end).as_ref();
        let splits: Vec<Split> = splits.iter().filter(fits).cloned().collect();
        let mut axes: Vec<usize> = match splits.is_empty() {
            true => channel_axes(role, shape),
            false => splits.iter().map(|it| it.axis).collect(),
        };
        axes.dedup();
        let known = !splits.is_empty();
        axes.retain(|at| {
            shape.get(*at).is_some_and(|size| *size > 1 && (known || *size <= LONGEST)) && *at > 0
        });
        let channels = |axis: usize| {
            let sums = vec![Errors::default(); shape[axis]];
            Channels { axis, sums, is_broken: false }
        };
        Parts { splits, axes: axes.into_iter().map(channels).collect(), samples: 0 }
    }

    pub(super) fn add(
        &mut self,
        shape: &[usize],
        reference: &[f32],
        candidate: &[f32],
        samples: usize,
    ) {
        self.samples += samples;
        self.axes.iter_mut().for_each(|it| it.add(shape, reference, candidate));
    }

    /// The figures of each part, by a name for it.
    pub(super) fn finish(self, output: &str) -> Vec<(String, OutputMetrics)> {
        let mut list = Vec::new();
        for channels in self.axes.iter().filter(|it| !it.is_broken) {
            let own = self.splits.iter().find(|it| it.axis == channels.axis);
            let groups: Vec<(&str, Range<usize>)> = match own {
                Some(split) => split.ranges().collect(),
                None => channels.groups().into_iter().map(|it| ("", it)).collect(),
            };
            list.extend(groups.into_iter().map(|(name, range)| (name, channels.axis, range)));
            // Two axes that both look like groups would say the same thing twice.
            if own.is_none() && !list.is_empty() {
                break;
            }
        }
        let metrics = |(axis, range): (usize, Range<usize>)| {
            let channels = self.axes.iter().find(|it| it.axis == axis);
            let sums = channels.map_or(&[][..], |it| &it.sums[range.clone()]);
            let part = PartOf { output: output.to_owned(), axis, from: range.start, to: range.end };
            figures(sums, self.samples, part)
        };
        let labels = labels(output, &list);
        labels.into_iter().zip(list.into_iter().map(|it| metrics((it.1, it.2)))).collect()
    }
}

/// A name of its own for each part: that of its value, or its place.
fn labels(output: &str, parts: &[(&str, usize, Range<usize>)]) -> Vec<String> {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (name, _, range) in parts {
        *names.entry(name).or_default() += 1;
        *places.entry((range.start, range.end)).or_default() += 1;
    }
    let label = |(name, axis, range): &(&str, usize, Range<usize>)| {
        let (from, to) = (range.start, range.end);
        match () {
            () if !name.is_empty() && names[name] == 1 => format!("{output}[{name}]"),
            () if places[&(from, to)] == 1 => format!("{output}[{from}:{to}]"),
            () => format!("{output}[axis {axis}, {from}:{to}]"),
        }
    };
    parts.iter().map(label).collect()
}

impl Channels {
    /// Sums channel by channel, in the order of the samples.
    fn add(&mut self, shape: &[usize], reference: &[f32], candidate: &[f32]) {
        let size = self.sums.len();
        self.is_broken |= shape.get(self.axis) != Some(&size);
        let inner: usize = shape.iter().skip(self.axis + 1).product();
        if self.is_broken || inner == 0 {
            return;
        }
        let arch = Arch::new();
        let rows = reference.chunks_exact(inner).zip(candidate.chunks_exact(inner));
        for (at, (reference, candidate)) in rows.enumerate() {
            let is_finite = |row: &[f32]| row.iter().all(|it| it.is_finite());
            if is_finite(reference) && is_finite(candidate) {
                self.sums[at % size].add(&Errors::of(arch, reference, candidate));
            }
        }
    }

    /// Neighbours that are alike in magnitude over all samples of the reference; none where all are.
    fn groups(&self) -> Vec<Range<usize>> {
        let mut groups: Vec<(Range<usize>, f64, usize)> = Vec::new();
        for (at, sum) in self.sums.iter().enumerate() {
            let (power, count) = (sum.reference_square, sum.elements);
            let own = power / count.max(1) as f64;
            let last = groups.last_mut().filter(|it| {
                let mean = it.1 / it.2.max(1) as f64;
                let ratio = (own / mean).sqrt();
                own == 0.0 || mean == 0.0 || (1.0 / UNLIKE..=UNLIKE).contains(&ratio)
            });
            match last {
                Some(it) => {
                    it.0.end = at + 1;
                    // Channels that are always zero say nothing of the magnitude of others.
                    if power > 0.0 {
                        (it.1, it.2) = (it.1 + power, it.2 + count);
                    }
                }
                None => groups.push((at..at + 1, power, if power > 0.0 { count } else { 0 })),
            }
        }
        let found = (2..=MOST_GROUPS).contains(&groups.len());
        if found { groups.into_iter().map(|it| it.0).collect() } else { Vec::new() }
    }
}

fn figures(sums: &[Errors], samples: usize, part: PartOf) -> OutputMetrics {
    let mut total = Errors::default();
    sums.iter().for_each(|it| total.add(it));
    let any = total.elements > 0;
    OutputMetrics {
        role: Role::Values,
        part: Some(part),
        samples,
        elements: total.elements,
        exact: total.error_max == 0.0,
        sqnr_db: finite(total.sqnr_db()),
        max_abs: finite(total.error_max).filter(|_| any),
        mean_abs: finite(total.mean_abs()),
        ..OutputMetrics::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::splits::Piece;

    fn compared(parts: Parts, reference: &[f32], error: f32) -> Vec<(String, OutputMetrics)> {
        let candidate: Vec<f32> = reference.iter().map(|it| it + error).collect();
        let mut parts = parts;
        // In two batches of a sample each.
        for (reference, candidate) in reference.chunks(8).zip(candidate.chunks(8)) {
            parts.add(&[1, 4, 2], reference, candidate, 1);
        }
        parts.finish("y")
    }

    const OUTPUT: [f32; 16] = [
        300.0, 200.0, 100.0, 400.0, 0.5, 0.0, 0.2, 0.1, 300.0, 10.0, 9.0, 80.0, 0.3, 0.9, 0.0, 0.0,
    ];

    #[test]
    fn channels_of_another_magnitude_are_a_part() {
        let list = compared(Parts::new(Role::Values, &[1, 4, 2], &[]), &OUTPUT, 0.1);
        let names: Vec<&str> = list.iter().map(|it| &*it.0).collect();
        assert_eq!(names, ["y[0:2]", "y[2:4]"]);
        let db = |at: usize| list[at].1.sqnr_db.unwrap();
        assert!(db(0) > 60.0 && db(1) < 20.0, "{} {}", db(0), db(1));
        let part = PartOf { output: "y".into(), axis: 1, from: 2, to: 4 };
        assert_eq!((list[1].1.part.as_ref(), list[1].1.samples), (Some(&part), 2));
        let alike = [1.0; 16];
        assert!(compared(Parts::new(Role::Values, &[1, 4, 2], &[]), &alike, 0.1).is_empty());
        assert!(compared(Parts::new(Role::Hidden, &[1, 4, 2], &[]), &OUTPUT, 0.1).is_empty());
    }

    #[test]
    fn the_margins_of_a_picture_are_no_quantity() {
        let axes = |shape: &[usize]| channel_axes(Role::Image, shape);
        // A map of probabilities, a detector's boxes, masks of 21 classes, and channels at the end.
        assert!(axes(&[1, 192, 320]).is_empty());
        assert_eq!(axes(&[1, 1, 192, 320]), [1]);
        assert_eq!(axes(&[1, 84, 8400]), [1]);
        assert_eq!(axes(&[1, 21, 64, 64]), [1]);
        assert_eq!(axes(&[1, 80, 80, 255]), [0usize; 0]);
        assert_eq!(axes(&[1, 80, 80, 6]), [3]);
        // Left columns are dark here: one channel has no parts.
        let picture: Vec<f32> = (0..16).map(|it| if it % 4 < 2 { 1e-6 } else { 1.0 }).collect();
        let mut parts = Parts::new(Role::Image, &[1, 1, 4, 4], &[]);
        parts.add(&[1, 1, 4, 4], &picture, &picture, 1);
        assert!(parts.finish("y").is_empty());
    }

    #[test]
    fn what_the_graph_joins_has_its_name() {
        let piece = |name: &str, size| Piece { name: name.into(), size };
        let pieces = vec![piece("box", 1), piece("box", 1), piece("score", 2)];
        let split = [Split { axis: 1, pieces }];
        let list = compared(Parts::new(Role::Values, &[1, 4, 2], &split), &OUTPUT, 0.0);
        let names: Vec<&str> = list.iter().map(|it| &*it.0).collect();
        assert_eq!(names, ["y[0:1]", "y[1:2]", "y[score]"]);
        assert!(list.iter().all(|it| it.1.exact && it.1.sqnr_db.is_none()));
        // A graph that is not the model's says nothing.
        let other = [Split { axis: 1, pieces: vec![piece("a", 1), piece("b", 2)] }];
        let list = compared(Parts::new(Role::Values, &[1, 4, 2], &other), &OUTPUT, 0.0);
        assert_eq!(list[0].0, "y[0:2]");
    }
}
