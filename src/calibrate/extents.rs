//! How large values are in the runs of a calibration, as the first sample shows it.

use std::collections::BTreeMap;

use super::{
    Batch, model_inputs,
    roles::{Role, role},
};
use crate::{
    ir::{Model, ValueId},
    tensor::Dim,
};

pub struct Extents {
    symbols: BTreeMap<String, u64>,
    /// What stands for a dimension that nothing says anything of.
    unknown: u64,
    /// What axes of tokens are called.
    tokens: Vec<Dim>,
}

impl Extents {
    pub fn new(model: &Model, batch: &Batch) -> Extents {
        let (mut symbols, mut tokens) = (BTreeMap::new(), Vec::new());
        for input in model_inputs(model) {
            let (Some(dims), Some(tensor)) = (&input.ty.shape, batch.get(&input.name)) else {
                continue;
            };
            for (dim, &size) in dims.iter().zip(&tensor.shape) {
                if let Dim::Symbol(name) = dim {
                    symbols.insert(name.to_string(), size as u64);
                }
            }
            if input.name == "input_ids" || role(&input.name) == Some(Role::AttentionMask) {
                tokens.extend(dims.get(1).filter(|it| **it != Dim::Unknown).cloned());
            }
        }
        let unknown = symbols.values().copied().max().unwrap_or(1);
        Extents { symbols, unknown, tokens }
    }

    /// Bytes of a value as floats, about.
    pub fn bytes(&self, model: &Model, value: ValueId) -> u64 {
        let size = |it: &Dim| match it {
            Dim::Fixed(it) => *it as u64,
            Dim::Symbol(name) => self.symbols.get(&**name).copied().unwrap_or(self.unknown),
            Dim::Unknown => self.unknown,
        };
        let shape = model.shape(value).map_or(&[][..], |it| it);
        shape.iter().map(size).fold(size_of::<f32>() as u64, u64::saturating_mul)
    }

    /// The axis of tokens: the first that is called so. In rows it may have another name, where
    /// a past is empty for instance, so axis 1 is it if the sizes agree.
    pub fn tokens(&self, model: &Model, value: ValueId) -> Option<usize> {
        let Ok(shape) = model.shape(value) else { return Some(1) };
        let named = |it: &Dim| self.tokens.iter().any(|token| it.surely_equals(token));
        let found = (1..shape.len()).find(|at| named(&shape[*at]));
        found.or((shape.len() == 3).then_some(1))
    }
}
