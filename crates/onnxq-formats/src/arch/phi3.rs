//! Phi-3 mini and Phi-4-mini: queries, keys and values in one tensor, gate and up in another.

use super::{
    Architecture, Block, Linear, Qkv,
    common::{self, LLAMA, Variant},
    describe::{Shape, Source},
};
use crate::CheckpointError;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    let shape = common::shape(source, None)?;
    let variant = Variant { activation: source.activation("hidden_act", "silu")?, ..LLAMA };
    config.must_be("attention_bias", false)?;
    // Of the code beside Phi-4-mini: every layer attends, and places are not stretched.
    config.only("full_attn_mod", 1)?;
    config.only("interpolate_factor", 1)?;
    // Counts with `rope_scaling` only, which reads it then.
    config.ignore(&["original_max_position_embeddings"]);
    let mut model = common::decoder(source, &shape, &variant)?;
    model.blocks.iter_mut().for_each(|it| fuse(it, &shape));
    let local = common::local_layers(source, shape.layers, |_| true)?;
    common::set_windows(&mut model, &local, config.size_if("sliding_window")?);
    Ok(model)
}

/// The same products as parts of the tensors that hold them.
fn fuse(block: &mut Block, shape: &Shape) {
    let name = &block.attention.name;
    let (q, kv) = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size);
    let all = Linear::new(&format!("{name}.qkv_proj"), [shape.hidden, q + 2 * kv], false);
    let part = |it: &str, start, size| all.part(&format!("{name}.{it}"), start..start + size);
    let parts = [part("q_proj", 0, q), part("k_proj", q, kv), part("v_proj", q + kv, kv)];
    block.attention.body.qkv = Qkv::Apart(parts.into());
    let (name, inner) = (&block.mlp.name, shape.inner);
    let all = Linear::new(&format!("{name}.gate_up_proj"), [shape.hidden, 2 * inner], false);
    let part = |it: &str, start| all.part(&format!("{name}.{it}"), start..start + inner);
    let (gate, up) = (part("gate_proj", 0), part("up_proj", inner));
    block.mlp.body.gate = Some(gate);
    block.mlp.body.up = up;
}
