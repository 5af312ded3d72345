//! What a device wants from a quantized model.

/// A class of CPUs.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub name: &'static str,
    pub description: &'static str,
    /// Int8 kernels add pairs of products in 16 bits, so 8-bit weights can saturate.
    pub saturates: bool,
}

/// In alphabetical order.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "arm64", description: "64-bit ARM with dot products", saturates: false },
    Target { name: "avx2", description: "x86-64 with AVX2, no VNNI", saturates: true },
    Target { name: "avx512_vnni", description: "x86-64 with AVX-512 VNNI", saturates: false },
    Target { name: "generic", description: "any CPU that ONNX Runtime supports", saturates: true },
];

pub(crate) fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|it| it.name == name)
}
