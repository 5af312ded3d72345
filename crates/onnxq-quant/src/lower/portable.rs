//! Standard operators only: any runtime that knows ONNX can run them.

use super::{Between, Form, PLAIN, emit::by_channel, integer, qdq, rows};
use crate::raise::{Input, Kind, Site, Weights};
use onnxq_ir::{Model, NoMatch, NodeId, Patch, no_match};

pub(super) const PORTABLE: Form = Form {
    name: "portable",
    help: "Standard operators only, so that other runtimes can run it",
    has: |site| site.standard,
    lower,
    between: Between::Standard,
    refuses,
    ..PLAIN
};

fn refuses(m: &Model, node: NodeId) -> Option<NoMatch> {
    let op = &m.node(node).op;
    let standard = op.domain.is_empty() || op.domain.starts_with("ai.onnx");
    (!standard).then(|| no_match!("{op} is not written in standard operators"))
}

/// Products of dynamically quantized activations stay products of integers; all others become
/// `DequantizeLinear`, and look-ups a few operators on the rows.
fn lower(m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
    match &site.kind {
        Kind::Rows { .. } => rows::lower(m, site, weights),
        Kind::Product { x, bias } if by_channel(&site.weight) && is_dynamic(x) => {
            integer::product(m, site, x, *bias)
        }
        Kind::Product { .. } => qdq::lower(m, site, weights),
    }
}

fn is_dynamic(x: &Input) -> bool {
    matches!(x, Input::Fused(_) | Input::Quantized { dynamic: true, .. })
}
