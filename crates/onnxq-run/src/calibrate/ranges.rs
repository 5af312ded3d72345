//! Observers at any float values of a model, and the ranges of those values.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use super::{
    CalibrateError,
    budget::{Cost, fitting},
    dataflow::can_tap,
    driver::{Driver, Run},
    extents::Extents,
    observe::{Observe, Sample, Tap},
};
use onnxq_ir::{ValueId, ctx::Ctx};
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

/// How the values are spread while the model runs on the data, the tokens of padding left out.
pub fn ranges(
    run: Run<'_>,
    values: &[ValueId],
    ctx: &Ctx,
) -> Result<BTreeMap<ValueId, RangeStats>, CalibrateError> {
    let mut stats: BTreeMap<ValueId, RangeStats> =
        values.iter().map(|it| (*it, RangeStats::default())).collect();
    observe(run, targets(&mut stats), ctx)?;
    Ok(stats)
}

/// What counts the values of a run.
pub fn targets(stats: &mut BTreeMap<ValueId, RangeStats>) -> Vec<Target<'_>> {
    let bytes = Histogram::BYTES as u64;
    let target = |(value, observer)| Target { value, bytes, observer };
    let each = stats.iter_mut().map(|(value, it)| (*value, it as &mut dyn Observe));
    each.map(target).collect()
}

/// Shows each observer its value of every sample, in as many passes as memory demands.
///
/// Several observers may look at one value.
pub fn observe(run: Run<'_>, targets: Vec<Target<'_>>, ctx: &Ctx) -> Result<(), CalibrateError> {
    let mut driver = Driver::new(run, &BTreeSet::new())?;
    let first = driver.first()?;
    let extents = Extents::new(driver.model(), &first);
    let place = |it| Place::new(&driver, &extents, it);
    let mut places: Vec<Place> = targets.into_iter().map(place).collect::<Result<_, _>>()?;
    places.sort_by_key(|it| (it.at, it.target.value));
    let passes = passes(&places, driver.options().memory)?;
    let (count, samples) = (places.len(), driver.samples());
    ctx.progress.start("calibrate", (passes.len() * samples) as u64);
    let mut places = places.into_iter();
    for (at, length) in passes.iter().enumerate() {
        let mut pass: Vec<Place> = places.by_ref().take(*length).collect();
        let next = pass.last().map(|it| it.at).filter(|_| at + 1 < passes.len());
        driver.pass(pass.iter_mut().map(Place::tap).collect(), next, ctx)?;
    }
    ctx.progress.done(&format!("{count} values, {samples} samples"));
    Ok(())
}

/// How many values each pass looks at.
fn passes(places: &[Place], memory: u64) -> Result<Vec<usize>, CalibrateError> {
    let (mut list, mut rest) = (Vec::new(), places);
    while !rest.is_empty() {
        let costs = rest.iter().map(|it| Cost { value: &it.name, bytes: it.bytes });
        let length = fitting(costs, memory, usize::MAX)?;
        list.push(length);
        rest = &rest[length..];
    }
    Ok(list)
}

/// Where a target is.
pub(super) struct Place<'a> {
    target: Target<'a>,
    name: String,
    tokens: Option<usize>,
    /// How many nodes have run when its value is there.
    at: usize,
    /// Memory that it takes, the values themselves included.
    pub bytes: u64,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        driver: &Driver,
        extents: &Extents,
        target: Target<'a>,
    ) -> Result<Place<'a>, CalibrateError> {
        let (model, value) = (driver.model(), target.value);
        let name = model.value(value).name.to_string();
        can_tap(model, value).map_err(|it| {
            let (value, reason) = (name.clone(), it.to_string());
            CalibrateError::Unobservable { value, reason }
        })?;
        let values = extents.bytes(value).saturating_mul(driver.threads() as u64);
        let bytes = target.bytes + values;
        let at = driver.dataflow().made(value).map_or(0, |it| it + 1);
        Ok(Place { tokens: extents.tokens(model, value), name, target, at, bytes })
    }

    pub(super) fn tap(&mut self) -> Tap<'_> {
        let Target { value, observer, .. } = &mut self.target;
        let observer: &mut dyn Observe = &mut **observer;
        let (name, tokens, observer) = (self.name.clone(), self.tokens, Mutex::new(observer));
        Tap { value: *value, name, width: None, tokens, guide: None, observer }
    }
}
