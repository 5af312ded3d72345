//! Data for calibrating and comparing: files of strangers become checked batches of model inputs.

mod batches;
mod error;
mod fit;
pub mod npy;
pub mod npz;
mod roles;
mod test_data;
mod text_data;

pub use self::{
    batches::{Batch, Batches, DataOptions, open},
    error::DataError,
    fit::converted,
};
