//! Data for calibrating and comparing: files of strangers become checked batches of model inputs.

mod batches;
mod collect;
mod error;
mod fit;
pub mod npy;
pub mod npz;
mod roles;
mod test_data;
mod text_data;

pub use self::{
    batches::{Batch, Batches, DataOptions, open},
    collect::{
        CalibrateError, CollectOptions, Collector, Replacement, StatsFile, Want, can_observe,
    },
    error::DataError,
    fit::converted,
};
