//! Fuzz targets for everything that reads untrusted bytes, and the engine that feeds them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for people")]

pub mod corpus;
pub mod coverage;
pub mod engine;
pub mod mutate;
pub mod state;
pub mod supervise;
pub mod targets;
