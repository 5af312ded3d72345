//! What the workspace does as a whole, from outside and across crates: one file per subject.
//!
//! Every test runs as a thread of one process: none may change the environment or the current
//! folder, and what looks at the whole process starts one of its own (`kernels`).
#![cfg_attr(
    not(all(feature = "cli", feature = "runtime", feature = "text", feature = "images")),
    allow(dead_code, reason = "helpers are written for all tests, and some of those are left out")
)]

#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod adapt;
mod adding;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod as_stored;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod attribution;
mod bad_checkpoints;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod calibrate;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod calibration_cli;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod checkpoints;
#[cfg(feature = "cli")]
mod cli;
mod common;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod convert;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod custom_ops;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod decided_sizes;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod distil;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod engine;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod examples;
mod formats;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod gates;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod gguf;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod gguf_text;
mod golden;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod guided;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod help;
#[cfg(all(feature = "cli", feature = "runtime", feature = "images"))]
mod images;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod import;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod isolation;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod judged;
mod kernels;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod kv_cache;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod library;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod lint;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod lstm;
#[cfg(feature = "cli")]
mod malformed;
#[cfg(feature = "cli")]
mod memory;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod mixed;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod odd_outputs;
mod operator_facts;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod opset;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod package;
mod page;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod proof;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod provenance;
mod prune;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod quantize_cli;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod ranges;
#[cfg(feature = "cli")]
mod report_outputs;
#[cfg(feature = "cli")]
mod roundtrip;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod run_cli;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod saturation;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod serve;
mod shuffled;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod slips;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod spreads;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod static_cnn;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod static_int8;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod static_quantize;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod streams;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod student;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod suggestions;
mod tidy;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod tied;
#[cfg(feature = "text")]
mod tokens;
#[cfg(all(feature = "cli", feature = "runtime"))]
mod unfused;
#[cfg(all(feature = "cli", feature = "runtime", feature = "text"))]
mod untrue_names;
