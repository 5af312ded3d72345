//! Statistics of a model's inner values, wave by wave: each runs a part of the model on all data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use super::{
    Batches, CalibrateError, StatsFile,
    cut::Cut,
    flow::{Flow, can_observe, width},
    roles,
    segment::{Origin, Segment, segment},
    wave::{Tap, Wave},
};
use crate::{
    ctx::{Ctx, grouped},
    engine::{self, IoInfo, RuntimeOptions, Session, SessionOptions},
    ir::{Def, Model, NodeId, ValueId},
    onnx::{self, Attached, Files},
    quant::{
        moments::Moments,
        stats::{InputStats, Needs},
    },
    tensor::Tensor,
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

pub struct Collector<'a> {
    /// With every replacement so far.
    model: Model,
    files: &'a Files,
    flow: Flow,
    wants: Vec<Planned>,
    done: usize,
    /// What the waves so far computed and later ones need.
    cut: Cut,
    batches: Batches,
    options: CollectOptions,
    /// Bytes that a worker needs for one observed number per token.
    tokens: u64,
    rows: u64,
    runtime: RuntimeOptions<'a>,
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
        _store: Option<StatsFile>,
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
            batches,
            options,
            tokens,
            rows: 0,
            runtime: runtime.clone(),
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
        replaced.iter().for_each(|it| self.replace(it));
        let end = self.done + self.fitting(self.done)?;
        if end == self.done {
            return Ok(None);
        }
        if self.done == 0 {
            let waves = self.waves()?;
            ctx.progress.start("calibrate", waves * self.batches.samples() as u64);
        }
        let stats = self.wave(end, ctx)?;
        self.done = end;
        self.rows = stats.iter().map(|it| it.1.rows).fold(self.rows, u64::max);
        if end == self.wants.len() {
            ctx.progress.done(&self.describe());
        }
        Ok(Some(stats))
    }

    /// `24 inputs, 64 samples, 8,192 rows`.
    fn describe(&self) -> String {
        let (inputs, samples) = (self.wants.len(), self.batches.samples());
        format!("{inputs} inputs, {samples} samples, {} rows", grouped(self.rows))
    }

    fn replace(&mut self, it: &Replacement) {
        let constant = self.model.add_constant(self.model.main, "replaced", it.tensor.clone());
        self.model.set_input(it.node, it.index, Some(constant));
    }

    /// Bytes that a wave needs for one of its inputs.
    fn cost(&self, it: &Planned) -> u64 {
        let observed = self.tokens * self.threads() as u64 * it.k as u64;
        Moments::bytes(it.k, it.want.needs) as u64 + observed
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
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.options.threads == 0 { all() } else { self.options.threads };
        threads.min(self.batches.samples().div_ceil(self.batches.batch())).max(1)
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
        let segment = segment(&self.model, &self.cut.values, &wanted);
        let to = Cut::new(live).map_err(super::cut::CutError::Io)?;
        let sessions = self.sessions(&segment)?;
        let taps = wants.iter().map(Planned::tap).collect();
        let wave = Wave { segment: &segment, from: &self.cut, to: &to, taps };
        wave.run(sessions, &mut self.batches, ctx)?;
        self.files.check_unchanged()?;
        let taps = wave.taps;
        self.cut = to;
        let stats = taps
            .into_iter()
            .map(|it| it.moments.into_inner().unwrap_or_else(PoisonError::into_inner).finish());
        Ok(observed.into_iter().zip(stats).collect())
    }

    /// One session per thread, or none where nothing is left to compute.
    fn sessions(&self, segment: &Segment) -> Result<Vec<Option<Box<dyn Session>>>, CalibrateError> {
        let threads = self.threads();
        if !segment.wanted.iter().any(|it| matches!(it, Origin::Run(_))) {
            return Ok((0..threads).map(|_| None).collect());
        }
        let attached = onnx::attach(&segment.model, self.files)?;
        // As it is written: fusions depend on which values are outputs, and so would the numbers.
        let options =
            SessionOptions { threads: 1, optimize: false, lean: true, ..Default::default() };
        let folder = Some(Attached::folder());
        let open = |_| {
            let session = engine::open_bytes(&attached.graph, folder, &options, &self.runtime)?;
            Ok(Some(session))
        };
        (0..threads).map(open).collect()
    }
}

impl Planned {
    fn tap(&self) -> Tap {
        let moments = Mutex::new(Moments::new(self.k, self.want.needs));
        Tap { name: self.name.clone(), k: self.k, moments }
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
