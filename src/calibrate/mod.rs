//! Data for calibrating and comparing: files of strangers become checked batches of model inputs.

mod batches;
mod collect;
mod cut;
mod digest;
mod error;
mod extents;
mod fault;
mod fit;
mod flow;
#[cfg_attr(not(feature = "images"), allow(dead_code, reason = "nothing is decoded"))]
mod images;
pub mod npy;
pub mod npz;
mod observe;
mod part_log;
mod ranges;
mod roles;
mod segment;
mod sessions;
mod sketch;
mod stats_error;
mod stats_file;
mod test_data;
mod text_data;
mod wave;

pub use self::{
    batches::{Batch, Batches, DataOptions, open},
    collect::{CollectOptions, Collector, Replacement, Want, model_inputs},
    error::DataError,
    fault::CalibrateError,
    fit::converted,
    flow::{can_observe, can_tap, reads, width},
    observe::{Mask, Observe, Sample},
    ranges::{Target, observe, ranges},
    roles::{Role, make, role},
    segment::without_ends,
    sketch::{Contents, Sketch},
    stats_error::StatsError,
    stats_file::{
        Identity, Stats, StatsFile, StatsOrigin, StatsRow, describe, merge, model_sha256,
    },
    text_data::Decoder,
    wave::mask,
};
