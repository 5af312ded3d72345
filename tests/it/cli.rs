//! The program from outside: what it prints, and how it exits.

use std::fs;

use assert_cmd::Command;

/// Stdout, stderr and the exit code of a run.
fn run(args: &[&str]) -> (String, String, i32) {
    let mut command = Command::cargo_bin("onnxq").unwrap();
    let output = command.args(args).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").output();
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// What `onnxq recipe check` says of a recipe that fails, without the folder of the file.
fn check(recipe: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.yaml");
    fs::write(&path, format!("onnxq: 1\nname: my\n{recipe}\n")).unwrap();
    let path = path.to_str().unwrap();
    let (out, error, code) = run(&["recipe", "check", path]);
    assert_eq!((out.as_str(), code), ("", 2), "{error}");
    error.replace(path, "my.yaml")
}

#[test]
fn help_names_every_command_and_exit_code() {
    let (out, error, code) = run(&["--help"]);
    assert_eq!((error.as_str(), code), ("", 0));
    for part in ["Usage: onnxq", "recipe", "explain", "completions", "--ort-lib", "70 a bug"] {
        assert!(out.contains(part), "`{part}` is missing in\n{out}");
    }
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let (out, error, code) = run(&["recipe", "list", "--jsno"]);
    assert_eq!((out.as_str(), code), ("", 2));
    assert!(error.contains("--json"), "{error}");
}

#[test]
fn recipes_are_listed_with_one_sentence_each() {
    let (out, _, code) = run(&["recipe", "list"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(out, @r"
    name                target       needs          description
    arm64               arm64                       Dynamic int8 for 64-bit ARM.
    arm64_static        arm64        --calibration  Static int8 for 64-bit ARM.
    as_stored           generic                     Keeps the integers of a quantized checkpoint; the rest stays in float.
    avx2                avx2                        Dynamic int8 for x86-64 without VNNI.
    avx2_static         avx2         --calibration  Static int8 for x86-64 without VNNI.
    avx512_vnni         avx512_vnni                 Dynamic int8 for x86-64 with VNNI, the fastest form for prompts and encoders.
    avx512_vnni_row     avx512_vnni                 Dynamic int8 for x86-64 with VNNI, with a range per row of every activation: about 10 % slower than avx512_vnni, and more accurate where tokens have outliers.
    avx512_vnni_static  avx512_vnni  --calibration  Static int8 for x86-64 with VNNI, the form for convolutions.
    gguf_q4_0           generic                     A GGUF file for llama.cpp with Q4_0, the table of words and the head with Q8_0.
    gguf_q4_k           generic                     A GGUF file for llama.cpp with Q4_K and Q6_K, the table of words and the head with Q8_0.
    gguf_q8_0           generic                     A GGUF file for llama.cpp with Q8_0 for every matrix: the nearest to float.
    gguf_quality        generic      --calibration  A GGUF file for llama.cpp with Q4_K solved by GPTQ on calibration data; --max-size mixes all types from Q2_K to Q8_0.
    int2_recovered      generic      --calibration  Weights in 2 bits, with scales and norms trained against the float model: the smallest.
    int4                generic                     Weights in 4 bits, computation in int8, for any CPU.
    int4_quality        generic      --calibration  Weights in 4 bits solved by GPTQ on calibration data, with blocks of 32 and an 8-bit head: the most accurate of the 4-bit recipes.
    int4_recovered      generic      --calibration  What int4_quality emits, with scales and norms trained against the float model, in the same size.
    int4_size           generic      --calibration  Everything in 4 bits, head and embeddings too, solved by GPTQ on calibration data: the smallest file.
    int8_recovered      avx512_vnni  --calibration  What avx512_vnni_row emits, with scales and norms trained against the float model.
    int8_weights        generic                     Weights in 8 bits with a scale per block of 32, for any CPU.
    ");
}

#[test]
fn a_shown_recipe_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.yaml");
    let (resolved, _, _) = run(&["recipe", "show", "avx512_vnni_row", "--resolved"]);
    fs::write(&path, &resolved).unwrap();
    let (out, error, code) = run(&["recipe", "check", path.to_str().unwrap()]);
    assert_eq!((out.as_str(), error.as_str(), code), ("ok\n", "", 0));
    let (again, _, _) = run(&["recipe", "show", path.to_str().unwrap(), "--resolved"]);
    assert_eq!(again, resolved);
    let (written, _, _) = run(&["recipe", "show", "avx2"]);
    assert!(written.starts_with("# yaml-language-server"), "{written}");
}

#[test]
fn an_unknown_key_shows_its_place_and_a_guess() {
    insta::assert_snapshot!(check("quantize:\n  - weight: {grannularity: channel}"), @r"
    error[E701]: my.yaml:4:14: unknown key `grannularity`

    hint: did you mean `granularity`?
    ");
}

#[test]
fn an_unknown_solver_shows_its_place_and_a_guess() {
    insta::assert_snapshot!(check("quantize:\n  - weight: {solver: rtm}"), @r"
    error[E703]: my.yaml:4:22: unknown solver `rtm`

    hint: did you mean `rtn`?
    ");
}

#[test]
fn aliases_are_refused() {
    insta::assert_snapshot!(check("prepare: [*a]"), @"error[E701]: my.yaml:3:11: aliases are not allowed");
}

#[test]
fn a_value_of_the_wrong_type_shows_its_place() {
    insta::assert_snapshot!(check("quantize:\n  - min_elements: {a: 1}"), @"error[E703]: my.yaml:4:19: `min_elements` is not a single value");
}

#[test]
fn an_unknown_recipe_is_guessed() {
    let (_, error, code) = run(&["recipe", "show", "avx512_vni"]);
    assert_eq!(code, 2);
    insta::assert_snapshot!(error, @r"
    error[E705]: there is no recipe `avx512_vni`

    hint: did you mean `avx512_vnni`?
    ");
}

#[test]
fn a_cause_follows_its_error() {
    let (_, error, code) = run(&["recipe", "check", "none/such.yaml"]);
    assert_eq!(code, 2);
    let mut lines = error.lines();
    assert_eq!(lines.next(), Some("error[E705]: recipe `none/such.yaml` cannot be read"));
    assert!(lines.next().unwrap().starts_with("  caused by: "), "{error}");
}

#[test]
fn errors_cannot_write_to_the_terminal() {
    let (_, error, _) = run(&["recipe", "show", "a\x1b[2J\nb"]);
    assert!(error.starts_with(r"error[E705]: there is no recipe `a\u{1b}[2J\u{a}b`"), "{error}");
}

#[test]
fn errors_are_json_for_programs() {
    let (out, error, code) = run(&["recipe", "show", "avx22", "--json"]);
    assert_eq!((out.as_str(), code), ("", 2));
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["code"], "E705");
    assert_eq!(error["hint"], "did you mean `avx2`?");
    assert_eq!(error["exit"], 2);
}

#[test]
fn codes_are_explained() {
    let (out, _, code) = run(&["explain", "e702"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(out, @r"
    E702 (exit code 2)
      A pattern of the recipe matches no node. Add `optional: true` if the rule is meant for other models.
    ");
    let (_, error, code) = run(&["explain", "E20"]);
    assert_eq!(code, 2);
    assert!(error.contains("hint: did you mean E120?"), "{error}");
}

/// A model in a folder of its own, and the path in it.
fn model(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnxtxt");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

const SLOW: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[2,64] x) => (int32[2,32] y, int32[2,32] z) <uint8[64,32] w> {
   q, s, zero = DynamicQuantizeLinear (x)
   y = MatMulInteger (q, w, zero)
   z = MatMulInteger (q, w, zero)
}"#;

#[test]
fn slow_forms_are_counted_and_end_with_the_code_of_a_gate() {
    let (_folder, path) = model(SLOW);
    let (out, _, code) = run(&["inspect", "--lint", &path]);
    assert_eq!(code, 1);
    insta::assert_snapshot!(out, @r"
    slow    L101 u8-weights: 2 × MatMulInteger: the weight is uint8
            1.3–3.2 times slower (u8u8 against u8s8 MatMul, 384×1536 to 2048×8192, 1 to 512 rows)
            hint: store it as int8, its zero point lowered by 128 (the sums stay the same, except on x86 without VNNI, where kernels for int8 weights may saturate) [--fix]
            at MatMulInteger → y and 1 more
    0 × broken, 2 × slow, 0 × advice
    ");
    let (out, _, _) = run(&["inspect", "--lint", "-v", &path]);
    assert!(out.contains("at MatMulInteger → z\n"), "{out}");
    let (out, _, code) = run(&["inspect", "--lint", "--json", &path]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let first = &json["lint"]["findings"][0];
    assert_eq!((code, &first["code"], &first["severity"]), (1, &"L101".into(), &"slow".into()));
    assert_eq!(first["fix"], serde_json::json!({"rewrite": "signed-weights", "exact": true}));
}

#[test]
fn fixes_are_written_and_leave_nothing_to_find() {
    let (folder, path) = model(SLOW);
    let output = folder.path().join("fixed.onnx");
    let args = ["-q", "inspect", "--lint", "--fix", &path, "-o", output.to_str().unwrap()];
    let (out, error, code) = run(&args);
    assert_eq!((error.as_str(), code), ("", 0));
    insta::assert_snapshot!(out, @r"
    fixed   signed-weights: 2
    ok: nothing is slow or broken
    ");
    let (_, error, code) = run(&args);
    assert_eq!(code, 2);
    assert!(error.contains("E903"), "{error}");
}

#[test]
fn a_check_is_explained() {
    let (out, _, code) = run(&["explain", "L107"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("check L107 (exit code 1 if missed)\n  MatMulNBits"), "{out}");
}

#[test]
fn flags_come_from_the_environment_too() {
    let mut command = Command::cargo_bin("onnxq").unwrap();
    let output = command.args(["recipe", "list"]).env("ONNXQ_JSON", "1").output().unwrap();
    assert_eq!(output.stdout.first(), Some(&b'['));
    let mut command = Command::cargo_bin("onnxq").unwrap();
    let output = command.args(["recipe", "list"]).env("ONNXQ_JSON", "0").output().unwrap();
    assert_eq!(output.stdout.first(), Some(&b'n'));
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (out, _, code) = run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("recipe"), "{shell}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_stops_is_no_failure() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("onnxq"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
