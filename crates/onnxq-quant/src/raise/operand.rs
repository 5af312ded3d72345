//! The operands of quantized nodes: constants behind casts and reshapes, weights behind
//! `DequantizeLinear`, activations behind pairs.

use super::{
    Input, Weight, Weights,
    stored::{Grid, Stored, Zero},
};
use onnxq_ir::{
    Model, NoMatch, NodeId, ValueId, no_match,
    tensor::{DType, QShape, Tensor, ZeroPoints},
};

/// A constant, also behind an `Identity`, a `Reshape` of a constant and a `Cast` between floats; and
/// the element type that the `Cast` makes of it.
pub fn constant(m: &Model, value: ValueId) -> Result<(Tensor, DType), NoMatch> {
    let value = match m.producer(value, "Identity") {
        Ok(node) => m.operand(node, 0)?,
        Err(_) => value,
    };
    if let Ok(node) = m.producer(value, "Cast") {
        let tensor = m.constant(m.operand(node, 0)?)?;
        let to = DType::from_number(m.int_attr(node, "to", 0) as i32);
        return match to.filter(|it| it.is_float() && tensor.dtype.is_float()) {
            Some(to) => Ok((tensor.clone(), to)),
            None => Err(no_match!("`{}` is a cast of {tensor:?}", m.value(value).name)),
        };
    }
    if let Ok(node) = m.producer(value, "Reshape") {
        let tensor = m.constant(m.operand(node, 0)?)?.clone();
        let Some(shape) = reshaped(&tensor, &m.small_i64(m.operand(node, 1)?)?) else {
            return Err(no_match!("`{}` is reshaped to no fixed shape", m.value(value).name));
        };
        let dtype = tensor.dtype;
        return Ok((tensor.reshaped(shape), dtype));
    }
    let tensor = m.constant(value)?.clone();
    let dtype = tensor.dtype;
    Ok((tensor, dtype))
}

/// The shape that a `Reshape` with at most one open dimension gives to a tensor.
fn reshaped(tensor: &Tensor, to: &[i64]) -> Option<Vec<usize>> {
    let known = to.iter().filter(|it| **it != -1);
    let known = known.map(|it| usize::try_from(*it).ok().filter(|it| *it > 0));
    let product = known.clone().try_fold(1usize, |product, it| product.checked_mul(it?))?;
    let open = tensor.numel() / product;
    let size = |it: &i64| if *it == -1 { open } else { *it as usize };
    let shape: Vec<usize> = to.iter().map(size).collect();
    let count = to.iter().filter(|it| **it == -1).count();
    let total = if count == 1 { product.checked_mul(open)? } else { product };
    (count <= 1 && total == tensor.numel()).then_some(shape)
}

/// An input that may be left out.
pub fn optional(m: &Model, node: NodeId, index: usize) -> Option<ValueId> {
    m.operand(node, index).ok()
}

/// The quantized values, scales and zero points of a matrix, by channel: as `DequantizeLinear`,
/// `MatMulInteger` and `QLinearMatMul` hold it.
pub(super) struct Channels {
    pub quantized: ValueId,
    pub scales: ValueId,
    pub zero_points: Option<ValueId>,
    /// The quantized values are `[n, k]`, not `[k, n]`.
    pub turned: bool,
    /// Values of `k` that share a scale; `None`: all.
    pub block: Option<usize>,
}

/// Bits of quantized values that we store.
fn bits(dtype: DType) -> Option<u32> {
    match dtype {
        DType::U8 | DType::I8 => Some(8),
        DType::U4 | DType::I4 => Some(4),
        DType::U2 | DType::I2 => Some(2),
        _ => None,
    }
}

impl Channels {
    pub(super) fn weight(&self, m: &Model, weights: &mut Weights) -> Result<Weight, NoMatch> {
        self.matrix(m, constant(m, self.quantized)?.0, weights)
    }

    /// The kernels of a convolution, a row for each of its outputs.
    pub(super) fn kernels(&self, m: &Model, weights: &mut Weights) -> Result<Weight, NoMatch> {
        let (tensor, _) = constant(m, self.quantized)?;
        let rows = tensor.shape.first().copied().unwrap_or(0).max(1);
        let columns = tensor.numel() / rows;
        self.matrix(m, tensor.reshaped(vec![rows, columns]), weights)
    }

    fn matrix(
        &self,
        m: &Model,
        quantized: Tensor,
        weights: &mut Weights,
    ) -> Result<Weight, NoMatch> {
        let name = &m.value(self.quantized).name;
        let [rows, columns] = quantized.shape[..] else {
            return Err(no_match!("`{name}` has rank {}, not 2", quantized.shape.len()));
        };
        let Some(bits) = bits(quantized.dtype) else {
            return Err(no_match!("`{name}` is {}", quantized.dtype));
        };
        let (n, k) = if self.turned { (rows, columns) } else { (columns, rows) };
        if n == 0 || k == 0 {
            return Err(no_match!("`{name}` is empty"));
        }
        let (scales, dtype) = constant(m, self.scales)?;
        let block = self.block.unwrap_or(k);
        let (zeros_kind, scale) = (ZeroPoints::Asymmetric, scales.dtype);
        let shape = QShape { n, k, block, bits, zero_points: zeros_kind, scale, superblock: None };
        let zero = match self.zero_points {
            Some(it) => {
                let zero_points = constant(m, it)?.0;
                if zero_points.dtype != quantized.dtype {
                    return Err(no_match!(
                        "its zero points are {}, its quantized values {}",
                        zero_points.dtype,
                        quantized.dtype
                    ));
                }
                Zero::Quantized(self.parameters(m, it, zero_points, &shape)?)
            }
            None if matches!(quantized.dtype, DType::I8 | DType::I4 | DType::I2) => {
                Zero::Code(shape.middle())
            }
            None => Zero::Code(0),
        };
        let strides = if self.turned { [k, 1] } else { [1, n] };
        let grid = Grid::new(quantized, bits as usize, strides, [n, k])?;
        let scales = self.parameters(m, self.scales, scales, &shape)?;
        let stored = weights.share(Stored::new(shape, grid, scales, zero)?);
        Ok(Weight { source: stored, dtype, stem: stem(name) })
    }

    /// Scales or zeros: one, one per channel, or one per block.
    fn parameters(
        &self,
        m: &Model,
        value: ValueId,
        tensor: Tensor,
        shape: &QShape,
    ) -> Result<Grid, NoMatch> {
        let (n, groups) = (shape.n, shape.blocks());
        let strides = match (tensor.numel(), self.block) {
            (1, _) => [0, 0],
            (it, None) if it == n => [1, 0],
            (it, Some(_)) if it == n * groups && self.turned => [groups, 1],
            (it, Some(_)) if it == n * groups => [1, n],
            _ => {
                let name = &m.value(value).name;
                return Err(no_match!("`{name}` ({tensor:?}) is no scale or zero per channel"));
            }
        };
        let bits = tensor.dtype.bits();
        Grid::new(tensor, bits, strides, [n, groups])
    }
}

/// What new constants are called after.
pub fn stem(name: &str) -> String {
    let suffixes = ["_quantized", "_codes", "_nbits", "_rows", "_Q4", "_Q8", "_Q2"];
    let short = suffixes.iter().find_map(|it| name.strip_suffix(it));
    short.unwrap_or(name).to_owned()
}

/// A weight behind `DequantizeLinear`, and behind a `Transpose` after it. `turned`: the consumer
/// wants `[n, k]`.
pub(super) fn dequantized(
    m: &Model,
    value: ValueId,
    turned: bool,
    weights: &mut Weights,
) -> Result<Weight, NoMatch> {
    if let Ok(node) = m.producer(value, "Transpose") {
        let x = m.operand(node, 0)?;
        if m.ints_attr(node, "perm").is_none_or(|it| it == [1, 0]) && m.rank(x) == Some(2) {
            return dequantized(m, x, !turned, weights);
        }
    }
    let node = dequantize(m, value)?;
    let quantized = m.operand(node, 0)?;
    let (tensor, _) = constant(m, quantized)?;
    let block = m.int_attr(node, "block_size", 0);
    let axis = m.int_attr(node, "axis", 1);
    let axis = if axis < 0 { axis + tensor.shape.len() as i64 } else { axis };
    let (scales, zero_points) = (m.operand(node, 1)?, optional(m, node, 2));
    let of_one = constant(m, scales)?.0.numel() == 1;
    let sums = i64::from(turned);
    let block = match block {
        0 if of_one || axis != sums => None,
        0 => return Err(no_match!("its scales are along axis {axis}, over which it sums")),
        it if it > 0 && axis == sums => usize::try_from(it).ok(),
        _ => return Err(no_match!("its blocks lie along axis {axis}, over which it does not sum")),
    };
    Channels { quantized, scales, zero_points, turned, block }.weight(m, weights)
}

/// The `DequantizeLinear` behind a value, of either domain.
pub fn dequantize(m: &Model, value: ValueId) -> Result<NodeId, NoMatch> {
    m.producer(value, "DequantizeLinear")
        .or_else(|reason| m.producer(value, "com.microsoft.DequantizeLinear").map_err(|_| reason))
}

pub fn quantize(m: &Model, value: ValueId) -> Result<NodeId, NoMatch> {
    m.producer(value, "QuantizeLinear")
        .or_else(|reason| m.producer(value, "com.microsoft.QuantizeLinear").map_err(|_| reason))
}

/// How the other operand is quantized, if it is.
pub fn activation(m: &Model, value: ValueId) -> Input {
    let pair = || -> Result<Input, NoMatch> {
        let node = dequantize(m, value)?;
        let (quantized, scale) = (m.operand(node, 0)?, m.operand(node, 1)?);
        let of_one = m.constant(scale).is_ok_and(|it| it.numel() == 1);
        let dynamic = m.producer(quantized, "DynamicQuantizeLinear").is_ok();
        if m.constant(quantized).is_ok() || !(of_one || dynamic) {
            return Err(NoMatch("it is not quantized as a whole".into()));
        }
        Ok(quantized_of(m, quantized, scale, optional(m, node, 2)))
    };
    pair().unwrap_or(Input::Float(value))
}

/// An activation by its quantized values; `x` is what they were before, if the model has it.
pub(super) fn quantized_of(
    m: &Model,
    quantized: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
) -> Input {
    let dynamic = m.producer(quantized, "DynamicQuantizeLinear");
    let node = dynamic.clone().or_else(|_| quantize(m, quantized)).ok();
    let x = node.filter(|it| {
        let own = m.node(*it).outputs.get(1).copied().or_else(|| optional(m, *it, 1));
        own.is_some_and(|own| own == scale || same_number(m, own, scale))
    });
    let x = x.and_then(|it| optional(m, it, 0));
    Input::Quantized { quantized, scale, zero, x, dynamic: dynamic.is_ok() }
}

fn same_number(m: &Model, a: ValueId, b: ValueId) -> bool {
    let number = |it| m.small_f32(it).ok().filter(|it| it.len() == 1);
    number(a).is_some_and(|a| number(b) == Some(a))
}
