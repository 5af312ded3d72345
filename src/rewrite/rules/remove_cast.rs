//! `Cast` to the type that a value has already goes.
//!
//! ```text
//! Cast <to = float> (x), x: float      →      x
//! ```

use crate::{
    ir::{Model, NoMatch, NodeId, Patch},
    no_match,
    rewrite::Rule,
};

pub const REMOVE_CAST: Rule = Rule {
    name: "remove-cast",
    help: "remove Cast to the type that a value has already",
    root: "Cast",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let value = m.operand(node, 0)?;
    let name = &m.value(value).name;
    let Some(dtype) = m.dtype(value) else {
        return Err(no_match!("the type of `{name}` is unknown"));
    };
    if m.int_attr(node, "to", 0) != i64::from(dtype.number()) {
        return Err(no_match!("`{name}` is {dtype}"));
    }
    super::bypass(m, node, value)
}

#[cfg(test)]
mod tests {
    use crate::{ir::Attrs, rewrite::testing::Builder};

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
