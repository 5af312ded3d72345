//! `com.microsoft.MatMulNBits` and `GatherBlockQuantized`: weights in blocks, float activations.

use std::sync::Arc;

use super::{Between, Convolutions, Form, PLAIN, emit::Emit};
use crate::raise::{Kind, Site, Weights, stored::Stored};
use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, no_match,
    tensor::{DType, Packing, Part, QSource, ZeroPoints},
};

pub(super) const MATMUL_NBITS: Form = Form {
    name: "matmul_nbits",
    help: "Weights in blocks, float activations: MatMulNBits and GatherBlockQuantized",
    has: |site| matches!(site.form, "GatherBlockQuantized" | "MatMulNBits"),
    lower,
    frees_activations: true,
    convolutions: Convolutions::Refuse("convolutions have no blocks"),
    between: Between::Float,
    ..PLAIN
};

/// Without it, 8 and 2 bits have no kernel and run 16 to 30 times slower.
const ACCURACY_LEVEL: i64 = 4;

fn lower(m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
    let source = blocks(site, weights)?;
    match &site.kind {
        Kind::Product { x, bias } => {
            let mut to = Emit::new(m, site);
            let x_float = to.float_x(x);
            let quantized = to.part(&source, Part::Quantized, Packing::NBits, "nbits");
            let mut inputs = vec![x_float, quantized, to.scales(&source, Packing::NBits)];
            if source.shape().zero_points == ZeroPoints::Asymmetric {
                inputs.push(to.part(&source, Part::ZeroPoints, Packing::NBits, "zeros"));
            }
            let y = to.main("com.microsoft.MatMulNBits", &inputs, attrs(&source));
            let y = to.biased(y, x, *bias)?;
            Ok(to.finish(y))
        }
        Kind::Rows { indices } => {
            let mut to = Emit::new(m, site);
            let inputs: [Ref; 4] = [
                to.part(&source, Part::Quantized, Packing::Gather, "rows"),
                (*indices).into(),
                to.scales(&source, Packing::Gather),
                // The default zero differs between versions, so it is always stated.
                to.part(&source, Part::ZeroPoints, Packing::Gather, "zeros"),
            ];
            let shape = source.shape();
            let attrs = Attrs::default()
                .with("bits", i64::from(shape.bits))
                .with("block_size", shape.block)
                .with("gather_axis", 0i64)
                .with("quantize_axis", 1i64);
            let y = to.main("com.microsoft.GatherBlockQuantized", &inputs, attrs);
            Ok(to.finish(y))
        }
    }
}

fn attrs(source: &Stored) -> Attrs {
    let shape = source.shape();
    Attrs::default()
        .with("K", shape.k)
        .with("N", shape.n)
        .with("accuracy_level", ACCURACY_LEVEL)
        .with("bits", i64::from(shape.bits))
        .with("block_size", shape.block)
}

/// The weight in blocks that the kernels have; a scale per channel is repeated for each block.
fn blocks(site: &Site, weights: &mut Weights) -> Result<Arc<Stored>, NoMatch> {
    let weight = &site.weight;
    weight.source.integer_zeros()?;
    let shape = weight.source.shape();
    if !matches!(weight.dtype, DType::F32 | DType::F16) {
        return Err(no_match!("MatMulNBits takes no {} scales", weight.dtype));
    }
    let kernels = [256, 128, 64, 32, 16];
    if shape.blocks() > 1 {
        let is_newer = shape.block == 512 && shape.bits != 2;
        if !kernels.contains(&shape.block) && !is_newer {
            return Err(no_match!("MatMulNBits has no blocks of {}", shape.block));
        }
        return Ok(weight.source.clone());
    }
    // The fewest scales of those without a short last block.
    let divides = kernels[..4].iter().find(|it| shape.k.is_multiple_of(**it));
    weights.in_blocks(&weight.source, *divides.unwrap_or(&128))
}
