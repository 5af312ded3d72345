//! Mistral: Llama with a window in every layer.

use super::{
    Architecture,
    common::{self, LLAMA, Variant},
    describe::Source,
};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let shape = common::shape(source, None)?;
    let variant = Variant { activation: source.activation("hidden_act", "silu")?, ..LLAMA };
    let mut model = common::decoder(source, &shape, &variant)?;
    let window = source.config.size_if("sliding_window")?;
    let local = common::local_layers(source, shape.layers, |_| true)?;
    common::set_windows(&mut model, &local, window);
    Ok(model)
}
