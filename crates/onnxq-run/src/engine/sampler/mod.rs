//! Which int8 instructions ran? Samples of the processor's place while a model runs, and the code
//! of ONNX Runtime around each.
//!
//! The kernel interrupts this process after every few milliseconds of computing; where it was then
//! tells what takes the time. No privileges, no debugger, and the code that ran is what counts, not
//! what the CPU could do: it works for every operator, also for those that never saturate.

#[cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(dead_code))]
mod decode;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "nowhere.rs"]
mod linux;
mod proof;

use serde::{Deserialize, Serialize};

pub(super) use self::linux::Sampler;
pub use self::proof::{KernelRun, kernels};

/// Samples within ONNX Runtime, and those of them that lie beside an integer dot product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSamples {
    /// All samples, wherever the processor was.
    pub taken: usize,
    /// Those within ONNX Runtime, of which the others are a part.
    pub samples: usize,
    pub avx512_vnni: usize,
    /// With registers of 512 bits.
    pub avx512_vnni_512: usize,
    pub avx_vnni: usize,
    pub amx: usize,
    pub vpmaddubsw: usize,
}

/// Fewer say nothing: an int8 product may take a tenth of a model's time.
const ENOUGH: usize = 30;

impl KernelSamples {
    /// In one line: `AVX-512 VNNI executed (61 % of 412 samples in ONNX Runtime)`.
    pub fn verdict(&self) -> String {
        let of = |count: usize| {
            let percent = (100.0 * count as f64 / self.samples as f64).round();
            format!("({percent} % of {} samples in ONNX Runtime)", self.samples)
        };
        // One sample may lie beside data or beside a kernel that did not run.
        let kinds = [
            ("AMX int8 executed", self.amx),
            ("AVX-512 VNNI executed", self.avx512_vnni),
            ("AVX-VNNI executed", self.avx_vnni),
            ("no VNNI: vpmaddubsw executed", self.vpmaddubsw),
        ];
        if self.samples < ENOUGH {
            return format!("too few samples ({} in ONNX Runtime)", self.samples);
        }
        let (what, count) = kinds.into_iter().rev().max_by_key(|it| it.1).unwrap_or_default();
        if self.is_beyond_chance(count) {
            return format!("{what} {}", of(count));
        }
        format!("no int8 dot product executed ({count} of {} samples)", self.samples)
    }

    fn is_beyond_chance(&self, count: usize) -> bool {
        count >= 2 && count * 100 >= self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_what_took_the_time() {
        let all = KernelSamples { taken: 500, samples: 412, ..KernelSamples::default() };
        let vnni = KernelSamples { avx512_vnni: 251, vpmaddubsw: 3, ..all };
        let text = "AVX-512 VNNI executed (61 % of 412 samples in ONNX Runtime)";
        assert_eq!(vnni.verdict(), text);
        let madd = KernelSamples { vpmaddubsw: 206, avx_vnni: 1, ..all };
        let text = "no VNNI: vpmaddubsw executed (50 % of 412 samples in ONNX Runtime)";
        assert_eq!(madd.verdict(), text);
        assert_eq!(all.verdict(), "no int8 dot product executed (0 of 412 samples)");
        let few = KernelSamples { samples: 3, avx_vnni: 3, ..all };
        assert_eq!(few.verdict(), "too few samples (3 in ONNX Runtime)");
    }
}
