//! Rotation of the residual stream, so that no channel has values far larger than the others, and of what
//! attention weighs (`values`).
//!
//! Every value of the stream becomes `x·Q` for one orthogonal `Q`: what writes to the stream
//! (embedding tables, output projections, their biases) is multiplied by `Q` from the right, what
//! reads it through a norm by `Qᵀ·diag(gain)` from the left. A norm without a gain and `Q` commute,
//! so the float function stays the same, and nothing is computed that was not before. After
//! Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024 (there R1).
//!
//! `LayerNormalization` subtracts the mean, so `Q` keeps it: the vector of ones is its own image.
//! A table that is also the weight of the head stays so: its gain becomes a product of its own,
//! `M = Qᵀ·diag(gain)·Q`, between the norm and the head.

mod apply;
pub(super) mod matrix;
mod stream;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::stream::Streams;
use super::{ChangeModel, Changed, Transform, Work};
use onnxq_ir::{Model, NoMatch, tensor::TensorError};
use onnxq_numerics::specs::Settings;

/// An orthogonal change of basis of the residual stream, which spreads outliers over all channels.
/// For int8 activations; needs no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// Where the random signs begin. Default: 0.
    pub seed: u64,
    /// Also rotate what attention weighs, head by head, where no cache keeps it. Default: false; three
    /// models measured gained nothing from it in 8 bits.
    pub values: bool,
}

impl Settings for Rotate {}

impl Transform for Rotate {
    fn work(&self) -> Work<'_> {
        Work::Model(self)
    }
}

/// In 8 bits it cost SmolLM2-135M a quarter of what rotation gained (KL 0.042 instead of 0.024, from
/// 0.103; 8 rows), and it is small.
const SMALL: &str = "the gain before a tied head: its errors would reach every logit";

impl ChangeModel for Rotate {
    fn change(&self, m: &mut Model) -> Result<Changed, TensorError> {
        let Streams { found, missed } = Streams::find(m);
        let (mut parts, mut float, mut rotated) = (Vec::new(), Vec::new(), Vec::new());
        for stream in &found {
            let products = apply::apply(m, stream, self.seed)?;
            rotated.extend(stream.nodes());
            parts.push(stream.describe(!products.is_empty()));
            float.extend(products.into_iter().map(|it| (it, NoMatch(SMALL.into()))));
        }
        if parts.is_empty() {
            let reason = missed.first().map_or("it has no norms".to_owned(), |it| it.1.to_string());
            parts.push(format!("no residual stream to rotate: {reason}"));
        }
        if self.values {
            parts.extend(values::rotate(m, self.seed)?);
        }
        Ok(Changed { summary: parts.join(" · "), missed, float, rotated })
    }
}

#[cfg(test)]
mod tests;
