//! Quantized forms, whoever made them, as one thing: a product or a look-up whose weight is
//! quantized, and how its activation is.
//!
//! A form is recognised here and nothing changes yet: [`super::lower`] writes the same site in
//! another form, or says why that form cannot hold it.

mod integer;
mod kernel;
mod nbits;
mod operand;
mod qdq;
mod qlinear;
pub(crate) mod stored;

use std::{collections::BTreeMap, sync::Arc};

pub use self::kernel::kernel;
pub use self::operand::{activation, constant, dequantize, optional, quantize, stem};
pub(crate) use self::qdq::GATHER_ROWS;
use self::stored::{Key, Stored};
use onnxq_ir::{
    Model, NoMatch, NodeId, ValueId,
    tensor::{DType, QSource, Tensor, ZeroPoints},
};

/// What a recogniser says of a node: nothing if it is no such form, or why it cannot be raised.
type Found = Option<Result<Site, NoMatch>>;

/// A quantized product or look-up.
#[derive(Clone)]
pub struct Site {
    /// The form it has, as `inspect` calls it.
    pub form: &'static str,
    /// The operator sets it needs are standard.
    pub standard: bool,
    /// The last node of it, whose place new nodes take.
    pub last: NodeId,
    /// What it computes.
    pub output: ValueId,
    /// How `output` is quantized, if it is quantized values: scale and zero.
    pub requantized: Option<(ValueId, ValueId)>,
    pub kind: Kind,
    pub weight: Weight,
}

#[derive(Clone)]
pub enum Kind {
    /// `x · w`, and a bias.
    Product { x: Input, bias: Option<Bias> },
    /// Rows of the weight.
    Rows { indices: ValueId },
}

#[derive(Clone, Copy)]
pub enum Bias {
    Float(ValueId),
    /// int32, of the scale of the activation times that of the weight.
    Sums(ValueId),
}

/// The activation of a product.
#[derive(Clone, Copy)]
pub enum Input {
    Float(ValueId),
    /// Quantized by its own range inside of the operator.
    Fused(ValueId),
    Quantized {
        quantized: ValueId,
        scale: ValueId,
        zero: Option<ValueId>,
        /// What the quantized values were before, if the model has it.
        x: Option<ValueId>,
        /// By its own range in each run.
        dynamic: bool,
    },
}

/// A quantized weight.
#[derive(Clone)]
pub struct Weight {
    pub source: Arc<Stored>,
    /// Element type of its values; scales may be stored in half of it, behind a `Cast`.
    pub dtype: DType,
    /// What its parts are called after.
    pub stem: String,
}

/// The weights that were found: nodes that share one get one source.
#[derive(Default)]
pub struct Weights {
    found: BTreeMap<Key, Arc<Stored>>,
    floats: BTreeMap<(usize, DType, bool), Tensor>,
}

impl Weights {
    fn share(&mut self, it: Stored) -> Arc<Stored> {
        match it.key() {
            Some(key) => self.found.entry(key).or_insert_with(|| Arc::new(it)).clone(),
            None => Arc::new(it),
        }
    }

    /// The same weight in other blocks.
    pub fn in_blocks(&mut self, it: &Arc<Stored>, block: usize) -> Result<Arc<Stored>, NoMatch> {
        Ok(self.share(it.in_blocks(block)?))
    }

    /// The float weight, computed when it is written.
    pub fn float(&mut self, it: &Weight, turned: bool) -> Tensor {
        let key = (Arc::as_ptr(&it.source).addr(), it.dtype, turned);
        self.floats.entry(key).or_insert_with(|| it.source.float(it.dtype, turned)).clone()
    }
}

/// One row: an operator that is, or ends, a quantized form.
struct Form {
    op: &'static str,
    recognise: fn(&Model, NodeId, &mut Weights) -> Option<Result<Site, NoMatch>>,
}

/// In alphabetical order.
const FORMS: &[Form] = &[
    Form { op: "Gather", recognise: qdq::gather },
    Form { op: "Gemm", recognise: qdq::gemm },
    Form { op: "MatMul", recognise: qdq::matmul },
    Form { op: "MatMulInteger", recognise: integer::matmul_integer },
    Form { op: "QLinearMatMul", recognise: qlinear::matmul },
    Form {
        op: "com.microsoft.DynamicQuantizeLSTM",
        recognise: |_, _, _| Some(Err(NoMatch(LSTM.into()))),
    },
    Form { op: "com.microsoft.DynamicQuantizeMatMul", recognise: integer::dynamic_quantize_matmul },
    Form { op: "com.microsoft.GatherBlockQuantized", recognise: nbits::gather },
    Form { op: "com.microsoft.MatMulBnb4", recognise: |_, _, _| Some(Err(NoMatch(BNB4.into()))) },
    Form { op: "com.microsoft.MatMulIntegerToFloat", recognise: integer::matmul_to_float },
    Form { op: "com.microsoft.MatMulNBits", recognise: nbits::matmul },
    Form { op: "com.microsoft.QAttention", recognise: |_, _, _| Some(Err(NoMatch(FUSED.into()))) },
    Form {
        op: "com.microsoft.QEmbedLayerNormalization",
        recognise: |_, _, _| Some(Err(NoMatch(FUSED.into()))),
    },
    Form { op: "com.microsoft.QGemm", recognise: qlinear::gemm },
];

const BNB4: &str = "its quantized values stand for points of a table, not for multiples of a scale";
const FUSED: &str = "its weights are inside a fused operator";
const LSTM: &str = "no other form stores the weights of recurrent operators";

/// The site that a node is, or a reason why a quantized node is none. `None`: not quantized.
pub fn site(m: &Model, node: NodeId, weights: &mut Weights) -> Option<Result<Site, NoMatch>> {
    let op = &m.node(node).op;
    let form = FORMS.iter().find(|it| op.is(it.op))?;
    (form.recognise)(m, node, weights)
}

/// How often each form occurs, and why quantized nodes have none that is known.
pub fn forms(m: &Model) -> BTreeMap<String, usize> {
    let (mut forms, mut weights) = (BTreeMap::new(), Weights::default());
    for node in m.nodes().into_iter().filter(|it| m.in_main(m.node(*it).graph)) {
        let name = match site(m, node, &mut weights) {
            Some(Ok(it)) => it.describe(),
            Some(Err(reason)) => format!("{}: {reason}", m.node(node).op),
            None => continue,
        };
        *forms.entry(name).or_default() += 1;
    }
    forms
}

impl Site {
    /// `MatMulNBits, 4 bits in blocks of 32, asymmetric, float activations`.
    fn describe(&self) -> String {
        let shape = self.weight.source.shape();
        let scales = match shape.blocks() {
            1 => "a scale per channel".to_owned(),
            _ => format!("blocks of {}", shape.block),
        };
        let zero_points = match (shape.zero_points, self.weight.source.integer_zeros()) {
            (_, Err(_)) => "float zero points",
            (ZeroPoints::Minimum, _) => "with minimums",
            (ZeroPoints::Symmetric, _) => "symmetric",
            (ZeroPoints::Asymmetric, _) => "asymmetric",
        };
        let x = match &self.kind {
            Kind::Rows { .. } => "",
            Kind::Product { x: Input::Float(_), .. } => ", float activations",
            Kind::Product { x: Input::Quantized { dynamic: false, .. }, .. } => {
                ", static activations"
            }
            Kind::Product { .. } => ", dynamic activations",
        };
        format!("{}: {} bits, {scales}, {zero_points}{x}", self.form, shape.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_in_alphabetical_order() {
        assert!(FORMS.is_sorted_by(|a, b| a.op < b.op));
    }
}
