//! Nodes and initializers that lead to no output go.

use crate::Pass;

pub(super) const REMOVE_DEAD: Pass = Pass {
    name: "remove-dead",
    help: "remove nodes and initializers that lead to no output",
    limited: false,
    run: |model, _| Ok(model.remove_all_dead()),
};

#[cfg(test)]
mod tests {
    use crate::testing::Builder;

    #[test]
    fn chains_that_lead_nowhere_go_with_their_weights() {
        let mut b = Builder::new();
        let (x, w) = (b.input("x", "2"), b.floats("w", &[2], &[1.; 2]));
        let dead = b.node("Add", &[x, w]);
        b.node("Relu", &[dead]);
        let y = b.node("Relu", &[x]);
        b.output(y, "y");
        assert_eq!(b.run("remove-dead").0, 2);
        assert!(b.model.graph(b.model.main).constants.is_empty());
        assert_eq!(b.run("remove-dead").0, 0);
    }
}
