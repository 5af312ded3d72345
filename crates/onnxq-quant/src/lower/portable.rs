//! Standard operators only: any runtime that knows ONNX can run them.

use super::{emit::by_channel, integer, qdq, rows};
use crate::raise::{Input, Kind, Site, Weights};
use onnxq_ir::{Model, NoMatch, Patch};

/// Products of dynamically quantized activations stay products of integers; all others become
/// `DequantizeLinear`, and look-ups a few operators on the rows.
pub fn lower(m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
    match &site.kind {
        Kind::Rows { .. } => rows::lower(m, site, weights),
        Kind::Product { x, bias } if by_channel(&site.weight) && is_dynamic(x) => {
            integer::product(m, site, x, *bias)
        }
        Kind::Product { .. } => qdq::lower(m, site, weights),
    }
}

fn is_dynamic(x: &Input) -> bool {
    matches!(x, Input::Fused(_) | Input::Codes { dynamic: true, .. })
}
