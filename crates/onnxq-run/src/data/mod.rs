//! Data for calibrating and comparing: untrusted files become checked batches of model inputs.

mod batches;
mod digest;
mod error;
mod fit;
#[cfg_attr(not(feature = "images"), allow(dead_code, reason = "nothing is decoded"))]
mod images;
mod npy;
pub mod npz;
mod open;
pub(crate) mod roles;
mod sketch;
mod source;
mod test_data;
mod text_data;

pub use self::{
    batches::{Batch, Batches, DataOptions},
    error::DataError,
    fit::converted,
    open::open,
    roles::{Role, make, role},
    sketch::{Contents, Sketch},
    text_data::Decoder,
};
