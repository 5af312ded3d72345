//! `Identity` of a computed value goes, unless it leads from an input to an output of a graph.
//!
//! ```text
//! i = Identity(x); y = Relu(i)      →      y = Relu(x)
//! ```

use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, no_match};

pub(super) const REMOVE_IDENTITY: Rule = Rule {
    name: "remove-identity",
    help: "remove Identity of values that are not constant",
    root: "Identity",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let value = m.operand(node, 0)?;
    if m.constant(value).is_ok() {
        return Err(no_match!("`{}` is constant", m.value(value).name));
    }
    super::bypass(m, node, value)
}

#[cfg(test)]
mod tests {
    use crate::testing::Builder;

    #[test]
    fn a_computed_value_takes_the_name_of_the_output() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let h = b.node("Relu", &[x]);
        let y = b.node("Identity", &[h]);
        let z = b.node("Neg", &[y]);
        b.output(y, "y");
        b.output(z, "z");
        assert_eq!(b.run("remove-identity").0, 1);
        assert_eq!(b.ops(), ["Relu", "Neg"]);
    }

    #[test]
    fn two_names_for_one_value_stay_two() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let h = b.node("Relu", &[x]);
        let y = b.node("Identity", &[h]);
        b.output(h, "h");
        b.output(y, "y");
        b.misses("remove-identity", "`y` is an output of the graph");
    }

    #[test]
    fn only_the_output_keeps_the_identity_of_an_input() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let y = b.node("Identity", &[x]);
        let z = b.node("Neg", &[y]);
        b.output(y, "y");
        b.output(z, "z");
        assert_eq!(b.run("remove-identity").0, 1);
        let neg = b.model.nodes()[1];
        assert_eq!(b.model.operand(neg, 0).unwrap(), x);
    }
}
