//! Runs a model over data in passes, each from one cut to the next, and shows taps their values.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    CalibrateError,
    cut::Cut,
    dataflow::Dataflow,
    observe::Tap,
    pass::{Part, Pass},
    replace::{Replacement, replace},
    sessions,
};
use crate::data::{Batch, Batches};
use crate::engine::{Runtime, threads};
use onnxq_ir::{Model, ValueId, ctx::Ctx, onnx::Files};

/// A model, the data that it runs on, and what that may take.
pub struct Run<'a> {
    /// Any part of what was read from `files`, as prepared for quantization.
    pub model: &'a Model,
    pub files: &'a Files,
    pub batches: Batches,
    pub options: CollectOptions,
    pub runtime: Runtime<'a>,
}

#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// Bytes for statistics and for the values they are made of.
    pub memory: u64,
    /// Samples that run at the same time; 0: one per core. Changes no result.
    pub threads: usize,
    /// One value per pass, so that each can be computed from quantized layers before it. Means
    /// nothing where only ranges are observed.
    pub sequential: bool,
}

impl Default for CollectOptions {
    fn default() -> CollectOptions {
        CollectOptions { memory: 2 << 30, threads: 0, sequential: false }
    }
}

/// A run that goes on pass by pass.
pub(super) struct Driver<'a> {
    /// As it was before any weight was replaced.
    original: &'a Model,
    model: Cow<'a, Model>,
    files: &'a Files,
    dataflow: Dataflow,
    /// What the passes so far computed and later ones need.
    cut: Cut,
    /// The same of the original model, if that runs alongside.
    reference: Option<Cut>,
    batches: Batches,
    options: CollectOptions,
    runtime: Runtime<'a>,
}

impl<'a> Driver<'a> {
    /// `changing` are values read by layers whose weights may be replaced between passes.
    pub(super) fn new(
        run: Run<'a>,
        changing: &BTreeSet<ValueId>,
    ) -> Result<Driver<'a>, CalibrateError> {
        let Run { model, files, mut batches, options, runtime } = run;
        runtime.ensure()?;
        batches.one_by_one();
        Ok(Driver {
            original: model,
            model: Cow::Borrowed(model),
            files,
            dataflow: Dataflow::new(model, changing),
            cut: Cut::start(),
            reference: None,
            batches,
            options,
            runtime,
        })
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn dataflow(&self) -> &Dataflow {
        &self.dataflow
    }

    pub(super) fn options(&self) -> &CollectOptions {
        &self.options
    }

    pub(super) fn samples(&self) -> usize {
        self.batches.samples()
    }

    /// Threads that have work.
    pub(super) fn threads(&self) -> usize {
        let threads = threads(self.options.threads);
        threads.min(self.batches.samples().div_ceil(self.batches.batch())).max(1)
    }

    /// The first batch; without data an empty one.
    pub(super) fn first(&mut self) -> Result<Batch, CalibrateError> {
        self.batches.rewind();
        Ok(self.batches.next().transpose()?.unwrap_or_default())
    }

    /// From now on, the model as it is now runs alongside: before the first pass only, as its
    /// values must be at hand in every later one.
    pub(super) fn keep_reference(&mut self) {
        self.reference.get_or_insert_with(Cut::start);
    }

    pub(super) fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Gives the model that runs, not the reference, these weights.
    pub(super) fn replace(&mut self, replaced: &[Replacement]) {
        if !replaced.is_empty() {
            replace(self.model.to_mut(), replaced);
        }
    }

    /// Shows the taps their values of all data, computed from the last cut on. The next pass
    /// begins with the nodes from `next` on; `None`: there is none.
    pub(super) fn pass(
        &mut self,
        taps: Vec<Tap<'_>>,
        next: Option<usize>,
        ctx: &Ctx,
    ) -> Result<(), CalibrateError> {
        let values: Vec<ValueId> = taps.iter().map(|it| it.value).collect();
        let live = next.map_or_else(Vec::new, |it| self.dataflow.live(it));
        let part = Part::new(&self.model, &self.cut, &values, &live)?;
        let part_of = |cut| Part::new(self.original, cut, &values, &live);
        let reference = self.reference.as_ref().map(part_of).transpose()?;
        let threads = self.threads();
        let open = |it: &Part| sessions::open(&it.segment, self.files, &self.runtime, threads);
        let own = open(&part)?;
        let beside = match &reference {
            Some(it) => open(it)?,
            None => (0..threads).map(|_| None).collect(),
        };
        let sessions = own.into_iter().zip(beside).map(|(own, beside)| [own, beside]).collect();
        let pass = Pass { part, reference, taps };
        pass.run(sessions, &mut self.batches, ctx)?;
        self.files.check_unchanged()?;
        let (to, reference) = (pass.part.to, pass.reference.map(|it| it.to));
        self.cut = to;
        self.reference = reference;
        Ok(())
    }
}
