//! How much an input may ask for before it is refused.

use serde::{Deserialize, Serialize};

use super::ExternalPolicy;

/// The newest standard operator set and IR version of the vendored schema (onnx 1.23).
pub const KNOWN_OPSET: i64 = 28;
pub const KNOWN_IR: i64 = 14;

/// Bounds that no real model reaches; each is checked before memory is spent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Message nesting; protobuf's own limit everywhere.
    pub depth: usize,
    /// Bytes that decoding may allocate, apart from tensor data, which stays in the mapping.
    pub heap: u64,
    /// And this many more for each byte of the file outside of tensor data.
    pub heap_per_byte: u64,
    pub rank: usize,
    /// Imported operator sets, of the model and of each function.
    pub opsets: usize,
    /// Bytes that the dense form of a sparse tensor may have.
    pub dense: usize,
    /// Nodes after inlining every model-local function.
    pub inlined_nodes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            depth: 100,
            heap: 128 << 20,
            heap_per_byte: 40,
            rank: 64,
            opsets: 1000,
            dense: 1 << 36,
            inlined_nodes: 10_000_000,
        }
    }
}

/// What `open` accepts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct OpenOptions {
    pub limits: Limits,
    pub external: ExternalPolicy,
    pub allow_unknown_opset: bool,
    /// Lose fields that our schema does not know and that cannot be carried along.
    pub drop_unknown: bool,
    /// Inputs with a default stay inputs, which the caller may override; else their defaults are
    /// constants for whoever changes the model.
    pub keep_inputs: bool,
}
