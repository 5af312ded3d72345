//! `quantize` and its sisters from outside: what is printed and written, and how they exit.

use std::{fs, path::Path};

use crate::common::{
    FIXTURES, fixture,
    outside::{Place, run, run_with},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn model() -> String {
    fixture("model.onnx").to_str().unwrap().to_owned()
}

fn data(name: &str) -> String {
    fixture(name).to_str().unwrap().to_owned()
}

/// Nothing of it can be quantized.
const NOTHING: &str = "main (float[2,4] x, float[4,2] z) => (float[2,2] y) { y = MatMul (x, z) }";

#[test]
fn quantize_says_what_it_did() {
    let place = Place::new();
    let output = place.path("q.onnx");
    let it = run(&["quantize", &model(), "-r", "int4", "-o", &output]);
    assert_eq!(it.code, 0, "{}", it.error);
    // How many others there are and their size is up to the rules that come before.
    // What executes is up to ONNX Runtime, if there is one; tests/it/lint.rs looks at that.
    let varying = ["Gather ", "others", "all nodes", "size ", "executes ", "what executes"];
    let changes = |it: &&str| !varying.iter().any(|x| it.starts_with(x));
    let out: Vec<&str> = it.out.lines().filter(changes).collect();
    insta::assert_snapshot!(out.join("\n").replace(&output, "q.onnx"), @r"

    operator                            before  after
    And                                      0      1
    Attention                                0      4
    Identity                                 0     29
    LessOrEqual                              0      1
    MatMul                                  38      1
    RMSNormalization                         0      9
    Squeeze                                  0      2
    com.microsoft.GatherBlockQuantized       0      1
    com.microsoft.MatMulNBits                0     29
    com.microsoft.QuickGelu                  0      4
    com.microsoft.RotaryEmbedding            0      8

          original  quantized  ratio

    solver  weights  error of  median  to rtn's  worst  at
    mse          30  weight    7.52 %     ×0.89  ×0.90  /m/model/layers.0/self_attn/o_proj/MatMul
    median: rms error in percent of the rms value; to rtn's: ratio of squares

    kept in float (1 of 31 nodes with weights), and why:
         1 × MatMul: not a weight: its constant is the left input
             /m/model/rotary_emb/MatMul

    ok  q.onnx  30 nodes, 100.0 % of weight bytes quantized
    ");
    let steps: Vec<&str> = it.error.lines().filter_map(|it| it.split_whitespace().next()).collect();
    assert_eq!(
        steps,
        ["onnxq", "read", "prepare", "quantize", "write", "check", "next:"],
        "{}",
        it.error
    );
    assert_eq!(place.files(), ["q.onnx"]);
}

#[test]
fn quantize_validates_on_text_and_arrays() {
    let place = Place::new();
    let output = place.path("q.onnx");
    let (text, tokenizer) = (data("eval.txt"), data("tokenizer.json"));
    let ids = data("eval_ids.npy");
    let text = ["--validate", "--data", &text, "--tokenizer", &tokenizer];
    let array = [&*format!("--validate={ids}")];
    for source in [&text[..], &array] {
        let mut args = vec!["quantize", "-f", "--samples", "2", "--gate", "kl.mean<=0.1"];
        let model = model();
        args.extend([&*model, "-o", &output]);
        args.extend(source);
        let it = run(&args);
        assert_eq!(it.code, 0, "{}{}", it.out, it.error);
        for line in [
            "output           logits",
            "samples          2",
            "KL (nats)        mean 0.0",
            "top-1 agreement  9",
            "perplexity       ",
            "time of 1x128    ",
            "kl.mean<=0.1  0.0",
            "size             4.2 MB     1.1 MB  ×0.26",
        ] {
            assert!(it.out.contains(line.trim_end()), "`{line}` is missing in\n{}", it.out);
        }
        assert!(it.out.contains("  ok\n"), "{}", it.out);
        assert!(it.out.trim_end().ends_with("% of weight bytes quantized"), "{}", it.out);
    }
}

#[test]
fn a_failing_gate_is_exit_1() {
    let place = Place::new();
    let output = place.path("q.onnx");
    let validate = format!("--validate={}", data("eval_ids.npy"));
    let (model, gate) = (model(), "kl.mean<=0.0000001");
    let args = ["quantize", &model, "-o", &output, &validate, "--samples", "1", "--gate", gate];
    let it = run(&args);
    assert_eq!(it.code, 1, "{}", it.error);
    assert!(it.out.contains("FAILED\n"), "{}", it.out);
    let last = it.out.lines().last().unwrap().replace(&output, "q.onnx");
    let end = ", needs <=0.0000001; what was written lies at q.onnx.rejected/q.onnx";
    assert!(last.starts_with("FAIL: kl.mean 0.") && last.ends_with(end), "{last}");
    assert_eq!(place.files(), ["q.onnx.rejected"]);
}

#[test]
fn an_unknown_gate_is_refused_before_any_work() {
    let place = Place::new();
    let it = run(&["quantize", &model(), "-o", &place.path("q.onnx"), "--gate", "kll.mean<=1"]);
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    insta::assert_snapshot!(it.error, @r"
    error[E706]: unknown metric `kll`

    hint: did you mean `kl`?
    ");
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn validation_needs_data() {
    let place = Place::new();
    let it = run(&["quantize", &model(), "-o", &place.path("q.onnx"), "--validate"]);
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    let error =
        "error[E712]: --validate needs a comparison with the original, and there is no data";
    assert!(it.error.contains(error), "{}", it.error);
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn json_has_the_documented_keys() {
    let place = Place::new();
    let validate = format!("--validate={}", data("eval_ids.npy"));
    let (model, output) = (model(), place.path("q.onnx"));
    let args = ["quantize", &model, "-o", &output, "--json", &validate, "--samples", "1"];
    let it = run(&args);
    assert_eq!(it.code, 0, "{}", it.error);
    let json: Value = serde_json::from_str(&it.out).unwrap();
    let keys = |it: &Value| it.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    insta::assert_snapshot!(keys(&json), @"quantize validate");
    insta::assert_snapshot!(keys(&json["quantize"]), @"after before execution int8 model needs nodes onnxq output quantized_nodes quantized_weights recipe schema warnings");
    insta::assert_snapshot!(keys(&json["quantize"]["after"]), @"bytes initializers nodes ops");
    insta::assert_snapshot!(keys(&json["validate"]), @"decisions environment gates kept kernels latency models outputs precision provenance samples schema size verdict warnings");
    assert_eq!(json["quantize"]["schema"], "onnxq.quantize/1");
    assert_eq!(json["validate"]["schema"], "onnxq.report/1");
    assert_eq!(json["quantize"]["after"]["bytes"], fs::metadata(&output).unwrap().len());
    let nodes = json["quantize"]["nodes"].as_array().unwrap();
    let quantized = nodes.iter().filter(|it| it["format"].is_string()).count();
    assert_eq!(json["quantize"]["quantized_nodes"], quantized);
    assert!(nodes.iter().all(|it| it["format"].is_string() || it["kept"].is_string()));
}

#[test]
fn a_dry_run_knows_the_size_to_the_byte() {
    for external in ["never", "always"] {
        for recipe in ["avx512_vnni_row", "int4"] {
            let place = Place::new();
            let (model, output) = (model(), place.path("q.onnx"));
            let args =
                ["quantize", &model, "-o", &output, "-r", recipe, "--external-data", external];
            let dry = run(&[&args[..], &["--dry-run", "--json"]].concat());
            assert_eq!((dry.code, place.files()), (0, vec![]), "{}", dry.error);
            let json: Value = serde_json::from_str(&dry.out).unwrap();
            assert_eq!(json["quantize"]["output"], Value::Null);
            assert_eq!(run(&args).code, 0);
            let files = place.files();
            assert_eq!(files.len(), if external == "always" { 2 } else { 1 }, "{files:?}");
            let sizes = files.iter().map(|it| fs::metadata(place.path(it)).unwrap().len());
            assert_eq!(
                json["quantize"]["after"]["bytes"],
                sizes.sum::<u64>(),
                "{recipe} {external}"
            );
        }
    }
}

#[test]
fn nothing_to_do_is_exit_6_with_reasons() {
    let place = Place::new();
    let (model, output) = (place.write("m.onnxtxt", NOTHING), place.path("q.onnx"));
    let it = run(&["quantize", &model, "-o", &output]);
    assert_eq!(it.code, 6, "{}", it.error);
    insta::assert_snapshot!(it.out, @r"

    kept in float (1 of 1 nodes with weights), and why:
         1 × MatMul: not a weight: both inputs are computed in the model
             MatMul → y

    no-op [N001]: there is nothing to quantize, so nothing is written
    ");
    assert_eq!(place.files(), ["m.onnxtxt"]);
    let it = run(&["quantize", &model, "-o", &output, "--allow-noop"]);
    assert_eq!(it.code, 0, "{}", it.error);
    assert!(it.out.ends_with("q.onnx  nothing was quantized\n"), "{}", it.out);
    assert_eq!(place.files(), ["m.onnxtxt", "q.onnx"]);
}

#[test]
fn an_original_is_not_compared_with_itself() {
    let place = Place::new();
    let path = place.path("m.onnx");
    fs::copy(fixture("model.onnx"), &path).unwrap();
    let validate = format!("--validate={}", data("eval_ids.npy"));
    let args = ["quantize", "-q", &path, "-f", "-o", &path];
    let it = run(&[&args[..], &[&validate]].concat());
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    insta::assert_snapshot!(it.error.replace(&path, "m.onnx"), @r"
    error[E904]: m.onnx would replace the original, and nothing would be left to compare with

    hint: choose another output name, or leave out the comparison
    ");
    assert_eq!(run(&args).code, 0);
    assert!(fs::metadata(&path).unwrap().len() < 2 << 20);
}

#[test]
fn a_comparison_that_fails_says_what_was_written() {
    let place = Place::new();
    let output = place.path("q.onnx");
    // Without a tokenizer.
    let validate = format!("--validate={}", data("eval.txt"));
    let it = run(&["quantize", &model(), "-o", &output, &validate]);
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    let place_of_it = format!("{output}.rejected/q.onnx was written; comparing it failed\n");
    assert!(it.error.contains(&place_of_it), "{}", it.error);
    assert_eq!(place.files(), ["q.onnx.rejected"]);
    assert!(it.error.contains("error[E608]: "), "{}", it.error);
}

#[test]
fn a_weight_that_is_not_finite_is_an_error_or_stays() {
    let place = Place::new();
    let text = "main (float[2,4] x) => (float[2,2] y) \
                <float[4,2] w = {1, 2, nan, 4, 5, 6, 7, 8}> { y = MatMul (x, w) }";
    let (model, output) = (place.write("m.onnxtxt", text), place.path("q.onnx"));
    let it = run(&["quantize", "-q", &model, "-o", &output]);
    assert_eq!((it.out.as_str(), it.code), ("", 3));
    insta::assert_snapshot!(it.error, @r"
    error[E501]: weight `w` holds NaN at [1, 0]

    hint: fix the checkpoint, or pass --nonfinite skip to leave the tensor in float
    ");
    assert_eq!(place.files(), ["m.onnxtxt"]);
    let it = run(&["quantize", &model, "-o", &output, "--nonfinite", "skip"]);
    assert_eq!(it.code, 6);
    assert!(it.out.contains("1 × MatMul: weight `w` holds NaN at [1, 0]\n"), "{}", it.out);
}

/// The error of a quantization by a recipe, without the folder of the file.
fn recipe_error(recipe: &str) -> (String, i32) {
    let place = Place::new();
    let path = place.write("my.yaml", format!("onnxq: 1\nname: my\n{recipe}\n"));
    let it = run(&["quantize", &model(), "-q", "-r", &path, "-o", &place.path("q.onnx")]);
    assert_eq!((it.out.as_str(), place.files()), ("", vec!["my.yaml".to_owned()]));
    (it.error.replace(&path, "my.yaml"), it.code)
}

#[test]
fn a_pattern_without_a_node_shows_its_place_and_a_guess() {
    let entry = "extends: avx2\nquantize:\n  - names: [\"*/lm_haed/*\"]\n    skip: true";
    let (error, code) = recipe_error(entry);
    assert_eq!(code, 2);
    insta::assert_snapshot!(error, @r"
    error[E702]: my.yaml:5:13: pattern `*/lm_haed/*` matches no node

    hint: did you mean `*/lm_head/*`? Otherwise add `optional: true` if the entry is meant for other models
    ");
}

#[test]
fn what_no_format_stores_shows_its_place() {
    let entry = "quantize:\n  - ops: [MatMul]\n    weight: {dtype: uint4, granularity: channel}\n    \
                 activation: {dtype: uint8}\n    format: [dynamic]";
    let (error, code) = recipe_error(entry);
    assert_eq!(code, 2);
    insta::assert_snapshot!(error, @"error[E704]: my.yaml:4:5: dynamic: it stores symmetric int8 weights only");
}

#[test]
fn an_existing_output_is_kept() {
    let place = Place::new();
    let output = place.write("q.onnx", "precious");
    let it = run(&["quantize", &model(), "-q", "-o", &output]);
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    insta::assert_snapshot!(it.error.replace(&output, "q.onnx"), @r"
    error[E903]: q.onnx exists

    hint: pass --force to replace it
    ");
    assert_eq!(fs::read_to_string(&output).unwrap(), "precious");
    assert_eq!(run(&["quantize", &model(), "-f", "-o", &output]).code, 0);
    assert_ne!(fs::read(&output).unwrap(), b"precious");
}

#[test]
fn a_model_is_identical_to_itself() {
    let (model, ids) = (model(), data("eval_ids.npy"));
    let args = ["validate", &model, &model, "--data", &ids, "--samples", "2", "--no-latency"];
    let it = run(&args);
    assert_eq!(it.code, 0, "{}", it.error);
    insta::assert_snapshot!(it.out, @r"
          original  quantized  ratio
    size    4.2 MB     4.2 MB  ×1.00

    output           logits
    samples          2
    identical        yes, bit for bit
    KL (nats)        mean 0 [0, 0] · median 0 · p99 0 · p99.9 0 · max 0
    top-1 agreement  100.00 %
    top-5 agreement  100.00 %
    perplexity       53.84 → 53.84 (×1.0000, 95 % within ×1.0000 and ×1.0000)
    cosine           mean 1.000 · median 1.000 · p1 1.000 · min 1.000
    max |Δ|          0

    NOT JUDGED: no gates, no baseline
    ");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for name in FIXTURES {
        let model = data(name);
        for recipe in ["avx512_vnni", "int4", "int8_weights"] {
            let place = Place::new();
            let mut digests = Vec::new();
            for threads in ["1", "2", "2"] {
                let output = place.path("q.onnx");
                let args = ["quantize", &model, "-f", "-o", &output, "-r", recipe];
                let it = run(&[&args[..], &["--threads", threads]].concat());
                assert_eq!(it.code, 0, "{}", it.error);
                digests.push(Sha256::digest(fs::read(&output).unwrap()));
            }
            assert!(digests.windows(2).all(|it| it[0] == it[1]), "{name} by {recipe}");
        }
    }
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    let place = Place::new();
    let output = place.path("q.onnx");
    let (model, escape) = (model(), '\u{1b}');
    let args = ["quantize", &model, "-f", "-o", &output];
    let always = run(&[&args[..], &["--color", "always"]].concat());
    assert!(always.error.contains(escape) && always.out.contains(escape), "{}", always.error);
    let forced = run_with(&args, &[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")]);
    assert!(forced.error.contains(escape) && forced.out.contains(escape), "{}", forced.error);
    let both = run_with(&args, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]);
    assert!(!both.error.contains(escape), "{}", both.error);
    let never = run_with(&[&args[..], &["--color=never"]].concat(), &[("CLICOLOR_FORCE", "1")]);
    assert!(!never.error.contains(escape), "{}", never.error);
    let quiet = run(&[&args[..], &["-q"]].concat());
    assert_eq!((&*quiet.error, quiet.out.lines().count()), ("", 1), "{}", quiet.out);
}

#[test]
fn errors_leave_stdout_empty_and_are_json_if_asked() {
    let it = run(&["quantize", "none.onnx", "-o", "q.onnx", "--json", "-q"]);
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    let error: Value = serde_json::from_str(&it.error).unwrap();
    assert_eq!(error["code"], "E905");
    let place = Place::new();
    let model = place.write("m.onnxtxt", NOTHING);
    let it = run(&["quantize", &model, "-o", &place.path("q.onnx"), "--json"]);
    let json: Value = serde_json::from_str(&it.out).unwrap();
    assert_eq!((&json["quantize"]["quantized_nodes"], it.code), (&Value::from(0), 6));
}

#[test]
fn a_model_is_inspected_and_checked() {
    let place = Place::new();
    let output = place.path("q.onnx");
    assert_eq!(run(&["quantize", &model(), "-r", "int4", "-o", &output]).code, 0);
    let it = run(&["check", &output]);
    assert_eq!(it.code, 0, "{}", it.error);
    assert!(it.out.starts_with("ok  "), "{}", it.out);
    let it = run(&["inspect", &output]);
    assert_eq!(it.code, 0, "{}", it.error);
    for part in ["com.microsoft 1", "com.microsoft.MatMulNBits", "logits", "uint8"] {
        assert!(it.out.contains(part), "`{part}` is missing in\n{}", it.out);
    }
    let json: Value = serde_json::from_str(&run(&["inspect", &output, "--json"]).out).unwrap();
    assert_eq!(json["schema"], "onnxq.inspect/1");
    // Quantized once more, nothing is left to do.
    let it = run(&["quantize", &output, "-r", "int4", "-o", &place.path("again.onnx")]);
    assert_eq!(it.code, 6, "{}", it.out);
    assert!(it.out.contains("com.microsoft.MatMulNBits: it is quantized already"), "{}", it.out);
    let broken = place.write("broken.onnx", "no model");
    let it = run(&["check", &broken]);
    assert_eq!((it.out.as_str(), it.code), ("", 3), "{}", it.error);
}

#[test]
fn the_machine_is_described() {
    let it = run(&["doctor", "--json"]);
    assert_eq!(it.code, 0, "{}", it.error);
    let json: Value = serde_json::from_str(&it.out).unwrap();
    for key in ["cpu", "library", "probe", "verdict"] {
        assert!(!json[key].is_null(), "{key} is missing in\n{}", it.out);
    }
    let it = run(&["runtime", "path"]);
    assert_eq!(it.code, 0, "{}", it.error);
    assert!(Path::new(it.out.trim_end()).is_file(), "{}", it.out);
}

/// Neither the output nor what it was written to first.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_grow_leaves_nothing() {
    for external in ["never", "always"] {
        let place = Place::new();
        let output = place.path("q.onnx");
        // With the signal ignored, a write beyond the limit fails as one to a full disk does.
        let script = r#"trap '' XFSZ; ulimit -f 200; exec "$@""#;
        let result = std::process::Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(assert_cmd::cargo::cargo_bin("onnxq"))
            .args(["quantize", "-q", &model(), "-o", &output, "--external-data", external])
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let error = String::from_utf8(result.stderr).unwrap();
        assert_eq!((result.status.code(), result.stdout), (Some(5), vec![]), "{error}");
        assert!(error.starts_with("error[E901]: cannot write "), "{error}");
        assert_eq!(place.files(), [""; 0]);
    }
}

#[test]
fn a_folder_that_does_not_exist_is_an_error() {
    let place = Place::new();
    let it = run(&["quantize", "-q", &model(), "-o", &place.path("none/q.onnx")]);
    assert_eq!((it.out.as_str(), it.code), ("", 2));
    assert!(it.error.starts_with("error[E905]: there is no folder "), "{}", it.error);
    assert_eq!(place.files(), [""; 0]);
}

/// Root may write anywhere, so this shows something only for others.
#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let folder = place.path("closed");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(place.path("closed/probe"), "").is_ok() {
        return;
    }
    let it = run(&["quantize", "-q", &model(), "-o", &place.path("closed/q.onnx")]);
    assert_eq!((it.out.as_str(), it.code), ("", 5), "{}", it.error);
    assert!(it.error.starts_with("error[E901]: cannot write "), "{}", it.error);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn calibrate_prints_ranges() {
    let (model, ids) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let (model, ids) = (model.to_str().unwrap(), ids.to_str().unwrap());
    let args = ["calibrate", model, "--data", ids, "--samples", "3", "--observer"];
    let ranges = |more: &[&str]| {
        let made = run(&[&args[..], more].concat());
        assert_eq!(made.code, 0, "{}", made.error);
        made.out
    };
    let rows: Value = serde_json::from_str(&ranges(&["percentile=99", "--json"])).unwrap();
    assert!(rows.as_array().unwrap().len() >= 20);
    for row in rows.as_array().unwrap() {
        let clipped = row["clipped"].as_f64().unwrap();
        assert!((0.0..=0.011).contains(&clipped), "{row}");
        assert!(row["min"].as_f64() <= row["range"]["lo"].as_f64(), "{row}");
        assert_eq!(row["samples"], 3);
    }
    assert!(ranges(&["entropy"]).starts_with("activation"));
    assert_eq!(ranges(&["mse", "--threads", "1"]), ranges(&["mse", "--memory", "8MiB"]));
    let wrong = run(&[&args[..], &["median"]].concat());
    assert!(wrong.code == 2 && wrong.error.contains("median"), "{}", wrong.error);
}

#[test]
fn calibrate_writes_merges_and_shows() {
    let place = Place::new();
    let (model, ids) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let (model, ids) = (model.to_str().unwrap(), ids.to_str().unwrap());
    let (a, b) = (place.path("a.safetensors"), place.path("b.safetensors"));
    let made = run(&["calibrate", model, "--data", ids, "--samples", "2", "--json", "-o", &a]);
    assert_eq!(made.code, 0, "{}", made.error);
    let rows: Value = serde_json::from_str(&made.out).unwrap();
    let first = &rows[0];
    assert!(rows.as_array().unwrap().len() >= 4 && first["rows"].as_u64().unwrap() > 0);
    // The recipe's solver for weights that data is given for needs the whole moments.
    assert_eq!(first["hessian"], true);
    let merged = run(&["calibrate", "--merge", &a, &a, "-o", &b]);
    assert_eq!(merged.code, 0, "{}", merged.error);
    let shown = run(&["calibrate", "--show", &b, "--json"]);
    let twice: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(twice[0]["rows"].as_u64(), first["rows"].as_u64().map(|it| 2 * it));
    assert_eq!(twice[0]["max_abs"], first["max_abs"]);
    assert!(run(&["calibrate", "--show", &b]).out.starts_with("input"));
    assert_eq!(place.files(), ["a.safetensors", "b.safetensors"]);

    let garbage = place.write("garbage", "nothing of the kind");
    assert_eq!(run(&["calibrate", "--show", &garbage]).code, 3);
    assert_eq!(run(&["calibrate", model, "-o", &a]).code, 2, "no data");
    let small = ["calibrate", model, "--data", ids, "-o", &b, "--memory", "1kB"];
    let small = run(&small);
    assert!(small.code == 2 && small.error.contains("E612"), "{}", small.error);
}

/// Of the two only what is computed can be true, so it counts, and the user hears of it.
#[test]
fn a_wrong_stated_shape_is_named() {
    let place = Place::new();
    let model = place.write(
        "m.onnxtxt",
        "<ir_version: 8, opset_import: [\"\" : 13]> main (float[1,t,4] x) => (float[1,n] y)
         <float[4,4] w> { p = MatMul (x, w) q = Identity (p) y = Transpose <perm = [1,0,2]> (q) }",
    );
    let converted = run(&["convert", &model, "--fuse", "-o", &place.path("f.onnx"), "--json"]);
    let told = converted.json()["warnings"].to_string();
    assert!(told.contains("`y` is stated to be float[1,n]"), "{told}");
    assert!(told.contains("computes float[t,1,4], which counts"), "{told}");
}
