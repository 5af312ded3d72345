//! What of a machine decides how weights are packed.

use serde::{Deserialize, Serialize};

use super::super::Cpu;

/// What kernels are chosen by, and so how weights are packed for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub arch: String,
    pub os: String,
    /// Instruction sets that the CPU has, of those that kernels ask for.
    pub features: Vec<String>,
    /// What the CPU calls itself; it decides nothing.
    pub cpu: String,
}

impl Machine {
    /// The one that this process runs on.
    pub fn of_process() -> Machine {
        let cpu = Cpu::of_process();
        let features = cpu.features.iter().filter(|it| it.1);
        Machine {
            arch: cpu.arch.to_owned(),
            os: std::env::consts::OS.to_owned(),
            features: features.map(|it| it.0.to_owned()).collect(),
            cpu: cpu.model,
        }
    }

    /// How another machine differs from this one in what decides; `None` if it does not.
    pub fn difference(&self, other: &Machine) -> Option<String> {
        let (own, theirs) = ((&self.os, &self.arch), (&other.os, &other.arch));
        if own != theirs {
            return Some(format!("{} {} and not {} {}", own.0, own.1, theirs.0, theirs.1));
        }
        let lacking = |of: &Machine, from: &Machine| -> Vec<String> {
            of.features.iter().filter(|it| !from.features.contains(it)).cloned().collect()
        };
        let (more, fewer) = (lacking(self, other), lacking(other, self));
        let part = |verb: &str, list: Vec<String>| {
            (!list.is_empty()).then(|| format!("{verb} {}", list.join(", ")))
        };
        let parts = [part("a CPU with", more), part("a CPU without", fewer)];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", and ");
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(features: &[&str]) -> Machine {
        let features = features.iter().map(|it| (*it).to_owned()).collect();
        Machine { arch: "x86_64".into(), os: "linux".into(), features, cpu: "some".into() }
    }

    #[test]
    fn what_decides_is_compared_and_nothing_else() {
        let own = machine(&["avx2", "avx512f"]);
        assert_eq!(own.difference(&Machine { cpu: "other".into(), ..own.clone() }), None);
        let older = machine(&["avx2"]);
        assert_eq!(own.difference(&older).unwrap(), "a CPU with avx512f");
        assert_eq!(older.difference(&own).unwrap(), "a CPU without avx512f");
        let arm = Machine { arch: "aarch64".into(), ..own.clone() };
        assert_eq!(arm.difference(&own).unwrap(), "linux aarch64 and not linux x86_64");
        assert_eq!(Machine::of_process().difference(&Machine::of_process()), None);
    }
}
