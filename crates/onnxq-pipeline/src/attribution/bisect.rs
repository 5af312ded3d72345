//! The first node with which a limit is broken, found by halving.

use super::{
    Attribute, Side, Unbisectable, align,
    align::{Aligned, Pair},
    cut::needed,
    evaluator, meter, open, pinned,
    rank::layer_node,
    stitched::{Runner, Stage, StitchedSession, finish},
};
use crate::{Error, search::evaluator::Evaluator};
use onnxq_ir::{ValueId, ctx::Ctx};
use onnxq_quant::recipe::Gate;
use onnxq_report::{
    Comparison, OutputMetrics,
    document::{Bisection, Probe},
    gate,
};
use onnxq_run::calibrate::model_inputs;

/// Lets the candidate compute the first values and the reference the others, until one value
/// more breaks the limit. Without a limit, half of the candidate's loss is meant.
pub fn bisect(job: &Attribute, limit: Option<&Gate>, ctx: &Ctx) -> Result<Bisection, Error> {
    let opened = open(job)?;
    let evaluator = evaluator(job, &opened)?;
    let sides = pinned(&evaluator, &opened);
    ctx.progress.start("bisect", 0);
    let aligned = align(&sides, &meter(job, &evaluator))?;
    if aligned.pairs.is_empty() {
        return Err(Unbisectable::Unshared.into());
    }
    let mut search =
        Search { sides: &sides, aligned: &aligned, evaluator: &evaluator, probes: Vec::new() };
    let result = search.find(limit)?;
    sides.iter().try_for_each(|it| it.files.check_unchanged())?;
    ctx.progress.done(&format!("{} runs, {} samples", result.runs, evaluator.samples()));
    Ok(result)
}

struct Search<'a> {
    sides: &'a [Side<'a>; 2],
    aligned: &'a Aligned,
    evaluator: &'a Evaluator<'a>,
    probes: Vec<Probe>,
}

impl Search<'_> {
    fn find(&mut self, limit: Option<&Gate>) -> Result<Bisection, Error> {
        let end = self.end();
        let whole = self.compare(end)?;
        let limit = limit.cloned().unwrap_or_else(|| half(&whole));
        let text = limit.to_string();
        if self.record(end, &limit, &whole) {
            let after = self.measured(end);
            return Ok(Bisection { limit: text, after, ..self.result() });
        }
        let reference = self.compare(0)?;
        if !self.record(0, &limit, &reference) {
            return Err(Unbisectable::Unkept(text).into());
        }
        let (mut keeps, mut breaks) = (0, end);
        while breaks - keeps > 1 {
            let middle = keeps + (breaks - keeps) / 2;
            let comparison = self.compare(middle)?;
            match self.record(middle, &limit, &comparison) {
                true => keeps = middle,
                false => breaks = middle,
            }
        }
        let (node, op, value) = self.blamed(breaks);
        let (before, after) = (self.measured(keeps), self.measured(breaks));
        Ok(Bisection {
            limit: text,
            node: Some(node),
            op: Some(op),
            value: Some(value),
            before,
            after,
            ..self.result()
        })
    }

    fn result(&self) -> Bisection {
        let probes = self.probes.clone();
        let (samples, data_samples) = (self.evaluator.samples(), self.evaluator.data_samples());
        Bisection { runs: probes.len(), samples, data_samples, probes, ..Bisection::default() }
    }

    /// The number of values that stands for the whole candidate: one more than there are pairs if
    /// its outputs are not among them.
    fn end(&self) -> usize {
        let m = &self.sides[1].model;
        let places = self.aligned.places(|it| it.candidate);
        let all = m.graph(m.main).outputs.iter().all(|it| places.contains_key(it));
        self.aligned.pairs.len() + usize::from(!all)
    }

    /// The outputs with so many values computed by the candidate.
    fn compare(&self, up_to: usize) -> Result<Comparison, Error> {
        self.evaluator.compare_session(Box::new(self.hybrid(up_to)?))
    }

    fn hybrid(&self, up_to: usize) -> Result<StitchedSession, Error> {
        let [reference, candidate] = self.sides;
        let inputs = model_inputs(&reference.model);
        if up_to == self.end() {
            return finish(candidate, &[], Vec::new(), &|_| None, inputs);
        }
        let pairs = &self.aligned.pairs[..up_to];
        let cut: Vec<ValueId> = pairs.iter().map(|it| it.reference).collect();
        let needed = needed(&reference.model, &cut);
        let at = |it: usize| needed.binary_search(&it).ok().map(|it| (0, it));
        let mut stages = Vec::new();
        if !needed.is_empty() {
            let wanted: Vec<ValueId> = needed.iter().map(|it| pairs[*it].candidate).collect();
            let runner = Runner::open(&candidate.model, candidate, &[], &wanted)?;
            stages.push(Stage { runner, cut: Vec::new() });
        }
        finish(reference, &cut, stages, &at, inputs)
    }

    /// Whether the limit holds; the probe is kept.
    fn record(&mut self, up_to: usize, limit: &Gate, comparison: &Comparison) -> bool {
        let result = gate::check(limit, comparison);
        let last = up_to.checked_sub(1).and_then(|it| self.aligned.pairs.get(it));
        let name = |it: &Pair| self.sides[1].model.value(it.candidate).name.to_string();
        let (value, keeps) = (last.map(name), result.pass);
        self.probes.push(Probe { up_to, value, measured: result.measured, keeps });
        keeps
    }

    fn measured(&self, up_to: usize) -> Option<f64> {
        self.probes.iter().find(|it| it.up_to == up_to)?.measured
    }

    /// Node, operator and value number `up_to`, counted from 1.
    fn blamed(&self, up_to: usize) -> (String, String, String) {
        let m = &self.sides[1].model;
        let known = self.aligned.places(|it| it.candidate);
        let outputs = m.graph(m.main).outputs.iter();
        let value = match self.aligned.pairs.get(up_to - 1) {
            Some(it) => Some(it.candidate),
            None => outputs.copied().find(|it| !known.contains_key(it)),
        };
        let Some(value) = value else { return Default::default() };
        let (node, op) = layer_node(m, value, &known);
        (node, op, m.value(value).name.to_string())
    }
}

/// Half of the candidate's own loss, as a limit that people can read.
fn half(whole: &Comparison) -> Gate {
    let of = |get: fn(&OutputMetrics) -> Option<f64>| whole.outputs.values().filter_map(get);
    let gate = |metric: &str, min, max| Gate {
        metric: metric.into(),
        output: None,
        statistic: (metric == "kl").then(|| "mean".into()),
        min,
        max,
        exclusive: false,
    };
    let kl = of(|it| it.kl.as_ref()?.mean).reduce(f64::max);
    let sqnr = of(|it| it.sqnr_db).reduce(f64::min);
    let equal = of(|it| it.equal).reduce(f64::min);
    match (kl, sqnr, equal) {
        (Some(kl), ..) => gate("kl", None, Some(rounded(kl.max(0.0) / 2.0))),
        (_, Some(db), _) => gate("sqnr_db", Some(rounded(db + 10.0 * 2f64.log10())), None),
        (.., Some(equal)) => gate("equal", Some(rounded((1.0 + equal) / 2.0)), None),
        _ => gate("max_abs", None, Some(0.0)),
    }
}

/// Three digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_report::summary::Summary;

    #[test]
    fn half_of_a_loss_is_a_gate() {
        let of = |it: OutputMetrics| {
            let outputs = [("y".to_owned(), it)].into();
            half(&Comparison { outputs, ..Comparison::default() }).to_string()
        };
        let kl = Some(Summary { mean: Some(0.024_682), ..Summary::default() });
        assert_eq!(of(OutputMetrics { kl, ..OutputMetrics::default() }), "kl.mean<=0.0123");
        let sqnr_db = Some(20.0);
        assert_eq!(of(OutputMetrics { sqnr_db, ..OutputMetrics::default() }), "sqnr_db>=23");
        assert_eq!(of(OutputMetrics::default()), "max_abs<=0");
    }
}
