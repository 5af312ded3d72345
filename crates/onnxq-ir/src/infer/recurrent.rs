//! Recurrent layers.

use super::{
    call::{Call, Types, tensor},
    dims,
};
use crate::tensor::{Dim, TensorType};

/// All hidden states, the last one, and for LSTM the last cell state.
pub(super) fn recurrent(c: &Call) -> Types {
    let Some(dtype) = c.dtype(0) else { return Vec::new() };
    let directions = Dim::Fixed(if c.str_attr("direction") == b"bidirectional" { 2 } else { 1 });
    let hidden = match c.int_attr("hidden_size") {
        Some(it) => dims::from_int(it),
        None => c.dim(2, 2),
    };
    // Layout 1 has the batch first.
    let batch_first = c.flag("layout");
    let (sequence, batch) = if batch_first { (1, 0) } else { (0, 1) };
    let (sequence, batch) = (c.dim(0, sequence), c.dim(0, batch));
    let (all, last) = if batch_first {
        (
            vec![batch.clone(), sequence, directions.clone(), hidden.clone()],
            vec![batch, directions, hidden],
        )
    } else {
        (
            vec![sequence, directions.clone(), batch.clone(), hidden.clone()],
            vec![directions, batch, hidden],
        )
    };
    let last: Option<TensorType> = Some(tensor(dtype, Some(last)));
    vec![Some(tensor(dtype, Some(all))), last.clone(), last]
}
