//! Names that other tools and papers have for what a shipped recipe does, and recipes by CPU.

use super::SHIPPED;
use onnxq_ir::{human::listed, suggest::suggest};

/// The recipe that fits the CPU on which the program runs.
pub const AUTO: &str = "auto";

/// A shipped recipe, and the words people have for what it does.
const ALIASES: &[(&str, &[&str])] = &[
    (
        "avx512_vnni",
        &[
            "int8",
            "dynamic",
            "dynamic_int8",
            "w8a8",
            "vnni",
            "avx512",
            "avx_vnni",
            "amx",
            "default",
        ],
    ),
    (
        "avx512_vnni_static",
        &["static", "static_int8", "int8_static", "qdq", "ptq", "entropy", "cnn", "conv"],
    ),
    ("avx2", &["avx", "sse", "x86", "x86_64", "reduced", "reduce_range", "u7"]),
    ("arm64", &["arm", "neon", "aarch64", "apple", "m1", "sdot", "i8mm", "graviton"]),
    (
        "int4_quality",
        &["gptq", "q4", "awq", "q4_k_m", "q4_k_s", "autogptq", "int4_gptq", "quality", "int4_awq"],
    ),
    ("int4", &["rtn", "w4", "w4a8", "w4a16", "nf4", "q4_0", "hqq", "4bit", "uint4", "bnb4"]),
    ("int4_size", &["small", "smallest", "q3_k_m", "int3", "q2_k", "int2"]),
    ("int8_weights", &["w8a16", "fp8", "w8", "q8_0", "weight_only", "int8_weight_only", "uint8"]),
];

/// Words for what a recipe does not do, and what does it.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["fp16", "float16", "half"],
        "no recipe narrows floats: onnxq convert MODEL --to float16 -o OUT.onnx",
    ),
    (
        &["bf16", "bfloat16"],
        "no recipe narrows floats: onnxq convert MODEL --to bfloat16 -o OUT.onnx",
    ),
];

/// What someone may mean who asks for a recipe that does not exist.
pub(super) fn meant(name: &str) -> String {
    let word = name.to_ascii_lowercase().replace(['-', ' '], "_");
    if let Some((_, answer)) = ELSEWHERE.iter().find(|row| row.0.contains(&&*word)) {
        return (*answer).to_owned();
    }
    let alias = ALIASES.iter().find(|row| row.1.contains(&&*word)).map(|row| row.0);
    let shipped = || SHIPPED.iter().map(|row| row.0);
    if let Some(recipe) = alias {
        return format!("`{name}` is what recipe `{recipe}` does: -r {recipe}{}", needs(recipe));
    }
    let begins: Vec<String> = shipped()
        .filter(|it| word.len() >= 3 && it.starts_with(&word))
        .map(|it| format!("`{it}`"))
        .collect();
    if !begins.is_empty() {
        return format!("did you mean {}?", listed(&begins, "or"));
    }
    let aliases = ALIASES.iter().flat_map(|row| row.1.iter().copied());
    match suggest(&word, shipped().chain([AUTO]).chain(aliases)) {
        Some(near) if shipped().chain([AUTO]).any(|it| it == near) => {
            format!("did you mean `{near}`?{}", needs(near))
        }
        Some(near) => meant(near),
        None => "-r auto takes the one for this CPU; `onnxq recipe list` lists all; \
                 a recipe of your own is given by its path"
            .to_owned(),
    }
}

fn needs(recipe: &str) -> &'static str {
    match super::load(recipe).is_ok_and(|it| it.needs_data()) {
        true => " (needs --calibration)",
        false => "",
    }
}

/// The recipe for this CPU, and why.
pub fn for_this_cpu() -> (&'static str, &'static str) {
    if cfg!(target_arch = "aarch64") {
        return ("arm64", "a 64-bit ARM CPU");
    }
    if has_vnni() {
        return ("avx512_vnni", "a CPU with VNNI");
    }
    ("avx2", "a CPU without VNNI")
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vnni() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_tools_lead_to_recipes() {
        for (recipe, words) in ALIASES {
            assert!(SHIPPED.iter().any(|it| it.0 == *recipe), "{recipe}");
            for word in *words {
                assert!(!SHIPPED.iter().any(|it| it.0 == *word), "{word} is a recipe itself");
                assert!(meant(word).contains(&format!("-r {recipe}")), "{word}: {}", meant(word));
            }
        }
        assert!(meant("static").ends_with("-r avx512_vnni_static (needs --calibration)"));
        assert_eq!(meant("int4_q"), "did you mean `int4_quality`?");
        assert_eq!(meant("avx2_stat"), "did you mean `avx2_static`?");
        assert_eq!(meant("atuo"), "did you mean `auto`?");
        assert!(meant("nothing-like-it").contains("onnxq recipe list"));
    }
}
