//! Qwen2 and 2.5: biases for queries, keys and values; windows in upper layers, if switched on.

use super::{
    Architecture,
    common::{self, LLAMA, Variant},
    describe::{Shape, Source},
};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let shape = common::shape(source, None)?;
    let activation = source.activation("hidden_act", "silu")?;
    let variant = Variant { qkv_bias: true, activation, ..LLAMA };
    let mut model = common::decoder(source, &shape, &variant)?;
    windows(source, &shape, &mut model)?;
    Ok(model)
}

/// As `use_sliding_window` says: layers from `max_window_layers` on.
pub(super) fn windows(
    source: &Source,
    shape: &Shape,
    architecture: &mut Architecture,
) -> Result<(), CheckpointError> {
    let config = source.config;
    let window = config.size_if("sliding_window")?;
    let first = config.id_if("max_window_layers")?.unwrap_or(28);
    let local = common::local_layers(source, shape.layers, |layer| layer >= first)?;
    let is_used = config.flag_or("use_sliding_window", false)?;
    common::set_windows(architecture, &local, window.filter(|_| is_used));
    Ok(())
}
