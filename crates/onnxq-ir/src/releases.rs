//! Which release of ONNX Runtime a model needs: what older ones refuse, or compute wrongly.
//!
//! The rows were found by running this project's tests with each release from 1.23.2 to 1.32.0, on
//! x86-64. What a release refuses because nobody has a kernel for it is no row.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use crate::{
    ir::{Model, NodeId},
    ops::MICROSOFT,
    tensor::DType,
};

/// A release of ONNX Runtime: major and minor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// The oldest one whose interface is used here.
    pub const OLDEST: Release = Release(1, 23);

    /// Of a version like `1.32.0`; `None`: that is no version.
    pub fn of(version: &str) -> Option<Release> {
        let mut parts = version.split('.').map(|it| it.parse().ok());
        Some(Release(parts.next()??, parts.next()??))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Serialize for Release {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a release brought that some nodes need.
struct Row {
    since: Release,
    what: &'static str,
    applies: fn(&Model, NodeId) -> bool,
}

const ROWS: &[Row] = &[
    Row {
        since: Release(1, 24),
        what: "QuantizeLinear of opset 23",
        applies: |m, node| m.opset("") >= 23 && m.node(node).op.is("QuantizeLinear"),
    },
    Row {
        since: Release(1, 24),
        what: "MatMulNBits of 2 bits",
        applies: |m, node| is_own(m, node, "MatMulNBits") && m.int_attr(node, "bits", 4) == 2,
    },
    Row {
        since: Release(1, 32),
        what: "MatMulNBits with blocks of 512",
        applies: |m, node| {
            is_own(m, node, "MatMulNBits") && m.int_attr(node, "block_size", 0) == 512
        },
    },
    Row {
        since: Release(1, 27),
        what: "GatherBlockQuantized of 4 bits with zero points",
        applies: |m, node| {
            is_own(m, node, "GatherBlockQuantized") && has(m, node, 3) && bits(m, node) == 4
        },
    },
    Row {
        since: Release(1, 27),
        what: "GroupQueryAttention with a cache of integers",
        applies: |m, node| {
            let past = m.node(node).inputs.get(3).copied().flatten();
            is_own(m, node, "GroupQueryAttention")
                && past
                    .and_then(|it| m.dtype(it))
                    .is_some_and(|it| matches!(it, DType::I8 | DType::U8))
        },
    },
    Row {
        since: Release(1, 29),
        what: "AveragePool of opset 19 with ceil_mode and count_include_pad",
        applies: |m, node| {
            let is_on = |name| m.int_attr(node, name, 0) != 0;
            let is_average = m.opset("") >= 19 && m.node(node).op.is("AveragePool");
            is_average && is_on("ceil_mode") && is_on("count_include_pad")
        },
    },
];

/// The standard operator sets that came after [`Release::OLDEST`].
const OPSETS: &[(i64, Release)] = &[(24, Release(1, 24)), (26, Release(1, 25))];

fn is_own(m: &Model, node: NodeId, name: &str) -> bool {
    let op = &m.node(node).op;
    &*op.domain == MICROSOFT && &*op.name == name
}

fn has(m: &Model, node: NodeId, input: usize) -> bool {
    m.node(node).inputs.get(input).is_some_and(Option::is_some)
}

/// Of the table; bytes hold two values of 4 bits where the type is not one of 4 bits itself.
fn bits(m: &Model, node: NodeId) -> i64 {
    let narrow = m.operand(node, 0).ok().and_then(|it| m.dtype(it));
    match narrow {
        Some(DType::I4 | DType::U4) => 4,
        _ => m.int_attr(node, "bits", 4),
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
            for row in ROWS.iter().filter(|it| (it.applies)(m, node)) {
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
