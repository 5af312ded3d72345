//! What was trained becomes the model's.

use std::{ops::Range, sync::Arc};

use onnxq_ir::{
    Def, Model, ValueId,
    tensor::{QMatrix, QShape, QSource, Tensor, TensorError},
};
use onnxq_train::params::Change;

/// A quantized weight that is known.
struct Known(QMatrix);

impl QSource for Known {
    fn shape(&self) -> QShape {
        self.0.shape
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        Ok(self.0.rows(rows))
    }
}

/// Gives the constants of a model the trained numbers. Its nodes stay as they are.
pub(crate) fn apply(m: &mut Model, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Float { value, tensor } => float(m, value, tensor),
            Change::Quantized { source, matrix } => quantized(m, &source, *matrix),
        }
    }
}

/// Tied tables see what their twin got.
fn float(m: &mut Model, value: ValueId, tensor: Tensor) {
    let Ok(old) = m.constant(value).cloned() else { return };
    let identity = old.identity();
    let flipped = (old.shape.len() == 2).then(|| old.transposed().identity()).flatten();
    let same = |it: &Tensor, other: &Option<_>| other.is_some() && it.identity() == *other;
    let twins: Vec<(ValueId, bool)> = m
        .constants()
        .filter(|it| it.0 != value)
        .filter(|(_, it)| same(it, &identity) || same(it, &flipped))
        .map(|(id, it)| (id, same(it, &flipped)))
        .collect();
    for (twin, is_flipped) in twins {
        let own = if is_flipped { tensor.transposed() } else { tensor.clone() };
        m.value_mut(twin).def = Def::Const(own);
    }
    m.value_mut(value).def = Def::Const(tensor);
}

fn quantized(m: &mut Model, source: &Arc<dyn QSource>, matrix: QMatrix) {
    let new: Arc<dyn QSource> = Arc::new(Known(matrix));
    let parts: Vec<(ValueId, Tensor)> = m
        .constants()
        .filter_map(|(id, tensor)| {
            let (own, part, packing) = tensor.quantized()?;
            let made =
                Arc::ptr_eq(own, source).then(|| Tensor::packed(new.clone(), part, packing))?;
            let fits = made.shape == tensor.shape;
            Some((id, if fits { made } else { made.reshaped(tensor.shape.clone()) }))
        })
        .collect();
    for (id, tensor) in parts {
        m.value_mut(id).def = Def::Const(tensor);
    }
}
