//! Formats: which schemes each can store, and the rules that lower the canonical form to it.

mod dynamic;
mod dynamic_fused;
mod dynamic_lstm;
mod gather_block_quantized;
mod gather_rows;
mod gguf;
mod matmul_nbits;
mod qdq;
mod qoperator;
mod static_fused;
mod stored;

use std::sync::Arc;

pub use self::{
    gguf::{GGML_SCHEMES, GGUF, GgmlScheme, ggml, ggml_scheme},
    qdq::PER_CHANNEL,
    stored::stored,
};
use super::{
    ops::{Site, Weight},
    plan::Activation,
};
use onnxq_ir::{
    Attrs, Def, Model, NoMatch, NodeId, Patch, Ref, ValueId,
    diag::{Code, Diagnostic},
    no_match,
    tensor::{DType, Packing, Part, QSource, Tensor, ZeroPoints},
};
use onnxq_numerics::scheme::{Granularity, Range, Scheme};
use onnxq_rewrite::Rule;

/// A way to store quantized nodes.
pub struct Format {
    /// What a recipe calls it.
    pub name: &'static str,
    pub help: &'static str,
    /// How the canonical `DequantizeLinear` holds the weight.
    pub packing: Packing,
    /// Whether this place in this model can have the format.
    pub place: fn(&Model, &Site) -> Result<(), NoMatch>,
    /// The scheme as this format stores it, or why it never can, whatever the model.
    pub scheme: fn(Scheme, Option<Activation>) -> Result<Scheme, NoMatch>,
    /// Whether the scales of a float weight may be stored as float16.
    pub half_scales: bool,
    /// Whether static activations may be int8.
    pub int8_activations: bool,
    /// Whether weights become float when the model is loaded, which needs no lowering.
    pub float_when_loaded: bool,
    /// Rules that turn the canonical form into this format.
    pub rules: &'static [&'static Rule],
    /// Whether the canonical form of a node whose activation is static is also that of the file.
    pub stays_canonical: fn(&Model, NodeId) -> bool,
    /// The operator set that the lowered form needs, and its version.
    pub opset: Option<(&'static str, i64)>,
    /// The scheme for rows of so many values, and why it is another one than was asked for.
    pub fitted: fn(Scheme, usize) -> Result<Fitted, NoMatch>,
}

/// A scheme, and why it is another one than was asked for.
pub type Fitted = (Scheme, Option<NoMatch>);

/// In alphabetical order. To add a format, add a file and a line here.
pub const FORMATS: &[&Format] = &[
    &dynamic::DYNAMIC,
    &dynamic_fused::DYNAMIC_FUSED,
    &dynamic_lstm::DYNAMIC_LSTM,
    &gather_block_quantized::GATHER_BLOCK_QUANTIZED,
    &gather_rows::GATHER_ROWS,
    &GGUF,
    &matmul_nbits::MATMUL_NBITS,
    &qdq::QDQ,
    &qoperator::QOPERATOR,
    &static_fused::STATIC_FUSED,
    &stored::STORED,
];

impl Format {
    /// How the canonical `DequantizeLinear` holds the weight of such a site.
    pub fn packing_of(&self, kind: Weight) -> Packing {
        match (kind, self.packing) {
            (Weight::Conv | Weight::ConvTranspose | Weight::Recurrent, _) => Packing::PerRow,
            (Weight::Batched(slices), Packing::PerChannel) => Packing::PerSlice(slices),
            (Weight::Gather, Packing::PerChannel) => Packing::PerRow,
            (_, packing) => packing,
        }
    }
}

impl Format {
    /// Whether its results are GGUF files.
    pub fn is_gguf(&self) -> bool {
        self.name == GGUF.name
    }

    /// Whether it can hold blocks with minimums, or scales that are integers: no operator of ONNX does.
    pub fn holds(&self, scheme: &Scheme) -> Result<(), NoMatch> {
        let is_onnx = matches!(scheme.bits, 2 | 4 | 8) && scheme.is_plain();
        match is_onnx || self.is_gguf() {
            true => Ok(()),
            false => Err(no_match!("types of ggml are for GGUF files: set `format: [gguf]`")),
        }
    }
}

/// Rows of any length are stored.
fn any_width(scheme: Scheme, _: usize) -> Result<Fitted, NoMatch> {
    Ok((scheme, None))
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub fn format(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|it| it.name == name).copied()
}

pub const MICROSOFT: &str = "com.microsoft";

fn is_matmul(m: &Model, site: &Site) -> Result<(), NoMatch> {
    match site.kind {
        Weight::MatMul => Ok(()),
        Weight::Batched(_) => {
            let rank = m.constant(site.weight)?.shape.len();
            Err(no_match!("it takes one matrix, and the weight has rank {rank}"))
        }
        _ => Err(no_match!("it is a form of MatMul")),
    }
}

/// A `MatMul` with one matrix, or with one for each slice of the activation.
fn is_product(_: &Model, site: &Site) -> Result<(), NoMatch> {
    match site.kind {
        Weight::MatMul | Weight::Batched(_) => Ok(()),
        _ => Err(no_match!("it is a form of MatMul")),
    }
}

/// int8 weights of a `MatMul` whose activations are quantized while the model runs.
fn dynamic_scheme(scheme: Scheme, activation: Option<Activation>) -> Result<Scheme, NoMatch> {
    match activation {
        None => {
            return Err(no_match!("it quantizes activations, and the recipe leaves them in float"));
        }
        Some(Activation::Static) => {
            return Err(no_match!("it finds ranges in each run, and the recipe wants them static"));
        }
        Some(Activation::DynamicPerToken | Activation::DynamicPerTensor) => {}
    }
    channel_scheme(scheme)
}

/// int8 weights of nodes whose activations have fixed ranges.
fn static_scheme(scheme: Scheme, activation: Option<Activation>) -> Result<Scheme, NoMatch> {
    match activation {
        Some(Activation::Static) => channel_scheme(scheme),
        Some(_) => Err(no_match!("it wants `range: static` and `granularity: tensor`")),
        None => Err(no_match!("it quantizes activations, and the recipe leaves them in float")),
    }
}

/// Symmetric int8 weights with a scale per channel.
fn channel_scheme(scheme: Scheme) -> Result<Scheme, NoMatch> {
    if scheme.bits != 8 || scheme.zero_points != ZeroPoints::Symmetric {
        return Err(no_match!("it stores symmetric int8 weights only"));
    }
    if scheme.granularity != Granularity::Channel {
        return Err(no_match!("it has one scale per channel, no blocks"));
    }
    // Quantized values are -127..127: a kernel may negate them, and scales stay positive.
    let range = if scheme.range == Range::Full { Range::Narrow } else { scheme.range };
    Ok(Scheme { range, ..scheme })
}

/// Blocks of weights whose activations stay in float.
fn blocked_scheme(scheme: Scheme, activation: Option<Activation>) -> Result<Scheme, NoMatch> {
    if activation.is_some() {
        return Err(no_match!("it takes float activations: set `activation: none`"));
    }
    let Granularity::Block(block) = scheme.granularity else {
        return Err(no_match!("it needs blocks, not one scale per channel"));
    };
    if scheme.bits == 2 && matches!(block, 16 | 256 | 512) {
        return Err(no_match!("2 bits need a block of 32, 64 or 128: no kernel takes {block}"));
    }
    // ONNX Runtime has blocks of 512 since 1.32 (`ops::releases`).
    if !block.is_power_of_two() || !(16..=512).contains(&block) {
        return Err(no_match!("it needs a block of 16, 32, 64, 128, 256 or 512, not {block}"));
    }
    Ok(Scheme { range: Range::Full, ..scheme })
}

/// A quantized weight behind a `DequantizeLinear`, in the given packing.
struct Quantized {
    quantized: ValueId,
    scales: ValueId,
}

/// The parts of a weight in blocks, as the operators of ONNX Runtime take them.
///
/// Nodes that share the weight make equal parts, which `dedupe-constants` makes one.
struct Blocks<'a> {
    source: &'a Arc<dyn QSource>,
    stem: &'a str,
    /// The element type of scales that are stored as another.
    cast: Option<DType>,
}

impl<'a> Blocks<'a> {
    fn of(m: &'a Model, w: &Quantized) -> Result<Blocks<'a>, NoMatch> {
        let (source, ..) = m.constant(w.quantized)?.quantized().expect("checked by quantized()");
        let stem = m.value(w.quantized).name.trim_end_matches("_codes");
        let cast = m.producer(w.scales, "Cast").ok().map(|_| DType::F32);
        Ok(Blocks { source, stem, cast })
    }

    fn quantized(&self, patch: &mut Patch, suffix: &str, packing: Packing) -> Ref {
        self.part(patch, suffix, Part::Quantized, packing)
    }

    fn scales(&self, patch: &mut Patch) -> Ref {
        let scales = self.part(patch, "scales", Part::Scales, Packing::NBits);
        match self.cast {
            Some(dtype) => widened(patch, self.stem, scales, dtype),
            None => scales,
        }
    }

    fn zero_points(&self, patch: &mut Patch) -> Ref {
        self.part(patch, "zeros", Part::ZeroPoints, Packing::NBits)
    }

    fn part(&self, patch: &mut Patch, suffix: &str, part: Part, packing: Packing) -> Ref {
        let tensor = Tensor::packed(self.source.clone(), part, packing);
        patch.constant(&format!("{}_{suffix}", self.stem), tensor)
    }
}

/// Scales of half the size, as the kernel wants them. ONNX Runtime computes this when it loads
/// the model, so the kernel still finds a constant.
pub(super) fn widened(patch: &mut Patch, stem: &str, scales: Ref, dtype: DType) -> Ref {
    let to = Attrs::default().with("to", i64::from(dtype.number()));
    patch.step(&format!("{stem}_scales_float"), "Cast", [scales], to)
}

fn quantized(m: &Model, weight: ValueId, packing: Packing) -> Result<Quantized, NoMatch> {
    let dq = m.producer(weight, "DequantizeLinear")?;
    let quantized = m.operand(dq, 0)?;
    match m.constant(quantized)?.quantized() {
        Some((_, Part::Quantized, it)) if it == packing => {}
        Some(_) => return Err(no_match!("`{}` has another layout", m.value(quantized).name)),
        None => return Err(no_match!("`{}` is not a planned weight", m.value(quantized).name)),
    }
    Ok(Quantized { quantized, scales: m.operand(dq, 1)? })
}

/// A part of a weight under the shape that its node sees, where the packing knows rows only.
pub fn of_shape(tensor: Tensor, shape: &[usize], part: Part, packing: Packing) -> Tensor {
    let mut shape = shape.to_vec();
    match (packing, part) {
        (Packing::PerRow | Packing::PerSlice(_), Part::Quantized) => tensor.reshaped(shape),
        (Packing::PerSlice(_), _) => {
            let summed = shape.len() - 2;
            shape[summed] = 1;
            tensor.reshaped(shape)
        }
        _ => tensor,
    }
}

/// The int8 weight of a product: a matrix with a scale per column, or one for each slice, whose scales
/// are `[…, 1, n]`.
fn product_weight(m: &Model, matmul: NodeId) -> Result<Quantized, NoMatch> {
    let weight = m.operand(matmul, 1)?;
    quantized(m, weight, Packing::PerChannel).or_else(|reason| {
        let dq = m.producer(weight, "DequantizeLinear")?;
        match m.constant(m.operand(dq, 0)?)?.quantized() {
            Some((_, Part::Quantized, it @ Packing::PerSlice(_))) => quantized(m, weight, it),
            _ => Err(reason),
        }
    })
}

/// `DynamicQuantizeLinear` → `DequantizeLinear` → here: the quantized values, scale and zero of an
/// activation.
fn dynamic_activation(m: &Model, x: ValueId) -> Result<[ValueId; 3], NoMatch> {
    let dq = m.producer(x, "DequantizeLinear")?;
    let q = m.producer(m.operand(dq, 0)?, "DynamicQuantizeLinear")?;
    let outputs = &m.node(q).outputs;
    Ok([outputs[0], outputs[1], outputs[2]])
}

/// Brings the model to the form that its planned formats have in a file.
///
/// A planned site that no rule lowers is an error with the rule's reason, never a silent skip.
pub fn lower(m: &mut Model, formats: &[&'static Format]) -> Result<usize, NotLowered> {
    let mut count = 0;
    for node in m.nodes() {
        let mut reasons = Vec::new();
        for rule in formats.iter().flat_map(|it| it.rules) {
            if !m.is_live(node) || !m.node(node).op.is(rule.root) {
                continue;
            }
            match (rule.apply)(m, node) {
                Ok(patch) => {
                    patch.apply(m);
                    count += 1;
                    reasons.clear();
                    break;
                }
                Err(reason) => reasons.push(format!("{}: {reason}", rule.name)),
            }
        }
        if m.is_live(node) && is_canonical(m, node) {
            let stays =
                is_static(m, node) && formats.iter().any(|it| (it.stays_canonical)(m, node));
            if stays {
                continue;
            }
            let reason = reasons.join("; ");
            return Err(NotLowered { node: m.node_label(node), reason });
        }
    }
    for format in formats {
        if let Some((domain, version)) = format.opset {
            let version = m.opset(domain).max(version);
            m.set_opset(domain, version);
        }
    }
    Ok(count)
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` was planned but could not be lowered ({reason})",
    onnxq_ir::untrusted::Untrusted(node)
)]
pub struct NotLowered {
    pub node: String,
    pub reason: String,
}

impl Diagnostic for NotLowered {
    fn code(&self) -> Code {
        Code::E502
    }
}

fn is_canonical(m: &Model, node: NodeId) -> bool {
    m.node(node).inputs.iter().flatten().any(|&it| {
        let Def::Node(dq) = m.value(it).def else { return false };
        let is_dq = m.node(dq).op.is("DequantizeLinear");
        is_dq
            && m.operand(dq, 0)
                .and_then(|it| m.constant(it))
                .is_ok_and(|it| it.quantized().is_some())
    })
}

/// Whether the activation of a node has quantized values of a fixed range.
fn is_static(m: &Model, node: NodeId) -> bool {
    let quantized = || m.operand(m.producer(m.operand(node, 0)?, "DequantizeLinear")?, 0);
    quantized()
        .is_ok_and(|it| m.constant(it).is_err() && m.producer(it, "DynamicQuantizeLinear").is_err())
}

fn attrs(list: &[(&str, i64)]) -> Attrs {
    list.iter().fold(Attrs::default(), |attrs, (name, value)| attrs.with(name, *value))
}
