//! Examples at the end of each help text. tests/it/help.rs runs them as they stand.

/// A subcommand, and lines that work in a folder that has the files they name.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "calibrate",
        &[
            "onnxq calibrate model.onnx -r int4 --data calibration.txt --tokenizer tokenizer.json \\\n      -o model.stats",
            "onnxq calibrate model.onnx --data calibration.txt --tokenizer tokenizer.json \\\n      --observer entropy",
            "onnxq calibrate --show model.stats",
        ],
    ),
    ("check", &["onnxq check model.onnx", "onnxq check model.onnx --json"]),
    (
        "compare",
        &[
            "onnxq compare model.onnx model.int4.onnx --data test.txt --tokenizer tokenizer.json \\\n      --samples 4",
            "onnxq compare model.onnx model.int4.onnx --data test.txt --tokenizer tokenizer.json \\\n      --layers",
        ],
    ),
    (
        "completions",
        &["onnxq completions bash > onnxq.bash   # in ~/.local/share/bash-completion/completions/"],
    ),
    (
        "convert",
        &[
            "onnxq convert model.onnx --fuse -o model.fused.onnx",
            "onnxq convert model.onnx --to float16 -o model.fp16.onnx",
            "onnxq convert model.onnx --add-kv-cache -o model.cache.onnx",
        ],
    ),
    (
        "distil",
        &[
            "onnxq distil model.onnx --student layers=3 --data calibration.txt \\\n      --tokenizer tokenizer.json --window 32 --steps 20 -o student.onnx",
            "onnxq distil model.onnx -r int2_recovered --data calibration.txt \\\n      --tokenizer tokenizer.json --window 32 --steps 20 -o model.recovered.onnx",
        ],
    ),
    ("doctor", &["onnxq doctor", "onnxq doctor --json"]),
    ("explain", &["onnxq explain E610", "onnxq explain kl.mean", "onnxq explain int4_quality"]),
    (
        "import",
        &[
            "onnxq import checkpoint -o model",
            "onnxq import checkpoint -o model-int4 --layout hf -r int4",
        ],
    ),
    (
        "inspect",
        &[
            "onnxq inspect model.onnx",
            "onnxq inspect model.onnx --io",
            "onnxq inspect model.int4.onnx --lint",
        ],
    ),
    (
        "package",
        &[
            "onnxq package model.int4.onnx -o packed",
            "onnxq package packed --check",
            "onnxq package packed --remake",
        ],
    ),
    (
        "pass",
        &[
            "onnxq pass standard model.onnx -o model.standard.onnx",
            "onnxq pass standard model.onnx --trace > trace.txt",
        ],
    ),
    (
        "plan",
        &["onnxq plan model.onnx -r int4", "onnxq plan model.onnx -r avx2 --exclude '*lm_head*'"],
    ),
    (
        "quantize",
        &[
            "onnxq quantize model.onnx -r int4",
            "onnxq quantize model.onnx -r auto --validate --data test.txt \\\n      --tokenizer tokenizer.json --gate 'kl.mean<=0.5'",
            "onnxq quantize model.onnx small.onnx -r int4 --max-size 1.2MB \\\n      --calibration calibration.txt --tokenizer tokenizer.json",
        ],
    ),
    (
        "recipe",
        &[
            "onnxq recipe list",
            "onnxq recipe show int4 > my.yaml   # to change, and to use by -r my.yaml",
            "onnxq recipe check my.yaml",
        ],
    ),
    (
        "report",
        &[
            "onnxq report report.json -o page.html",
            "onnxq report report.json --format markdown",
            "onnxq report report.json --gate 'kl.mean<=5' -o report.md",
        ],
    ),
    (
        "run",
        &[
            "onnxq run model.onnx 'In the morning the old man' --max-tokens 24",
            "onnxq run model.onnx < test.txt --max-tokens 4 --temperature 0.8 --seed 7",
            "echo '{\"prompt\": \"The sea\", \"max_tokens\": 8}' | onnxq run model.onnx --jsonl -",
        ],
    ),
    ("runtime", &["onnxq runtime path"]),
    (
        "serve",
        &[
            "onnxq serve model",
            "onnxq serve --config serve.yaml --listen 127.0.0.1:9000",
            "onnxq serve --config serve.yaml --check",
        ],
    ),
    (
        "validate",
        &[
            "onnxq validate model.onnx model.int4.onnx --data test.txt --tokenizer tokenizer.json \\\n      --samples 4",
            "onnxq validate model.onnx model.int4.onnx --data test.txt --tokenizer tokenizer.json \\\n      --gate 'kl.mean<=5' --report report",
        ],
    ),
];

/// What help of a subcommand ends with.
pub(crate) fn of(subcommand: &str) -> Option<String> {
    let (_, lines) = EXAMPLES.iter().find(|row| row.0 == subcommand)?;
    Some(format!("Examples:\n  {}", lines.join("\n  ")))
}
