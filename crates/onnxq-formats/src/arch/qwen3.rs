//! Qwen3: Qwen2 with norms of queries and keys instead of biases.

use super::{
    Architecture, Norm,
    common::{self, LLAMA, Variant},
    describe::Source,
    qwen2,
};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    let shape = common::shape(source, Some(128))?;
    let bias = config.flag_or("attention_bias", false)?;
    let activation = source.activation("hidden_act", "silu")?;
    let variant = Variant { qkv_bias: bias, out_bias: bias, activation, ..LLAMA };
    let mut model = common::decoder(source, &shape, &variant)?;
    let epsilon = config.positive("rms_norm_eps")?;
    for block in &mut model.blocks {
        common::norm_heads(block, |name| Norm::rms(name, shape.head_size, epsilon));
    }
    qwen2::windows(source, &shape, &mut model)?;
    Ok(model)
}
