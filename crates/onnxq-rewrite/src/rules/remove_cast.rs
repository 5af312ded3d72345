//! `Cast` to the type that a value has already goes, and a detour through a wider type.
//!
//! ```text
//! Cast <to = float> (x), x: float                            →      x
//! Cast <to = float16> (Cast <to = float> (x)), x: float16    →      x
//! ```

use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, no_match, tensor::DType};

pub(super) const REMOVE_CAST: Rule = Rule {
    name: "remove-cast",
    help: "remove Cast to the type that a value has already, or had before a wider one",
    root: "Cast",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let value = m.operand(node, 0)?;
    let name = &m.value(value).name;
    let Some(dtype) = m.dtype(value) else {
        return Err(no_match!("the type of `{name}` is unknown"));
    };
    let to = m.int_attr(node, "to", 0);
    if to == i64::from(dtype.number()) {
        return super::bypass(m, node, value);
    }
    let before = m.producer(value, "Cast").map_err(|_| no_match!("`{name}` is {dtype}"))?;
    let first = m.operand(before, 0)?;
    match m.dtype(first) {
        Some(it) if to == i64::from(it.number()) && holds(dtype, it) => {
            super::bypass(m, node, first)
        }
        _ => Err(no_match!("`{name}` is {dtype}")),
    }
}

/// Whether every value of `narrow` is one of `wide`.
fn holds(wide: DType, narrow: DType) -> bool {
    use DType::{BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8};
    match wide {
        F64 => matches!(narrow, F32 | F16 | BF16 | I32 | I16 | I8 | U8 | Bool),
        F32 => matches!(narrow, F16 | BF16 | I16 | I8 | U8 | Bool),
        I64 => matches!(narrow, I32 | I16 | I8 | U8 | Bool),
        I32 => matches!(narrow, I16 | I8 | U8 | Bool),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Builder;
    use onnxq_ir::Attrs;

    #[test]
    fn only_a_cast_to_the_same_type_goes() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let same = b.node_with("Cast", &[x], Attrs::default().with("to", 1i64));
        let other = b.node_with("Cast", &[same], Attrs::default().with("to", 7i64));
        let y = b.node("Neg", &[other]);
        b.output(y, "y");
        let (changes, lines) = b.run("remove-cast");
        assert_eq!((changes, b.ops()), (1, vec!["Cast".to_owned(), "Neg".to_owned()]));
        assert!(lines[1].ends_with(": `x` is float"), "{lines:?}");
    }
}
