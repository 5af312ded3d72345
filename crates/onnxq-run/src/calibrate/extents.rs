//! How large values are in the runs of a calibration, as the first sample shows it.

use std::collections::BTreeMap;

use crate::data::{
    Batch,
    roles::{Role, role},
};
use onnxq_ir::{
    Model, ValueId, infer,
    tensor::{Dim, TensorType},
};

pub(super) struct Extents {
    /// The model with the shapes of its inputs fixed.
    sized: Model,
    /// What the names in the shapes of inputs stand for: outputs that are declared keep names.
    symbols: BTreeMap<String, u64>,
    /// What stands for a dimension that not even that tells.
    unknown: u64,
    /// What axes of tokens are called.
    tokens: Vec<Dim>,
}

impl Extents {
    pub(super) fn new(model: &Model, batch: &Batch) -> Extents {
        let (mut sized, mut tokens, mut unknown) = (model.clone(), Vec::new(), 1);
        let mut symbols = BTreeMap::new();
        for &id in &model.graph(model.main).inputs {
            let it = model.value(id);
            let (Some(tensor), Some(ty)) = (batch.get(&*it.name), &it.ty) else { continue };
            let dims = tensor.shape.iter().copied();
            sized.value_mut(id).ty = Some(TensorType::new(ty.dtype, dims));
            unknown = tensor.shape.iter().map(|it| *it as u64).fold(unknown, u64::max);
            for (dim, size) in ty.shape.iter().flatten().zip(&tensor.shape) {
                if let Dim::Symbol(name) = dim {
                    symbols.insert(name.to_string(), *size as u64);
                }
            }
            if &*it.name == "input_ids" || role(&it.name) == Some(Role::AttentionMask) {
                let dim = ty.shape.as_ref().and_then(|it| it.get(1));
                tokens.extend(dim.filter(|it| **it != Dim::Unknown).cloned());
            }
        }
        infer::run(&mut sized);
        Extents { sized, symbols, unknown, tokens }
    }

    /// Bytes of a value as floats.
    pub(super) fn bytes(&self, value: ValueId) -> u64 {
        let size = |it: &Dim| match it {
            Dim::Fixed(it) => *it as u64,
            Dim::Symbol(name) => self.symbols.get(&**name).copied().unwrap_or(self.unknown),
            Dim::Unknown => self.unknown,
        };
        let shape = self.sized.shape(value).map_or(&[][..], |it| it);
        shape.iter().map(size).fold(size_of::<f32>() as u64, u64::saturating_mul)
    }

    /// The axis of tokens: the first that is called so. In rows it may have another name, where
    /// a past is empty for instance, so axis 1 is it if the sizes agree.
    pub(super) fn tokens(&self, model: &Model, value: ValueId) -> Option<usize> {
        let Ok(shape) = model.shape(value) else { return Some(1) };
        let named = |it: &Dim| self.tokens.iter().any(|token| it.surely_equals(token));
        let found = (1..shape.len()).find(|at| named(&shape[*at]));
        found.or((shape.len() == 3).then_some(1))
    }
}
