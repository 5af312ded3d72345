//! Which values of two models are the same: equal names, and equal shapes when they run.

use std::collections::{BTreeMap, BTreeSet};

use super::{Side, noise::Meter, stitched::Runner};
use crate::Error;
use onnxq_ir::{
    Attrs, Def, Model, Name, Op, ValueId,
    tensor::{DType, Dim, TensorType},
};
use onnxq_run::{calibrate::reads, data::Batch};

/// One value in both models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    pub reference: ValueId,
    pub candidate: ValueId,
    /// Of the sample that was looked at.
    pub elements: usize,
}

/// What both models compute, in the candidate's order of execution.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned {
    pub pairs: Vec<Pair>,
    /// Float values that depend on the data and have no partner, of both models.
    pub unmatched: usize,
}

impl Aligned {
    /// Pairs by name; their sizes are still unknown.
    pub(super) fn by_name(reference: &Model, candidate: &Model) -> Aligned {
        let (of, mine) = (computed(reference), computed(candidate));
        let total = of.len() + mine.len() + inner(reference) + inner(candidate);
        let names: BTreeMap<&Name, ValueId> =
            of.iter().map(|it| (&reference.value(*it).name, *it)).collect();
        let pair = |it: &ValueId| {
            let partner = *names.get(&candidate.value(*it).name)?;
            let is_float = |m: &Model, it| m.dtype(it).is_some_and(|it| it.is_float());
            (is_float(reference, partner) && is_float(candidate, *it)).then_some(Pair {
                reference: partner,
                candidate: *it,
                elements: 0,
            })
        };
        let pairs: Vec<Pair> = mine.iter().filter_map(pair).collect();
        let unmatched = total - 2 * pairs.len();
        Aligned { pairs, unmatched }
    }

    /// Drops pairs whose shapes differ when both models run on `batch`, and learns their sizes.
    pub(super) fn measure(&mut self, sides: &[Side; 2], batch: &Batch) -> Result<(), Error> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let values = |of: fn(&Pair) -> ValueId| self.pairs.iter().map(of).collect::<Vec<_>>();
        let expected = shapes(&sides[0], &values(|it| it.reference), batch)?;
        let actual = shapes(&sides[1], &values(|it| it.candidate), batch)?;
        let before = self.pairs.len();
        let mut shapes = expected.iter().zip(&actual);
        self.pairs.retain_mut(|it| {
            let (expected, actual) = shapes.next().expect("a shape for each pair");
            it.elements = actual.iter().map(|it| usize::try_from(*it).unwrap_or(0)).product();
            expected == actual && it.elements > 0
        });
        self.unmatched += 2 * (before - self.pairs.len());
        Ok(())
    }

    /// Drops values that carry the same name and mean something else: scales that a transform
    /// moved from a value into the weights after it, for instance.
    ///
    /// They are known by what reads them, which is right with the candidate's own value only.
    pub(super) fn drop_foreign(&mut self, sides: &[Side; 2], meter: &Meter) -> Result<(), Error> {
        const ROUNDS: usize = 16;
        for _ in 0..ROUNDS {
            let noise = meter.measure(sides, &self.pairs)?;
            let foreign = foreign(&noise.feeds, &noise.local, &noise.accumulated);
            if foreign.is_empty() {
                return Ok(());
            }
            let mut at = 0;
            self.pairs.retain(|_| (!foreign.contains(&at), at += 1).0);
            self.unmatched += 2 * foreign.len();
        }
        Ok(())
    }

    /// The places of the values of one side.
    pub(super) fn places(&self, of: fn(&Pair) -> ValueId) -> BTreeMap<ValueId, usize> {
        self.pairs.iter().enumerate().map(|(at, it)| (of(it), at)).collect()
    }
}

/// The values to distrust, from what each value's nodes read and two ratios of noise to signal:
/// with what the reference says for that, and with what the candidate says.
fn foreign(feeds: &[BTreeSet<usize>], local: &[f64], accumulated: &[f64]) -> BTreeSet<usize> {
    // A quantized weight adds noise of 1 % to both; a scale that is elsewhere costs tens of %.
    const SUSPECT: f64 = 0.02;
    const FACTOR: f64 = 4.0;
    let mut list = BTreeSet::new();
    for (at, feeds) in feeds.iter().enumerate() {
        if local[at] > SUSPECT && local[at] > FACTOR * accumulated[at] {
            let worst = feeds.iter().max_by(|a, b| accumulated[**a].total_cmp(&accumulated[**b]));
            list.extend(worst.filter(|it| accumulated[**it] > SUSPECT));
        }
    }
    list
}

/// Values with a name that nodes of the main graph compute from the data, and that are not known
/// to be something else than floats, in the order of execution.
fn computed(model: &Model) -> Vec<ValueId> {
    let mut fed: BTreeSet<ValueId> = model.graph(model.main).inputs.iter().copied().collect();
    let mut list = Vec::new();
    for node in model.nodes_of(model.main) {
        if !reads(model, node).iter().any(|it| fed.contains(it)) {
            continue;
        }
        let outputs = &model.node(node).outputs;
        fed.extend(outputs.iter().copied());
        list.extend(outputs.iter().copied().filter(|it| may_be_float(model, *it)));
    }
    list
}

fn may_be_float(model: &Model, value: ValueId) -> bool {
    !model.value(value).name.is_empty() && model.dtype(value).is_none_or(|it| it.is_float())
}

/// Such values inside the bodies of control flow.
fn inner(model: &Model) -> usize {
    let nodes = model.nodes();
    let inner = nodes.iter().filter(|it| {
        let graph = model.node(**it).graph;
        graph != model.main && model.in_main(graph)
    });
    let count = |it| model.node(it).outputs.iter().filter(|it| may_be_float(model, **it)).count();
    inner.map(|it| count(*it)).sum()
}

/// The shapes of values in a run. Only these leave the model, so large values never pile up.
pub(super) fn shapes(
    side: &Side,
    values: &[ValueId],
    batch: &Batch,
) -> Result<Vec<Vec<i64>>, Error> {
    let mut model = side.model.clone();
    let mut wanted = Vec::new();
    for value in values {
        let main = model.main;
        let ty = TensorType { dtype: DType::I64, shape: Some(vec![Dim::Unknown]) };
        let shape = model.add_value("shape", Some(ty), Def::Input(main, None));
        let op = (Op::new("Shape"), Name::from(""));
        model.add_node(main, None, op, vec![Some(*value)], Attrs::default(), vec![shape]);
        wanted.push(shape);
    }
    let mut runner = Runner::open(&model, side, &[], &wanted)?;
    let outputs = runner.run(batch, &[])?;
    outputs.iter().map(|it| Ok(it.to_i64()?)).collect()
}
