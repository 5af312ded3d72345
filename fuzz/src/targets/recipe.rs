//! Recipes: YAML.

use std::{collections::BTreeSet, sync::LazyLock};

use onnxq_ir::{Model, text as onnx_text};
use onnxq_quant::{
    format, insert,
    recipe::{
        load_text,
        resolve::{Known, resolve},
        to_yaml,
    },
    sources::Sources,
};

use super::{Outcome, Target, refusal};
use crate::{corpus, mutate::Grammar};

pub(super) const TARGET: Target = Target {
    name: "recipe",
    about: "recipe YAML: load, print and load back, resolve against a small model, lower it",
    run,
    grammar: Grammar::Text,
    seeds,
    words: &[
        "onnxq: 1",
        "extends: int4",
        "extends: avx2",
        "target: avx512_vnni",
        "target: arm64",
        "prepare:",
        "standard",
        "calibration:",
        "transforms:",
        "awq",
        "smooth_quant",
        "equalize",
        "adapt:",
        "candidates:",
        "ways:",
        "candidates:",
        "budget:",
        "max_error:",
        "bias_correction: true",
        "goal:",
        "mixed:",
        "gates:",
        "metric: kl",
        "max:",
        "min:",
        "quantize:",
        "ops:",
        "names:",
        "'re:('",
        "'re:(a+)+$'",
        "'*/lm_head/*'",
        "skip: true",
        "min_elements:",
        "weight:",
        "activation:",
        "dtype:",
        "int8",
        "uint8",
        "int4",
        "uint4",
        "int2",
        "symmetric:",
        "granularity:",
        "channel",
        "tensor",
        "row",
        "block:",
        "{block: 32}",
        "scales: float16",
        "solver:",
        "rtn",
        "mse",
        "hqq",
        "gptq",
        "signround",
        "hessian: guided",
        "groups:",
        "imatrix",
        "range:",
        "narrow",
        "reduced",
        "full",
        "static",
        "dynamic",
        "fallback:",
        "format:",
        "observer:",
        "entropy",
        "percentile",
        "null",
        "~",
        "true",
        "yes",
        ".inf",
        ".nan",
        "1e999",
        "-1",
        "0",
        "18446744073709551616",
        "&a",
        "*a",
        "!!str",
        "<<:",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "|",
        ">",
        "? ",
        "--- ",
        "%YAML 1.2",
        "\t",
        "\u{feff}",
        "\u{85}",
    ],
};

/// One weight of each kind that recipes select.
const MODEL: &str = r#"<ir_version: 10, opset_import: ["" : 21]>
main (float[1,3,8,8] x, int64[2] ids) => (float[1,8,64] y, float[2,64] e) <
   float[8,3,3,3] k, float[64,64] w, float[64] b, float[100,64] table
> {
   c = Conv (x, k)
   r = Relu (c)
   shape = Constant <value_ints = [1, 8, 36]> ()
   f = Reshape (r, shape)
   pads = Constant <value_ints = [0, 0, 0, 0, 0, 28]> ()
   p = Pad (f, pads)
   [lm_head] m = MatMul (p, w)
   y = Add (m, b)
   e = Gather (table, ids)
}
"#;

static SMALL: LazyLock<Model> =
    LazyLock::new(|| onnx_text::parse(MODEL).expect("the model is well-formed"));

fn run(bytes: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return Err("no UTF-8".into()) };
    let recipe = load_text(text, "fuzz.yaml").map_err(|it| refusal(&it))?;
    let printed = to_yaml(&recipe);
    match load_text(&printed, "printed.yaml") {
        Ok(again) => assert_eq!(to_yaml(&again), printed, "printing changes a recipe"),
        Err(error) => panic!("a printed recipe is refused: {error}\n{printed}"),
    }
    let mut model = SMALL.clone();
    let known = Known { rotated: &BTreeSet::new(), calibrated: false };
    let plan = resolve(&recipe, &model, known, &|_, _| Ok(())).map_err(|it| refusal(&it))?;
    let count = plan.sites.len();
    insert::quantize(&mut model, &plan, &mut Sources::default());
    model.verify().expect("insertion keeps a model sound");
    let formats: Vec<_> = plan.sites.iter().map(|it| it.format).collect();
    let lowered = format::lower(&mut model, &formats).is_ok();
    model.verify().expect("lowering keeps a model sound");
    Ok(format!("{count} {lowered} {}", plan.kept.len()))
}

/// Without comments, which are most of a shipped recipe.
fn seeds() -> Vec<Vec<u8>> {
    let shipped = onnxq_quant::recipe::SHIPPED.iter().map(|(_, text)| {
        let lines = text.lines().filter(|it| !it.starts_with('#'));
        lines.flat_map(|it| [it, "\n"]).collect::<String>().into_bytes()
    });
    shipped.chain(corpus::files("fuzz/seeds/recipe")).collect()
}
