//! onnxq: float ONNX in; the smallest, fastest, verified model for the target CPU out.
//!
//! Everything happens in memory: a [`Model`] is read, [`quantize()`] makes another one of it by a
//! [`Recipe`], [`validate()`] runs both in ONNX Runtime and says how they differ. Files are read and
//! written only by the methods that name a path.
//!
//! ```
//! use onnxq::{Inputs, Model, Recipe, quantize};
//!
//! # fn main() -> Result<(), onnxq::Error> {
//! let model = Model::open("fixtures/slm-fixture/model.onnx")?;
//! let quantized = quantize(model, &Recipe::load("int4")?, &Inputs::default())?;
//! assert!(quantized.to_bytes()?.len() < 1_000_000);
//! # Ok(())
//! # }
//! ```
//!
//! The names here are stable under semantic versioning. The crates below (`onnxq-ir`, …) are not.
//!
//! The library reads no environment variables and keeps no global state, but for ONNX Runtime
//! itself, which can be loaded once per process; see [`Runtime`].

#![deny(missing_docs)]

mod convert;
mod data;
mod error;
mod inputs;
mod model;
mod plan;
mod progress;
mod quantize;
mod recipe;
mod report;
mod runtime;
mod validate;

pub use self::{
    convert::{ConvertOptions, Converted, convert},
    data::{Dataset, DatasetOptions, Tensor},
    error::Error,
    inputs::{Goal, Inputs},
    model::{Model, SaveOptions, Storage},
    plan::{Node, Plan, plan},
    progress::Progress,
    quantize::{Quantized, quantize},
    recipe::{Recipe, recipes},
    report::{Gate, GateResult, Report},
    runtime::Runtime,
    validate::{ValidateOptions, validate},
};
