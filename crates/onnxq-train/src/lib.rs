//! Training on a CPU, without Python: reverse mode over ONNX graphs.
//!
//! [`lower`](lower::lower()) makes a [`Program`](tape::Program) of a model and the shapes of its inputs;
//! a [`Trainer`](trainer::Trainer) changes initializers only, so a trained model has the inputs,
//! outputs, names and dynamic axes that it had.

pub mod adamw;
pub mod fisher;
pub mod loss;
pub mod lower;
mod ops;
pub mod params;
mod real;
pub mod tape;
pub mod trainer;

pub use self::real::Real;

/// The operators that gradients pass, by their printed names.
pub fn operators() -> Vec<&'static str> {
    ops::Table::<f32>::ROWS.iter().map(|it| it.op).collect()
}
