//! Statistics of a model's inner values, wave by wave: each runs a part of the model on all data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use ndarray::ArrayView2;

use super::{
    CalibrateError, StatsFile,
    cut::Cut,
    flow::{Flow, can_observe, width},
    observe::{Observe, Sample, Tap},
    segment::segment,
    sessions,
    wave::{Part, Wave},
};
use crate::data::{Batches, roles};
use crate::engine::{self, IoInfo, RuntimeOptions};
use onnxq_ir::{
    Def, Model, NodeId, ValueId, ctx::Ctx, diag::Warning, human::grouped, onnx::Files,
    tensor::Tensor,
};
use onnxq_numerics::{
    drift::Drift,
    moments::Moments,
    solve::BadStats,
    stats::{InputStats, Needs},
};

/// A value of the main graph, and how much must be known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Want {
    pub value: ValueId,
    pub needs: Needs,
}

/// From now on, input `index` of `node` is this constant.
///
/// It is kept until the end, so its bytes should be lazy or mapped.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub node: NodeId,
    pub index: usize,
    pub tensor: Tensor,
}

#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Bytes for statistics and for the values they are made of.
    pub memory: u64,
    /// Samples that run at the same time; 0: one per core. Changes no result.
    pub threads: usize,
    /// One value per wave, so that each can be computed from quantized layers before it.
    pub sequential: bool,
}

impl Default for CollectOptions {
    fn default() -> CollectOptions {
        CollectOptions { memory: 2 << 30, threads: 0, sequential: false }
    }
}

impl CollectOptions {
    /// Threads that have work.
    pub(super) fn threads(&self, batches: &Batches) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { all() } else { self.threads };
        threads.min(batches.samples().div_ceil(batches.batch())).max(1)
    }
}

pub struct Collector<'a> {
    /// With every replacement so far.
    model: Model,
    files: &'a Files,
    flow: Flow,
    wants: Vec<Planned>,
    done: usize,
    /// What the waves so far computed and later ones need.
    cut: Cut,
    /// The model as it was, and its values at the cut; `None` until a layer is replaced.
    float: Option<(Model, Cut)>,
    batches: Batches,
    options: CollectOptions,
    /// Bytes that a worker needs for one observed number per token.
    tokens: u64,
    rows: u64,
    runtime: RuntimeOptions<'a>,
    store: Option<StatsFile>,
}

struct Planned {
    want: Want,
    name: String,
    k: usize,
    /// Where the first node that reads it stands.
    at: usize,
}

impl<'a> Collector<'a> {
    /// `model` is as prepared for quantization, `files` are those it was read from.
    pub fn new(
        model: &'a Model,
        files: &'a Files,
        wants: Vec<Want>,
        mut batches: Batches,
        options: CollectOptions,
        runtime: &RuntimeOptions<'a>,
        store: Option<StatsFile>,
    ) -> Result<Collector<'a>, CalibrateError> {
        engine::ensure(runtime)?;
        let planned: BTreeSet<ValueId> = wants.iter().map(|it| it.value).collect();
        let flow = Flow::new(model, &planned);
        let wants = in_order(model, &flow, wants)?;
        batches.one_by_one();
        let tokens = tokens(model, &mut batches)?;
        Ok(Collector {
            model: model.clone(),
            files,
            flow,
            wants,
            done: 0,
            cut: Cut::start(),
            float: None,
            batches,
            options,
            tokens,
            rows: 0,
            runtime: runtime.clone(),
            store,
        })
    }

    /// The statistics of the next wave of inputs, in graph order; `None` when all are done.
    ///
    /// `replaced` are the weights that changed since the last call.
    pub fn next(
        &mut self,
        replaced: &[Replacement],
        ctx: &Ctx,
    ) -> Result<Option<Vec<(ValueId, InputStats)>>, CalibrateError> {
        self.replace(replaced);
        let fitting = self.fitting(self.done)?;
        if fitting == 0 {
            return Ok(None);
        }
        if self.done == 0 {
            let waves = self.waves()?;
            self.warn_of_memory(ctx);
            ctx.progress.start("calibrate", waves * self.batches.samples() as u64);
        }
        // What an earlier run collected; the cut stays where it is, so the first wave that is
        // missing begins there and computes what lies between once more.
        let has = |it: &Planned| {
            self.store.as_ref().is_some_and(|store| store.has(&it.name, it.want.needs))
        };
        let wave = &self.wants[self.done..self.done + fitting];
        let known = wave.iter().take_while(|it| has(it)).count();
        let end = self.done
            + match known {
                0 => wave.iter().take_while(|it| !has(it)).count(),
                _ => known,
            };
        let stats = match known {
            0 => self.wave(end, ctx)?,
            _ => self.stored(end)?,
        };
        if known > 0 && known == fitting {
            ctx.progress.step(self.batches.samples() as u64);
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

    /// What the store knows of the inputs up to `end`.
    fn stored(&self, end: usize) -> Result<Vec<(ValueId, InputStats)>, CalibrateError> {
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
            list.push((it.want.value, stats));
        }
        Ok(list)
    }

    /// `24 inputs, 64 samples, 8,192 rows`.
    fn describe(&self) -> String {
        let (inputs, samples) = (self.wants.len(), self.batches.samples());
        format!("{inputs} inputs, {samples} samples, {} rows", grouped(self.rows))
    }

    /// The float model runs alongside from the first replacement on, if that is before the first
    /// wave: then all of its values are at hand in every later one.
    fn replace(&mut self, replaced: &[Replacement]) {
        if self.options.sequential && self.done == 0 && self.float.is_none() {
            self.float = Some((self.model.clone(), Cut::start()));
        }
        for it in replaced {
            let constant = self.model.add_constant(self.model.main, "replaced", it.tensor.clone());
            self.model.set_input(it.node, it.index, Some(constant));
        }
    }

    /// Bytes that a wave needs for one of its inputs.
    fn cost(&self, it: &Planned) -> u64 {
        let observed = self.tokens * self.threads() as u64 * it.k as u64;
        Moments::bytes(it.k, it.want.needs) as u64 + observed
    }

    /// Whether it is observed how far an input has moved, which memory may not allow.
    ///
    /// It changes results, so it depends on nothing but the input and the budget.
    fn drifts(&self, it: &Planned) -> bool {
        let needed = Moments::bytes(it.k, it.want.needs) + Drift::bytes(it.k);
        let fits = needed as u64 <= self.options.memory;
        self.float.is_some() && it.want.needs == Needs::Hessian && fits
    }

    /// Tells of inputs whose weights cannot aim at the float model.
    fn warn_of_memory(&self, ctx: &Ctx) {
        let hessians = self.wants.iter().filter(|it| it.want.needs == Needs::Hessian);
        let count = hessians.filter(|it| !self.drifts(it)).count();
        if self.float.is_some() && count > 0 {
            let memory = self.options.memory >> 20;
            ctx.progress.warn(&Warning::remark(format!(
                "{count} inputs are too wide for --memory {memory}MiB: their weights aim at the \
                 quantized layers before them, not at the float model"
            )));
        }
    }

    /// How many inputs the wave that begins with `start` observes.
    fn fitting(&self, start: usize) -> Result<usize, CalibrateError> {
        let (mut total, memory) = (0, self.options.memory);
        for (count, it) in self.wants[start..].iter().enumerate() {
            let needed = self.cost(it);
            if needed > memory {
                return Err(CalibrateError::Memory { value: it.name.clone(), needed, memory });
            }
            total += needed;
            if total > memory || self.options.sequential && count == 1 {
                return Ok(count);
            }
        }
        Ok(self.wants.len() - start)
    }

    fn waves(&self) -> Result<u64, CalibrateError> {
        let (mut at, mut waves) = (0, 0);
        while at < self.wants.len() {
            at += self.fitting(at)?;
            waves += 1;
        }
        Ok(waves)
    }

    fn threads(&self) -> usize {
        self.options.threads(&self.batches)
    }

    fn wave(
        &mut self,
        end: usize,
        ctx: &Ctx,
    ) -> Result<Vec<(ValueId, InputStats)>, CalibrateError> {
        let wants = &self.wants[self.done..end];
        let live = match wants.last() {
            Some(last) if end < self.wants.len() => self.flow.live(last.at),
            _ => Vec::new(),
        };
        let observed: Vec<ValueId> = wants.iter().map(|it| it.want.value).collect();
        let wanted = [&observed[..], &live[..]].concat();
        let mut rows: Vec<Rows> = wants.iter().map(|it| it.observer(self.drifts(it))).collect();
        let taps = wants.iter().zip(&mut rows).map(|(it, rows)| it.tap(rows)).collect();
        let cut = |live: &[ValueId]| Cut::new(live.to_vec()).map_err(super::cut::CutError::Io);
        let own = segment(&self.model, &self.cut.values, &wanted);
        let (to, float_to) = (cut(&live)?, cut(&live)?);
        let twin = self.float.as_ref().map(|it| segment(&it.0, &it.1.values, &wanted));
        let open = |it| sessions::open(it, self.files, &self.runtime, self.threads());
        let mut sessions = open(Some(&own))?;
        let twins = open(twin.as_ref())?;
        sessions.iter_mut().zip(twins).for_each(|(own, [twin, _])| own[1] = twin);
        let part = Part { segment: &own, from: &self.cut, to: &to };
        let float = self.float.as_ref().zip(twin.as_ref());
        let float = float.map(|(it, segment)| Part { segment, from: &it.1, to: &float_to });
        let wave = Wave { part, float, taps };
        wave.run(sessions, &mut self.batches, ctx)?;
        self.files.check_unchanged()?;
        let names: Vec<String> = wave.taps.into_iter().map(|it| it.name).collect();
        self.cut = to;
        if let Some(float) = &mut self.float {
            float.1 = float_to;
        }
        let mut list = Vec::new();
        for ((value, name), rows) in observed.into_iter().zip(names).zip(rows) {
            let mut stats = rows.moments.finish();
            stats.drift = rows.drift.and_then(Drift::finish);
            if let Some(store) = &mut self.store {
                store.append(&name, &stats)?;
            }
            list.push((value, stats));
        }
        Ok(list)
    }
}

/// Moments of rows, and how far they are from those of the float model.
struct Rows {
    k: usize,
    moments: Moments,
    /// Only if the float model runs alongside.
    drift: Option<Drift>,
}

impl Observe for Rows {
    fn observe(&mut self, sample: &Sample<'_>) -> Result<(), BadStats> {
        let own = rows(sample.values, self.k);
        if let (Some(drift), Some(float)) = (&mut self.drift, sample.float) {
            drift.add(rows(float, self.k), own)?;
        }
        self.moments.add(own)
    }
}

fn rows(values: &[f32], k: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / k.max(1), k), values).expect("whole rows")
}

impl Planned {
    fn observer(&self, drifts: bool) -> Rows {
        let (k, drift) = (self.k, drifts.then(|| Drift::new(self.k)));
        Rows { k, moments: Moments::new(k, self.want.needs), drift }
    }

    fn tap<'a>(&self, rows: &'a mut Rows) -> Tap<'a> {
        let observer = Mutex::new(rows as &mut dyn Observe);
        Tap { name: self.name.clone(), width: Some(self.k), tokens: Some(1), observer }
    }
}

/// Each value once, as the nodes that read them follow each other.
fn in_order(model: &Model, flow: &Flow, wants: Vec<Want>) -> Result<Vec<Planned>, CalibrateError> {
    let mut merged: BTreeMap<ValueId, Needs> = BTreeMap::new();
    for Want { value, needs } in wants {
        let it = merged.entry(value).or_default();
        *it = needs.max(*it);
    }
    let mut list = Vec::new();
    for (value, needs) in merged {
        let name = model.value(value).name.to_string();
        let known = can_observe(model, value).and_then(|()| width(model, value));
        let k = known.map_err(|it| {
            let reason = it.to_string();
            CalibrateError::Unobservable { value: name.clone(), reason }
        })?;
        let at = flow.first_read(value).unwrap_or(usize::MAX);
        list.push(Planned { want: Want { value, needs }, name, k, at });
    }
    list.sort_by_key(|it| (it.at, it.want.value));
    Ok(list)
}

/// The inputs that data must have.
pub fn model_inputs(model: &Model) -> Vec<IoInfo> {
    let inputs = model.graph(model.main).inputs.iter().map(|it| model.value(*it));
    let given = inputs.filter(|it| matches!(it.def, Def::Input(_, None)));
    given.filter_map(|it| Some(IoInfo { name: it.name.to_string(), ty: it.ty.clone()? })).collect()
}

/// Bytes of one number for each token of a run.
fn tokens(model: &Model, batches: &mut Batches) -> Result<u64, CalibrateError> {
    batches.rewind();
    let first = batches.next().transpose()?.unwrap_or_default();
    batches.rewind();
    let (batch, sequence) = roles::extent(&model_inputs(model), &first).unwrap_or((1, 1));
    Ok((batch * sequence * size_of::<f32>()) as u64)
}
