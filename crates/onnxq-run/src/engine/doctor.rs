//! Facts about this machine for `onnxq doctor`: the CPU, the library, and what really runs.

use std::{fmt, fs, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::{
    EngineError, KernelRun, Located, Places, Probe, Tried, install, kernels, locate, ort,
    probe::probe, threads,
};

#[derive(Clone, Debug, Serialize)]
pub struct Doctor {
    pub cpu: Cpu,
    /// The library that sessions use; nothing is installed to get one.
    pub library: Option<Located>,
    /// Places that come before it and had no usable library.
    pub tried: Vec<Tried>,
    pub cache: Option<PathBuf>,
    /// What `onnxq runtime install` would install.
    pub installable: &'static str,
    /// Built into the library; whether their hardware is present is another question.
    pub providers: Vec<String>,
    pub probe: Option<Probe>,
    pub verdict: Verdict,
    /// Which instructions run, if it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelRun>,
    /// Why a fact is missing.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    pub model: String,
    pub arch: &'static str,
    /// Threads that this process may use.
    pub threads: usize,
    /// Instruction sets that matter here, with whether the CPU has them.
    #[serde(serialize_with = "as_map")]
    pub features: Vec<(&'static str, bool)>,
}

/// What is known about the int8 kernels: the CPU's word and the probe's together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Exact sums on a CPU with VNNI: proved.
    Vnni,
    /// Exact sums on a CPU with Arm's dot product.
    DotProduct,
    /// Exact sums, but by kernels older than AVX2.
    ExactSlow,
    /// Exact sums for a reason that the CPU's features do not explain.
    ExactUnexplained,
    /// Pairs of products saturate, as expected from this CPU.
    Saturates,
    /// Pairs saturate although the CPU has VNNI.
    SaturatesDespiteVnni,
    /// Neither sum: the library or the CPU is broken.
    Wrong,
    /// The probe did not run.
    Unknown,
}

/// What only the library itself can say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    pub providers: Vec<String>,
    pub probe: Option<Probe>,
    pub kernels: Vec<KernelRun>,
}

/// What this machine can do; `ask` asks the library.
pub(super) fn examine(
    places: &Places,
    ask: impl FnOnce() -> Result<Examined, EngineError>,
) -> Doctor {
    let cpu = Cpu::of_process();
    let (library, tried) = locate::survey(places);
    let (examined, problem) = match library.is_some().then(ask) {
        Some(Ok(examined)) => (examined, None),
        Some(Err(error)) => (Examined::default(), Some(error.to_string())),
        None => Default::default(),
    };
    Doctor {
        verdict: verdict(examined.probe, &cpu),
        cpu,
        library,
        tried,
        cache: places.cache.clone(),
        installable: install::pinned_version(),
        providers: examined.providers,
        probe: examined.probe,
        kernels: examined.kernels,
        problem,
    }
}

/// Asks the library in this process.
pub(super) fn run(library: &Located, kernels: bool) -> Result<Examined, EngineError> {
    Ok(Examined {
        providers: ort::providers(library)?,
        probe: Some(probe(library)?),
        kernels: if kernels { self::kernels(library)? } else { Vec::new() },
    })
}

fn verdict(probe: Option<Probe>, cpu: &Cpu) -> Verdict {
    let Some(probe) = probe else { return Verdict::Unknown };
    let vnni = cpu.has("avx512vnni") || cpu.has("avxvnni");
    if probe.saturates() {
        return if vnni { Verdict::SaturatesDespiteVnni } else { Verdict::Saturates };
    }
    if !probe.exact() {
        return Verdict::Wrong;
    }
    match cpu.arch {
        "x86_64" if vnni => Verdict::Vnni,
        "x86_64" if !cpu.has("avx2") => Verdict::ExactSlow,
        "aarch64" if cpu.has("dotprod") => Verdict::DotProduct,
        _ => Verdict::ExactUnexplained,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Vnni => "exact (VNNI, proved)",
            Verdict::DotProduct => "exact (dot product)",
            Verdict::ExactSlow => "exact, but slow (no AVX2)",
            Verdict::ExactUnexplained => "exact, though the CPU reports no int8 dot product",
            Verdict::Saturates => "saturate (no VNNI); 8-bit weights lose accuracy",
            Verdict::SaturatesDespiteVnni => {
                "saturate although the CPU has VNNI; this library does not use it"
            }
            Verdict::Wrong => "wrong sums; the library or the CPU is broken",
            Verdict::Unknown => "not probed",
        })
    }
}

impl Cpu {
    pub fn of_process() -> Cpu {
        Cpu {
            model: model_name().unwrap_or_else(|| "unknown".to_owned()),
            arch: std::env::consts::ARCH,
            threads: threads(0),
            features: features(),
        }
    }

    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, has)| *name == feature && *has)
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<(&'static str, bool)> {
    let amx = cpuinfo("flags").is_some_and(|it| it.split(' ').any(|it| it == "amx_int8"));
    vec![
        ("amx_int8", amx),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("fma", is_x86_feature_detected!("fma")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![
        ("bf16", has!("bf16")),
        ("dotprod", has!("dotprod")),
        ("fp16", has!("fp16")),
        ("i8mm", has!("i8mm")),
        ("neon", has!("neon")),
        ("sve", has!("sve")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

fn model_name() -> Option<String> {
    if cfg!(target_os = "macos") {
        let mut command = std::process::Command::new("sysctl");
        let output = command.args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
        return Some(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    cpuinfo("model name").or_else(|| cpuinfo("Model")).or_else(brand)
}

/// What the CPU calls itself, for systems that have no file to ask.
#[cfg(target_arch = "x86_64")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    const FIRST: u32 = 0x8000_0002;
    const LAST: u32 = 0x8000_0004;
    if __cpuid(0x8000_0000).eax < LAST {
        return None;
    }
    let words = (FIRST..=LAST).map(__cpuid).flat_map(|it| [it.eax, it.ebx, it.ecx, it.edx]);
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|it| *it != 0).collect();
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(not(target_arch = "x86_64"))]
fn brand() -> Option<String> {
    None
}

/// A line of `/proc/cpuinfo`, for the first CPU that has it.
fn cpuinfo(key: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let mut lines = text.lines().filter_map(|it| it.split_once(':'));
    lines.find(|(it, _)| it.trim() == key).map(|(_, value)| value.trim().to_owned())
}

fn as_map<S: Serializer>(list: &[(&str, bool)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(list.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::{
        super::probe::{EXACT, SATURATED},
        *,
    };

    fn cpu(features: &[&'static str]) -> Cpu {
        let features = features.iter().map(|it| (*it, true)).collect();
        Cpu { model: String::new(), arch: "x86_64", threads: 1, features }
    }

    fn probe(sum: i64) -> Option<Probe> {
        Some(Probe { one_row: sum, four_rows: sum })
    }

    #[test]
    fn vnni_is_proved_only_if_cpu_and_probe_agree() {
        let vnni = cpu(&["avx2", "avx512vnni"]);
        let (avx2, sse) = (cpu(&["avx2"]), cpu(&[]));
        assert_eq!(verdict(probe(EXACT), &vnni), Verdict::Vnni);
        assert_eq!(verdict(probe(EXACT), &avx2), Verdict::ExactUnexplained);
        assert_eq!(verdict(probe(EXACT), &sse), Verdict::ExactSlow);
        assert_eq!(verdict(probe(SATURATED), &vnni), Verdict::SaturatesDespiteVnni);
        assert_eq!(verdict(probe(SATURATED), &avx2), Verdict::Saturates);
        assert_eq!(verdict(probe(1), &vnni), Verdict::Wrong);
        assert_eq!(verdict(None, &vnni), Verdict::Unknown);
    }

    #[test]
    fn a_missing_library_is_a_fact_not_a_failure() {
        let places = Places { library: Some("/nonexistent".into()), ..Places::default() };
        let doctor = examine(&places, || unreachable!("there is no library to ask"));
        assert_eq!(doctor.library, None);
        assert_eq!(doctor.verdict, Verdict::Unknown);
        let json = serde_json::to_string(&doctor).unwrap();
        assert!(json.contains(r#""reason":"no ONNX Runtime library there""#), "{json}");
    }
}
