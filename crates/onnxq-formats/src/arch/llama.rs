//! Llama, and what calls itself so: TinyLlama, SmolLM2, Llama 3.

use super::{
    Architecture,
    common::{self, LLAMA, Variant},
    describe::Source,
};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    let bias = config.flag_or("attention_bias", false)?;
    let variant = Variant {
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        activation: source.activation("hidden_act", "silu")?,
        ..LLAMA
    };
    common::decoder(source, &common::shape(source, None)?, &variant)
}
