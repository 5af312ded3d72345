//! Collects statistics of what layers read, pass by pass.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    CalibrateError, Guide, Learnt, Replacement, StatsFile, Want,
    budget::{Cost, fitting},
    driver::{Driver, Run},
    extents::Extents,
    gather::Rows,
    observe::Tap,
    ranges::{Place, Target},
    want::{Planned, in_order, size_images},
};
use crate::data::{Batch, roles};
use crate::engine::IoInfo;
use onnxq_ir::{Def, Model, ValueId, ctx::Ctx, diag::Warning, human::grouped};
use onnxq_numerics::stats::{InputStats, Needs};

pub struct Collector<'a> {
    driver: Driver<'a>,
    wants: Vec<Planned>,
    done: usize,
    /// What knows how much rows count for guided nodes.
    guide: Option<Arc<Guide>>,
    /// Bytes that a worker needs for one observed number per token.
    tokens: u64,
    rows: u64,
    store: Option<StatsFile>,
    /// What looks on.
    others: Vec<Place<'a>>,
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
        let others = Vec::new();
        Ok(Collector { driver, wants, done: 0, guide: None, tokens, rows: 0, store, others })
    }

    /// Whether rows will be looked at that count differently: what is in the store needs no guide.
    pub fn needs_guide(&self) -> bool {
        self.wants.iter().any(|it| it.want.guided.is_some() && !self.has(it))
    }

    /// Lets rows count as the guide says; without one, all count the same. To be called before the
    /// first pass.
    pub fn guide(&mut self, guide: Arc<Guide>) {
        self.guide = Some(guide);
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
    ) -> Result<Option<Vec<Learnt>>, CalibrateError> {
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
        let rows = stats.iter().flat_map(|it| &it.stats).map(|it| it.rows);
        self.rows = rows.fold(self.rows, u64::max);
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
        let Planned { want, names, .. } = input;
        let store = self.store.as_ref();
        store.is_some_and(|store| names.iter().all(|it| store.has(it, want.needs)))
    }

    /// What the store knows of the inputs up to `end`.
    fn stored(&self, end: usize) -> Result<Vec<Learnt>, CalibrateError> {
        let of = |it: &Planned| {
            let stats = it.names.iter().map(|name| self.stored_one(it, name));
            Ok(it.learnt(stats.collect::<Result<_, _>>()?))
        };
        self.wants[self.done..end].iter().map(of).collect()
    }

    fn stored_one(&self, input: &Planned, name: &str) -> Result<InputStats, CalibrateError> {
        let found = match &self.store {
            Some(store) => store.get(name, input.want.needs)?,
            None => None,
        };
        let expected = input.k;
        found.filter(|it| it.k() == expected).ok_or_else(|| {
            let (value, actual) = (name.to_owned(), Vec::new());
            CalibrateError::Width { value, actual, expected }
        })
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
        let observed = it.observed(self.tokens).saturating_mul(self.driver.threads() as u64);
        it.bytes(false).saturating_add(observed)
    }

    /// Whether it is observed how far an input has moved, which memory may not allow.
    ///
    /// It changes results, so it depends on nothing but the input and the budget.
    fn drifts(&self, it: &Planned) -> bool {
        let fits = it.bytes(true) <= self.driver.options().memory;
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
            self.wants[start..].iter().map(|it| Cost { value: &it.names[0], bytes: self.cost(it) });
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

    fn pass(&mut self, end: usize, ctx: &Ctx) -> Result<Vec<Learnt>, CalibrateError> {
        let wants = &self.wants[self.done..end];
        let mut rows: Vec<Vec<Rows>> = wants.iter().map(|it| self.observers(it)).collect();
        let mut taps: Vec<Tap> = Vec::new();
        for (it, rows) in wants.iter().zip(&mut rows) {
            let groups = rows.iter_mut().enumerate();
            taps.extend(groups.map(|(group, rows)| it.tap(group, rows, self.guide.as_deref())));
        }
        let mut others = std::mem::take(&mut self.others);
        taps.extend(others.iter_mut().map(Place::tap));
        let next = wants.last().map(|it| it.at).filter(|_| end < self.wants.len());
        self.driver.pass(taps, next, ctx)?;
        let mut list = Vec::new();
        for (it, rows) in wants.iter().zip(rows) {
            let stats: Vec<InputStats> = rows.into_iter().map(Rows::finish).collect();
            if let Some(store) = &mut self.store {
                let named = it.names.iter().zip(&stats);
                named.into_iter().try_for_each(|(name, stats)| store.append(name, stats))?;
            }
            list.push(it.learnt(stats));
        }
        Ok(list)
    }

    /// What gathers each group's rows of an input.
    fn observers(&self, input: &Planned) -> Vec<Rows> {
        input.names.iter().map(|_| input.observer(self.drifts(input))).collect()
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
