//! Numbers of quantization, without a graph: solvers turn rows of weights into quantized integers,
//! observers turn counts of activations into ranges, sums do not depend on order.

pub mod affine;
pub mod drift;
pub mod error;
pub mod exact_sum;
pub mod guided;
pub mod moments;
pub mod observe;
pub mod scheme;
pub mod solve;
pub mod specs;
pub mod stats;
