//! `com.microsoft.MatMulNBits` and `GatherBlockQuantized`: quantized values in blocks along rows.

use std::sync::Arc;

use super::{
    Bias, Found, Input, Kind, Site, Weight, Weights,
    operand::{constant, optional, stem},
    stored::{Grid, Stored, Zero},
};
use onnxq_ir::{
    Model, NoMatch, NodeId, ValueId, no_match,
    tensor::{DType, QShape, Tensor, ZeroPoints},
};

/// `A, B, scales, zero_points, g_idx, bias`.
pub(super) fn matmul(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    Some(product(m, node, weights))
}

fn product(m: &Model, node: NodeId, weights: &mut Weights) -> Result<Site, NoMatch> {
    if optional(m, node, 4).is_some() {
        return Err(NoMatch("its rows are grouped by an index (g_idx), not in order".into()));
    }
    if m.int_attr(node, "weight_prepacked", 0) != 0 {
        return Err(NoMatch("its weight is packed for one kernel".into()));
    }
    let (k, n) = (size(m, node, "K", 0)?, size(m, node, "N", 0)?);
    let bits = bits(m, node)?;
    let block = size(m, node, "block_size", 0)?;
    let groups = k.div_ceil(block);
    let quantized = m.operand(node, 1)?;
    let (tensor, _) = constant(m, quantized)?;
    if tensor.dtype != DType::U8 || !(block * bits as usize).is_multiple_of(8) {
        return Err(no_match!("its quantized values are {tensor:?} in blocks of {block}"));
    }
    let stride = groups * block;
    let shape = shape([n, k], block, bits);
    let blocks = Blocks { shape, quantized, stride, scales: 2, zero_points: 3, bytes: true };
    let weight = blocks.weight(m, node, tensor, weights)?;
    let bias = optional(m, node, 5).map(Bias::Float);
    let kind = Kind::Product { x: Input::Float(m.operand(node, 0)?), bias };
    let output = m.node(node).output();
    let form = "MatMulNBits";
    Ok(Site { form, standard: false, last: node, output, requantized: None, kind, weight })
}

/// `data, indices, scales, zero_points`.
pub(super) fn gather(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    Some(rows(m, node, weights))
}

fn rows(m: &Model, node: NodeId, weights: &mut Weights) -> Result<Site, NoMatch> {
    let quantized = m.operand(node, 0)?;
    let (tensor, _) = constant(m, quantized)?;
    let [n, width] = tensor.shape[..] else {
        return Err(no_match!("its table has rank {}, not 2", tensor.shape.len()));
    };
    let last = m.int_attr(node, "quantize_axis", 1);
    if m.int_attr(node, "gather_axis", 0) != 0 || !(last == 1 || last == -1) {
        return Err(NoMatch("it gathers or is quantized along another axis".into()));
    }
    let bytes = tensor.dtype == DType::U8;
    let bits = match tensor.dtype {
        DType::U8 => bits(m, node)?,
        DType::U4 | DType::I4 => 4,
        it => return Err(no_match!("its quantized values are {it}")),
    };
    let k = if bytes { width * 8 / bits as usize } else { width };
    let block = size(m, node, "block_size", 128)?;
    if n == 0 || k == 0 {
        return Err(NoMatch("its table is empty".into()));
    }
    let shape = shape([n, k], block, bits);
    let blocks = Blocks { shape, quantized, stride: k, scales: 2, zero_points: 3, bytes };
    let weight = blocks.weight(m, node, tensor, weights)?;
    let kind = Kind::Rows { indices: m.operand(node, 1)? };
    let output = m.node(node).output();
    let form = "GatherBlockQuantized";
    Ok(Site { form, standard: false, last: node, output, requantized: None, kind, weight })
}

/// Where the parts of a weight in blocks are.
struct Blocks {
    shape: QShape,
    quantized: ValueId,
    /// Quantized values from a row to the next.
    stride: usize,
    scales: usize,
    zero_points: usize,
    /// Zeros are packed into bytes, each row from a byte of its own.
    bytes: bool,
}

impl Blocks {
    fn weight(
        &self,
        m: &Model,
        node: NodeId,
        quantized: Tensor,
        weights: &mut Weights,
    ) -> Result<Weight, NoMatch> {
        let shape = self.shape;
        let (n, groups) = (shape.n, shape.blocks());
        let bits = shape.bits as usize;
        let dtype_of_codes = quantized.dtype;
        let signed = dtype_of_codes == DType::I4;
        let quantized = Grid::new(quantized, bits, [self.stride, 1], [n, shape.k])?;
        let (scales, dtype) = constant(m, m.operand(node, self.scales)?)?;
        if scales.numel() != n * groups {
            return Err(no_match!("its scales are {scales:?}, not {n}×{groups}"));
        }
        let width = scales.dtype.bits();
        let scales = Grid::new(scales, width, [groups, 1], [n, groups])?;
        let zero = match optional(m, node, self.zero_points) {
            None if signed || self.bytes => Zero::Code(shape.middle()),
            None => Zero::Code(0),
            Some(it) => self.zero(constant(m, it)?.0, dtype_of_codes)?,
        };
        let source: Arc<Stored> = weights.share(Stored::new(shape, quantized, scales, zero)?);
        Ok(Weight { source, dtype, stem: stem(&m.value(self.quantized).name) })
    }

    fn zero(&self, tensor: Tensor, quantized: DType) -> Result<Zero, NoMatch> {
        let (n, groups, bits) = (self.shape.n, self.shape.blocks(), self.shape.bits as usize);
        if tensor.dtype.is_float() {
            let width = tensor.dtype.bits();
            return Ok(Zero::Floats(Grid::new(tensor, width, [groups, 1], [n, groups])?));
        }
        let stride = match tensor.dtype {
            it if it != quantized => {
                return Err(no_match!(
                    "its zero points are {it}, its quantized values {quantized}"
                ));
            }
            DType::U8 => (groups * bits).div_ceil(8) * 8 / bits,
            DType::U4 | DType::I4 => groups,
            it => return Err(no_match!("its zero points are {it}")),
        };
        Ok(Zero::Quantized(Grid::new(tensor, bits, [stride, 1], [n, groups])?))
    }
}

fn bits(m: &Model, node: NodeId) -> Result<u32, NoMatch> {
    match m.int_attr(node, "bits", 4) {
        it @ (2 | 4 | 8) => Ok(it as u32),
        it => Err(no_match!("its quantized values have {it} bits")),
    }
}

fn size(m: &Model, node: NodeId, name: &str, default: i64) -> Result<usize, NoMatch> {
    let it = usize::try_from(m.int_attr(node, name, default)).unwrap_or(0);
    if (1..1 << 31).contains(&it) {
        return Ok(it);
    }
    Err(no_match!("its {name} is {}", m.int_attr(node, name, default)))
}

/// Until scales and zero points are seen.
fn shape([n, k]: [usize; 2], block: usize, bits: u32) -> QShape {
    let (zero_points, scale) = (ZeroPoints::Symmetric, DType::F32);
    QShape { n, k, block, bits, zero_points, scale, superblock: None }
}
