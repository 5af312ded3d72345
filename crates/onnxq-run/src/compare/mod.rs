//! How two models' outputs differ on data: both run batch by batch, figures come out.

mod accumulate;
mod cache;
mod decode;
mod interval;
mod latency;
mod metrics;
mod models;
mod parts;
mod picture;
mod pictures;
mod role;
mod softmax;
mod splits;
mod tokens;
mod vectors;
mod view;

pub use self::{
    decode::decode,
    models::{CompareError, CompareOptions, compare, left_out},
    splits::{Piece, Split, splits},
};
