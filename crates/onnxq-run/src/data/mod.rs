//! Data for calibrating and comparing: untrusted files become checked batches of model inputs.

pub mod batches;
pub mod digest;
mod error;
mod fit;
#[cfg_attr(not(feature = "images"), allow(dead_code, reason = "nothing is decoded"))]
pub mod images;
pub mod npy;
pub mod npz;
pub mod roles;
mod sketch;
mod test_data;
mod text_data;

pub use self::{
    batches::{Batch, Batches, DataOptions, open},
    error::DataError,
    fit::converted,
    roles::{Role, make, role},
    sketch::{Contents, Sketch},
    text_data::Decoder,
};
