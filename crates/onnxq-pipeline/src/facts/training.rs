//! What a training did, as the terminal, the report and the written model say it.

use onnxq_ir::human::{grouped, number};
use onnxq_report::document::Decision;

use crate::distil::{Learnt, Point};

/// Looks at held-out samples that are shown; the JSON output has all.
const LOOKS: usize = 12;

/// What was trained, on what, and the learning curve.
pub fn training(learnt: &Learnt) -> Decision {
    let Learnt { loss, train, trained_numbers, samples, held_out, best, .. } = learnt;
    let [numbers, samples, held_out] =
        [trained_numbers, samples, held_out].map(|it| grouped(*it as u64));
    let mut decision =
        Decision::new("training").numbers(&["step", "loss", "held out"]).words(&[""]);
    decision.before.push(format!(
        "trained {} ({numbers} numbers) by {loss} on {samples} samples, {held_out} held out",
        train.join(", "),
    ));
    for point in shown(&learnt.curve, *best) {
        let own = if point.loss.is_nan() { String::new() } else { number(point.loss) };
        let mark = if point.step == *best { "written" } else { "" };
        let step = grouped(point.step as u64);
        decision.row(vec![step, own, number(point.held_out), mark.to_owned()]);
    }
    decision
}

/// The first, the last, the one that was written, and some between.
fn shown(curve: &[Point], best: usize) -> Vec<&Point> {
    let every = curve.len().div_ceil(LOOKS).max(1);
    let is_shown = |at: usize, point: &Point| {
        at.is_multiple_of(every) || at + 1 == curve.len() || point.step == best
    };
    curve.iter().enumerate().filter(|(at, it)| is_shown(*at, it)).map(|it| it.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_ends_and_the_step_that_was_written() {
        let point = |step| Point { step, loss: 1.0, held_out: 1.0 };
        let curve: Vec<Point> = (0..100).map(point).collect();
        let steps: Vec<usize> = shown(&curve, 47).iter().map(|it| it.step).collect();
        assert!(steps.len() <= LOOKS + 2 && steps.is_sorted(), "{steps:?}");
        assert!([0, 47, 99].iter().all(|it| steps.contains(it)), "{steps:?}");
    }
}
