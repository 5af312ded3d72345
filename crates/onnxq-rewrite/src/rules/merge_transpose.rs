//! A `Transpose` that undoes another, or changes nothing, goes; two in a row become one.
//!
//! ```text
//! Transpose <perm = q> (Transpose <perm = p> (x))      →      x, or Transpose <perm = p[q]> (x)
//! ```

use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, no_match};

pub(super) const MERGE_TRANSPOSE: Rule = Rule {
    name: "merge-transpose",
    help: "remove Transpose that changes nothing; make one of two in a row",
    root: "Transpose",
    apply,
};

fn apply(m: &Model, transpose: NodeId) -> Result<Patch, NoMatch> {
    let last = permutation(m, transpose)?;
    let x = m.operand(transpose, 0)?;
    if is_identity(&last) {
        return super::bypass(m, transpose, x);
    }
    let before = m.producer(x, "Transpose")?;
    super::same_graph(m, before, transpose)?;
    let first = permutation(m, before)?;
    if first.len() != last.len() {
        return Err(no_match!("the permutations have different lengths"));
    }
    let both: Vec<i64> = last.iter().map(|it| first[*it as usize]).collect();
    let x = m.operand(before, 0)?;
    if is_identity(&both) {
        return super::bypass(m, transpose, x);
    }
    let mut patch = Patch::before(transpose);
    let attrs = Attrs::default().with("perm", both);
    let y = patch.node(&m.node(transpose).name, "Transpose", [x.into()], attrs);
    Ok(patch.replace(m.node(transpose).output(), y))
}

/// The order of axes, which must be one.
fn permutation(m: &Model, transpose: NodeId) -> Result<Vec<i64>, NoMatch> {
    let list = match (m.ints_attr(transpose, "perm"), m.rank(m.operand(transpose, 0)?)) {
        (Some(it), _) => it.to_vec(),
        (None, Some(rank)) => (0..rank as i64).rev().collect(),
        (None, None) => return Err(no_match!("the rank is not known")),
    };
    let mut sorted = list.clone();
    sorted.sort_unstable();
    match is_identity(&sorted) {
        true => Ok(list),
        false => Err(no_match!("{list:?} is no permutation")),
    }
}

fn is_identity(list: &[i64]) -> bool {
    list.iter().enumerate().all(|(i, it)| i as i64 == *it)
}
