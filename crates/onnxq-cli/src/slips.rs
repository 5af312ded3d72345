//! What people type who know another tool: answered with what works here, instead of clap's guess.

use clap::{
    Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Flags of other tools, the subcommands where they are answered (all if there is none), and the
/// answer.
type Flags = (&'static [&'static str], &'static [&'static str], &'static str);

const MAKING: &[&str] = &["quantize", "plan", "calibrate", "import"];
const ANY: &[&str] = &[];

const FLAGS: &[Flags] = &[
    (
        &[
            "dtype",
            "type",
            "weight-type",
            "weight-dtype",
            "wtype",
            "qtype",
            "quant-type",
            "quantization-type",
            "precision",
            "mode",
            "scheme",
            "method",
            "algorithm",
            "algo",
            "solver",
            "int8",
            "int4",
            "uint8",
            "dynamic",
            "static",
            "preset",
        ],
        MAKING,
        "a recipe says that: -r int4, -r int8_weights, -r avx512_vnni, -r avx512_vnni_static; \
         one value of it is changed by --set quantize.0.weight.dtype=uint4",
    ),
    (
        &["bits", "n-bits", "num-bits", "wbits", "w-bits", "weight-bits", "nbits"],
        MAKING,
        "a recipe says that: -r int4 for 4 bits, -r int8_weights or -r avx512_vnni for 8; \
         `onnxq recipe list` lists all",
    ),
    (
        &["per-channel", "per-tensor", "granularity", "per-row"],
        MAKING,
        "recipes for 8 bits (-r avx512_vnni, -r avx2) have a scale for each channel, those for 4 bits \
         one for each block",
    ),
    (
        &["group-size", "block-size", "groupsize", "q-group-size", "block"],
        MAKING,
        "a recipe says that: --set quantize.0.weight.granularity='{block: 64}'",
    ),
    (
        &["symmetric", "sym", "asymmetric", "is-symmetric", "weight-symmetric"],
        MAKING,
        "a recipe says that: --set quantize.0.weight.symmetric=true",
    ),
    (
        &["reduce-range", "reduced-range"],
        MAKING,
        "for CPUs without VNNI take -r avx2; or --set quantize.0.weight.range=reduced",
    ),
    (
        &["quant-format", "qdq", "qoperator", "format"],
        &["quantize", "plan", "calibrate"],
        "the recipe chooses the fastest form: -r avx512_vnni_static writes QuantizeLinear and \
         DequantizeLinear; `onnxq convert MODEL --to qdq -o OUT.onnx` makes them of any form",
    ),
    (
        &["calibrate-method", "calibration-method", "calib-method", "observer"],
        &["quantize", "plan"],
        "the recipe chooses it from the data; `onnxq calibrate MODEL --data D --observer entropy` \
         prints the ranges",
    ),
    (
        &["smooth-quant", "smoothquant", "smooth", "awq", "gptq", "rotate", "quarot"],
        MAKING,
        "a recipe says that: -r int4_quality --calibration D for GPTQ; --set transforms='[smooth]' \
         or '[rotate]' for transforms",
    ),
    (
        &[
            "nodes-to-exclude",
            "exclude-nodes",
            "ignore",
            "skip",
            "op-types-to-exclude",
            "modules-to-not-convert",
        ],
        MAKING,
        "--exclude PATTERN leaves nodes with matching names in float: --exclude '*lm_head*'",
    ),
    (
        &[
            "nodes-to-quantize",
            "op-types-to-quantize",
            "ops",
            "op-types",
            "nodes",
            "layers-to-quantize",
        ],
        MAKING,
        "a recipe lists operators: start from `onnxq recipe show int4 > my.yaml`, \
         change `ops`, and take -r my.yaml; --exclude PATTERN leaves out single nodes",
    ),
    (
        &[
            "model",
            "model-path",
            "model-input",
            "input-model",
            "input",
            "onnx-model",
            "in",
            "i",
            "m",
        ],
        ANY,
        "the model is given without a flag: onnxq quantize model.onnx",
    ),
    (
        &[
            "output-model",
            "model-output",
            "output-path",
            "out",
            "output-dir",
            "save-dir",
            "output-file",
            "dest",
        ],
        ANY,
        "the result goes to -o FILE",
    ),
    (&["overwrite", "yes", "y", "replace", "clobber"], ANY, "-f (--force) replaces a file"),
    (
        &["dataset", "dataset-path", "eval-data", "test-data", "eval", "validation-data", "texts"],
        ANY,
        "samples to compare on are --data PATH: text with --tokenizer, .jsonl, .csv, .npy, .npz or \
         a folder of images",
    ),
    (
        &["calib", "calib-data", "calib-dataset", "calibration-dataset", "calibration-data-reader"],
        ANY,
        "samples to learn from are --calibration PATH: text with --tokenizer, .jsonl, .csv, .npy, \
         .npz or a folder of images",
    ),
    (
        &["num-samples", "n-samples", "nsamples", "max-samples", "num-calib-samples"],
        &["validate", "compare", "quantize", "calibrate"],
        "--samples N takes the first N samples of --data; in `quantize`, --calibration-samples N \
         those of --calibration",
    ),
    (
        &["seqlen", "seq-len", "sequence-length", "max-length", "block-length"],
        ANY,
        "the recipe says how long rows of text are: --set calibration.sequence=256; of a model with \
         a fixed shape the model says it",
    ),
    (
        &["device", "provider", "providers", "execution-provider", "ep", "cuda", "gpu", "cpu"],
        ANY,
        "models run on the CPU; for another class of CPU take another recipe: -r avx2, -r arm64",
    ),
    (
        &["target", "arch", "cpu-target", "arm64", "avx2", "avx512", "avx512-vnni", "hardware"],
        MAKING,
        "the recipe says the CPU: -r auto for this one, -r avx512_vnni, -r avx2, -r arm64",
    ),
    (
        &["gate", "baseline", "report", "emit", "full"],
        &["compare"],
        "`compare` explores and judges nothing: \
         onnxq validate ORIGINAL QUANTIZED --data D --gate 'kl.mean<=0.05' --report DIR",
    ),
    (
        &["bisect", "limit-expr"],
        &["validate", "quantize"],
        "onnxq compare ORIGINAL QUANTIZED --data D --bisect finds the node",
    ),
    (
        &["validate", "calibration"],
        &["compare", "validate"],
        "--data is what is compared on; a calibration belongs to quantize",
    ),
    (
        &[
            "to",
            "fp16",
            "float16",
            "half",
            "opset",
            "kv-cache",
            "add-kv-cache",
            "fix-shape",
            "strip",
        ],
        &["quantize", "plan"],
        "that is another command: onnxq convert MODEL --to float16 -o OUT.onnx",
    ),
    (
        &["optimize", "fuse", "optimize-model", "simplify", "preprocess-model", "no-optimize"],
        &["quantize", "plan", "calibrate"],
        "quantize fuses first, always; a float model is only fused by onnxq convert MODEL --fuse -o OUT",
    ),
    (
        &["recipe", "r", "dtype", "quantize", "bits"],
        &["convert"],
        "weights are quantized by another command: onnxq quantize MODEL -r int4",
    ),
    (
        &["lint", "fix", "ops", "io"],
        &["validate", "quantize", "convert", "compare", "check"],
        "that is another command: onnxq inspect MODEL --lint",
    ),
    (&["debug", "log-level", "loglevel"], ANY, "-v prints more, -vv everything"),
    (&["silent", "no-progress"], ANY, "-q prints warnings, errors and the verdict only"),
];

/// Words that are no subcommands, and what to do instead.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["optimize", "optimise", "simplify", "fuse"], "onnxq convert MODEL --fuse -o OUT.onnx"),
    (&["export"], "for a folder with config.json and safetensors: onnxq import FOLDER -o OUT"),
    (
        &["eval", "evaluate", "test", "bench", "benchmark", "verify", "accuracy"],
        "onnxq validate ORIGINAL QUANTIZED --data D",
    ),
    (&["diff", "debug", "polygraphy"], "onnxq compare ORIGINAL QUANTIZED --data D --layers"),
    (&["chat", "generate", "infer", "predict", "complete"], "onnxq run MODEL [PROMPT]"),
    (&["info", "show", "dump", "view", "summary", "print", "netron"], "onnxq inspect MODEL"),
    (&["lint", "doctor-model"], "onnxq inspect MODEL --lint"),
    (&["list", "recipes", "list-recipes"], "onnxq recipe list"),
    (&["fp16", "float16", "half", "to-fp16"], "onnxq convert MODEL --to float16 -o OUT.onnx"),
    (&["dynamic", "quantize_dynamic", "int8", "q"], "onnxq quantize MODEL -r avx512_vnni"),
    (&["static", "quantize_static"], "onnxq quantize MODEL -r avx512_vnni_static --calibration D"),
    (&["int4", "gptq", "awq"], "onnxq quantize MODEL -r int4"),
    (&["install", "setup"], "onnxq runtime install"),
    (&["version"], "onnxq --version"),
    (&["codes", "errors", "metrics"], "onnxq explain"),
];

/// Values of flags that are no words of ours: the flag, words, and what to do instead.
const VALUES: &[(&str, &[&str], &str)] = &[
    (
        "--to",
        &["int8", "uint8", "int4", "uint4", "w8a8", "quantized", "dynamic", "static"],
        "floats become integers by another command: onnxq quantize MODEL -r avx512_vnni",
    ),
    (
        "--to",
        &["float32", "fp32", "float"],
        "--to float undoes quantization; float16 does not become float32 again: \
         start from the original",
    ),
    ("--kv-cache", &["fp8", "int4", "q8_0", "uint8"], "--kv-cache int8 is the form there is"),
];

/// The error with an answer in place of clap's tip, where a table has one.
pub(crate) fn answered(mut error: Error, args: &[String]) -> Error {
    let word = context(&error, ContextKind::InvalidArg);
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => {
            // A word of ours from another place is no reason to write it after `--`.
            error.remove(ContextKind::Suggested);
            flag(&word, subcommand(args)).or_else(|| positional(&word))
        }
        ErrorKind::InvalidSubcommand => command(&context(&error, ContextKind::InvalidSubcommand)),
        ErrorKind::InvalidValue => value(&word, &context(&error, ContextKind::InvalidValue)),
        ErrorKind::MissingRequiredArgument => {
            shorten(&mut error);
            None
        }
        _ => None,
    };
    if let Some(tip) = tip {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::SuggestedValue);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// One path too many.
fn positional(word: &str) -> Option<String> {
    let path = std::path::Path::new(word);
    let extension = path.extension()?;
    Some(match extension == "onnx" {
        true => "onnxq takes one model at a time, and its output".into(),
        false => format!("samples are given as --data {word}"),
    })
}

/// A group of alternatives is a list, not one long word.
fn shorten(error: &mut Error) {
    let Some(ContextValue::Strings(list)) = error.get(ContextKind::InvalidArg) else { return };
    let short = list.iter().map(|it| match it.matches("|--").count() {
        0 => it.clone(),
        _ => {
            let flags = it.trim_matches(['<', '>']).split('|');
            let names: Vec<&str> =
                flags.map(|flag| flag.split([' ', '=']).next().unwrap_or(flag)).collect();
            format!("what to do: {}", onnxq_ir::human::listed(&names, "or"))
        }
    });
    let short = ContextValue::Strings(short.collect());
    error.insert(ContextKind::InvalidArg, short);
}

fn context(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn subcommand(args: &[String]) -> &str {
    args.iter().skip(1).find(|it| !it.starts_with('-')).map_or("", String::as_str)
}

fn flag(word: &str, subcommand: &str) -> Option<String> {
    let name = word.strip_prefix('-')?.trim_start_matches('-').to_ascii_lowercase();
    let name = name.replace('_', "-");
    let mut rows = FLAGS.iter().filter(|row| row.0.contains(&&*name));
    let row = rows.find(|row| row.1.is_empty() || row.1.contains(&subcommand))?;
    Some(row.2.to_owned())
}

fn command(word: &str) -> Option<String> {
    let path = std::path::Path::new(word);
    if path.extension().is_some() || path.is_dir() {
        return Some(format!("name what to do with it: onnxq quantize {word}"));
    }
    let word = word.to_ascii_lowercase();
    COMMANDS.iter().find(|row| row.0.contains(&&*word)).map(|row| row.1.to_owned())
}

fn value(arg: &str, value: &str) -> Option<String> {
    let flag = arg.split([' ', '=']).next()?;
    let value = value.to_ascii_lowercase();
    let row = VALUES.iter().find(|row| row.0 == flag && row.1.contains(&&*value))?;
    Some(row.2.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word that has become a flag here must leave the table.
    #[test]
    fn no_word_of_another_tool_is_a_flag_here() {
        let root = crate::command();
        let takes = |name: &str, flag: &str| {
            let command = root.find_subcommand(name).unwrap();
            let mut args = command.get_arguments().chain(root.get_arguments());
            args.any(|arg| arg.get_long_and_visible_aliases().unwrap_or_default().contains(&flag))
        };
        for (words, commands, _) in FLAGS {
            for (word, command) in
                words.iter().flat_map(|word| commands.iter().map(move |it| (word, it)))
            {
                assert!(!takes(command, word), "{command} --{word}");
            }
        }
    }

    #[test]
    fn words_are_found_however_they_are_written() {
        assert!(flag("--weight_type", "quantize").unwrap().contains("-r int4"));
        assert!(flag("--gate", "compare").unwrap().contains("onnxq validate"));
        assert_eq!(flag("--gate", "inspect"), None);
        assert_eq!(flag("eval.txt", "quantize"), None);
        assert_eq!(command("m.onnx").unwrap(), "name what to do with it: onnxq quantize m.onnx");
    }
}
