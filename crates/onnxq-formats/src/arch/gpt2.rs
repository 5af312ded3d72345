//! GPT-2: learnt places, norms with a mean, products stored with inputs in rows.

use super::{
    Architecture, Attention, Block, Embedding, Linear, Mlp, Norm, Param, Positions, Qkv, Sublayer,
    common::{self, Names},
    describe::{Shape, Source},
};
use crate::{
    CheckpointError,
    arch::{Activation, Places},
};

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    config.must_be("scale_attn_weights", true)?;
    config.must_be("scale_attn_by_inverse_layer_idx", false)?;
    config.must_be("add_cross_attention", false)?;
    // The order of the same operations, and the context that the sizes of tables say.
    config.ignore(&["reorder_and_upcast_attn", "n_ctx"]);
    let shape = common::simple_shape(source, &NAMES)?;
    let epsilon = config.positive_or("layer_norm_epsilon", 1e-5)?;
    let activation = source.activation("activation_function", "gelu_new")?;
    let prefix = source.prefix("transformer.");
    let words = Param::new(format!("{prefix}wte.weight"), [shape.vocabulary, shape.hidden]);
    let table = Param::new(format!("{prefix}wpe.weight"), [shape.context, shape.hidden]);
    let positions = Some(Positions { table, from: Places::Given });
    let tied = config.flag_or("tie_word_embeddings", true)?;
    let block = |layer| block(&shape, &format!("{prefix}h.{layer}"), (activation, epsilon));
    let blocks = (0..shape.layers).map(block).collect();
    let head = source.tokens(&words, ("lm_head", tied), None);
    let embedding = Embedding { positions, ..Embedding::of_words(words) };
    let mut model = Architecture::new(&shape, embedding, blocks, head);
    model.norm = Some(Norm::layer(&format!("{prefix}ln_f"), shape.hidden, epsilon));
    model.buffers = vec!["attn.bias", "attn.masked_bias"];
    model.buffers.extend(tied.then_some("lm_head.weight"));
    Ok(model)
}

const NAMES: Names = Names {
    hidden: "n_embd",
    heads: "n_head",
    layers: "n_layer",
    inner: ("n_inner", Some(4)),
    context: "n_positions",
};

fn block(shape: &Shape, name: &str, (activation, epsilon): (Activation, f64)) -> Block {
    let Shape { hidden, inner, .. } = *shape;
    let linear = |it: &str, sizes| Linear::new(&format!("{name}.{it}"), sizes, true).turned();
    let norm = |it: &str| Norm::layer(&format!("{name}.{it}"), hidden, epsilon);
    let qkv = Qkv::Joint(linear("attn.c_attn", [hidden, 3 * hidden]));
    let attention = Attention::new(shape, qkv, linear("attn.c_proj", [hidden, hidden]));
    let mlp = Mlp {
        gate: None,
        up: linear("mlp.c_fc", [hidden, inner]),
        down: linear("mlp.c_proj", [inner, hidden]),
        activation,
    };
    Block {
        attention: Sublayer::new(&format!("{name}.attn"), attention).after(norm("ln_1")),
        mlp: Sublayer::new(&format!("{name}.mlp"), mlp).after(norm("ln_2")),
    }
}
