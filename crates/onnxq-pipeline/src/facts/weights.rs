//! What the bytes of a model's constants hold: floats, quantized values of so many bits, scales.

use std::{cmp::Reverse, collections::BTreeMap};

use onnxq_ir::{
    Attr, Def, Model, NodeId, User, ValueId,
    ops::{Set, Traits},
    tensor::{DType, Tensor},
};
use onnxq_report::document::WeightKind;
use onnxq_rewrite::lint::is_quantized_type;

/// What a constant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Float,
    Half,
    /// Of a quantized weight, with the bits that a weight takes.
    Quantized(usize),
    /// A scale or a zero.
    Side,
    Other,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Float => "float",
            Part::Half => "float16",
            Part::Quantized(2) => "int2",
            Part::Quantized(4) => "int4",
            Part::Quantized(_) => "int8",
            Part::Side => "scales and zero points",
            Part::Other => "other",
        }
    }
}

/// Through these a constant goes on as what it was.
const THROUGH: Set =
    Set::of(Traits::CAST.union(Traits::COPY).union(Traits::REARRANGE)).plus(&["Unsqueeze"]);

/// What a constant is, by who reads it.
pub(super) fn part(m: &Model, value: ValueId, tensor: &Tensor) -> Part {
    let users = users(m, value, 3);
    if users.iter().any(|(node, at)| is_side(m, *node, *at)) {
        return Part::Side;
    }
    match tensor.dtype {
        DType::F32 | DType::F64 => Part::Float,
        DType::F16 | DType::BF16 => Part::Half,
        it if is_quantized_type(it) && tensor.shape.len() >= 2 => {
            let stated = users.iter().find_map(|(node, at)| {
                let reads = is_packed(m, *node, *at);
                let bits = m.int_attr(*node, "bits", 4);
                (reads && tensor.dtype.bits() == 8).then(|| usize::try_from(bits).ok())?
            });
            Part::Quantized(stated.filter(|it| (1..=8).contains(it)).unwrap_or(it.bits()))
        }
        _ => Part::Other,
    }
}

/// Nodes that read a value and at which input, seen through changes of its layout.
fn users(m: &Model, value: ValueId, depth: usize) -> Vec<(NodeId, usize)> {
    let mut list = Vec::new();
    for it in &m.value(value).uses {
        let User::Node(node) = it.user else { continue };
        let op = &m.node(node).op;
        let moves = it.index == 0 && op.is_in(THROUGH);
        match m.node(node).outputs.first() {
            Some(output) if moves && depth > 0 => list.extend(users(m, *output, depth - 1)),
            _ => list.push((node, it.index)),
        }
    }
    list
}

/// Whether an input holds several quantized values in each byte.
fn is_packed(m: &Model, node: NodeId, at: usize) -> bool {
    let packed = m.node(node).op.quantized().filter(|it| it.packed);
    packed.is_some_and(|it| it.weights.iter().any(|it| it.values == at))
}

fn is_side(m: &Model, node: NodeId, at: usize) -> bool {
    let op = &m.node(node).op;
    if op.quantized().is_some_and(|it| it.scales_and_zeros().any(|it| it == at)) {
        return true;
    }
    // A scale of quantized values that are floats by now, or the other half of an activation's
    // scale.
    op.is("Mul") && m.operand(node, 1 - at.min(1)).is_ok_and(|other| is_of_quantized(m, other))
}

fn is_of_quantized(m: &Model, value: ValueId) -> bool {
    let Def::Node(node) = m.value(value).def else { return false };
    let it = m.node(node);
    if it.op.is("DynamicQuantizeLinear") {
        return true;
    }
    let quantized = |it: ValueId| m.constant(it).is_ok_and(|it| is_quantized_type(it.dtype));
    it.op.is("Cast") && m.operand(node, 0).is_ok_and(quantized)
}

/// All constants by kind, the largest kind first; and the bits that a weight of two and more
/// dimensions takes.
pub(super) fn kinds(m: &Model) -> (Vec<WeightKind>, Option<f64>) {
    let mut kinds: BTreeMap<&str, WeightKind> = BTreeMap::new();
    let (mut elements, mut bytes) = (0u64, 0u64);
    for (value, tensor) in m.constants().chain(written_as_nodes(m)) {
        let (part, size) = (part(m, value, tensor), tensor.nbytes() as u64);
        let kind = kinds.entry(part.name()).or_default();
        kind.tensors += 1;
        kind.bytes += size;
        let is_matrix = tensor.shape.len() >= 2;
        match part {
            Part::Quantized(bits) if is_matrix => {
                elements += (tensor.numel() * tensor.dtype.bits() / bits) as u64;
                bytes += size;
            }
            Part::Float | Part::Half if is_matrix => {
                elements += tensor.numel() as u64;
                bytes += size;
            }
            Part::Side => bytes += size,
            _ => {}
        }
    }
    let named = kinds.into_iter().map(|(name, it)| WeightKind { kind: name.to_owned(), ..it });
    let mut list: Vec<WeightKind> = named.collect();
    list.sort_by_key(|it| Reverse(it.bytes));
    let bits = (elements > 0).then(|| bytes as f64 * 8.0 / elements as f64);
    (list, bits)
}

/// Tensors of `Constant` nodes: some exporters write all weights so.
fn written_as_nodes(m: &Model) -> impl Iterator<Item = (ValueId, &Tensor)> {
    let constants = m.nodes().into_iter().filter(|it| m.node(*it).op.is("Constant"));
    constants.filter_map(|node| {
        let Some(Attr::Tensor(tensor)) = m.node(node).attrs.get("value") else { return None };
        Some((*m.node(node).outputs.first()?, tensor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(String, Part)> {
        let m = onnxq_ir::text::parse(text).unwrap();
        let list =
            m.constants().map(|(value, it)| (m.value(value).name.to_string(), part(&m, value, it)));
        list.collect()
    }

    fn is(name: &str, part: Part) -> (String, Part) {
        (name.to_owned(), part)
    }

    #[test]
    fn constants_are_told_by_their_readers() {
        let nbits = r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
main (float[1,64] x) => (float[1,32] y) <uint8[32,2,16] b, float16[32,2] s, float[32] c> {
   f = Cast <to = 1> (s)
   t = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 4, block_size = 32> (x, b, f)
   y = Add (t, c)
}"#;
        let expected = [is("b", Part::Quantized(4)), is("s", Part::Side), is("c", Part::Float)];
        assert_eq!(parts(nbits), expected);
        let dynamic = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[1,64] x) => (float[1,32] y) <int8[64,32] w, float[32] s> {
   q, a, z = DynamicQuantizeLinear (x)
   i = MatMulInteger (q, w, z)
   f = Cast <to = 1> (i)
   p = Mul (a, s)
   y = Mul (f, p)
}"#;
        assert_eq!(parts(dynamic), [is("w", Part::Quantized(8)), is("s", Part::Side)]);
    }

    #[test]
    fn bits_per_weight_count_scales() {
        let text = r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
main (float[1,64] x) => (float[1,32] y) <uint8[32,2,16] b, float[32,2] s, float[32] c> {
   t = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 4, block_size = 32> (x, b, s)
   y = Add (t, c)
}"#;
        let (list, bits) = kinds(&onnxq_ir::text::parse(text).unwrap());
        let list: Vec<(&str, u64)> = list.iter().map(|it| (&*it.kind, it.bytes)).collect();
        assert_eq!(list, [("int4", 1024), ("scales and zero points", 256), ("float", 128)]);
        // 4 bits, and 32 for each 32 weights.
        assert_eq!(bits, Some(5.0));
        let (_, bits) = kinds(
            &onnxq_ir::text::parse("main (float[2] x) => (float[2] y) { y = Abs (x) }").unwrap(),
        );
        assert_eq!(bits, None);
    }
}
