//! How a weight is stored: what entries say of it, and what that means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WeightRange;
use crate::format::{GgmlScheme, ggml_scheme};
use onnxq_ir::tensor::ZeroPoints;
use onnxq_numerics::{
    scheme::{Granularity, Range, Scales, Scheme},
    solve::SolverSpec,
};

/// How a weight is stored. Each field may be left to an earlier entry.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightSpec {
    /// The integers that stand for the weights. Default: int8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<WeightType>,
    /// Zero is in the middle of the range, so no zero points are stored. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric: Option<bool>,
    /// How many weights share a scale: `channel`, or `{block: 32}` for 32 consecutive weights of a
    /// channel (a power of two from 16 to 512). Smaller blocks are more accurate, larger and
    /// slower. Default: channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// Which of the integers are used. Default: full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<WeightRange>,
    /// How scales are stored: `float`, the type of the weight itself, or `float16`, which saves a
    /// tenth of a 4-bit weight in blocks of 32. Default: float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<Scales>,
    /// The algorithm that chooses the integers, alone (`rtn`) or with its settings. Default: rtn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver: Option<SolverSpec>,
    /// The weight keeps the integers that a quantized checkpoint has: `dtype`, `symmetric`,
    /// `granularity` and `scales` are those of the file, or the nearest where no grid of ONNX holds
    /// them. Weights that the file has in float stay in float. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_stored: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightType {
    Int2,
    Int4,
    #[default]
    Int8,
    Uint2,
    Uint4,
    Uint8,
    // Types of ggml, for `format: [gguf]`, which say all of how a weight is stored.
    Q2K,
    Q3K,
    Q4_0,
    Q4_1,
    Q4K,
    Q5_0,
    Q5_1,
    Q5K,
    Q6K,
    Q8_0,
}

/// All settings of a weight.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weight {
    pub scheme: Scheme,
    pub scales: Scales,
    /// Whether data may show that it needs no reduced range.
    pub is_measured: bool,
    pub solver: SolverSpec,
    /// A setting that contradicts a type of ggml.
    pub beside_ggml: Option<&'static str>,
    pub as_stored: bool,
}

impl WeightSpec {
    /// These settings, except where `later` says otherwise.
    pub fn merge(self, later: WeightSpec) -> WeightSpec {
        WeightSpec {
            dtype: later.dtype.or(self.dtype),
            symmetric: later.symmetric.or(self.symmetric),
            granularity: later.granularity.or(self.granularity),
            range: later.range.or(self.range),
            scales: later.scales.or(self.scales),
            solver: later.solver.or(self.solver),
            as_stored: later.as_stored.or(self.as_stored),
        }
    }

    /// With the defaults in the gaps.
    pub fn complete(self) -> Weight {
        let usual = Scheme {
            bits: 8,
            zero_points: ZeroPoints::Symmetric,
            granularity: Granularity::Channel,
            range: Range::Full,
            superblock: None,
        };
        let (scheme, scales) = self.over(usual, Scales::default());
        Weight {
            scheme,
            scales,
            is_measured: self.range == Some(WeightRange::Measured),
            solver: self.solver.unwrap_or_default(),
            beside_ggml: self.beside_ggml(),
            as_stored: self.as_stored.unwrap_or(false),
        }
    }
}

impl WeightType {
    /// Of an integer of the standard.
    fn bits(self) -> u32 {
        match self {
            WeightType::Int2 | WeightType::Uint2 => 2,
            WeightType::Int4 | WeightType::Uint4 => 4,
            _ => 8,
        }
    }

    /// The type of ggml that it is.
    pub fn ggml(self) -> Option<&'static GgmlScheme> {
        ggml_scheme(match self {
            WeightType::Q2K => "q2_k",
            WeightType::Q3K => "q3_k",
            WeightType::Q4_0 => "q4_0",
            WeightType::Q4_1 => "q4_1",
            WeightType::Q4K => "q4_k",
            WeightType::Q5_0 => "q5_0",
            WeightType::Q5_1 => "q5_1",
            WeightType::Q5K => "q5_k",
            WeightType::Q6K => "q6_k",
            WeightType::Q8_0 => "q8_0",
            _ => return None,
        })
    }
}

impl WeightSpec {
    /// How it says that a weight is stored, where it says something; the rest is as it is.
    pub fn over(&self, scheme: Scheme, scales: Scales) -> (Scheme, Scales) {
        if let Some(ggml) = self.dtype.and_then(WeightType::ggml) {
            return (ggml.scheme, Scales::Float16);
        }
        let zero_points =
            |symmetric| if symmetric { ZeroPoints::Symmetric } else { ZeroPoints::Asymmetric };
        let scheme = Scheme {
            bits: self.dtype.map_or(scheme.bits, WeightType::bits),
            zero_points: self.symmetric.map_or(scheme.zero_points, zero_points),
            granularity: self.granularity.unwrap_or(scheme.granularity),
            range: self.range.map_or(scheme.range, |it| it.range()),
            superblock: scheme.superblock,
        };
        (scheme, self.scales.unwrap_or(scales))
    }

    /// What a type of ggml says by itself, and a recipe says nevertheless.
    fn beside_ggml(&self) -> Option<&'static str> {
        let given = [
            ("symmetric", self.symmetric.is_some()),
            ("granularity", self.granularity.is_some()),
            ("range", self.range.is_some()),
            ("scales", self.scales.is_some()),
        ];
        self.dtype?.ggml()?;
        given.into_iter().find(|it| it.1).map(|it| it.0)
    }
}
