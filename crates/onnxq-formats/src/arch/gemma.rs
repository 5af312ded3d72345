//! Gemma: norms of 1 + weight, a scaled embedding.

use super::{
    Activation, Architecture, Block,
    common::{self, LLAMA, Variant},
    describe::{Shape, Source},
};
use crate::CheckpointError;

/// Of all of its generations, where the file says nothing.
const HEAD_SIZE: usize = 256;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    // Old files say `gelu` and mean its approximation, which the model was trained with.
    source.config.ignore(&["hidden_act"]);
    let activation = source.activation("hidden_activation", "gelu_pytorch_tanh")?;
    let (_, it) = decoder(source, (activation, LLAMA.rope_base), None)?;
    Ok(it)
}

/// What all generations share.
pub(super) fn decoder(
    source: &Source,
    (activation, rope_base): (Activation, f64),
    layer_type: Option<&'static str>,
) -> Result<(Shape, Architecture), CheckpointError> {
    let shape = common::shape(source, Some(HEAD_SIZE))?;
    let bias = source.config.flag_or("attention_bias", false)?;
    let variant = Variant {
        qkv_bias: bias,
        out_bias: bias,
        activation,
        rope_base,
        layer_type,
        tied: true,
        ..LLAMA
    };
    let mut model = common::decoder(source, &shape, &variant)?;
    model.embedding.scale = Some((shape.hidden as f64).sqrt() as f32);
    model.norm = model.norm.map(super::Norm::plus_one);
    model.blocks.iter_mut().for_each(plus_one);
    Ok((shape, model))
}

fn plus_one(block: &mut Block) {
    block.attention.input_norm = block.attention.input_norm.take().map(super::Norm::plus_one);
    block.mlp.input_norm = block.mlp.input_norm.take().map(super::Norm::plus_one);
}
