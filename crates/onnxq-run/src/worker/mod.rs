//! Work in a process of its own: requests and answers as JSON between this program and a child.
//!
//! A child that dies takes nothing with it, and what it measures of itself is its own.

mod client;
mod footprint;
mod protocol;
mod server;

pub use self::{
    client::{WorkerError, ask},
    footprint::footprint,
    protocol::{Answer, FootprintJob, Refusal, Request},
    server::{answer, serve},
};

/// The subcommand that makes a process of this program a worker.
pub const COMMAND: &str = "worker";
