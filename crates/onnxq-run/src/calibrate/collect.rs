//! Collects statistics of what layers read, pass by pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use ndarray::{Array2, ArrayView2, CowArray, Ix2};

use super::{
    CalibrateError, Replacement, StatsFile,
    budget::{Cost, fitting},
    dataflow::{can_observe, width},
    driver::{Driver, Run},
    extents::Extents,
    observe::{Observe, Sample, Tap},
    ranges::{Place, Target},
};
use crate::data::{Batch, roles};
use crate::engine::IoInfo;
use onnxq_ir::{Def, Model, ValueId, ctx::Ctx, diag::Warning, human::grouped};
use onnxq_numerics::{
    drift::Drift,
    moments::Moments,
    solve::BadStats,
    stats::{InputStats, Needs},
};
use onnxq_quant::window::{Operand, Patches, ranked};

/// What reads a value of the main graph, and how much must be known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    pub operand: Operand,
    pub needs: Needs,
}

pub struct Collector<'a> {
    driver: Driver<'a>,
    wants: Vec<Planned>,
    done: usize,
    /// Bytes that a worker needs for one observed number per token.
    tokens: u64,
    rows: u64,
    store: Option<StatsFile>,
    /// What looks on.
    others: Vec<Place<'a>>,
}

struct Planned {
    want: Want,
    name: String,
    k: usize,
    /// Bytes of the value in a run, if its rows do not follow from its tokens.
    image: Option<u64>,
    /// Where the first node that reads it stands.
    at: usize,
}

impl<'a> Collector<'a> {
    /// What is collected is added to the store, and what it knows already is taken from there.
    pub fn new(
        run: Run<'a>,
        wants: Vec<Want>,
        store: Option<StatsFile>,
    ) -> Result<Collector<'a>, CalibrateError> {
        let changing: BTreeSet<ValueId> = wants.iter().map(|it| it.operand.value).collect();
        let mut driver = Driver::new(run, &changing)?;
        let mut wants = in_order(&driver, wants)?;
        let first = driver.first()?;
        size_images(&driver, &first, &mut wants);
        let tokens = tokens(driver.model(), &first);
        Ok(Collector { driver, wants, done: 0, tokens, rows: 0, store, others: Vec::new() })
    }

    /// Lets others look at values in the same pass, if everything is collected in one and there is
    /// memory for them; says whether it does. To be called before the first pass.
    pub fn accompany(&mut self, targets: Vec<Target<'a>>) -> Result<bool, CalibrateError> {
        let first = self.driver.first()?;
        let extents = Extents::new(self.driver.model(), &first);
        let place = |it| Place::new(&self.driver, &extents, it);
        let places: Vec<Place> = targets.into_iter().map(place).collect::<Result<_, _>>()?;
        let own: u64 = self.wants.iter().map(|it| self.cost(it)).sum();
        let all = places.iter().map(|it| it.bytes).fold(own, u64::saturating_add);
        let options = self.driver.options();
        if options.sequential || all > options.memory || self.wants.iter().any(|it| self.has(it)) {
            return Ok(false);
        }
        self.others = places;
        Ok(true)
    }

    /// The statistics of the inputs of the next pass, in graph order; `None` when all are done.
    ///
    /// `replaced` are the weights that changed since the last call.
    pub fn next(
        &mut self,
        replaced: &[Replacement],
        ctx: &Ctx,
    ) -> Result<Option<Vec<(Operand, InputStats)>>, CalibrateError> {
        self.replace(replaced);
        let fitting = self.fitting(self.done)?;
        if fitting == 0 {
            return Ok(None);
        }
        if self.done == 0 {
            self.tell_resumed(ctx);
            let passes = self.passes()?;
            self.warn_of_memory(ctx);
            ctx.progress.start("calibrate", passes * self.driver.samples() as u64);
        }
        // What an earlier run collected; the cut stays where it is, so the first pass that is
        // missing begins there and computes what lies between once more.
        let wants = &self.wants[self.done..self.done + fitting];
        let known = wants.iter().take_while(|it| self.has(it)).count();
        let end = self.done
            + match known {
                0 => wants.iter().take_while(|it| !self.has(it)).count(),
                _ => known,
            };
        let stats = match known {
            0 => self.pass(end, ctx)?,
            _ => self.stored(end)?,
        };
        if known > 0 && known == fitting {
            ctx.progress.step(self.driver.samples() as u64);
        }
        self.done = end;
        self.rows = stats.iter().map(|it| it.1.rows).fold(self.rows, u64::max);
        if end == self.wants.len() {
            if let Some(store) = self.store.take() {
                store.finish()?;
            }
            ctx.progress.done(&self.describe());
        }
        Ok(Some(stats))
    }

    /// Whether the store knows enough of an input.
    fn has(&self, input: &Planned) -> bool {
        let Planned { want, name, .. } = input;
        self.store.as_ref().is_some_and(|store| store.has(name, want.needs))
    }

    /// What the store knows of the inputs up to `end`.
    fn stored(&self, end: usize) -> Result<Vec<(Operand, InputStats)>, CalibrateError> {
        let mut list = Vec::new();
        for it in &self.wants[self.done..end] {
            let found = match &self.store {
                Some(store) => store.get(&it.name, it.want.needs)?,
                None => None,
            };
            let expected = it.k;
            let stats = found.filter(|it| it.k() == expected).ok_or_else(|| {
                let (value, actual) = (it.name.clone(), Vec::new());
                CalibrateError::Width { value, actual, expected }
            })?;
            list.push((it.want.operand.clone(), stats));
        }
        Ok(list)
    }

    /// Says what an earlier run has left, and what is still to do.
    fn tell_resumed(&self, ctx: &Ctx) {
        let Some(log) = self.store.as_ref().and_then(StatsFile::resumed) else { return };
        let found = self.wants.iter().filter(|it| self.has(it)).count();
        let (all, log) = (self.wants.len(), log.display());
        ctx.progress.start("resume", 0);
        let left = all - found;
        ctx.progress.done(&format!("{found} of {all} inputs are in {log}; {left} are left to do"));
    }

    /// `24 inputs, 64 samples, 8,192 rows`.
    fn describe(&self) -> String {
        let (inputs, samples) = (self.wants.len(), self.driver.samples());
        format!("{inputs} inputs, {samples} samples, {} rows", grouped(self.rows))
    }

    /// The float model runs alongside from the first replacement on, if that is before the first
    /// pass.
    fn replace(&mut self, replaced: &[Replacement]) {
        if self.driver.options().sequential && self.done == 0 {
            self.driver.keep_reference();
        }
        self.driver.replace(replaced);
    }

    /// Bytes that a pass needs for one of its inputs.
    fn cost(&self, it: &Planned) -> u64 {
        let rows = it.k as u64 * PATCHES as u64 * size_of::<f32>() as u64;
        let observed = match it.image {
            None => self.tokens.saturating_mul(it.k as u64),
            Some(bytes) => bytes.saturating_add(rows),
        };
        let observed = observed.saturating_mul(self.driver.threads() as u64);
        (Moments::bytes(it.k, it.want.needs) as u64).saturating_add(observed)
    }

    /// Whether it is observed how far an input has moved, which memory may not allow.
    ///
    /// It changes results, so it depends on nothing but the input and the budget.
    fn drifts(&self, it: &Planned) -> bool {
        let needed = Moments::bytes(it.k, it.want.needs) + Drift::bytes(it.k);
        let fits = needed as u64 <= self.driver.options().memory;
        self.driver.has_reference() && it.want.needs == Needs::Hessian && fits
    }

    /// Tells of inputs whose weights cannot aim at the float model.
    fn warn_of_memory(&self, ctx: &Ctx) {
        let hessians = self.wants.iter().filter(|it| it.want.needs == Needs::Hessian);
        let count = hessians.filter(|it| !self.drifts(it)).count();
        if self.driver.has_reference() && count > 0 {
            let memory = self.driver.options().memory >> 20;
            ctx.progress.warn(&Warning::remark(format!(
                "{count} inputs are too wide for --memory {memory}MiB: their weights aim at the \
                 quantized layers before them, not at the float model"
            )));
        }
    }

    /// How many inputs the pass that begins with `start` observes.
    fn fitting(&self, start: usize) -> Result<usize, CalibrateError> {
        let options = self.driver.options();
        let limit = if options.sequential { 1 } else { usize::MAX };
        let costs =
            self.wants[start..].iter().map(|it| Cost { value: &it.name, bytes: self.cost(it) });
        fitting(costs, options.memory, limit)
    }

    fn passes(&self) -> Result<u64, CalibrateError> {
        let (mut at, mut passes) = (0, 0);
        while at < self.wants.len() {
            at += self.fitting(at)?;
            passes += 1;
        }
        Ok(passes)
    }

    fn pass(
        &mut self,
        end: usize,
        ctx: &Ctx,
    ) -> Result<Vec<(Operand, InputStats)>, CalibrateError> {
        let wants = &self.wants[self.done..end];
        let mut rows: Vec<Rows> = wants.iter().map(|it| it.observer(self.drifts(it))).collect();
        let mut taps: Vec<Tap> =
            wants.iter().zip(&mut rows).map(|(it, rows)| it.tap(rows)).collect();
        let mut others = std::mem::take(&mut self.others);
        taps.extend(others.iter_mut().map(Place::tap));
        let next = wants.last().map(|it| it.at).filter(|_| end < self.wants.len());
        self.driver.pass(taps, next, ctx)?;
        let mut list = Vec::new();
        for (it, rows) in wants.iter().zip(rows) {
            let mut stats = rows.moments.finish();
            stats.drift = rows.drift.and_then(Drift::finish);
            if let Some(store) = &mut self.store {
                store.append(&it.name, &stats)?;
            }
            list.push((it.want.operand.clone(), stats));
        }
        Ok(list)
    }
}

/// Moments of rows, and how far they are from those of the float model.
struct Rows {
    k: usize,
    patches: Option<Patches>,
    moments: Moments,
    /// Only if the float model runs alongside.
    drift: Option<Drift>,
}

impl Observe for Rows {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        let places = self.patches.as_ref().map(|it| {
            let count = it.count(sample.shape);
            ranked(sample.values, count, PATCHES)
        });
        let rows = |values| -> CowArray<f32, Ix2> {
            match (&self.patches, &places) {
                (Some(patches), Some(places)) => {
                    cut(patches, values, sample.shape, places, self.k).into()
                }
                _ => rows(values, self.k).into(),
            }
        };
        let own = rows(sample.values);
        if let (Some(drift), Some(float)) = (&mut self.drift, sample.float) {
            drift.add(rows(float).view(), own.view())?;
        }
        self.moments.add(own.view())
    }
}

/// The most patches of a sample that are looked at: neighbours say the same, and an image has many.
const PATCHES: usize = 1024;

fn cut(
    patches: &Patches,
    values: &[f32],
    shape: &[usize],
    places: &[(u64, usize)],
    k: usize,
) -> Array2<f32> {
    let mut rows = Vec::with_capacity(places.len() * k);
    places.iter().for_each(|it| rows.extend(patches.cut_by_channel(values, shape, it.1)));
    Array2::from_shape_vec((places.len(), k), rows).expect("whole patches")
}

fn rows(values: &[f32], k: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / k.max(1), k), values).expect("whole rows")
}

impl Planned {
    fn observer(&self, drifts: bool) -> Rows {
        let (k, drift) = (self.k, drifts.then(|| Drift::new(self.k)));
        let patches = self.want.operand.patches.clone();
        Rows { k, patches, moments: Moments::new(k, self.want.needs), drift }
    }

    fn tap<'a>(&self, rows: &'a mut Rows) -> Tap<'a> {
        let observer = Mutex::new(rows as &mut dyn Observe);
        let (value, name) = (self.want.operand.value, self.name.clone());
        let is_rows = self.want.operand.patches.is_none();
        let (width, tokens) = (is_rows.then_some(self.k), is_rows.then_some(1));
        Tap { value, name, width, tokens, observer }
    }
}

/// Each value once, as the nodes that read them follow each other.
fn in_order(driver: &Driver, wants: Vec<Want>) -> Result<Vec<Planned>, CalibrateError> {
    let model = driver.model();
    let mut merged: BTreeMap<Operand, Needs> = BTreeMap::new();
    for Want { operand, needs } in wants {
        let it = merged.entry(operand).or_default();
        *it = needs.max(*it);
    }
    let mut list = Vec::new();
    for (operand, needs) in merged {
        let name = operand.name(model);
        let known = can_observe(model, &operand).and_then(|()| width(model, &operand));
        let k = known.map_err(|it| {
            let reason = it.to_string();
            CalibrateError::Unobservable { value: name.clone(), reason }
        })?;
        let at = driver.dataflow().first_read(operand.value).unwrap_or(usize::MAX);
        list.push(Planned { want: Want { operand, needs }, name, k, image: None, at });
    }
    list.sort_by(|a, b| (a.at, &a.want.operand).cmp(&(b.at, &b.want.operand)));
    Ok(list)
}

/// Notes how large the values are that patches are cut from.
fn size_images(driver: &Driver, first: &Batch, wants: &mut [Planned]) {
    let mut images = wants.iter_mut().filter(|it| it.want.operand.patches.is_some()).peekable();
    if images.peek().is_some() {
        let extents = Extents::new(driver.model(), first);
        images.for_each(|it| it.image = Some(extents.bytes(it.want.operand.value)));
    }
}

/// The inputs that data must have.
pub fn model_inputs(model: &Model) -> Vec<IoInfo> {
    let inputs = model.graph(model.main).inputs.iter().map(|it| model.value(*it));
    let given = inputs.filter(|it| matches!(it.def, Def::Input(_, None)));
    given.filter_map(|it| Some(IoInfo { name: it.name.to_string(), ty: it.ty.clone()? })).collect()
}

/// Bytes of one number for each token of a run.
fn tokens(model: &Model, first: &Batch) -> u64 {
    let (batch, sequence) = roles::extent(&model_inputs(model), first).unwrap_or((1, 1));
    (batch * sequence * size_of::<f32>()) as u64
}
