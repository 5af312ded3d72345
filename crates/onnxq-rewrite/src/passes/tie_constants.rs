//! A matrix that is the transpose of another becomes a view of it, so that a head that the exporter
//! wrote beside its embedding table is seen to be tied to it.

use std::collections::BTreeMap;

use crate::{Pass, PassError, trace};
use onnxq_ir::{
    Def, Model, ValueId,
    ctx::Ctx,
    tensor::{DType, Tensor, TensorError},
};

pub(super) const TIE_CONSTANTS: Pass = Pass {
    name: "tie-constants",
    help: "make a matrix that is another's transpose a view of it",
    limited: true,
    run,
};

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let pairs = pairs(model);
    let done = pairs.len().min(ctx.max_rewrites);
    for &(value, base) in &pairs[..done] {
        if ctx.trace.is_some() {
            let what = format!("the transpose of `{}`", model.value(base).name);
            trace(ctx, TIE_CONSTANTS.name, &model.value(value).name, &what);
        }
        let view = tensor(model, base).transposed();
        model.value_mut(value).def = Def::Const(view);
    }
    Ok(done)
}

/// `(value, the matrix it is the transpose of)`.
///
/// The base is what is looked up by rows, if one of them is: rows of a table are then contiguous.
fn pairs(m: &Model) -> Vec<(ValueId, ValueId)> {
    let mut groups: BTreeMap<(DType, Vec<usize>), Vec<ValueId>> = BTreeMap::new();
    for &value in &m.graph(m.main).constants {
        let Def::Const(tensor) = &m.value(value).def else { continue };
        let is_read = !m.value(value).uses.is_empty() && tensor.place().is_some();
        let is_matrix = tensor.shape.len() == 2 && tensor.dtype.is_float();
        if is_read && is_matrix && !tensor.is_transposed() {
            groups.entry((tensor.dtype, tensor.shape.clone())).or_default().push(value);
        }
    }
    let mut pairs: Vec<(ValueId, ValueId)> = Vec::new();
    for ((dtype, shape), values) in &groups {
        let turned = (*dtype, shape.iter().rev().copied().collect());
        for &base in values.iter().filter(|it| is_table(m, **it)) {
            let others = groups.get(&turned).into_iter().flatten().copied();
            let free = |it: &ValueId| *it != base && !pairs.iter().any(|pair| pair.0 == *it);
            let twins: Vec<ValueId> = others.filter(free).collect();
            pairs.extend(
                twins
                    .into_iter()
                    .filter(|it| are_turned(tensor(m, base), tensor(m, *it)))
                    .map(|it| (it, base)),
            );
        }
    }
    pairs
}

fn is_table(m: &Model, value: ValueId) -> bool {
    m.value(value).uses.iter().any(|it| match it.user {
        onnxq_ir::User::Node(node) => m.node(node).op.is("Gather") && it.index == 0,
        _ => false,
    })
}

fn tensor(m: &Model, value: ValueId) -> &Tensor {
    m.constant(value).expect("only constants are paired")
}

/// Whether `b` holds the transpose of `a`. What cannot be read has no twin.
fn are_turned(a: &Tensor, b: &Tensor) -> bool {
    const ROWS: usize = 256;
    let turned = b.transposed();
    let same = |start: usize| -> Result<bool, TensorError> {
        let rows = start..(start + ROWS).min(a.shape[0]);
        // Bits, not values: a zero's sign would be lost, and no NaN equals itself.
        let bits = |it: Vec<f32>| it.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        Ok(bits(a.rows_f32(rows.clone())?) == bits(turned.rows_f32(rows)?))
    };
    (0..a.shape[0]).step_by(ROWS).all(|start| same(start).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    /// A table of 256 rows and a head of its values in columns, the last of which is `last`.
    fn model(last: f32) -> Builder {
        let (n, k) = (256, 64);
        let at = |row: usize, column: usize| (row * k + column) as f32;
        let mut b = Builder::new();
        let table = Tensor::from_f32(&[n, k], (0..n * k).map(|it| at(it / k, it % k)));
        let mut turned: Vec<f32> = (0..n * k).map(|it| at(it % n, it / n)).collect();
        turned[n * k - 1] = last;
        let (table, head) =
            (b.constant("table", table), b.constant("head", Tensor::from_f32(&[k, n], turned)));
        let ids = b.constant("ids", Tensor::from_i64(&[2], [0, 1]));
        let x = b.node("Gather", &[table, ids]);
        let y = b.node("MatMul", &[x, head]);
        b.output(y, "y");
        b
    }

    #[test]
    fn a_copy_becomes_a_view_and_what_differs_in_one_number_does_not() {
        let (changes, lines) = model(16383.0).run("tie-constants");
        assert_eq!((changes, &*lines[0]), (1, "tie-constants: `head`: the transpose of `table`"));
        assert_eq!(model(16384.0).run("tie-constants").0, 0);
        let mut again = model(16383.0);
        again.run("tie-constants");
        assert_eq!(again.run("tie-constants").0, 0);
    }
}
