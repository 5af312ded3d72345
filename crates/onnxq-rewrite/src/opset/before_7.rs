//! What opset 7 changed: operators broadcast by shape, no longer by attribute.

use super::edit::{Edit, stem};
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match};

/// `Add`, `Equal`, …: the second operand lay at `axis` of the first, or at its end.
pub(super) fn binary_7(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let (a, b) = (m.operand(node, 0)?, m.operand(node, 1)?);
    let broadcast = m.int_attr(node, "broadcast", 0) != 0;
    let axis = m.int_attr(node, "axis", -1);
    let mut attrs = m.node(node).attrs.clone();
    let had = [attrs.remove("broadcast"), attrs.remove("axis")];
    if had.iter().all(Option::is_none) {
        return Ok(Edit::keep(node));
    }
    let mut edit = Edit::attrs(node, attrs);
    if broadcast && axis != -1 {
        let (rank_a, rank_b) = (known_rank(m, a)?, known_rank(m, b)?);
        let axis = if axis < 0 { axis + rank_a } else { axis };
        edit.patch = moved(m, node, b, rank_a - axis - rank_b)?;
    }
    Ok(edit)
}

/// A slope for each channel lay at the second axis.
pub(super) fn p_relu_7(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let (x, slope) = (m.operand(node, 0)?, m.operand(node, 1)?);
    let is_one = m.shape(slope).is_ok_and(|it| it.iter().all(|it| it.fixed() == Some(1)));
    if is_one || known_rank(m, slope)? != 1 {
        return Ok(Edit::keep(node));
    }
    let patch = moved(m, node, slope, known_rank(m, x)? - 2)?;
    Ok(Edit::replace(patch))
}

fn known_rank(m: &Model, value: ValueId) -> Result<i64, NoMatch> {
    let name = &m.value(value).name;
    let rank = m.rank(value).ok_or_else(|| no_match!("the rank of `{name}` is not known"))?;
    Ok(rank as i64)
}

/// Gives the second operand `behind` dimensions of one at its end.
fn moved(m: &Model, node: NodeId, value: ValueId, behind: i64) -> Result<Patch, NoMatch> {
    let mut patch = Patch::before(node);
    let rank = known_rank(m, value)?;
    match behind {
        0 => Ok(patch),
        1.. => {
            let axes: Vec<i64> = (rank..rank + behind).collect();
            let name = format!("{}.operand", stem(m, node));
            let axes = Attrs::default().with("axes", axes);
            let it = patch.step(&name, "Unsqueeze", [value.into()], axes);
            Ok(patch.rewire(node, 1, it))
        }
        _ => Err(no_match!("its operands do not fit their axis")),
    }
}

/// `BatchNormalization`, `Dropout`: whether the node trains is no longer an attribute.
pub(super) fn test_mode_7(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    if m.int_attr(node, "is_test", 0) == 0 {
        return Err(no_match!("it is in training mode, which opset 7 has not"));
    }
    Ok(without(m, node, "is_test"))
}

pub(super) fn gemm_7(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    Ok(without(m, node, "broadcast"))
}

/// `LSTM`, `GRU`, `RNN`: an output that is not wanted is not named.
pub(super) fn recurrent_7(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    Ok(without(m, node, "output_sequence"))
}

fn without(m: &Model, node: NodeId, name: &str) -> Edit {
    let mut attrs = m.node(node).attrs.clone();
    match attrs.remove(name) {
        Some(_) => Edit::attrs(node, attrs),
        None => Edit::keep(node),
    }
}

pub(super) fn upsample_7(_: &Model, _: NodeId, _: i64) -> Result<Edit, NoMatch> {
    Err(no_match!("before opset 7 it was an experiment with other attributes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        opset::{OpsetError, convert},
        testing::Builder,
    };
    use onnxq_ir::ctx::Ctx;

    fn add(attrs: Attrs) -> Builder {
        let mut b = Builder::new();
        b.model.set_opset("", 6);
        let x = b.input("x", "2,3,4,5");
        let w = b.floats("w", &[3, 4], &[1.0; 12]);
        let y = b.node_with("Add", &[x, w], attrs);
        b.output(y, "y");
        b
    }

    #[test]
    fn an_axis_becomes_dimensions_of_one() {
        let mut b = add(Attrs::default().with("broadcast", 1i64).with("axis", 1i64));
        convert(&mut b.model, 13, &Ctx::silent()).unwrap();
        assert_eq!(b.ops(), ["Unsqueeze", "Add"]);
        assert_eq!(b.constant_at(0, 1).to_i64().unwrap(), [2]);
        let add = b.model.nodes()[1];
        assert!(b.model.node(add).attrs.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut b = add(Attrs::default().with("broadcast", 1i64).with("axis", 3i64));
        let err = convert(&mut b.model, 13, &Ctx::silent()).unwrap_err();
        let OpsetError::Refused { first, .. } = err else { panic!("{err}") };
        assert_eq!(first.reason.0, "its operands do not fit their axis");
        assert_eq!(b.model.opset(""), 6);
    }
}
