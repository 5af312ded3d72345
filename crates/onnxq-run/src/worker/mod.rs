//! Work in a process of its own: requests and answers between this program and a child.
//!
//! A child that dies takes nothing with it, what it measures of itself is its own, and its end gives all
//! of its memory back.

mod channel;
mod client;
mod end;
mod fault;
mod footprint;
mod memory;
mod model;
mod pool;
mod protocol;
mod remote;
mod server;
mod tensors;

pub use self::{
    client::{Handle, Worker, WorkerError, WorkerOptions},
    fault::Fault,
    footprint::footprint,
    memory::Memory,
    model::RemoteModel,
    pool::{Limits, Pool},
    protocol::{Answer, ExamineJob, FootprintJob, Library, LoadJob, OpenJob, Refusal, Request},
    server::serve,
    tensors::{IoHead, TensorHead},
};

/// The subcommand that makes a process of this program a worker.
pub const COMMAND: &str = "worker";
