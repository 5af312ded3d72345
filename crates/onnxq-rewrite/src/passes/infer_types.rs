//! Element types and shapes of values, as far as they follow from those of the inputs.

use crate::{Pass, PassError};
use onnxq_ir::{Model, ctx::Ctx, infer, tensor::TensorType};

pub(super) const INFER_TYPES: Pass =
    Pass { name: "infer-types", help: "infer element types and shapes", limited: false, run };

/// Returns how many values are known better than before.
fn run(model: &mut Model, _: &Ctx) -> Result<usize, PassError> {
    let types = |model: &Model| -> Vec<Option<TensorType>> {
        model.values().map(|(_, it)| it.ty.clone()).collect()
    };
    let before = types(model);
    infer::run(model);
    let mut after = types(model);
    after.truncate(before.len());
    Ok(before.iter().zip(&after).filter(|(before, after)| before != after).count())
}
