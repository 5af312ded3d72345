//! int8 weights that are float again once the model is loaded: a quarter of the file, the speed of
//! the float model. For nodes without a fast integer kernel.
//!
//! `Mul(Cast(quantized), scales)`, which ONNX Runtime computes when it loads the model. A
//! `DequantizeLinear` it would leave where it is, and compute in each run.

use std::sync::Arc;

use super::{Format, any_width, channel_scheme};
use crate::ops::{Site, Weight};
use onnxq_ir::{
    Attrs, Model, Patch, ValueId, no_match,
    tensor::{Packing, Part, QSource, Tensor},
};

pub(super) const STORED: Format = Format {
    name: "stored",
    help: "int8 weights per channel that are float once the model is loaded",
    packing: Packing::PerChannel,
    place: |_, _| Ok(()),
    scheme: |scheme, activation| match activation {
        None => channel_scheme(scheme),
        Some(_) => Err(no_match!("it takes float activations: set `activation: none`")),
    },
    half_scales: false,
    int8_activations: false,
    float_when_loaded: true,
    rules: &[],
    stays_canonical: |_, _| false,
    opset: None,
    fitted: any_width,
};

/// `Mul(Cast(quantized), scales)` of the weight of a site. Whether the activation is float does not
/// matter, so there is no canonical form to lower.
pub fn stored(m: &mut Model, site: &Site, source: Arc<dyn QSource>, packing: Packing) -> ValueId {
    let name = m.value(site.weight).name.to_string();
    let shape = m.constant(site.weight).expect("planned weights are constant").shape.clone();
    let quantized = Tensor::packed(source.clone(), Part::Quantized, packing);
    let scales = Tensor::packed(source.clone(), Part::Scales, packing);
    let (quantized, scales) = match packing {
        Packing::PerSlice(_) => {
            let of_shape = |it, part| super::of_shape(it, &shape, part, packing);
            (of_shape(quantized, Part::Quantized), of_shape(scales, Part::Scales))
        }
        Packing::PerRow => {
            let mut by_row = vec![1; shape.len()];
            let own = if site.kind == Weight::Recurrent { 2 } else { 1 };
            by_row[..own].copy_from_slice(&shape[..own]);
            (quantized.reshaped(shape), scales.reshaped(by_row))
        }
        _ => (quantized, scales),
    };
    let mut patch = Patch::before(site.node);
    let quantized = patch.constant(&format!("{name}_codes"), quantized);
    let scales = patch.constant(&format!("{name}_scales"), scales);
    let to = Attrs::default().with("to", i64::from(source.shape().scale.number()));
    let float = patch.step(&format!("{name}_cast"), "Cast", [quantized], to);
    let y = patch.step(&format!("{name}_float"), "Mul", [float, scales], Attrs::default());
    patch.apply(m).value(y)
}
