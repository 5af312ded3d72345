//! A model with other weights.

use onnxq_ir::{Model, NodeId, tensor::Tensor};

/// From now on, input `index` of `node` is this constant.
///
/// It is kept until the end, so its bytes should be lazy or mapped.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub node: NodeId,
    pub index: usize,
    pub tensor: Tensor,
}

/// Gives the model these weights instead of its own.
pub fn replace(model: &mut Model, replaced: &[Replacement]) {
    for it in replaced {
        let constant = model.add_constant(model.main, "replaced", it.tensor.clone());
        model.set_input(it.node, it.index, Some(constant));
    }
}
