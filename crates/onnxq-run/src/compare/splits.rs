//! Outputs that join several quantities: what the graph concatenates, as parts along an axis.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use onnxq_ir::{
    Def, Model, NodeId, ValueId, infer,
    ops::Traits,
    tensor::{Dim, Shape},
};

/// An axis of an output, and what lies along it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub axis: usize,
    pub pieces: Vec<Piece>,
}

/// What was concatenated: the name of its value, and its size along the axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub name: String,
    pub size: usize,
}

/// More pieces are no quantities any more: heads, steps, tiles.
const MOST: usize = 16;
/// Concatenations lie near the end.
const DEPTH: usize = 24;

/// The splits of each output of a model, of whatever it concatenates at its end.
pub fn splits(model: &Model) -> BTreeMap<String, Vec<Split>> {
    let mut typed = model.clone();
    infer::run(&mut typed);
    let outputs = &typed.graph(typed.main).outputs;
    let of = |it: &ValueId| (typed.value(*it).name.to_string(), useful(trace(&typed, *it, DEPTH)));
    outputs.iter().map(of).filter(|it| !it.1.is_empty()).collect()
}

/// Samples lie along the first axis.
fn useful(mut list: Vec<Split>) -> Vec<Split> {
    list.retain(|it| it.axis > 0 && (2..=MOST).contains(&it.pieces.len()));
    list
}

impl Split {
    /// Each piece with its place along the axis.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        let mut end = 0;
        self.pieces.iter().map(move |it| {
            let start = end;
            end += it.size;
            (&*it.name, start..end)
        })
    }

    fn size(&self) -> usize {
        self.pieces.iter().map(|it| it.size).sum()
    }
}

/// The splits of a value; none where an axis cannot be followed exactly.
fn trace(m: &Model, value: ValueId, depth: usize) -> Vec<Split> {
    let Def::Node(node) = m.value(value).def else { return Vec::new() };
    let op = &m.node(node).op;
    if depth == 0 {
        return Vec::new();
    }
    if op.is("Concat") {
        return concatenated(m, node, depth).unwrap_or_default();
    }
    let Some(input) = m.operand(node, 0).ok() else { return Vec::new() };
    if op.is("Transpose") {
        return turned(m, node, trace(m, input, depth - 1));
    }
    if op.has(Traits::VIEW) {
        let splits = trace(m, input, depth - 1).into_iter();
        return splits.filter_map(|it| viewed(m, input, value, it)).collect();
    }
    if op.has(Traits::ELEMENTWISE) || op.has(Traits::CAST) || op.has(Traits::COPY) {
        return elementwise(m, node, value, depth);
    }
    Vec::new()
}

/// Along the axis of a Concat its inputs, or the pieces of these; along others what all inputs share.
fn concatenated(m: &Model, node: NodeId, depth: usize) -> Option<Vec<Split>> {
    let inputs: Vec<ValueId> = m.node(node).inputs.iter().flatten().copied().collect();
    let axis = m.int_attr(node, "axis", 0);
    let rank = m.rank(*inputs.first()?)?;
    let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
    let inner: Vec<Vec<Split>> = inputs.iter().map(|it| trace(m, *it, depth - 1)).collect();
    let mut own = Vec::new();
    for (input, splits) in inputs.iter().zip(&inner) {
        match splits.iter().find(|it| it.axis == axis) {
            Some(split) => own.extend(split.pieces.iter().cloned()),
            None => own.push(Piece {
                name: m.value(*input).name.to_string(),
                size: m.shape(*input).ok()?.get(axis)?.fixed()?,
            }),
        }
    }
    let sizes = |it: &Split| -> Vec<usize> { it.pieces.iter().map(|it| it.size).collect() };
    let shared = |first: &&Split| {
        let alike = |it: &Split| it.axis == first.axis && sizes(it) == sizes(first);
        first.axis != axis && inner.iter().all(|it| it.iter().any(alike))
    };
    let mut list = vec![Split { axis, pieces: own }];
    list.extend(inner.first()?.iter().filter(shared).cloned());
    Some(list)
}

fn turned(m: &Model, node: NodeId, splits: Vec<Split>) -> Vec<Split> {
    let Some(order) = m.ints_attr(node, "perm") else { return Vec::new() };
    let place = |it: &Split| order.iter().position(|from| *from == it.axis as i64);
    splits.into_iter().filter_map(|it| Some(Split { axis: place(&it)?, ..it })).collect()
}

/// The axis of another shape of the same elements that has the same size, and as many elements before it.
fn viewed(m: &Model, from: ValueId, to: ValueId, split: Split) -> Option<Split> {
    let (from, to) = (m.shape(from).ok()?, m.shape(to).ok()?);
    let before = count(&from[..split.axis])?;
    let is_it = |at: &usize| {
        to[*at] == Dim::Fixed(split.size()) && count(&to[..*at]).as_ref() == Some(&before)
    };
    (0..to.len()).find(is_it).map(|axis| Split { axis, ..split })
}

/// A number of elements: a product of a number and of names.
fn count(dims: &[Dim]) -> Option<(usize, Vec<&str>)> {
    let (mut number, mut names) = (1usize, Vec::new());
    for dim in dims {
        match dim {
            Dim::Fixed(size) => number = number.checked_mul(*size)?,
            Dim::Symbol(name) => names.push(&**name),
            Dim::Unknown => return None,
        }
    }
    names.sort_unstable();
    Some((number, names))
}

/// The first operand that has splits and is not stretched along their axis.
fn elementwise(m: &Model, node: NodeId, value: ValueId, depth: usize) -> Vec<Split> {
    let Ok(result) = m.shape(value) else { return Vec::new() };
    let kept = |shape: &Shape, it: &Split| {
        shape.len() == result.len() && result.get(it.axis) == Some(&Dim::Fixed(it.size()))
    };
    let operands: BTreeSet<ValueId> = m.node(node).inputs.iter().flatten().copied().collect();
    let of = |input: &ValueId| {
        let shape = m.shape(*input).ok()?;
        let splits = trace(m, *input, depth - 1).into_iter().filter(|it| kept(shape, it));
        let splits: Vec<Split> = splits.collect();
        (!splits.is_empty()).then_some(splits)
    };
    operands.iter().find_map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(usize, Vec<(String, usize)>)> {
        let model = onnxq_ir::text::parse(text).unwrap();
        let all = splits(&model).into_values().flatten();
        let pieces = |it: Split| it.pieces.into_iter().map(|it| (it.name, it.size)).collect();
        all.map(|it| (it.axis, pieces(it))).collect()
    }

    fn named(list: &[(&str, usize)]) -> Vec<(String, usize)> {
        list.iter().map(|it| (it.0.to_owned(), it.1)).collect()
    }

    #[test]
    fn what_is_concatenated_is_followed_through_other_shapes() {
        let list = of(r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,2,9] a, float[n,3,9] b, float[n,1,9] c) => (float[n,3,3,6] y)
<float factor = {2}, int64[4] shape = {0, 6, 3, 3}> {
   ab = Concat <axis = 1> (a, b)
   s = Sigmoid (ab)
   abc = Concat <axis = -2> (s, c)
   m = Mul (factor, abc)
   r = Reshape (m, shape)
   y = Transpose <perm = [0, 2, 3, 1]> (r)
}"#);
        assert_eq!(list, [(3, named(&[("a", 2), ("b", 3), ("c", 1)]))]);
    }

    #[test]
    fn levels_that_are_split_alike_share_it() {
        let list = of(r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,2,4] a, float[n,3,4] b, float[n,2,8] c, float[n,3,8] d) => (float[n,5,12] y) {
   small = Concat <axis = 1> (a, b)
   large = Concat <axis = 1> (c, d)
   y = Concat <axis = 2> (small, large)
}"#);
        let levels = named(&[("small", 4), ("large", 8)]);
        assert_eq!(list, [(2, levels), (1, named(&[("a", 2), ("b", 3)]))]);
    }

    #[test]
    fn what_cannot_be_followed_exactly_has_no_parts() {
        let text = |last: &str| {
            of(&format!(
                r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,2,6] a, float[n,4,6] b) => (float y) <int64[2] flat = {{0, -1}}, float[6,6] w = {{...}}> {{
   x = Concat <axis = 1> (a, b)
   {last}
}}"#
            ))
        };
        for last in ["y = Reshape (x, flat)", "y = MatMul (x, x)", "y = Softmax <axis = 1> (x)"] {
            assert_eq!(text(last), [], "{last}");
        }
        let batches = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[2,6] a, float[4,6] b) => (float[6,6] y) { y = Concat <axis = 0> (a, b) }"#;
        assert_eq!(of(batches), []);
    }
}
