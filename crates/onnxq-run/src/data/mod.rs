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
#[cfg(not(feature = "text"))]
mod no_text;
pub mod npy;
pub mod npz;
mod open;
mod records;
mod sketch;
mod source;
mod tables;
mod test_data;
mod text_data;
#[cfg(feature = "text")]
mod tokenizer;
pub mod training;
#[cfg(feature = "text")]
mod vocabulary;

pub(crate) use crate::engine::roles;
pub use crate::engine::roles::{Role, make, role};

#[cfg(not(feature = "text"))]
pub use self::no_text::{ChatTemplate, Encoded, Vocabulary};
pub use self::{
    batches::{Batch, Batches, DataOptions},
    dataset::Dataset,
    error::DataError,
    fit::converted,
    images::SHIPPED as PRESETS,
    open::open,
    sketch::{Contents, Sketch},
    tables::{fitting, rows_for},
};
#[cfg(feature = "text")]
pub use self::{
    chat::ChatTemplate,
    vocabulary::{Encoded, Vocabulary},
};
