//! What is noted of a request while it is answered: logged and counted when it is over, however that
//! comes about.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::App;
use crate::{log::Line, problem::Problem, registry::Registry};
use onnxq_run::answer::Usage;

/// The client left before there was a status, as nginx writes it.
const LEFT: u16 = 499;

pub(crate) struct Track {
    pub began: Instant,
    registry: Arc<Registry>,
    line: Line,
    /// An answer that is still being written goes on with the same notes.
    is_moved: bool,
}

impl Track {
    pub(super) fn new(app: &App, method: &'static str, path: &'static str) -> Track {
        let registry = app.registry.clone();
        registry.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        let line = Line { method, path, status: LEFT, ..Line::default() };
        Track { began: Instant::now(), registry, line, is_moved: false }
    }

    pub(crate) fn model(&mut self, name: &str) {
        self.line.model = Some(name.to_owned());
    }

    pub(crate) fn waited(&mut self, time: Duration) {
        self.line.waited = time;
    }

    pub(crate) fn usage(&mut self, usage: Usage) {
        self.line.usage = Some(usage);
    }

    pub(crate) fn failed(&mut self, problem: &Problem) {
        self.line.code = Some(problem.code.clone());
        self.line.detail.clone_from(&problem.detail);
    }

    pub(crate) fn status(&mut self, status: u16) {
        self.line.status = status;
    }

    /// The notes of an answer that outlives this one.
    pub(crate) fn moved(&mut self) -> Track {
        self.is_moved = true;
        let (registry, line) = (self.registry.clone(), self.line.clone());
        Track { began: self.began, registry, line, is_moved: false }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if self.is_moved {
            return;
        }
        let metrics = &self.registry.metrics;
        metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.line.took = self.began.elapsed();
        let model = self.line.model.as_deref().unwrap_or("");
        metrics.answered(self.line.path, model, self.line.status);
        if let Some(usage) = &self.line.usage {
            metrics.took(model, self.line.took, usage);
        }
        self.registry.log.request(&self.line);
    }
}
