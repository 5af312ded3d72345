//! Look-ups in an int8 table with a scale per row, in standard operators: the scheme of an int8 head,
//! so that a table which is also the head is stored once.

use super::{Format, any_width, channel_scheme, quantized};
use crate::ops::Weight;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match,
    tensor::{Packing, Part, Tensor},
};
use onnxq_rewrite::Rule;

pub(super) const GATHER_ROWS: Format = Format {
    name: "gather_rows",
    help: "int8 embedding tables with a scale per row: Gather → Cast → Mul",
    packing: Packing::PerChannel,
    place: |_, site| match site.kind {
        Weight::Gather => Ok(()),
        _ => Err(no_match!("it is a form of Gather")),
    },
    scheme: |scheme, activation| match activation {
        None => channel_scheme(scheme),
        Some(_) => Err(no_match!("a table has no activation: set `activation: none`")),
    },
    half_scales: false,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_GATHER_ROWS],
    stays_canonical: |_, _| false,
    opset: None,
    fitted: any_width,
};

const LOWER_GATHER_ROWS: Rule = Rule {
    name: "lower-gather-rows",
    help: "Gather from a DequantizeLinear per row → Mul(Cast(Gather), Gather of the scales)",
    root: "Gather",
    apply,
};

/// ```text
/// Gather(DequantizeLinear(w, s), i)   →   Mul(Cast(Gather(w, i)), Unsqueeze(Gather(s, i)))
/// ```
///
/// `w` is `[rows, columns]`, `s` is `[rows]`.
fn apply(m: &Model, gather: NodeId) -> Result<Patch, NoMatch> {
    let (table, indices) = (m.operand(gather, 0)?, m.operand(gather, 1)?);
    let w = quantized(m, table, Packing::PerRow)?;
    let (source, ..) = m.constant(w.quantized)?.quantized().expect("checked by quantized()");
    let output = m.node(gather).output();
    let stem = m.value(output).name.to_string();
    let step = |suffix: &str| format!("{stem}_{suffix}");

    let mut patch = Patch::before(gather);
    // In the packing of a head, whose scales these are if it is tied.
    let scales = Tensor::packed(source.clone(), Part::Scales, Packing::PerChannel);
    let scales = patch.constant(&m.value(w.scales).name, scales);
    let inputs = [w.quantized.into(), indices.into()];
    let name = m.node(gather).name.to_string();
    let rows = patch.named(&name, &step("int8"), "Gather", inputs, Attrs::default());
    let to = Attrs::default().with("to", i64::from(source.shape().scale.number()));
    let rows = patch.step(&step("cast"), "Cast", [rows], to);
    let inputs = [scales, indices.into()];
    let scales = patch.step(&step("scale"), "Gather", inputs, Attrs::default());
    let scales = unsqueezed(m, &mut patch, &step("scales"), scales);
    let y = patch.step(&stem, "Mul", [rows, scales], Attrs::default());
    Ok(patch.replace(output, y))
}

/// With a last axis of length 1.
fn unsqueezed(m: &Model, patch: &mut Patch, name: &str, x: Ref) -> Ref {
    if m.opset("") < 13 {
        return patch.step(name, "Unsqueeze", [x], Attrs::default().with("axes", vec![-1i64]));
    }
    let axes = patch.constant("last_axis", Tensor::from_i64(&[1], [-1]));
    patch.step(name, "Unsqueeze", [x, axes], Attrs::default())
}
