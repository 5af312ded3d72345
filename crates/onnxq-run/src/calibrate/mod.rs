//! Statistics of inner values over data: moments for solvers, ranges for activations.

mod budget;
mod collect;
mod cut;
mod dataflow;
mod driver;
mod error;
mod extents;
mod gather;
mod guide;
mod identity;
mod merge;
mod observe;
mod part_log;
mod pass;
mod ranges;
mod replace;
mod rows;
mod segment;
mod sessions;
mod stats;
mod stats_file;
mod want;

pub use self::{
    collect::{Collector, model_inputs},
    dataflow::{can_observe, can_tap, observable, reads, width},
    driver::{CollectOptions, Run},
    error::CalibrateError,
    guide::{Guide, Recorder},
    identity::{Identity, StatsOrigin, model_sha256},
    merge::merge,
    observe::{Mask, Observe, Sample},
    pass::mask,
    ranges::{Target, observe, ranges, targets},
    replace::{Replacement, replace},
    rows::{StatsRow, describe},
    stats::Stats,
    stats_file::StatsFile,
    want::{Learnt, Want},
};
