//! The numbers a tensor may be stored with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::specs::{Settings, Wrong};
use onnxq_ir::tensor::{DType, QShape, Superblock, ZeroPoints};

/// How a weight is stored. A format constrains it when the plan is made; solvers obey it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scheme {
    pub bits: u32,
    pub zero_points: ZeroPoints,
    pub granularity: Granularity,
    pub range: Range,
    /// Blocks whose scales are integers times a common step, as ggml's K types have them.
    pub superblock: Option<Superblock>,
}

/// How many weights share a scale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// All weights of an output channel.
    Channel,
    /// This many consecutive weights of an output channel.
    Block(usize),
}

/// Which quantized values are used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// All of them. The value of largest magnitude gets the lowest quantized value, so that the one
    /// quantized value more that the negative side has is never lost; scales may be negative.
    #[default]
    Full,
    /// The same number on both sides of zero: -127..127. Scales are positive.
    Narrow,
    /// One bit less, -64..64: for CPUs whose int8 kernels add pairs of products in 16 bits.
    Reduced,
}

/// The element type of stored scales.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scales {
    /// The type of the weight itself.
    #[default]
    Float,
    /// Half the bytes; a Cast, which ONNX Runtime folds when it loads the model, makes them
    /// float again. A weight with scales that float16 cannot hold keeps float.
    Float16,
}

impl Settings for Granularity {
    fn check(&self) -> Result<(), Wrong> {
        let Granularity::Block(block) = *self else { return Ok(()) };
        if block.is_power_of_two() && (16..=512).contains(&block) {
            return Ok(());
        }
        let what = format!("block {block} is not a power of two from 16 to 512");
        Err(Wrong::new("block", what))
    }
}

impl Scheme {
    /// The extent of a weight of `n` rows of `k` under this scheme.
    pub fn shape(&self, n: usize, k: usize, scale: DType) -> QShape {
        let block = match self.granularity {
            Granularity::Channel => k.max(1),
            Granularity::Block(it) => it,
        };
        let Scheme { bits, zero_points, superblock, .. } = *self;
        QShape { n, k, block, bits, zero_points, scale, superblock }
    }

    /// Whether each block has a scale and a zero point by itself.
    pub fn is_plain(&self) -> bool {
        self.superblock.is_none() && self.zero_points != ZeroPoints::Minimum
    }

    pub fn max_quantized(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }
}
