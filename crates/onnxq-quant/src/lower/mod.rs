//! Quantized sites in another form: one file per form, and what each cannot hold.

mod conv_integer;
mod emit;
mod float;
mod integer;
mod matmul_nbits;
mod portable;
pub(crate) mod qdq;
pub(crate) mod qlinear;
mod rows;

use std::collections::BTreeMap;

use super::{
    format::MICROSOFT,
    raise::{self, Input, Kind, Site, Weights},
};
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch,
    ctx::Ctx,
    no_match,
    tensor::{DType, Tensor},
};
use onnxq_rewrite as rewrite;
use onnxq_rewrite::PassError;

/// A form that a quantized model can be brought to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// No quantization: weights dequantized, activations as they were.
    Float,
    /// Weights in blocks, float activations: `MatMulNBits`, `GatherBlockQuantized`.
    MatmulNbits,
    /// Standard operators only.
    Portable,
    /// `QuantizeLinear` and `DequantizeLinear` around float operators.
    Qdq,
    /// Operators of integers: `QLinearMatMul`, `MatMulInteger`, …
    Qoperator,
}

/// What a conversion did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `MatMulNBits → DequantizeLinear`, and how often.
    pub converted: BTreeMap<String, usize>,
    /// Products whose activations are no longer quantized.
    pub unquantized: usize,
    pub left: Vec<(NodeId, NoMatch)>,
}

impl Report {
    pub fn changed(&self) -> usize {
        self.converted.values().sum()
    }

    fn count(&mut self, what: String) {
        *self.converted.entry(what).or_default() += 1;
    }
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Target::Float => "float",
            Target::MatmulNbits => "matmul_nbits",
            Target::Portable => "portable",
            Target::Qdq => "qdq",
            Target::Qoperator => "qoperator",
        }
    }

    /// Whether a site has this form already.
    fn has(self, site: &Site) -> bool {
        match self {
            Target::Float => false,
            Target::MatmulNbits => matches!(site.form, "GatherBlockQuantized" | "MatMulNBits"),
            Target::Portable => site.standard,
            Target::Qdq => site.form.contains("DequantizeLinear"),
            Target::Qoperator => {
                let own = ["Gather + DequantizeLinear", "MatMulInteger", "QGemm", "QLinearMatMul"];
                own.contains(&site.form)
            }
        }
    }

    fn lower(self, m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
        match self {
            Target::Float => float::lower(m, site, weights),
            Target::MatmulNbits => matmul_nbits::lower(m, site, weights),
            Target::Portable => portable::lower(m, site, weights),
            Target::Qdq => qdq::lower(m, site, weights),
            Target::Qoperator => integer::lower(m, site, weights),
        }
    }

    /// Whether activations lose their quantization.
    fn frees_activations(self) -> bool {
        matches!(self, Target::Float | Target::MatmulNbits)
    }
}

/// Brings every quantized node that `target` can hold to it, and names those that it cannot.
pub fn convert(m: &mut Model, target: Target, ctx: &Ctx) -> Result<Report, PassError> {
    let mut report = Report::default();
    let mut weights = Weights::default();
    for node in main_nodes(m) {
        if !m.is_live(node) {
            continue;
        }
        match raise::site(m, node, &mut weights) {
            Some(Ok(site)) if target.has(&site) => {}
            Some(Ok(site)) => match target.lower(m, &site, &mut weights) {
                Ok(patch) => {
                    let quantized = matches!(&site.kind, Kind::Product { x, .. } if is_codes(x));
                    report.unquantized += usize::from(quantized && target.frees_activations());
                    patch.apply(m);
                    report.count(format!("{} → {}", site.form, target.name()));
                }
                Err(reason) => report.left.push((node, reason)),
            },
            Some(Err(reason)) => report.left.push((node, reason)),
            None => {}
        }
    }
    conv_integer::convert(m, target, &mut report);
    qlinear::convert(m, target, &mut report);
    if target.frees_activations() {
        float::dequantize_before_moves(m);
        let pairs = float::remove_pairs(m);
        report
            .converted
            .extend((pairs > 0).then(|| ("pairs of activations → float".into(), pairs)));
    }
    if target == Target::Float {
        let constants = float::dequantize_constants(m);
        let what = "DequantizeLinear of constants → float".to_owned();
        report.converted.extend((constants > 0).then_some((what, constants)));
    }
    if report.changed() > 0 {
        rewrite::run(m, rewrite::CLEAN_UP, ctx)?;
    }
    state_versions(m);
    report.left.retain(|it| m.is_live(it.0));
    name_rest(m, target, &mut report);
    Ok(report)
}

/// The operator sets and the IR version that the nodes and constants need.
fn state_versions(m: &mut Model) {
    let uses = |it: &NodeId| &*m.node(*it).op.domain == MICROSOFT;
    match m.nodes().iter().any(uses) {
        true => m.set_opset(MICROSOFT, m.opset(MICROSOFT).max(1)),
        false => m.opsets.retain(|it| &*it.0 != MICROSOFT),
    }
    let is_packed = |it: &Tensor| it.dtype.bits() < 8 && it.dtype != DType::String;
    if m.constants().any(|it| is_packed(it.1)) {
        m.ir_version = m.ir_version.max(FOUR_BITS);
    }
}

/// The IR version that came with int4.
const FOUR_BITS: i64 = 10;

/// What no rule looks at and the target promises not to have.
fn name_rest(m: &Model, target: Target, report: &mut Report) {
    for node in main_nodes(m) {
        let op = &m.node(node).op;
        let standard = op.domain.is_empty() || op.domain.starts_with("ai.onnx");
        let reason = match target {
            Target::Portable if !standard => no_match!("{op} is not written in standard operators"),
            Target::Float if op.name.ends_with("QuantizeLinear") => {
                NoMatch("its codes are used by other operators".into())
            }
            Target::Float if op.is("DequantizeLinear") => {
                let constant = m.operand(node, 0).is_ok_and(|it| m.constant(it).is_ok());
                let whence = if constant { "lie in blocks" } else { "come from other operators" };
                no_match!("its codes {whence}")
            }
            _ => continue,
        };
        if !report.left.iter().any(|it| it.0 == node) {
            report.left.push((node, reason));
        }
    }
}

/// Nodes outside of functions.
fn main_nodes(m: &Model) -> Vec<NodeId> {
    let mut nodes = m.nodes();
    nodes.retain(|it| m.in_main(m.node(*it).graph));
    nodes
}

fn is_codes(x: &Input) -> bool {
    !matches!(x, Input::Float(_))
}
