//! What follows from constants and fixed shapes alone becomes a constant.
//!
//! ```text
//! Add({1}, {2})                             →      {3}
//! Shape(x), x of the type float[2,3]        →      {2, 3}
//! Gather(Shape(x), 1), x: float[batch,3]    →      3
//! ```

use crate::{Pass, PassError, nodes_in_main, trace};
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, User, ValueId,
    ctx::Ctx,
    eval, no_match,
    ops::{Set, Traits},
    tensor::{DType, Dim, Tensor},
};

pub(super) const FOLD_CONSTANTS: Pass = Pass {
    name: "fold-constants",
    help: "compute what follows from constants and fixed shapes alone",
    limited: true,
    run,
};

/// Results up to this size may be larger than the constants that they replace.
const SMALL: usize = 64 << 10;
/// All results together: they are in memory, unlike the constants of the file.
const ALL: usize = 256 << 20;
/// Bytes that an operator with more work per element may read.
const HEAVY: usize = 128 << 10;
/// Operators with more work per element. Products of quantized constants do not occur, so they
/// need no limit of their own.
const WORKS: Set = Set::of(Traits::CONTRACTION)
    .without(Traits::QUANTIZED)
    .plus(&["ConvInteger"])
    .minus(&["com.microsoft.FusedMatMul"]);
/// Operators whose input is the compressed form of their result.
const DECOMPRESSES: Set =
    Set::of(Traits::DEQUANTIZE.union(Traits::QUANTIZE)).plus(&["DynamicQuantizeLinear"]);

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let (mut folded, mut left) = (0, ALL);
    for node in nodes_in_main(model) {
        if folded == ctx.max_rewrites {
            break;
        }
        if !model.is_live(node) || !is_candidate(model, node) {
            continue;
        }
        let result = fold(model, node, &mut left);
        if ctx.trace.is_some() {
            let what = match &result {
                Ok(tensors) => format!("folded to {tensors:?}"),
                Err(reason) => reason.to_string(),
            };
            trace(ctx, FOLD_CONSTANTS.name, &model.node_label(node), &what);
        }
        if let Ok(tensors) = result {
            replace(model, node, tensors);
            folded += 1;
        }
    }
    Ok(folded)
}

/// Nodes of which the trace says why they were not folded.
fn is_candidate(m: &Model, node: NodeId) -> bool {
    let it = m.node(node);
    let used = it.outputs.iter().any(|it| !m.value(*it).uses.is_empty());
    let constant = |it: &ValueId| m.constant(*it).is_ok();
    let mut inputs = it.inputs.iter().flatten();
    let known = it.inputs.iter().any(Option::is_some) && inputs.all(constant);
    used && (known || known_shape(m, node).is_some())
}

fn replace(model: &mut Model, node: NodeId, tensors: Vec<Tensor>) {
    let mut patch = Patch::before(node);
    let outputs = model.node(node).outputs.clone();
    for (output, tensor) in outputs.into_iter().zip(tensors) {
        let constant = patch.constant(&model.value(output).name, tensor);
        patch = patch.replace(output, constant);
    }
    patch.apply(model);
}

/// The outputs of `node`, unless they had better be computed each time.
fn fold(m: &Model, node: NodeId, left: &mut usize) -> Result<Vec<Tensor>, NoMatch> {
    let it = m.node(node);
    if let Some(output) = it.outputs.iter().find(|it| m.is_output(**it)) {
        return Err(no_match!("`{}` is an output of the graph", m.value(*output).name));
    }
    if let Some(shape) = known_shape(m, node) {
        return Ok(vec![shape]);
    }
    keeps_its_meaning(m, node)?;
    if let Some(view) = view(m, node) {
        return Ok(vec![view]);
    }
    let inputs = inputs(m, node, *left)?;
    let expected = expected_size(m, node);
    if let Some(size) = expected {
        affordable(m, node, size, *left)?;
    }
    let tensors = eval::node(m, node, &inputs).map_err(|err| no_match!("{err}"))?;
    let size = tensors.iter().map(Tensor::nbytes).sum();
    affordable(m, node, size, *left)?;
    for (output, tensor) in it.outputs.iter().zip(&tensors) {
        let name = &m.value(*output).name;
        if m.dtype(*output).is_some_and(|it| it != tensor.dtype) {
            return Err(no_match!("`{name}` is declared with another type than {}", tensor.dtype));
        }
    }
    *left -= size;
    Ok(tensors)
}

/// Refuses what is random, what undoes a compression, and what we cannot compute.
fn keeps_its_meaning(m: &Model, node: NodeId) -> Result<(), NoMatch> {
    let op = &m.node(node).op;
    if super::is_random(op) {
        return Err(no_match!("{op} is random"));
    }
    if op.is_in(DECOMPRESSES) || widens(m, node) {
        return Err(no_match!("its input is the compressed form"));
    }
    if m.node(node).attrs.graphs().next().is_some() || !eval::knows(op) {
        return Err(no_match!("{op} is unknown to the evaluator"));
    }
    Ok(())
}

/// A `Cast` of half floats or small integers was written to save space.
fn widens(m: &Model, node: NodeId) -> bool {
    const FEW: usize = 64;
    let Ok(tensor) = m.operand(node, 0).and_then(|it| m.constant(it)) else { return false };
    let is_small =
        tensor.dtype.bits() < 32 && tensor.dtype.bits() > 0 && tensor.dtype != DType::Bool;
    let to = m.int_attr(node, "to", 0) as i32;
    let wider = DType::from_number(to).is_some_and(|it| it.bits() > tensor.dtype.bits());
    m.node(node).op.is("Cast") && is_small && wider && tensor.numel() > FEW
}

/// The same elements under another shape cost nothing, whatever their number.
fn view(m: &Model, node: NodeId) -> Option<Tensor> {
    let it = m.node(node);
    let tensor = m.constant(m.operand(node, 0).ok()?).ok()?;
    let shape = m.value(it.output()).ty.as_ref()?.fixed_shape()?;
    let fits = checked_numel(&shape)? == tensor.numel() && tensor.quantized().is_none();
    (it.op.has(Traits::VIEW) && fits).then(|| tensor.reshaped(shape))
}

fn inputs(m: &Model, node: NodeId, left: usize) -> Result<Vec<Option<Tensor>>, NoMatch> {
    let it = m.node(node);
    let read = |it: &Option<ValueId>| it.map(|it| m.constant(it).cloned()).transpose();
    let inputs: Vec<Option<Tensor>> = it.inputs.iter().map(read).collect::<Result<_, _>>()?;
    let size = inputs.iter().flatten().map(Tensor::nbytes).fold(0, usize::saturating_add);
    let most = if it.op.is_in(WORKS) { HEAVY } else { left };
    if size > most {
        return Err(no_match!("{size} bytes of constants are too many to compute with"));
    }
    Ok(inputs)
}

/// Bytes of all outputs, if their types are known.
fn expected_size(m: &Model, node: NodeId) -> Option<usize> {
    let mut sum = 0usize;
    for &output in &m.node(node).outputs {
        let ty = m.value(output).ty.as_ref()?;
        let count = checked_numel(&ty.fixed_shape()?).unwrap_or(usize::MAX);
        sum = sum.saturating_add(ty.dtype.nbytes(count).unwrap_or(usize::MAX));
    }
    Some(sum)
}

fn checked_numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it))
}

fn affordable(m: &Model, node: NodeId, size: usize, left: usize) -> Result<(), NoMatch> {
    let freed = freed(m, node);
    if size > SMALL && size > freed && !is_divided(m, node) {
        return Err(no_match!("{size} bytes replace {freed}"));
    }
    if size > left {
        return Err(no_match!("{size} bytes are more than folding may use"));
    }
    Ok(())
}

/// Bytes of the constants that only `node` uses.
fn freed(m: &Model, node: NodeId) -> usize {
    let mut inputs: Vec<ValueId> = m.node(node).inputs.iter().flatten().copied().collect();
    inputs.sort();
    inputs.dedup();
    let only = |it: &ValueId| m.value(*it).uses.iter().all(|it| it.user == User::Node(node));
    let size = |it: ValueId| m.constant(it).map_or(0, Tensor::nbytes);
    inputs.into_iter().filter(only).map(size).sum()
}

/// Whether `node` takes one of the parts into which foldable nodes divide a constant: together they
/// are no larger, and it is not needed any more. Exporters reorder the gates of an LSTM like that.
fn is_divided(m: &Model, node: NodeId) -> bool {
    let Some(constant) = m.operand(node, 0).ok().filter(|it| m.constant(*it).is_ok()) else {
        return false;
    };
    let mut total = 0usize;
    for user in &m.value(constant).uses {
        let User::Node(part) = user.user else { return false };
        let is_part = is_candidate(m, part)
            && m.node(part).op.is("Slice")
            && !m.node(part).outputs.iter().any(|it| m.is_output(*it));
        let Some(size) = expected_size(m, part).filter(|_| is_part) else { return false };
        total = total.saturating_add(size);
    }
    total <= m.constant(constant).map_or(0, Tensor::nbytes)
}

/// What `Shape`, `Size` or an element of a `Shape` yields, if the dimensions in question are fixed.
fn known_shape(m: &Model, node: NodeId) -> Option<Tensor> {
    let fixed =
        |it: &[Dim]| it.iter().map(|it| Some(it.fixed()? as i64)).collect::<Option<Vec<_>>>();
    let it = m.node(node);
    if it.op.is("Shape") {
        let dims = fixed(dims_of_shape(m, node)?)?;
        return Some(Tensor::from_i64(&[dims.len()], dims));
    }
    let data = m.operand(node, 0).ok()?;
    if it.op.is("Size") {
        let shape = m.value(data).ty.as_ref()?.fixed_shape()?;
        return Some(Tensor::from_i64(&[], [i64::try_from(checked_numel(&shape)?).ok()?]));
    }
    if !it.op.is("Gather") || m.int_attr(node, "axis", 0) != 0 {
        return None;
    }
    let dims = dims_of_shape(m, m.producer(data, "Shape").ok()?)?;
    let indices = m.constant(m.operand(node, 1).ok()?).ok()?;
    if indices.numel() > dims.len() {
        return None;
    }
    let at =
        |it: i64| dims.get(usize::try_from(it + if it < 0 { dims.len() as i64 } else { 0 }).ok()?);
    let chosen: Option<Vec<Dim>> =
        indices.to_i64().ok()?.into_iter().map(|it| at(it).cloned()).collect();
    Some(Tensor::from_i64(&indices.shape, fixed(&chosen?)?))
}

/// The dimensions that a `Shape` node lists.
fn dims_of_shape(m: &Model, node: NodeId) -> Option<&[Dim]> {
    let dims = m.value(m.operand(node, 0).ok()?).ty.as_ref()?.shape.as_deref()?;
    let rank = dims.len() as i64;
    let clamp = |it: i64| if it < 0 { it.saturating_add(rank).max(0) } else { it.min(rank) };
    let start = clamp(m.int_attr(node, "start", 0));
    let end = clamp(m.int_attr(node, "end", rank));
    dims.get(start as usize..end.max(start) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;
    use onnxq_ir::Attrs;

    #[test]
    fn chains_of_constants_become_one() {
        let mut b = Builder::new();
        let (x, c) = (b.input("x", "2"), b.floats("c", &[2], &[1., 2.]));
        let d = b.node("Add", &[c, c]);
        let d = b.node("Mul", &[d, c]);
        let y = b.node("Add", &[x, d]);
        b.output(y, "y");
        assert_eq!(b.run("fold-constants").0, 2);
        assert_eq!(b.ops(), ["Add"]);
        assert_eq!(b.constant_at(0, 1).to_f32().unwrap(), [2., 8.]);
    }

    /// `Concat` of the halves of a large constant, the second first, and how many nodes fold.
    fn halves(overlap: i64) -> usize {
        let mut b = Builder::new();
        let w = b.constant("w", Tensor::from_f32(&[512, 128], (0..1 << 16).map(|it| it as f32)));
        let axis = b.constant("axis", Tensor::from_i64(&[1], [0]));
        let mut half = |start: i64, end: i64| {
            let ends = [start, end].map(|it| Tensor::from_i64(&[1], [it]));
            let [start, end] = ends.map(|it| b.constant("at", it));
            b.node("Slice", &[w, start, end, axis])
        };
        let (first, second) = (half(0, 256 + overlap), half(256, 512));
        let attrs = Attrs::default().with("axis", 0i64);
        let joined = b.node_with("Concat", &[second, first], attrs);
        let x = b.input("x", "1,512");
        let y = b.node("MatMul", &[x, joined]);
        b.output(y, "y");
        b.run("infer-types");
        b.run("fold-constants").0
    }

    #[test]
    fn parts_that_divide_a_large_constant_are_put_together() {
        assert_eq!(halves(0), 3);
        assert_eq!(halves(1), 0);
    }

    #[test]
    fn fixed_dimensions_are_known() {
        let mut b = Builder::new();
        let x = b.input("x", "batch,3,4");
        let shape = b.node("Shape", &[x]);
        let last = b.constant("last", Tensor::from_i64(&[1], [-1]));
        let first = b.constant("first", Tensor::from_i64(&[], [0]));
        let known = b.node("Gather", &[shape, last]);
        let unknown = b.node("Gather", &[shape, first]);
        let tail = b.node_with("Shape", &[x], Attrs::default().with("start", -2i64));
        for (value, name) in [(known, "a"), (unknown, "b"), (tail, "c")] {
            let y = b.node("Neg", &[value]);
            b.output(y, name);
        }
        assert_eq!(b.run("fold-constants").0, 2);
        assert_eq!(b.ops(), ["Shape", "Gather", "Neg", "Neg", "Neg"]);
        assert_eq!(b.constant_at(2, 0).to_i64().unwrap(), [4]);
        assert_eq!(b.constant_at(4, 0).to_i64().unwrap(), [3, 4]);
    }

    #[test]
    fn large_results_must_replace_as_much() {
        let mut b = Builder::new();
        let x = b.input("x", "1");
        let (w, c) = (b.floats("w", &[20_000], &[1.; 20_000]), b.floats("c", &[1], &[2.]));
        let once = b.node("Mul", &[w, c]);
        let y = b.node("Add", &[x, once]);
        b.output(y, "y");
        assert_eq!(b.run("fold-constants").0, 1);
        let w = b.model.operand(b.model.nodes()[0], 1).unwrap();
        let shared = b.node("Mul", &[w, c]);
        let y = b.node("Add", &[y, shared]);
        b.output(y, "z");
        b.misses("fold-constants", "80000 bytes replace 4");
    }

    #[test]
    fn random_compressed_and_returned_values_stay() {
        let mut b = Builder::new();
        let c = b.floats("c", &[100], &[1.; 100]);
        let half = b.constant("h", Tensor::new(DType::F16, vec![100], vec![0u8; 200]));
        let random = b.node("RandomNormalLike", &[c]);
        let scales = b.node_with("Cast", &[half], Attrs::default().with("to", 1i64));
        let sum = b.node("Add", &[random, scales]);
        let returned = b.node("Add", &[c, c]);
        b.output(sum, "sum");
        b.output(returned, "returned");
        let (changes, lines) = b.run("fold-constants");
        assert_eq!(changes, 0);
        let reasons = ["RandomNormalLike is random", "compressed form", "output of the graph"];
        assert_eq!(lines.len(), 3);
        assert!(
            lines.iter().zip(reasons).all(|(line, reason)| line.ends_with(reason)),
            "{lines:?}"
        );
    }

    #[test]
    fn all_outputs_of_a_node_fold_together() {
        let mut b = Builder::new();
        let w = b.floats("w", &[4], &[1., 2., 3., 4.]);
        let split = b.node_of("Split", &[w], Attrs::default(), &["a", "b"]);
        let outputs = b.model.node(split).outputs.clone();
        let x = b.input("x", "2");
        let y = b.node("Mul", &[outputs[0], x]);
        let y = b.node("Add", &[y, outputs[1]]);
        b.output(y, "y");
        assert_eq!(b.run("fold-constants").0, 1);
        assert_eq!(b.ops(), ["Mul", "Add"]);
        assert_eq!(b.constant_at(1, 1).to_f32().unwrap(), [3., 4.]);
    }
}
