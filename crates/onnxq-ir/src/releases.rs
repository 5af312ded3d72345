//! Which release of ONNX Runtime a model needs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

pub use crate::ops::Release;
use crate::{
    ir::{Model, NodeId},
    ops::{BROUGHT, Brought, OPSETS, When},
};

/// Whether a node needs what a release brought.
fn needs(m: &Model, node: NodeId, brought: &Brought) -> bool {
    let op = &m.node(node).op;
    if (&*op.domain, &*op.name) != brought.op {
        return false;
    }
    let input = |at: usize| m.node(node).inputs.get(at).copied().flatten();
    match brought.when {
        When::Opset(opset, attrs) => {
            m.opset("") >= opset && attrs.iter().all(|name| m.int_attr(node, name, 0) == 1)
        }
        When::Attribute { name, value, default, input: at } => {
            m.int_attr(node, name, default) == value && at.is_none_or(|at| input(at).is_some())
        }
        When::Positive(name) => m.node(node).attrs.get(name).is_some_and(|it| {
            it.as_float().is_some_and(|it| it > 0.0) || it.as_int().is_some_and(|it| it > 0)
        }),
        When::Type(at, types) => {
            input(at).and_then(|it| m.dtype(it)).is_some_and(|it| types.contains(&it))
        }
    }
}

/// The oldest release that computes a model, and what needs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Needed {
    pub onnxruntime: Release,
    /// What older releases lack, with the number of nodes; empty if any release will do.
    pub because: Vec<String>,
}

impl Needed {
    pub fn by(m: &Model) -> Needed {
        let mut found: BTreeMap<(Release, &str), usize> = BTreeMap::new();
        for node in m.nodes() {
            for row in BROUGHT.iter().filter(|it| needs(m, node, it)) {
                *found.entry((row.since, row.what)).or_default() += 1;
            }
        }
        let opset = OPSETS.iter().rfind(|it| m.opset("") >= it.0);
        let of_opset = opset.map(|it| it.1);
        let newest = found.keys().map(|it| it.0).chain(of_opset).max();
        let onnxruntime = newest.unwrap_or(Release::OLDEST);
        let mut because: Vec<String> = found
            .iter()
            .filter(|it| it.0.0 == onnxruntime)
            .map(|((_, what), count)| format!("{count} × {what}"))
            .collect();
        if of_opset == Some(onnxruntime) {
            because.push(format!("opset {}", m.opset("")));
        }
        Needed { onnxruntime, because }
    }
}

/// `ONNX Runtime 1.27 or newer, for 2 × …`.
impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ONNX Runtime {} or newer", self.onnxruntime)?;
        match self.because.is_empty() {
            true => Ok(()),
            false => write!(f, ", for {}", self.because.join(" and ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    fn needed(text: &str) -> String {
        Needed::by(&text::parse(text).unwrap()).to_string()
    }

    #[test]
    fn what_a_model_needs() {
        let pool = |opset: i64, attrs: &str| {
            needed(&format!(
                "<ir_version: 9, opset_import: [\"\" : {opset}]> main (float[1,1,4,4] x) => (float[n,c,h,w] y)
                 {{ y = AveragePool <kernel_shape = [2,2]{attrs}> (x) }}"
            ))
        };
        assert_eq!(pool(19, ""), "ONNX Runtime 1.23 or newer");
        assert_eq!(
            pool(18, ", ceil_mode = 1, count_include_pad = 1"),
            "ONNX Runtime 1.23 or newer"
        );
        assert_eq!(
            pool(26, ", ceil_mode = 1, count_include_pad = 1"),
            "ONNX Runtime 1.29 or newer, for 1 × AveragePool of opset 19 with ceil_mode and count_include_pad"
        );
        assert_eq!(pool(25, ""), "ONNX Runtime 1.24 or newer, for opset 25");
        let table = |zero_points: &str, bits: i64| {
            needed(&format!(
                "<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>
                 main (int64[2] i) => (float[2,32] y) <uint8[4,16] t, float[4,1] s, uint8[4,1] z> {{
                   y = com.microsoft.GatherBlockQuantized <bits = {bits}, block_size = 32> (t, i, s{zero_points})
                 }}"
            ))
        };
        assert_eq!(table("", 4), "ONNX Runtime 1.23 or newer");
        assert!(table(", z", 4).starts_with("ONNX Runtime 1.27 or newer, for 1 × GatherBlock"));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(Release::of("1.32.0"), Some(Release(1, 32)));
        assert!(Release::of("1.9.1") < Some(Release::OLDEST));
        assert_eq!((Release::of("main"), Release::of("1")), (None, None));
    }
}
