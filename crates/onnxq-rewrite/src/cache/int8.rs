//! A cache of floats becomes one of eight bits: a fourth of the memory, read at each token.
//!
//! ```text
//! Attention(q, k, v, mask, past_k, past_v)
//!         →  com.microsoft.GroupQueryAttention(q, k, v, past_k, past_v, seqlens_k, total, …, mask, k_scale, v_scale)
//! ```
//!
//! ONNX Runtime stores `round(x / scale)` and takes a row of the cache back as `scale · q`. The
//! operator always masks causally, so the mask must be proven to be causal; with padding it is
//! still added.

use super::{
    CacheError,
    add::retype,
    find::{self, Layer, refused},
};
use crate as rewrite;
use crate::{
    passes::Site,
    rules::{size_of, sized},
};
use onnxq_ir::{
    Attr, Attrs, Model, NoMatch, Patch, Ref, ValueId,
    ctx::Ctx,
    no_match,
    tensor::{DType, Tensor, TensorType},
};

/// The steps between two quantized values of a layer's cache.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scales {
    pub key: f32,
    pub value: f32,
}

impl Scales {
    /// Steps whose largest quantized value, 127, stands for the largest value.
    pub fn of_largest([key, value]: [f32; 2]) -> Scales {
        let step = |it: f32| if it > 0.0 { it / 127.0 } else { 1.0 };
        Scales { key: step(key), value: step(value) }
    }
}

/// Stores caches in eight bits, with scales for each layer in the order of [`super::caches`].
///
/// The scales become initializers called as the input with `.scale` appended.
pub fn to_int8(model: &mut Model, scales: &[Scales], ctx: &Ctx) -> Result<usize, CacheError> {
    let mut m = model.clone();
    rewrite::run(&mut m, &["infer-types"], ctx)?;
    let cached = find::caches(&m)?;
    let layers = find::layers(&m)?;
    let sites = find::sites(&m, &layers)?;
    assert!(scales.len() == layers.len(), "scales for each layer");
    for it in &layers {
        check(&m, it).map_err(|reason| refused(&m, it.node, reason))?;
    }
    let mut lengths = None;
    for ((layer, cache), scales) in layers.iter().zip(&cached.layers).zip(scales) {
        let site = sites.iter().find(|it| it.users.contains(&layer.node));
        let Some(site) = site else { return Err(CacheError::NoAttention) };
        let names = cache.past.each_ref().map(|it| format!("{it}.scale"));
        lengths = Some(quantize(&mut m, layer, site, (names, *scales), lengths));
    }
    m.remove_all_dead();
    if m.opset("com.microsoft") == 0 {
        m.set_opset("com.microsoft", 1);
    }
    rewrite::run(&mut m, &["dedupe-nodes", "remove-dead", "infer-types"], ctx)?;
    *model = m;
    Ok(layers.len())
}

/// What ONNX Runtime's kernel for caches of integers demands.
fn check(m: &Model, layer: &Layer) -> Result<(), NoMatch> {
    let [key, value] = layer.sizes;
    if key != value {
        return Err(no_match!("keys have {key} elements for each head, values {value}"));
    }
    if key % 8 != 0 {
        return Err(no_match!("heads of {key} elements: an int8 cache needs a multiple of 8"));
    }
    let heads = m.int_attr(layer.node, "q_num_heads", 0);
    if heads <= 0 || heads % layer.kv_heads as i64 != 0 {
        return Err(no_match!("{heads} heads are not a multiple of {}", layer.kv_heads));
    }
    Ok(())
}

/// The index of the last key in each row of the batch, and the number of keys, as values.
type Lengths = [ValueId; 2];

fn quantize(
    m: &mut Model,
    layer: &Layer,
    site: &Site,
    (names, scales): ([String; 2], Scales),
    lengths: Option<Lengths>,
) -> Lengths {
    let node = layer.node;
    let old = m.node(node).clone();
    let mut patch = Patch::before(node);
    let lengths = lengths.map_or_else(|| counts(m, site, &mut patch), |it| it.map(Ref::from));
    let [k_scale, v_scale] = [(&names[0], scales.key), (&names[1], scales.value)]
        .map(|(name, it)| patch.constant(name, Tensor::from_f32(&[1], [it])));
    let given = |index: usize| old.inputs.get(index).copied().flatten().map_or(Ref::None, Ref::Old);
    let bias = if site.padding.is_some() { given(3) } else { Ref::None };
    let none = Ref::None;
    let [q, k, v, past_k, past_v] = [0, 1, 2, 4, 5].map(given);
    let inputs = [
        q, k, v, past_k, past_v, lengths[0], lengths[1], none, none, none, bias, none, k_scale,
        v_scale,
    ];
    let stem = if old.name.is_empty() { "attention" } else { &*old.name };
    let outputs = [stem, "present_key", "present_value"];
    let op = "com.microsoft.GroupQueryAttention";
    let new = patch.named_outputs(&old.name, outputs, op, inputs, attrs(m, layer));
    let mut patch = patch;
    for (it, new) in old.outputs.iter().zip(new) {
        patch = patch.replace(*it, new);
    }
    let made = patch.apply(m);
    let (past, present) = ([old.inputs[4], old.inputs[5]], [new[1], new[2]]);
    let caches = past.into_iter().flatten().chain(present.map(|it| made.value(it)));
    for it in caches.collect::<Vec<_>>() {
        let shape = m.shape(it).ok().cloned();
        retype(m, it, TensorType { dtype: DType::I8, shape });
    }
    lengths.map(|it| made.value(it))
}

fn attrs(m: &Model, layer: &Layer) -> Attrs {
    let node = layer.node;
    let mut attrs = Attrs::default()
        .with("num_heads", m.int_attr(node, "q_num_heads", 0))
        .with("kv_num_heads", layer.kv_heads as i64);
    for name in ["scale", "softcap"] {
        if let Some(Attr::Float(it)) = m.node(node).attrs.get(name) {
            attrs = attrs.with(name, *it);
        }
    }
    attrs
        .with("kv_cache_bit_width", 8i64)
        .with("k_quant_type", "PER_TENSOR")
        .with("v_quant_type", "PER_TENSOR")
}

/// `total - 1` for each row of the batch, and `total`, both int32.
fn counts(m: &Model, site: &Site, patch: &mut Patch) -> [Ref; 2] {
    let attrs = Attrs::default;
    let (query, axis) = site.query;
    let total = match (site.padding, site.past) {
        (Some(it), _) => size_of(patch, (it, 1)),
        (None, past) => {
            let length = size_of(patch, sized(m, &site.length, (query, axis)));
            match past {
                None => length,
                Some(it) => {
                    let past = size_of(patch, (it, 2));
                    patch.step("total", "Add", [past, length], attrs())
                }
            }
        }
    };
    let one = patch.constant("one", Tensor::from_i64(&[1], [1]));
    let to = || attrs().with("to", i64::from(DType::I32.number()));
    let last = patch.step("last_key", "Sub", [total, one], attrs());
    let last = patch.step("last_key_int32", "Cast", [last], to());
    let batch = size_of(patch, sized(m, &site.batch, (query, 0)));
    let last = patch.step("last_keys", "Expand", [last, batch], attrs());
    let total = patch.step("total_keys", "Squeeze", [total], attrs());
    [last, patch.step("total_int32", "Cast", [total], to())]
}
