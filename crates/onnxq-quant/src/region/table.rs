//! What operators do with quantized values: one row each, and what a node must be like to do it.
//!
//! A row says what ONNX Runtime 1.31 makes of the operator between `DequantizeLinear` and
//! `QuantizeLinear`: those that it leaves in float stay in float here too.

use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match, ops::Traits, tensor::DType};

/// One row: an operator without a weight of its own.
pub(crate) struct ChainOp {
    pub op: &'static str,
    pub kind: Kind,
    /// The first operator set in which its kernel for quantized values exists; 0: any.
    pub since: i64,
}

/// What the table says of an operator.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    /// The result has a range of its own.
    Own,
    /// The result lies between 0 and 1 and nearly fills it.
    Unit,
    /// The result has some of the input's quantized values.
    Same,
    /// Values beyond bounds become the bounds, as quantized values do by themselves.
    Clip,
    /// A product of two activations, which may leave as float.
    Product,
    /// No kernel computes it with quantized values; the text says what it takes.
    Float(&'static str),
}

/// In alphabetical order.
pub(crate) const REGION: &[ChainOp] = &[
    row("Add", Kind::Own),
    row("AveragePool", Kind::Own),
    row("BatchNormalization", Kind::Float(FLOAT)),
    row("Clip", Kind::Clip),
    row("Concat", Kind::Own),
    since(13, "DepthToSpace", Kind::Same),
    row("Div", Kind::Own),
    row("Expand", Kind::Same),
    row("Flatten", Kind::Same),
    row("Gather", Kind::Same),
    row("Gelu", Kind::Float(FLOAT)),
    row("GlobalAveragePool", Kind::Own),
    row("HardSigmoid", Kind::Float(FLOAT)),
    row("HardSwish", Kind::Float(FLOAT)),
    row("InstanceNormalization", Kind::Float(FLOAT)),
    row("LayerNormalization", Kind::Float(FLOAT)),
    row("LeakyRelu", Kind::Own),
    row("MatMul", Kind::Product),
    since(12, "MaxPool", Kind::Same),
    row("Mul", Kind::Own),
    row("PRelu", Kind::Float(FLOAT)),
    row("Pad", Kind::Float(FLOAT)),
    since(12, "ReduceMax", Kind::Same),
    row("ReduceMean", Kind::Float(FLOAT)),
    since(12, "ReduceMin", Kind::Same),
    row("Relu", Kind::Clip),
    row("Reshape", Kind::Same),
    since(11, "Resize", Kind::Same),
    row("Sigmoid", Kind::Unit),
    row("Slice", Kind::Same),
    row("Softmax", Kind::Unit),
    row("Split", Kind::Same),
    row("Squeeze", Kind::Same),
    row("Sub", Kind::Float(FLOAT)),
    row("Tanh", Kind::Float(FLOAT)),
    row("Tile", Kind::Same),
    row("Transpose", Kind::Same),
    row("Unsqueeze", Kind::Same),
];

const FLOAT: &str = "ONNX Runtime has no int8 kernel for it on a CPU";

const fn row(op: &'static str, kind: Kind) -> ChainOp {
    since(0, op, kind)
}

const fn since(since: i64, op: &'static str, kind: Kind) -> ChainOp {
    ChainOp { op, kind, since }
}

/// What one node does with quantized values.
#[derive(Clone, PartialEq, Debug)]
pub enum Role {
    Own,
    Unit,
    Same,
    Clip {
        lo: f32,
        hi: f32,
    },
    Product,
    /// Times this positive number: the quantized values stay, their scale changes.
    Scale(f32),
    /// A weight of a product: its result may leave as float.
    MatMul,
    /// A convolution: its result must be quantized values, or it computes in float.
    Conv,
}

/// What a node without a weight would do with quantized values, or why it cannot.
pub fn role(m: &Model, node: NodeId) -> Result<Role, NoMatch> {
    let op = &m.node(node).op;
    let Some(row) = REGION.iter().find(|it| op.is(it.op)) else {
        return Err(no_match!("{FLOAT}"));
    };
    let role = match row.kind {
        Kind::Float(reason) => return Err(NoMatch(reason.into())),
        Kind::Own if op.is("Mul") || op.is("Div") => match factor(m, node) {
            Some(it) => Role::Scale(it),
            None if op.is("Div") => return Err(no_match!("{FLOAT}")),
            None => Role::Own,
        },
        Kind::Own => Role::Own,
        Kind::Unit => Role::Unit,
        Kind::Same => Role::Same,
        Kind::Clip => bounds(m, node)?,
        Kind::Product => Role::Product,
    };
    check(m, node, row.since)?;
    if activations(m, node).is_empty() {
        return Err(NoMatch("it has no activation".into()));
    }
    Ok(role)
}

/// What an operator's kernel for quantized values does not do, though its kernel for floats does.
fn check(m: &Model, node: NodeId, since: i64) -> Result<(), NoMatch> {
    let it = m.node(node);
    let text = |name: &str| match it.attrs.get(name) {
        Some(onnxq_ir::Attr::String(it)) => String::from_utf8_lossy(it).into_owned(),
        _ => String::new(),
    };
    let has_more_outputs = it.outputs.iter().skip(1).any(|it| !m.value(*it).uses.is_empty());
    if it.op.is("Resize") && (text("mode") == "linear" || text("mode") == "cubic") {
        return Err(no_match!("its int8 kernel takes the nearest value only"));
    }
    let own = m.opset("");
    if own < since {
        return Err(no_match!("its int8 kernel needs opset {since}, the model has {own}"));
    }
    if it.op.is("MaxPool") && has_more_outputs {
        return Err(NoMatch("its indices are used".into()));
    }
    for index in operands(m, node) {
        let value = m.operand(node, index)?;
        if m.constant(value).is_ok() {
            constant(m, value)?;
        }
    }
    let own = activations(m, node).into_iter().map(|it| m.node(node).inputs[it]);
    for value in own.flatten().chain(it.outputs.iter().copied()) {
        if m.dtype(value).is_some_and(|it| it != DType::F32) {
            let dtype = m.dtype(value).unwrap_or(DType::F32);
            return Err(no_match!("it computes {dtype}, and quantized values stand for float32"));
        }
    }
    Ok(())
}

/// Whether a constant can become quantized values.
fn constant(m: &Model, value: ValueId) -> Result<(), NoMatch> {
    let name = &m.value(value).name;
    let dtype = m.constant(value)?.dtype;
    if dtype != DType::F32 {
        return Err(no_match!("`{name}` is {dtype}, and quantized values stand for float32"));
    }
    match m.small_f32(value)?.iter().all(|it| it.is_finite()) {
        true => Ok(()),
        false => Err(no_match!("`{name}` is not finite")),
    }
}

/// Inputs that are activations, or constants where an activation could be.
pub(crate) fn operands(m: &Model, node: NodeId) -> Vec<usize> {
    let it = m.node(node);
    match &*it.op.name {
        "Concat" => (0..it.inputs.len()).collect(),
        _ if it.op.has(Traits::BINARY) => vec![0, 1],
        _ => vec![0],
    }
}

/// Inputs that change from run to run.
pub(crate) fn activations(m: &Model, node: NodeId) -> Vec<usize> {
    let mut list = operands(m, node);
    list.retain(|it| m.operand(node, *it).is_ok_and(|it| m.constant(it).is_err()));
    list
}

/// What a `Mul` or `Div` by a positive constant multiplies with.
fn factor(m: &Model, node: NodeId) -> Option<f32> {
    let is_div = m.node(node).op.is("Div");
    let (a, b) = (m.operand(node, 0).ok()?, m.operand(node, 1).ok()?);
    let (x, constant) = match m.constant(b) {
        Ok(_) => (a, b),
        Err(_) if is_div => return None,
        Err(_) => (b, a),
    };
    let tensor = m.constant(constant).ok()?;
    // A constant of higher rank would give the result more axes.
    let keeps_rank =
        tensor.shape.is_empty() || m.rank(x).is_some_and(|it| it >= tensor.shape.len());
    if tensor.numel() != 1 || !keeps_rank || m.constant(x).is_ok() {
        return None;
    }
    let it = m.small_f32(constant).ok()?[0];
    let it = if is_div { 1.0 / it } else { it };
    // Scales must stay what they are: normal numbers.
    (1e-6..=1e6).contains(&it).then_some(it)
}

fn bounds(m: &Model, node: NodeId) -> Result<Role, NoMatch> {
    if m.node(node).op.is("Relu") {
        return Ok(Role::Clip { lo: 0.0, hi: f32::INFINITY });
    }
    let bound = |index: usize, name: &str, default: f32| -> Result<f32, NoMatch> {
        if m.opset("") < 11 {
            return Ok(m.float_attr(node, name, default));
        }
        let Some(Some(value)) = m.node(node).inputs.get(index) else { return Ok(default) };
        let values = m.small_f32(*value)?;
        values.first().copied().ok_or_else(|| NoMatch("it has an empty bound".into()))
    };
    let lo = bound(1, "min", f32::NEG_INFINITY)?;
    let hi = bound(2, "max", f32::INFINITY)?;
    match lo <= 0.0 && hi > 0.0 {
        true => Ok(Role::Clip { lo, hi }),
        false => Err(no_match!("quantized values hold zero, which {lo} to {hi} does not")),
    }
}

/// The values that a node reads as activations.
pub(crate) fn inputs(m: &Model, node: NodeId) -> Vec<ValueId> {
    activations(m, node).into_iter().filter_map(|it| m.operand(node, it).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(REGION.is_sorted_by(|a, b| a.op < b.op));
    }

    #[test]
    fn roles_depend_on_constants() {
        let text = "<ir_version: 8, opset_import: [\"\" : 17]>
            main (float[n,4] x) => (float[n,4] d)
            <float six = {6}, float zero = {0}, float[4] row = {1, 2, 3, 4}, float minus = {-1}> {
              a = Mul (x, six)
              b = Mul (row, a)
              c = Clip (b, zero, six)
              e = Mul (c, minus)
              d = Div (six, e)
            }";
        let m = onnxq_ir::text::parse(text).unwrap();
        let roles: Vec<_> = m.nodes().into_iter().map(|it| role(&m, it).ok()).collect();
        let clip = Role::Clip { lo: 0.0, hi: 6.0 };
        assert_eq!(
            roles,
            [Some(Role::Scale(6.0)), Some(Role::Own), Some(clip), Some(Role::Own), None]
        );
    }
}
