//! Gemma 3, its text models: Gemma 2 with norms of queries and keys, and rotary embeddings of their
//! own for layers with a window.

use super::{Architecture, Norm, common, describe::Source, gemma, gemma2, rotary};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    config.ignore(&["hidden_act"]);
    let activation = source.activation("hidden_activation", "gelu_pytorch_tanh")?;
    let (shape, mut it) =
        gemma::decoder(source, (activation, 1_000_000.0), Some("full_attention"))?;
    gemma2::sandwich(source, &shape, &mut it)?;
    let epsilon = config.positive("rms_norm_eps")?;
    let pattern = config.size_or("sliding_window_pattern", 6)?;
    let is_local = |layer: usize| !(layer + 1).is_multiple_of(pattern);
    let local = common::local_layers(source, shape.layers, is_local)?;
    common::set_windows(&mut it, &local, config.size_if("sliding_window")?);
    let base = config.positive_or("rope_local_base_freq", 10_000.0)?;
    it.rotaries.push(match config.has("rope_parameters") {
        true => rotary::read(config, &shape, Some("sliding_attention"), base)?,
        false => rotary::plain(shape.head_size, base),
    });
    for (block, is_local) in it.blocks.iter_mut().zip(local) {
        let norm = |name: &str| Norm::rms(name, shape.head_size, epsilon).plus_one();
        common::norm_heads(block, norm);
        block.attention.body.rotary = Some(usize::from(is_local));
    }
    Ok(it)
}
