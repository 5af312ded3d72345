//! The best of many intervals.

use crate::affine::Interval;

/// Candidates per halving of an end, and how many halvings.
const PER_OCTAVE: i32 = 6;
const OCTAVES: i32 = 8;
/// How much finer the neighbourhood of the best one is looked at.
const FINER: i32 = 6;
/// Times that both ends are moved in turn.
const ROUNDS: usize = 2;

/// The interval inside of `whole` that costs least; `whole` if none costs less.
///
/// First both ends come in together, then each by itself: a far outlier at one end would hide
/// what moving the other one gains.
pub(super) fn search(whole: Interval, symmetric: bool, cost: impl Fn(Interval) -> f64) -> Interval {
    let whole = if symmetric { whole.symmetric() } else { whole };
    let reach = whole.hi.max(-whole.lo);
    if reach <= 0.0 {
        return whole;
    }
    let mut best = Best { cost: cost(whole), interval: whole };
    best.scan(reach, &cost, |_, it| Interval { lo: whole.lo.max(-it), hi: whole.hi.min(it) });
    for _ in 0..if symmetric { 0 } else { ROUNDS } {
        let before = best.interval;
        best.scan(whole.hi, &cost, |best, hi| Interval { hi, ..best });
        best.scan(-whole.lo, &cost, |best, it| Interval { lo: -it, ..best });
        if best.interval == before {
            break;
        }
    }
    best.interval
}

struct Best {
    cost: f64,
    interval: Interval,
}

impl Best {
    /// Tries ends from `end` inwards, the widest first, then those near the best.
    fn scan(
        &mut self,
        end: f32,
        cost: &impl Fn(Interval) -> f64,
        with: impl Fn(Interval, f32) -> Interval,
    ) {
        if end <= 0.0 {
            return;
        }
        let start = self.interval;
        let at = |steps: i32| {
            let factor = (-f64::from(steps) / f64::from(PER_OCTAVE * FINER)).exp2();
            with(start, (f64::from(end) * factor) as f32)
        };
        let coarse = (0..=PER_OCTAVE * OCTAVES).map(|it| it * FINER);
        let better: Vec<i32> = coarse.filter(|it| self.offer(at(*it), cost)).collect();
        let Some(&center) = better.last() else { return };
        for steps in (center - FINER + 1).max(0)..center + FINER {
            if steps != center {
                self.offer(at(steps), cost);
            }
        }
    }

    /// Takes an interval that costs less, and says so.
    fn offer(&mut self, interval: Interval, cost: &impl Fn(Interval) -> f64) -> bool {
        let cost = cost(interval);
        let less = cost < self.cost;
        if less {
            *self = Best { cost, interval };
        }
        less
    }
}
