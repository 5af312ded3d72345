//! A Gelu that adds a bias, as ONNX Runtime saves optimized models, becomes `Add` and Gelu: rules look
//! for a bias behind its product, and ONNX Runtime makes one node of the two by itself.
//!
//! ```text
//! BiasGelu(x, b)      →      Gelu(x + b)
//! FastGelu(x, b)      →      FastGelu(x + b)
//! ```

use super::stem;
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch};

pub(super) const UNFUSE_BIAS_GELU: Rule = Rule {
    name: "unfuse-bias-gelu",
    help: "write BiasGelu of ONNX Runtime as Add and Gelu",
    root: "com.microsoft.BiasGelu",
    apply: |m, node| unfuse(m, node, "Gelu", Attrs::default()),
};

pub(super) const UNFUSE_BIAS_FAST_GELU: Rule = Rule {
    name: "unfuse-bias-fast-gelu",
    help: "write FastGelu of ONNX Runtime with a bias as Add and FastGelu",
    root: "com.microsoft.FastGelu",
    apply: |m, node| unfuse(m, node, "FastGelu", Attrs::default().with("approximate", "tanh")),
};

/// The operator before opset 20 is ONNX Runtime's; then it is `Gelu` with these attributes.
fn unfuse(m: &Model, node: NodeId, before: &str, attrs: Attrs) -> Result<Patch, NoMatch> {
    let (x, bias) = super::pair(m, node)?;
    let (op, attrs) = match m.opset("") {
        20.. => ("Gelu".to_owned(), attrs),
        _ => (format!("com.microsoft.{before}"), Attrs::default()),
    };
    let name = stem(m, node);
    let mut patch = Patch::before(node);
    let sum = patch.step(&format!("{name}.sum"), "Add", [x.into(), bias.into()], Attrs::default());
    let y = patch.node(&name, &op, [sum], attrs);
    Ok(patch.replace(m.node(node).output(), y))
}
