//! What tests of transforms share.

use std::collections::BTreeMap;

use onnxq_ir::{Model, ctx::Ctx, eval, tensor::Tensor, text};

/// A model with inferred types.
pub(super) fn parse(model: &str) -> Model {
    let mut m = text::parse(model).unwrap();
    onnxq_rewrite::run(&mut m, &["infer-types"], &Ctx::silent()).unwrap();
    m
}

/// Outputs of the model for a fixed input `x` of shape `[2, 3, 4]`.
pub(super) fn outputs(m: &Model) -> Vec<f32> {
    let values = (0..24).map(|it| ((it * 7 % 11) as f32 - 5.0) / 3.0);
    outputs_of(m, "x", Tensor::from_f32(&[2, 3, 4], values))
}

/// Outputs of the model for one input.
pub(super) fn outputs_of(m: &Model, name: &str, value: Tensor) -> Vec<f32> {
    let outputs = eval::run(m, &BTreeMap::from([(name.to_owned(), value)])).unwrap();
    outputs.values().flat_map(|it| it.to_f32().unwrap()).collect()
}
