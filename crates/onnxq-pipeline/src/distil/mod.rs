//! Training a student against a teacher, or on answers.
//!
//! `recover` is a step of `quantize`; `train` is what it and students of other kinds share.

mod apply;
mod cache;
mod examples;
mod files;
mod float;
mod groups;
mod hidden;
mod learnt;
mod losses;
mod recover;
mod run;
mod state;
mod teacher;
mod train;

pub(crate) use self::{
    apply::apply,
    groups::{by_value, unpadded},
    recover::recover,
};
pub use self::{
    examples::{Example, Examples, Lessons},
    float::{Cut, Distil, Distilled, distil},
    hidden::Hidden,
    learnt::{Learnt, NothingGained, Point},
    train::{Student, Training},
};
