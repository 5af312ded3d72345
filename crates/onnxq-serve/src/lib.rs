//! Models behind HTTP: loaded when they are asked for, each in processes of its own, within a budget
//! of memory. `onnxq serve` is this crate with a command line.

mod backend;
mod config;
mod http;
mod log;
mod metrics;
mod openai;
mod page;
mod presets;
mod problem;
mod registry;
mod sampling;
mod server;
#[cfg(test)]
mod tests;

pub use self::{
    backend::{Backend, Fault, Handle, Memory, Slot, Why, Workers},
    config::{Config, ConfigError, KeepAlive, Limits, ModelConfig, TokenSource},
    log::Log,
    presets::Preset,
    problem::{Kind, Problem},
    server::{Options, serve},
};
