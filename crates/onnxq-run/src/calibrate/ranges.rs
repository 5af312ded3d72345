//! Observers at any float values of a model, and the ranges of those values.

use std::{collections::BTreeMap, sync::Mutex};

use super::{
    CalibrateError, CollectOptions,
    cut::{Cut, CutError},
    extents::Extents,
    flow::{Flow, can_tap},
    observe::{Observe, Sample, Tap},
    segment::segment,
    sessions,
    wave::{Part, Wave},
};
use crate::data::{Batch, Batches};
use crate::engine::{self, RuntimeOptions};
use onnxq_ir::{Model, ValueId, ctx::Ctx, onnx::Files};
use onnxq_numerics::{
    observe::{Histogram, RangeStats},
    solve::BadStats,
};
use onnxq_quant::saturation::SampledRows;

/// An observer and the value that it looks at.
pub struct Target<'a> {
    pub value: ValueId,
    /// Memory that the observer may come to need.
    pub bytes: u64,
    pub observer: &'a mut dyn Observe,
}

impl Observe for RangeStats {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        self.add(sample.values)
    }
}

impl Observe for SampledRows {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        self.add(sample.values, sample.shape);
        Ok(())
    }
}

/// How the values are spread while `model` runs on the data, the tokens of padding left out.
///
/// `model` may be any part of what was read from `files`. `options.sequential` means nothing here.
pub fn ranges(
    model: &Model,
    files: &Files,
    values: &[ValueId],
    batches: Batches,
    options: CollectOptions,
    runtime: &RuntimeOptions,
    ctx: &Ctx,
) -> Result<BTreeMap<ValueId, RangeStats>, CalibrateError> {
    let mut stats: BTreeMap<ValueId, RangeStats> =
        values.iter().map(|it| (*it, RangeStats::default())).collect();
    let bytes = Histogram::BYTES as u64;
    let target = |(value, observer)| Target { value, bytes, observer };
    let targets = stats.iter_mut().map(|(value, it)| (*value, it as &mut dyn Observe));
    observe(model, files, targets.map(target).collect(), batches, options, runtime, ctx)?;
    Ok(stats)
}

/// Shows each observer its value of every sample, in as many waves as memory demands.
///
/// Several observers may look at one value.
pub fn observe(
    model: &Model,
    files: &Files,
    targets: Vec<Target<'_>>,
    mut batches: Batches,
    options: CollectOptions,
    runtime: &RuntimeOptions,
    ctx: &Ctx,
) -> Result<(), CalibrateError> {
    engine::ensure(runtime)?;
    batches.one_by_one();
    let threads = options.threads(&batches);
    let flow = Flow::new(model, &Default::default());
    let extents = Extents::new(model, &first(&mut batches)?);
    let mut places = Vec::new();
    for target in targets {
        places.push(Place::new(model, &flow, &extents, target, threads)?);
    }
    places.sort_by_key(|it| (it.at, it.target.value));
    let waves = waves(places, options.memory)?;
    let (count, samples) = (waves.iter().map(Vec::len).sum::<usize>(), batches.samples());
    ctx.progress.start("calibrate", (waves.len() * samples) as u64);
    let mut cut = Cut::start();
    let mut waves = waves.into_iter().peekable();
    while let Some(wave) = waves.next() {
        let last = wave.last().filter(|_| waves.peek().is_some());
        let live = last.map_or_else(Vec::new, |it| flow.live(it.at));
        let to = Cut::new(live).map_err(CutError::Io)?;
        let wanted: Vec<ValueId> =
            wave.iter().map(|it| it.target.value).chain(to.values.iter().copied()).collect();
        let segment = segment(model, &cut.values, &wanted);
        let sessions = sessions::open(Some(&segment), files, runtime, threads)?;
        let taps = wave.into_iter().map(Place::tap).collect();
        let part = Part { segment: &segment, from: &cut, to: &to };
        Wave { part, float: None, taps }.run(sessions, &mut batches, ctx)?;
        files.check_unchanged()?;
        cut = to;
    }
    ctx.progress.done(&format!("{count} values, {samples} samples"));
    Ok(())
}

fn first(batches: &mut Batches) -> Result<Batch, CalibrateError> {
    batches.rewind();
    Ok(batches.next().transpose()?.unwrap_or_default())
}

/// Where a target is.
struct Place<'a> {
    target: Target<'a>,
    name: String,
    tokens: Option<usize>,
    /// How many nodes have run when its value is there.
    at: usize,
    /// Bytes that it takes, the values themselves included.
    cost: u64,
}

impl<'a> Place<'a> {
    fn new(
        model: &Model,
        flow: &Flow,
        extents: &Extents,
        target: Target<'a>,
        threads: usize,
    ) -> Result<Place<'a>, CalibrateError> {
        let value = target.value;
        let name = model.value(value).name.to_string();
        can_tap(model, value).map_err(|it| {
            let (value, reason) = (name.clone(), it.to_string());
            CalibrateError::Unobservable { value, reason }
        })?;
        let cost = target.bytes + extents.bytes(value).saturating_mul(threads as u64);
        let at = flow.made(value).map_or(0, |it| it + 1);
        Ok(Place { tokens: extents.tokens(model, value), name, target, at, cost })
    }

    fn tap(self) -> Tap<'a> {
        let (name, tokens) = (self.name, self.tokens);
        Tap { name, width: None, tokens, observer: Mutex::new(self.target.observer) }
    }
}

/// As many consecutive places per wave as memory allows.
fn waves(places: Vec<Place<'_>>, memory: u64) -> Result<Vec<Vec<Place<'_>>>, CalibrateError> {
    let (mut waves, mut total) = (Vec::new(), 0u64);
    for place in places {
        let needed = place.cost;
        if needed > memory {
            return Err(CalibrateError::Memory { value: place.name, needed, memory });
        }
        total += needed;
        match waves.last_mut() {
            Some(Vec { .. }) if total > memory => {
                waves.push(vec![place]);
                total = needed;
            }
            Some(wave) => wave.push(place),
            None => waves.push(vec![place]),
        }
    }
    Ok(waves)
}
