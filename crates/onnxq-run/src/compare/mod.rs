//! How two models' outputs differ on data: both run batch by batch, figures come out.

mod accumulate;
mod cache;
mod deciders;
mod decode;
mod interval;
mod latency;
mod metrics;
mod models;
mod parts;
mod picture;
mod pictures;
mod role;
mod sizes;
mod softmax;
mod splits;
mod tokens;
mod vectors;
mod view;

pub use self::{
    decode::decode,
    latency::times,
    models::{CompareError, CompareOptions, compare, inputs, left_out},
    role::{is_cache, role_of},
    sizes::{Pinned, Sizes},
    splits::{Piece, Split, splits},
};
