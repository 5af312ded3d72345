//! `ConvInteger` and the scaling after it, what `quantize_dynamic` makes of a convolution, as a
//! `Conv` of dequantized operands.
//!
//! ```text
//! Mul(Cast(ConvInteger(x, w, x_zero, w_zero)), Mul(x_scale, w_scale))
//!   →   Conv(DequantizeLinear(x …), DequantizeLinear(w …))
//! ```

use super::{Convolutions, Form, LowerReport, main_nodes};
use crate::raise::optional;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match};

/// Other forms have no other way to hold a convolution.
pub(super) fn convert(m: &mut Model, form: &Form, report: &mut LowerReport) {
    for node in main_nodes(m) {
        if !m.is_live(node) || !m.node(node).op.is("ConvInteger") {
            continue;
        }
        let found = match form.convolutions {
            Convolutions::Keep => return,
            Convolutions::Raise => raise(m, node),
            Convolutions::Refuse(reason) => Err(NoMatch(reason.into())),
        };
        match found {
            Ok(patch) => {
                patch.apply(m);
                report.count(format!("ConvInteger → {}", form.name));
            }
            Err(reason) => report.left.push((node, reason)),
        }
    }
}

fn raise(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let cast = m.only_use(m.node(node).output())?;
    let last = m.only_use(m.node(cast).output())?;
    if !m.node(cast).op.is("Cast") || !m.node(last).op.is("Mul") {
        return Err(no_match!("its sums go to {}, not to Cast and Mul", m.node(cast).op));
    }
    let (_, factors) = m.either_operand(last, "Cast")?;
    let product = m.producer(factors, "Mul")?;
    let (a, b) = (m.operand(product, 0)?, m.operand(product, 1)?);
    let (x_scale, w_scale) = if m.constant(b).is_ok() { (a, b) } else { (b, a) };
    let output = m.node(last).output();
    let stem = m.value(output).name.to_string();
    let mut patch = Patch::before(last);
    let (x, w) = (m.operand(node, 0)?, m.operand(node, 1)?);
    let x = operand(m, &mut patch, x, x_scale, optional(m, node, 2))?;
    let w = operand(m, &mut patch, w, w_scale, optional(m, node, 3))?;
    let attrs = m.node(node).attrs.clone();
    let y = patch.named(&m.node(node).name, &stem, "Conv", [x, w], attrs);
    Ok(patch.replace(output, y))
}

/// `DequantizeLinear` with one scale: those per channel have an axis to add to the product.
fn operand(
    m: &Model,
    patch: &mut Patch,
    quantized: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
) -> Result<Ref, NoMatch> {
    if m.constant(scale).is_ok_and(|it| it.numel() != 1) {
        return Err(no_match!("`{}` has a scale per channel", m.value(quantized).name));
    }
    let mut inputs: Vec<Ref> = vec![quantized.into(), scale.into()];
    inputs.extend(zero.map(Ref::from));
    let name = format!("{}_dq", m.value(quantized).name);
    Ok(patch.step(&name, "DequantizeLinear", inputs, Attrs::default()))
}
