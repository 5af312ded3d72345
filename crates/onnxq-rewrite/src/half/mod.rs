//! A float32 model as float16 or bfloat16: weights, activations, and Casts where they meet float32.
//!
//! Each node gets the narrow type if its operator takes it and nothing speaks against it; see
//! [`reasons`]. Casts stand where a value has another type than its user wants.

mod casts;
mod reasons;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use self::{casts::Caster, values::Narrowed};
use crate as rewrite;
use crate::PassError;
use onnxq_ir::{
    Attr, Model, NodeId, ValueId,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    tensor::{DType, TensorError},
    untrusted::Untrusted,
};

/// What became of the nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HalfReport {
    /// Nodes that compute in the narrow type.
    pub converted: usize,
    /// Weights that are stored in it.
    pub weights: usize,
    pub casts: usize,
    pub kept: Vec<KeptNode>,
    pub clamped: Vec<Clamped>,
}

/// A node that stays in float32.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptNode {
    pub node: String,
    pub op: String,
    pub reason: String,
}

/// A constant whose magnitude stands for infinity, at the end of the narrow type's range instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Clamped {
    pub value: String,
    pub from: f32,
    pub to: f32,
}

#[derive(Debug, thiserror::Error)]
pub enum HalfError {
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error("`{}` cannot be read", Untrusted(name))]
    Tensor { name: String, source: TensorError },
    #[error("{0} is no narrow float")]
    Type(DType),
}

impl Diagnostic for HalfError {
    fn code(&self) -> Code {
        match self {
            HalfError::Pass(it) => it.code(),
            HalfError::Tensor { source: TensorError::Io(_), .. } => Code::E901,
            HalfError::Tensor { .. } => Code::E303,
            HalfError::Type(_) => Code::E703,
        }
    }
}

/// Before types are decided: constants are where they can be seen, types are known.
const PREPARE: &[&str] =
    &["inline-functions", "constant-to-initializer", "infer-types", "remove-dead"];

/// The largest magnitude of each value that was measured.
pub type Largest = BTreeMap<ValueId, f32>;

/// Brings the model to the form in which types are decided: values are measured in it.
pub fn prepare(model: &mut Model, ctx: &Ctx) -> Result<(), HalfError> {
    rewrite::run(model, PREPARE, ctx)?;
    Ok(())
}

/// Makes `dtype`, float16 or bfloat16, the type of what is float32. With `keep_io`, inputs and
/// outputs of the model stay float32. Nodes whose measured values are beyond the range of the type
/// stay too.
///
/// Weights are converted when they are read; only their ranges are looked at here, one at a time.
pub fn to_half(
    model: &mut Model,
    dtype: DType,
    keep_io: bool,
    largest: &Largest,
    ctx: &Ctx,
) -> Result<HalfReport, HalfError> {
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return Err(HalfError::Type(dtype));
    }
    prepare(model, ctx)?;
    let mut narrowed = Narrowed::new(dtype);
    // Asked once: when its operands are narrow, nothing shows any more that a node took float32.
    let concerned: BTreeSet<NodeId> =
        model.nodes().into_iter().filter(|it| is_concerned(model, *it)).collect();
    let reasons = reasons::reasons(model, &concerned, largest, &mut narrowed)?;
    let mut report = HalfReport { clamped: narrowed.take_clamped(), ..HalfReport::default() };
    for node in model.nodes() {
        if let Some(reason) = reasons.get(&node) {
            let (label, op) = (model.node_label(node), model.node(node).op.to_string());
            report.kept.push(KeptNode { node: label, op, reason: reason.clone() });
        }
    }
    let mut caster = Caster::new(dtype, keep_io);
    caster.interface(model);
    for node in model.nodes().into_iter().filter(|it| concerned.contains(it)) {
        let is_half = !reasons.contains_key(&node);
        report.converted += usize::from(is_half);
        convert(model, node, is_half, &mut caster, &mut narrowed);
    }
    caster.outputs(model);
    (report.casts, report.weights) = (caster.casts, narrowed.count());
    rewrite::run(model, &["dedupe-nodes", "remove-dead"], ctx)?;
    Ok(report)
}

/// Whether the node has to do with float32 at all.
fn is_concerned(m: &Model, node: NodeId) -> bool {
    let it = m.node(node);
    if !m.in_main(it.graph) {
        return false;
    }
    // These take any type and say nothing of it.
    if it.op.is("Shape") || it.op.is("Size") {
        return false;
    }
    let ends = it.inputs.iter().flatten().chain(&it.outputs);
    ends.into_iter().any(|it| m.dtype(*it) == Some(DType::F32))
}

/// Outputs that have the type of the operands.
fn narrow_outputs(m: &Model, node: NodeId) -> Vec<ValueId> {
    let it = m.node(node);
    let count = if it.op.is("LayerNormalization") { 1 } else { it.outputs.len() };
    it.outputs.iter().take(count).copied().filter(|it| m.dtype(*it) == Some(DType::F32)).collect()
}

/// Gives inputs and outputs of one node their types. Nodes come in execution order, so the types
/// of inputs are final.
fn convert(
    m: &mut Model,
    node: NodeId,
    is_half: bool,
    casts: &mut Caster,
    narrowed: &mut Narrowed,
) {
    let fixed = fixed_inputs(m, node);
    for index in 0..m.node(node).inputs.len() {
        let Some(value) = m.node(node).inputs[index] else { continue };
        let wanted = if is_half && !fixed.contains(&index) { casts.dtype } else { DType::F32 };
        let new = match m.constant(value).is_ok() && m.dtype(value) == Some(DType::F32) {
            true if wanted == casts.dtype => narrowed.constant(m, value),
            true => value,
            false => casts.input(m, node, value, wanted),
        };
        if new != value {
            m.set_input(node, index, Some(new));
        }
    }
    if !is_half {
        return;
    }
    attributes(m, node, casts.dtype);
    for output in narrow_outputs(m, node) {
        casts.narrow(m, output);
    }
}

fn fixed_inputs(m: &Model, node: NodeId) -> &'static [usize] {
    m.node(node).op.info().map_or(&[], |it| it.narrow.stay)
}

/// Types and values that attributes state.
fn attributes(m: &mut Model, node: NodeId, dtype: DType) {
    let float = i64::from(DType::F32.number());
    for name in ["to", "dtype"] {
        let stated = matches!(m.node(node).attrs.get(name), Some(Attr::Int(it)) if *it == float);
        if stated && (name == "dtype" || m.node(node).op.is("Cast")) {
            m.set_attr(node, name, i64::from(dtype.number()).into());
        }
    }
    if let Some(Attr::Tensor(value)) = m.node(node).attrs.get("value")
        && value.dtype == DType::F32
    {
        let value = values::narrow(value, dtype);
        m.set_attr(node, "value", value.into());
    } else if m.node(node).op.is("ConstantOfShape") && m.node(node).attrs.get("value").is_none() {
        let zero = values::narrow(&onnxq_ir::tensor::Tensor::from_f32(&[1], [0.0]), dtype);
        m.set_attr(node, "value", zero.into());
    }
}

/// Values and what they are called in another type.
type Made = BTreeMap<ValueId, ValueId>;

#[cfg(test)]
mod tests;
