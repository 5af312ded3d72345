//! On which CPUs a quantized model computes what it says.

use serde::Serialize;

use super::SAFE_PAIR;
use crate::raise::{constant, optional};
use onnxq_ir::{
    Model, NodeId, ValueId,
    ops::{Layout, Operand, Set, Traits},
    tensor::{DType, Tensor, TensorError},
};

/// Which int8 layers of a model could saturate without VNNI.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Safety {
    /// Layers that multiply uint8 activations with int8 weights.
    pub layers: usize,
    /// Those with a pair of neighbouring weights that an activation could overflow.
    #[serde(rename = "unsafe")]
    pub unsafe_layers: Vec<Unsafe>,
}

/// A layer that could saturate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Unsafe {
    #[serde(skip)]
    pub id: NodeId,
    pub node: String,
    pub op: String,
}

const ANYWHERE: &[&str] = &["x86-64", "arm64"];
const NOT_OLD: &[&str] = &["x86-64 with AVX512-VNNI or AVX-VNNI", "arm64"];

impl Safety {
    /// The CPUs on which nothing saturates.
    pub fn safe_on(&self) -> &'static [&'static str] {
        if self.unsafe_layers.is_empty() { ANYWHERE } else { NOT_OLD }
    }

    /// One line; `None` for a model without such layers.
    pub fn text(&self) -> Option<String> {
        let cpus = self.safe_on().join(" and ");
        match (self.layers, self.unsafe_layers.len()) {
            (0, _) => None,
            (all, 0) => {
                Some(format!("int8 exact on every {cpus} CPU: 0 of {all} layers can saturate"))
            }
            (all, it) => Some(format!(
                "int8 exact on {cpus} only: on older CPUs {it} of {all} layers can saturate \
                     (see `onnxq explain avx2`)"
            )),
        }
    }
}

/// Operators whose kernels saturate: `ConvInteger` has one of its own.
const KERNELS: Set = Set::of(Traits::INTEGER).minus(&["ConvInteger"]);

/// What the weights of a model allow, whatever its input.
pub fn safety(m: &Model) -> Result<Safety, TensorError> {
    let mut safety = Safety::default();
    for id in m.nodes() {
        let weights = weights(m, id);
        safety.layers += usize::from(!weights.is_empty());
        for weight in weights {
            if weight.overflows()? {
                let (node, op) = (m.node_label(id), m.node(id).op.to_string());
                safety.unsafe_layers.push(Unsafe { id, node, op });
                break;
            }
        }
    }
    Ok(safety)
}

/// int8 values, and where neighbours of a sum lie in them.
struct Quantized {
    tensor: Tensor,
    /// `[rows, k]` in memory; else `[k, columns]`.
    turned: bool,
    /// A convolution's `[channels, taps]`.
    conv: Option<[usize; 2]>,
}

/// The int8 weights of a layer with a saturating kernel.
fn weights(m: &Model, node: NodeId) -> Vec<Quantized> {
    let op = &m.node(node).op;
    let kernel = op.info().filter(|_| op.is_in(KERNELS));
    let Some((layout, inputs)) = kernel.and_then(|it| Some((it.layout?, it.quantized?))) else {
        return fused(m, node).into_iter().collect();
    };
    if inputs.operands.iter().any(|it| is_signed(m, node, it)) {
        return Vec::new();
    }
    let turned = is_turned(m, node, layout);
    let of = |it: &Operand| {
        Quantized::of(m, node, m.operand(node, it.values).ok()?, layout == Layout::Conv, turned)
    };
    inputs.weights.iter().filter_map(of).collect()
}

/// The int8 weight of a float operator between pairs of nodes.
fn fused(m: &Model, node: NodeId) -> Option<Quantized> {
    let op = &m.node(node).op;
    let layout = op.float_layout()?;
    if !matches!(layout, Layout::Conv | Layout::Gemm | Layout::MatMul) {
        return None;
    }
    let dequantized = |index| {
        let value = m.operand(node, index).ok()?;
        let pair = m.producer(value, "DequantizeLinear");
        let pair = pair.or_else(|_| m.producer(value, "com.microsoft.DequantizeLinear")).ok()?;
        m.operand(pair, 0).ok()
    };
    // Either type: int8 becomes uint8 when ONNX Runtime loads the model.
    if constant(m, dequantized(0)?).is_ok() {
        return None;
    }
    let turned = is_turned(m, node, layout);
    Quantized::of(m, node, dequantized(1)?, layout == Layout::Conv, turned)
}

/// Whether quantized values of an activation are int8; their zero point may tell the type, floats
/// have none.
fn is_signed(m: &Model, node: NodeId, operand: &Operand) -> bool {
    let zero = operand.zero.and_then(|it| optional(m, node, it));
    let x = m.operand(node, operand.values);
    operand.zero.is_some() && x.is_ok_and(|it| quantized(m, it, zero) == Some(DType::I8))
}

fn is_turned(m: &Model, node: NodeId, layout: Layout) -> bool {
    layout == Layout::Gemm && m.int_attr(node, "transB", 0) != 0
}

/// The type of an activation's quantized values, if anything tells it.
fn quantized(m: &Model, x: ValueId, zero: Option<ValueId>) -> Option<DType> {
    let zero = zero.and_then(|it| Some(constant(m, it).ok()?.0.dtype).or(m.dtype(it)));
    zero.or_else(|| m.dtype(x))
}

impl Quantized {
    fn of(m: &Model, node: NodeId, value: ValueId, conv: bool, turned: bool) -> Option<Quantized> {
        let (tensor, _) = constant(m, value).ok()?;
        if tensor.dtype != DType::I8 || tensor.numel() == 0 {
            return None;
        }
        if !conv {
            return (tensor.shape.len() >= 2).then_some(Quantized { tensor, turned, conv: None });
        }
        let [outputs, channels, kernel @ ..] = &tensor.shape[..] else { return None };
        // Depthwise convolutions have kernels of their own, which add in 32 bits.
        if *channels == 1 && m.int_attr(node, "group", 1) == *outputs as i64 {
            return None;
        }
        let conv = Some([*channels, kernel.iter().product()]);
        Some(Quantized { tensor, turned: true, conv })
    }

    fn overflows(&self) -> Result<bool, TensorError> {
        let bytes = self.tensor.bytes()?;
        let last = self.tensor.shape.last().copied().unwrap_or(1);
        if let Some([channels, taps]) = self.conv {
            let k = channels * taps;
            let at = |it: usize| it % channels * taps + it / channels;
            let row = |row: &[u8]| (1..k).step_by(2).any(|it| over(row[at(it - 1)], row[at(it)]));
            return Ok(bytes.chunks_exact(k).any(row));
        }
        if self.turned {
            let row = |row: &[u8]| row.chunks_exact(2).any(|it| over(it[0], it[1]));
            return Ok(bytes.chunks_exact(last).any(row));
        }
        let k = self.tensor.shape[self.tensor.shape.len() - 2];
        let two = |pair: &[u8]| {
            let (a, b) = pair.split_at(last);
            // The last row of an odd number has no neighbour.
            a.iter().zip(b).any(|(a, b)| over(*a, *b))
        };
        Ok(bytes
            .chunks_exact(k * last)
            .any(|it| it.chunks(2 * last).filter(|it| it.len() > last).any(two)))
    }
}

/// Whether an activation exists with which two int8 weights overflow 16 bits.
fn over(a: u8, b: u8) -> bool {
    let (a, b) = (i32::from(a as i8), i32::from(b as i8));
    (a.max(0) + b.max(0)).max(-(a.min(0) + b.min(0))) > SAFE_PAIR
}
