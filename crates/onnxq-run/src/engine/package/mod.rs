//! Packages: a model with its weights as the kernels of one machine pack them.
//!
//! ONNX Runtime packs weights when it loads a model: each process has its own copies, in memory that no
//! file backs. A package holds the packed weights in a file, which processes map and share. Packing
//! depends on the library and the CPU, so the plain model lies beside, and is what is loaded wherever the
//! packed form does not fit; [`NotUsed`] says why.

mod choose;
mod load;
mod machine;
mod manifest;

pub use self::{
    choose::{Choice, NotUsed, Package, choose, find},
    load::{Loaded, open, prepacked},
    machine::Machine,
    manifest::{FileFacts, MANIFEST, Manifest, ManifestError, PREPACKED, PackedModel, SCHEMA},
};
