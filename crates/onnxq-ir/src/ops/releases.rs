//! What releases of ONNX Runtime brought to operators: older ones refuse it, or compute it wrongly.
//!
//! The rows were found by running this project's tests with each release from 1.23.2 to 1.32.0, on
//! x86-64. What a release refuses because nobody has a kernel for it is no row.

use std::fmt;

use serde::{Serialize, Serializer};

use super::MICROSOFT;
use crate::tensor::DType;

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

/// Something that a release brought to an operator.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    pub since: Release,
    /// The domain of the operator, and its name.
    pub op: (&'static str, &'static str),
    /// Nodes that need it.
    pub when: When,
    pub what: &'static str,
}

/// Which nodes of an operator need something.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Those of at least this operator set, with these attributes set to 1.
    Opset(i64, &'static [&'static str]),
    /// Those with an attribute of this value, and, if named, with that input.
    Attribute { name: &'static str, value: i64, default: i64, input: Option<usize> },
    /// Those whose input at this place has one of these types.
    Type(usize, &'static [DType]),
    /// Those with a number above 0 as an attribute.
    Positive(&'static str),
}

const fn bits(value: i64, input: Option<usize>) -> When {
    When::Attribute { name: "bits", value, default: 4, input }
}

pub const BROUGHT: &[Brought] = &[
    Brought {
        since: Release(1, 24),
        op: ("", "QuantizeLinear"),
        when: When::Opset(23, &[]),
        what: "QuantizeLinear of opset 23",
    },
    Brought {
        since: Release(1, 24),
        op: (MICROSOFT, "MatMulNBits"),
        when: bits(2, None),
        what: "MatMulNBits of 2 bits",
    },
    Brought {
        since: Release(1, 24),
        op: (MICROSOFT, "GroupQueryAttention"),
        // Before, a prompt longer than the window was computed wrongly.
        when: When::Positive("local_window_size"),
        what: "GroupQueryAttention with a window",
    },
    Brought {
        since: Release(1, 27),
        op: (MICROSOFT, "GatherBlockQuantized"),
        when: bits(4, Some(3)),
        what: "GatherBlockQuantized of 4 bits with zero points",
    },
    Brought {
        since: Release(1, 27),
        op: (MICROSOFT, "GroupQueryAttention"),
        when: When::Type(3, &[DType::I8, DType::U8]),
        what: "GroupQueryAttention with a cache of integers",
    },
    Brought {
        since: Release(1, 27),
        op: ("", "Attention"),
        // Before, it was applied to the masked scores, and what the mask hides was seen.
        when: When::Positive("softcap"),
        what: "Attention with a softcap before the mask",
    },
    Brought {
        since: Release(1, 29),
        op: ("", "AveragePool"),
        when: When::Opset(19, &["ceil_mode", "count_include_pad"]),
        what: "AveragePool of opset 19 with ceil_mode and count_include_pad",
    },
    Brought {
        since: Release(1, 32),
        op: (MICROSOFT, "MatMulNBits"),
        when: When::Attribute { name: "block_size", value: 512, default: 0, input: None },
        what: "MatMulNBits with blocks of 512",
    },
    Brought {
        since: Release(1, 32),
        op: ("", "QuantizeLinear"),
        // Before, ONNX Runtime fused it with products of int8 and then refused its own node.
        when: When::Type(
            2,
            &[DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ],
        ),
        what: "QuantizeLinear to float8",
    },
];

/// The standard operator sets that came after [`Release::OLDEST`].
pub const OPSETS: &[(i64, Release)] = &[(24, Release(1, 24)), (26, Release(1, 25))];
