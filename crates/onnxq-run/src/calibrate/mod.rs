//! Statistics of inner values over data: moments for solvers, ranges for activations.

mod collect;
mod cut;
mod error;
mod extents;
mod flow;
mod observe;
mod part_log;
mod ranges;
mod segment;
mod sessions;
mod stats_error;
mod stats_file;
mod wave;

pub use self::{
    collect::{CollectOptions, Collector, Replacement, Want, model_inputs},
    error::CalibrateError,
    flow::{can_observe, can_tap, reads, width},
    observe::{Mask, Observe, Sample},
    ranges::{Target, observe, ranges},
    segment::without_ends,
    stats_error::StatsError,
    stats_file::{
        Identity, Stats, StatsFile, StatsOrigin, StatsRow, describe, merge, model_sha256,
    },
    wave::mask,
};
