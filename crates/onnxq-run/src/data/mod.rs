//! Data for calibrating and comparing: untrusted files become checked batches of model inputs.

mod batches;
#[cfg(feature = "text")]
mod charsmap;
#[cfg(feature = "text")]
mod chat;
mod dataset;
mod digest;
mod error;
mod fit;
#[cfg_attr(not(feature = "images"), allow(dead_code, reason = "nothing is decoded"))]
mod images;
pub mod npy;
pub mod npz;
mod open;
mod records;
pub(crate) mod roles;
mod sketch;
mod source;
mod tables;
mod test_data;
mod text_data;
#[cfg(feature = "text")]
mod tokenizer;

pub use self::{
    batches::{Batch, Batches, DataOptions},
    dataset::Dataset,
    error::DataError,
    fit::converted,
    images::SHIPPED as PRESETS,
    open::open,
    roles::{Role, make, role},
    sketch::{Contents, Sketch},
    tables::fitting,
    text_data::Decoder,
};
