//! Gemma 2: norms around both halves of a block, capped scores, a window in every other layer.

use super::{
    Architecture, Block, Head, Norm, common,
    describe::{Shape, Source},
    gemma,
};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    source.config.ignore(&["hidden_act"]);
    let activation = source.activation("hidden_activation", "gelu_pytorch_tanh")?;
    let (shape, mut it) = gemma::decoder(source, (activation, common::LLAMA.rope_base), None)?;
    sandwich(source, &shape, &mut it)?;
    let local = common::local_layers(source, shape.layers, |layer| layer.is_multiple_of(2))?;
    common::set_windows(&mut it, &local, source.config.size_if("sliding_window")?);
    Ok(it)
}

/// What Gemma 2 and 3 have beyond the first: four norms in a block, caps, a scale of their own.
pub(super) fn sandwich(
    source: &Source,
    shape: &Shape,
    architecture: &mut Architecture,
) -> Result<(), CheckpointError> {
    let config = source.config;
    config.must_be("use_bidirectional_attention", false)?;
    let epsilon = config.positive("rms_norm_eps")?;
    let softcap = config.positive_if("attn_logit_softcapping")?.map(|it| it as f32);
    let scalar = config.positive_or("query_pre_attn_scalar", 256.0)?;
    let last = config.positive_if("final_logit_softcapping")?.map(|it| it as f32);
    if let Head::Tokens { softcap, .. } = &mut architecture.head {
        *softcap = last;
    }
    for (layer, block) in architecture.blocks.iter_mut().enumerate() {
        block.attention.body.softcap = softcap;
        block.attention.body.scale = scalar.powf(-0.5) as f32;
        let norm = |name: &str| {
            Norm::rms(&format!("model.layers.{layer}.{name}"), shape.hidden, epsilon).plus_one()
        };
        set_norms(block, norm);
    }
    Ok(())
}

fn set_norms(block: &mut Block, norm: impl Fn(&str) -> Norm) {
    block.attention.output_norm = Some(norm("post_attention_layernorm"));
    block.mlp.input_norm = Some(norm("pre_feedforward_layernorm"));
    block.mlp.output_norm = Some(norm("post_feedforward_layernorm"));
}
