//! `Identity` of a constant becomes the constant.
//!
//! Torch writes the biases that it shares (often zeros) this way, which hides them from fusions.
//!
//! ```text
//! b = Identity(c); y = Add(x, b)      →      y = Add(x, c)
//! ```

use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, User, ValueId, no_match};

pub(super) const IDENTITY_OF_CONSTANT: Rule = Rule {
    name: "identity-of-constant",
    help: "use a constant itself instead of its Identity",
    root: "Identity",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let value = m.operand(node, 0)?;
    m.constant(value)?;
    if hides_a_weight(m, m.node(node).output()) {
        return Err(no_match!("it keeps a kernel from packing the weight without its scales"));
    }
    super::bypass(m, node, value)
}

/// `computed-scales` made it.
fn hides_a_weight(m: &Model, output: ValueId) -> bool {
    m.value(output).uses.iter().any(|it| match it.user {
        User::Node(user) => super::must_not_be_constant(m, user, it.index),
        User::Annotation(_) | User::Output(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Builder;

    #[test]
    fn chains_end_at_the_constant() {
        let mut b = Builder::new();
        let (x, c) = (b.input("x", "2"), b.floats("c", &[2], &[0.; 2]));
        let i = b.node("Identity", &[c]);
        let i = b.node("Identity", &[i]);
        let y = b.node("Add", &[x, i]);
        b.output(y, "y");
        assert_eq!(b.run("identity-of-constant").0, 2);
        assert_eq!(b.ops(), ["Add"]);
    }

    #[test]
    fn an_output_needs_its_identity() {
        let mut b = Builder::new();
        let c = b.floats("c", &[2], &[0.; 2]);
        let y = b.node("Identity", &[c]);
        b.output(y, "y");
        b.misses("identity-of-constant", "`y` is an output of the graph");
    }

    #[test]
    fn an_input_is_not_constant() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let y = b.node("Identity", &[x]);
        let y = b.node("Relu", &[y]);
        b.output(y, "y");
        b.misses("identity-of-constant", "`x` is not constant");
    }
}
