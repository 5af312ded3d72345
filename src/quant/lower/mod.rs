//! Quantized sites in another form: one file per form, and what each cannot hold.

mod emit;
mod float;
mod integer;
mod matmul_nbits;
mod portable;
pub mod qdq;
pub mod qlinear;
mod rows;

use std::collections::BTreeMap;

use super::raise::{self, Input, Kind, Site, Weights};
use crate::{
    ctx::Ctx,
    ir::{Model, NoMatch, NodeId, Patch},
    no_match,
    rewrite::{self, PassError},
};

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
                let own = ["Gather → DequantizeLinear", "MatMulInteger", "QGemm", "QLinearMatMul"];
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
    qlinear::convert(m, target, &mut report);
    if target.frees_activations() {
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
    if m.nodes().iter().any(|it| &*m.node(*it).op.domain == super::format::MICROSOFT) {
        let version = m.opset(super::format::MICROSOFT).max(1);
        m.set_opset(super::format::MICROSOFT, version);
    }
    if report.changed() > 0 {
        rewrite::run(m, &["dedupe-constants", "dedupe-nodes", "remove-dead"], ctx)?;
    }
    report.left.retain(|it| m.is_live(it.0));
    if target == Target::Portable {
        name_foreign(m, &mut report);
    }
    Ok(report)
}

/// Operators beyond the standard that no rule here touches: the model is not portable for them.
fn name_foreign(m: &Model, report: &mut Report) {
    for node in main_nodes(m) {
        let op = &m.node(node).op;
        let standard = op.domain.is_empty() || op.domain.starts_with("ai.onnx");
        if !standard && !report.left.iter().any(|it| it.0 == node) {
            let reason = no_match!("{op} is not written in standard operators");
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
