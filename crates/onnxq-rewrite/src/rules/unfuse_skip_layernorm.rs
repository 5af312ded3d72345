//! `SkipLayerNormalization` becomes `Sum` and `LayerNormalization`.
//!
//! ONNX Runtime's fused kernel is five to seven times slower on a CPU than the two.

use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match};

pub(super) const UNFUSE_SKIP_LAYERNORM: Rule = Rule {
    name: "unfuse-skip-layernorm",
    help: "write SkipLayerNormalization as Sum and LayerNormalization, which are faster on a CPU",
    root: "com.microsoft.SkipLayerNormalization",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    if m.opset("") < 17 {
        return Err(no_match!("LayerNormalization needs opset 17, the model has {}", m.opset("")));
    }
    let it = m.node(node);
    // Mean and inverse deviation.
    for output in it.outputs.iter().skip(1).take(2) {
        if !m.value(*output).uses.is_empty() {
            return Err(no_match!("`{}` is used", m.value(*output).name));
        }
    }
    let (x, skip, gamma) = (m.operand(node, 0)?, m.operand(node, 1)?, m.operand(node, 2)?);
    let name = super::stem(m, node);
    let mut patch = Patch::before(node);
    let mut terms: Vec<Ref> = vec![x.into(), skip.into()];
    terms.extend(m.operand(node, 4).ok().map(Ref::from));
    let sum = patch.node(&format!("{name}.sum"), "Sum", terms, Attrs::default());
    let mut inputs: Vec<Ref> = vec![sum, gamma.into()];
    if let Ok(beta) = m.operand(node, 3) {
        inputs.push(beta.into());
    }
    let epsilon = m.float_attr(node, "epsilon", 1e-12);
    let attrs = Attrs::default().with("axis", -1i64).with("epsilon", epsilon);
    let y = patch.node(&name, "LayerNormalization", inputs, attrs);
    let mut patch = patch.replace(it.output(), y);
    if let Some(&residual) = it.outputs.get(3).filter(|it| !m.value(**it).uses.is_empty()) {
        patch = patch.replace(residual, sum);
    }
    Ok(patch)
}
