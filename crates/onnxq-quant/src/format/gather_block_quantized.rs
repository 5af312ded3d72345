//! `com.microsoft.GatherBlockQuantized`: an embedding table of 2, 4 or 8 bits in blocks.

use super::{Blocks, Format, MICROSOFT, any_width, attrs, blocked_scheme, quantized};
use crate::ops::Weight;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, Ref, no_match, tensor::Packing};
use onnxq_rewrite::Rule;

pub(super) const GATHER_BLOCK_QUANTIZED: Format = Format {
    name: "gather_block_quantized",
    help: "embedding tables of 2, 4 or 8 bits in blocks: com.microsoft.GatherBlockQuantized",
    packing: Packing::BlockedRows,
    place: |_, site| match site.kind {
        Weight::Gather => Ok(()),
        _ => Err(no_match!("it is a form of Gather")),
    },
    scheme: blocked_scheme,
    half_scales: true,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_GATHER],
    stays_canonical: |_, _| false,
    opset: Some((MICROSOFT, 1)),
    fitted: any_width,
};

const LOWER_GATHER: Rule = Rule {
    name: "lower-gather-block-quantized",
    help: "Gather from a blocked DequantizeLinear → GatherBlockQuantized",
    root: "Gather",
    apply,
};

fn apply(m: &Model, gather: NodeId) -> Result<Patch, NoMatch> {
    let (table, indices) = (m.operand(gather, 0)?, m.operand(gather, 1)?);
    let w = quantized(m, table, Packing::BlockedRows)?;
    let blocks = Blocks::of(m, &w)?;
    let shape = blocks.source.shape();
    let output = m.node(gather).output();

    let mut patch = Patch::before(gather);
    let inputs: [Ref; 4] = [
        blocks.quantized(&mut patch, "rows", Packing::Gather),
        indices.into(),
        blocks.scales(&mut patch),
        // The default zero differs between element types and versions, so it is always stated.
        blocks.zero_points(&mut patch),
    ];
    let attrs = attrs(&[
        ("bits", i64::from(shape.bits)),
        ("block_size", shape.block as i64),
        ("gather_axis", 0),
        ("quantize_axis", 1),
    ]);
    let op = "com.microsoft.GatherBlockQuantized";
    let y = patch.named(&m.node(gather).name, "y", op, inputs, attrs);
    Ok(patch.replace(output, y))
}
