//! When values are freed, and in which pieces a run is computed so that it fits in memory.
//!
//! Recomputing: the forward pass keeps only what passes from one segment to a later one; the reverse
//! pass computes each segment again before it goes through it (Chen et al., "Training Deep Nets with
//! Sublinear Memory Cost", 2016).

use std::ops::Range;

use super::{Slot, SlotId, Source, Step};
use crate::real::Real;

#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub segments: Vec<Range<usize>>,
    /// By slot: the last step that reads it forward.
    pub last_read: Vec<Option<usize>>,
    /// By slot: whether the reverse pass reads it.
    pub kept: Vec<bool>,
    /// By slot: whether a later segment than its own reads it.
    pub crosses: Vec<bool>,
    /// By step: whether the reverse pass goes through it.
    pub reversed: Vec<bool>,
    /// Elements at the peak of a run.
    pub peak: usize,
}

/// See [`Plan::new`].
pub(crate) fn plan_of<R: Real>(
    slots: &[Slot],
    steps: &[Step<R>],
    outputs: &[SlotId],
    memory: usize,
) -> Plan {
    Plan::new(slots, steps, outputs, memory)
}

impl Plan {
    /// The plan with as few segments as `memory` (in elements) allows; with the least memory if none does.
    pub(crate) fn new<R: Real>(
        slots: &[Slot],
        steps: &[Step<R>],
        outputs: &[SlotId],
        memory: usize,
    ) -> Plan {
        let base = Plan::whole(slots, steps, outputs);
        let mut best = base.clone().with_segments(slots, steps, 1);
        let mut count = 2;
        while best.peak > memory && count <= steps.len().max(2) {
            let plan = base.clone().with_segments(slots, steps, count);
            if plan.peak < best.peak {
                best = plan;
            }
            count *= 2;
        }
        best
    }

    /// What holds whatever the segments are.
    fn whole<R: Real>(slots: &[Slot], steps: &[Step<R>], outputs: &[SlotId]) -> Plan {
        let mut plan = Plan {
            last_read: vec![None; slots.len()],
            kept: vec![false; slots.len()],
            reversed: steps.iter().map(|it| slots[it.output.0].wanted).collect(),
            ..Plan::default()
        };
        for (at, step) in steps.iter().enumerate() {
            let keeps = step.op.keeps();
            for (index, input) in step.inputs.iter().enumerate() {
                plan.last_read[input.0] = Some(at);
                plan.kept[input.0] |= plan.reversed[at] && keeps.input(index);
            }
            plan.kept[step.output.0] |= plan.reversed[at] && keeps.output;
        }
        // Whoever runs the program looks at them after the last step.
        for output in outputs {
            plan.last_read[output.0] = Some(steps.len());
        }
        plan
    }

    fn with_segments<R: Real>(mut self, slots: &[Slot], steps: &[Step<R>], count: usize) -> Plan {
        self.segments = self.cut(slots, steps, count);
        self.crosses = vec![false; slots.len()];
        for (slot, crosses) in slots.iter().zip(&mut self.crosses) {
            if let Source::Step(made) = slot.source {
                let id = steps[made].output.0;
                let end = self.segments[segment_of(&self.segments, made)].end;
                *crosses = self.last_read[id].is_some_and(|it| it >= end);
            }
        }
        self.peak = self.estimate(slots, steps);
        self
    }

    /// Ranges of steps of about the same size in memory, each ending where little is alive.
    fn cut<R: Real>(&self, slots: &[Slot], steps: &[Step<R>], count: usize) -> Vec<Range<usize>> {
        let made =
            |step: &Step<R>| size(&slots[step.output.0]) + step.op.saves().iter().sum::<usize>();
        let total: usize = steps.iter().map(made).sum();
        let alive = self.alive(slots, steps);
        let (mut ranges, mut start, mut sum) = (Vec::new(), 0, 0);
        let goal = total / count.max(1) + 1;
        let mut at = 0;
        while at < steps.len() {
            sum += made(&steps[at]);
            at += 1;
            if sum >= goal && at < steps.len() && ranges.len() + 1 < count {
                // Of the places around, the one with the least to keep.
                let reach = (at - start).div_ceil(2);
                let places = at.saturating_sub(reach).max(start + 1)..(at + reach).min(steps.len());
                let best = places.min_by_key(|it| alive[it - 1]).unwrap_or(at);
                ranges.push(start..best);
                (start, at, sum) = (best, best, 0);
            }
        }
        ranges.push(start..steps.len());
        ranges
    }

    /// By step: the elements of values that are read after it.
    fn alive<R: Real>(&self, slots: &[Slot], steps: &[Step<R>]) -> Vec<usize> {
        let mut ends = vec![0; steps.len() + 1];
        let mut alive = 0usize;
        let mut list = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let size = size(&slots[step.output.0]);
            if let Some(last) = self.last_read[step.output.0].filter(|it| *it > at) {
                alive += size;
                ends[last.min(steps.len())] += size;
            }
            alive -= ends[at];
            list.push(alive);
        }
        list
    }

    /// Elements that a run needs at its peak: what crosses, what the largest segment keeps, and the
    /// gradients of its values.
    fn estimate<R: Real>(&self, slots: &[Slot], steps: &[Step<R>]) -> usize {
        let kept = |range: &Range<usize>| -> usize {
            let parts = steps[range.clone()].iter().map(|step| {
                let id = step.output.0;
                let own = if self.kept[id] && !self.crosses[id] { size(&slots[id]) } else { 0 };
                own + step.op.saves().iter().sum::<usize>()
            });
            parts.sum()
        };
        let largest = steps.iter().map(|it| size(&slots[it.output.0])).max().unwrap_or(0);
        let crossing = slots.iter().zip(&self.crosses).filter(|it| *it.1).map(|it| size(it.0));
        let of_segments = self.segments.iter().map(kept).max().unwrap_or(0);
        crossing.sum::<usize>() + of_segments + 4 * largest
    }
}

pub(super) fn segment_of(segments: &[Range<usize>], step: usize) -> usize {
    segments.partition_point(|it| it.end <= step)
}

pub(super) fn size(slot: &Slot) -> usize {
    slot.shape.iter().product()
}
