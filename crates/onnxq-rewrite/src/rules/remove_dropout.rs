//! `Dropout` does nothing outside training.
//!
//! ```text
//! y = Dropout(x)      →      x
//! ```

use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, no_match};

pub(super) const REMOVE_DROPOUT: Rule = Rule {
    name: "remove-dropout",
    help: "remove Dropout in its inference form",
    root: "Dropout",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    if let Some(mask) = m.node(node).outputs.get(1).filter(|it| !m.value(**it).uses.is_empty()) {
        return Err(no_match!("the mask `{}` is used", m.value(*mask).name));
    }
    if is_training(m, node)? {
        return Err(no_match!("Dropout is in its training form"));
    }
    super::bypass(m, node, m.operand(node, 0)?)
}

fn is_training(m: &Model, node: NodeId) -> Result<bool, NoMatch> {
    match m.opset("") {
        ..=6 => Ok(m.int_attr(node, "is_test", 0) == 0),
        7..=11 => Ok(false),
        _ => match m.node(node).inputs.get(2).copied().flatten() {
            Some(training_mode) => Ok(m.small_i64(training_mode)? != [0]),
            None => Ok(false),
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Builder;
    use onnxq_ir::{
        Attrs,
        tensor::{DType, Tensor},
    };

    fn model(training: u8) -> Builder {
        let mut b = Builder::new();
        let (x, ratio) = (b.input("x", "2"), b.floats("ratio", &[], &[0.5]));
        let training = b.constant("training", Tensor::new(DType::Bool, vec![], vec![training]));
        let node = b.node_of("Dropout", &[x, ratio, training], Attrs::default(), &["d", "mask"]);
        let y = b.node("Relu", &[b.model.node(node).output()]);
        b.output(y, "y");
        b
    }

    #[test]
    fn inference_needs_no_dropout() {
        let mut b = model(0);
        assert_eq!(b.run("remove-dropout").0, 1);
        assert_eq!(b.ops(), ["Relu"]);
    }

    #[test]
    fn training_and_masks_keep_it() {
        model(1).misses("remove-dropout", "Dropout is in its training form");
        let mut b = model(0);
        let mask = b.model.node(b.model.nodes()[0]).outputs[1];
        b.output(mask, "mask");
        b.misses("remove-dropout", "the mask `mask` is used");
    }
}
