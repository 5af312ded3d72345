//! Quantized sites in another form: one file per form, and what each cannot hold.

mod by_row;
mod conv_integer;
mod emit;
mod float;
mod integer;
mod matmul_nbits;
mod portable;
mod qdq;
pub(crate) mod qlinear;
mod rows;

pub use self::{by_row::by_row, float::FLOAT};

use std::{collections::BTreeMap, fmt};

use super::{
    format::MICROSOFT,
    raise::{self, Input, Kind, Site, Weights},
};
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch,
    ctx::Ctx,
    tensor::{DType, Tensor},
};
use onnxq_rewrite as rewrite;
use onnxq_rewrite::PassError;

/// A form that a quantized model can be brought to.
pub struct Form {
    /// What the command line calls it.
    pub name: &'static str,
    /// For the help of the command line.
    pub help: &'static str,
    /// Whether a site has this form already.
    has: fn(&Site) -> bool,
    lower: fn(&Model, &Site, &mut Weights) -> Result<Patch, NoMatch>,
    /// Whether activations lose their quantization.
    frees_activations: bool,
    convolutions: Convolutions,
    /// What becomes of operators between quantized values and quantized values.
    between: Between,
    /// What else to change when all sites have the form; says what, and how often.
    finish: fn(&mut Model) -> Option<(&'static str, usize)>,
    /// Why a node is not what the form promises.
    refuses: fn(&Model, NodeId) -> Option<NoMatch>,
}

/// What becomes of `ConvInteger`.
#[derive(Clone, Copy)]
enum Convolutions {
    Keep,
    /// A float operator between dequantized operands.
    Raise,
    /// They are named, with this reason.
    Refuse(&'static str),
}

/// What becomes of operators between quantized values and quantized values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Keep,
    /// `QLinearAdd` and its like.
    Quantized,
    /// The float operator between `DequantizeLinear` and `QuantizeLinear`.
    Float,
    /// The same of operators that are not ONNX's own.
    Standard,
}

/// In alphabetical order. To add a form, add a file and a line here.
pub const FORMS: &[&Form] = &[
    &float::FLOAT,
    &matmul_nbits::MATMUL_NBITS,
    &portable::PORTABLE,
    &qdq::QDQ,
    &integer::QOPERATOR,
];

/// Leaves alone what a form does not name.
const PLAIN: Form = Form {
    name: "",
    help: "",
    has: |_| false,
    lower: |_, _, _| Err(NoMatch(std::borrow::Cow::Borrowed("it has no such form"))),
    frees_activations: false,
    convolutions: Convolutions::Keep,
    between: Between::Keep,
    finish: |_| None,
    refuses: |_, _| None,
};

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a conversion did.
#[derive(Clone, Debug, Default)]
pub struct LowerReport {
    /// `MatMulNBits → DequantizeLinear`, and how often.
    pub converted: BTreeMap<String, usize>,
    /// Products whose activations are no longer quantized.
    pub unquantized: usize,
    pub left: Vec<(NodeId, NoMatch)>,
}

impl LowerReport {
    pub fn changed(&self) -> usize {
        self.converted.values().sum()
    }

    fn count(&mut self, what: String) {
        *self.converted.entry(what).or_default() += 1;
    }
}

/// Brings every quantized node that `form` can hold to it, and names those that it cannot.
pub fn convert(m: &mut Model, form: &Form, ctx: &Ctx) -> Result<LowerReport, PassError> {
    let mut report = LowerReport::default();
    let mut weights = Weights::default();
    for node in main_nodes(m) {
        if !m.is_live(node) {
            continue;
        }
        match raise::site(m, node, &mut weights) {
            Some(Ok(site)) if (form.has)(&site) => {}
            Some(Ok(site)) => match (form.lower)(m, &site, &mut weights) {
                Ok(patch) => {
                    let quantized =
                        matches!(&site.kind, Kind::Product { x, .. } if is_quantized(x));
                    report.unquantized += usize::from(quantized && form.frees_activations);
                    patch.apply(m);
                    report.count(format!("{} → {}", site.form, form.name));
                }
                Err(reason) => report.left.push((node, reason)),
            },
            Some(Err(reason)) => report.left.push((node, reason)),
            None => {}
        }
    }
    conv_integer::convert(m, form, &mut report);
    qlinear::convert(m, form, &mut report);
    if form.frees_activations {
        float::dequantize_before_moves(m);
        let pairs = float::remove_pairs(m);
        report
            .converted
            .extend((pairs > 0).then(|| ("pairs of activations → float".into(), pairs)));
    }
    let finished = (form.finish)(m).filter(|it| it.1 > 0);
    report.converted.extend(finished.map(|(what, count)| (what.to_owned(), count)));
    if report.changed() > 0 {
        rewrite::run(m, rewrite::CLEAN_UP, ctx)?;
    }
    state_versions(m);
    report.left.retain(|it| m.is_live(it.0));
    name_rest(m, form, &mut report);
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

/// What no rule looks at and the form promises not to have.
fn name_rest(m: &Model, form: &Form, report: &mut LowerReport) {
    for node in main_nodes(m) {
        let Some(reason) = (form.refuses)(m, node) else { continue };
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

fn is_quantized(x: &Input) -> bool {
    !matches!(x, Input::Float(_))
}
