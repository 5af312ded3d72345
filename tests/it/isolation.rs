//! Models that crash, hang or flood ONNX Runtime: the process that runs them ends, onnxq does not.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::outside::{Place, Run, run},
    odd_outputs::{Case, constant},
};

/// Adds one for ever, behind a product.
fn endless() -> String {
    let (w, v) = (constant("w", &[32, 32], 1), constant("v", &[32, 32], 2));
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,32] x) => (float[n,32] y) <{w}, {v}, float zero = {{0.0}}, float one = {{1.0}}, bool yes = {{1}}> {{
   a = MatMul (x, w)
   r = Loop <body = step (int64 i, bool c, float s) => (bool again, float t) {{
      again = Identity (c)
      t = Add (s, one)
   }}> (, yes, zero)
   b = Add (a, r)
   y = MatMul (b, v)
}}"#
    )
}

/// Wants more memory than any machine has.
fn greedy() -> String {
    let w = constant("w", &[32, 32], 1);
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,32] x) => (float[n,32] y) <{w}, int64[2] much = {{1099511627776, 1}}> {{
   a = MatMul (x, w)
   s = Shape (x)
   k = Mul (s, much)
   c = ConstantOfShape (k)
   r = ReduceSum <keepdims = 0> (c)
   y = Add (a, r)
}}"#
    )
}

fn ends_with(ran: &Run, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.error);
    for part in parts {
        assert!(ran.error.contains(part), "{part}: {}", ran.error);
    }
}

#[test]
fn a_model_that_never_ends_is_ended_and_named() {
    let case = Case::new(&endless(), &[8, 32]);
    let limit = ["--run-timeout", "1s"];
    let said = ["E808", "took longer than 1 s while it ran on `x` float[", "--run-timeout 1h"];
    let start = Instant::now();
    ends_with(&case.validate(&limit), 5, &said);
    // Calibration and choices by measurement run it, too.
    ends_with(&case.quantize("avx512_vnni_static", &limit), 5, &said);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_model_that_wants_all_memory_is_told_no() {
    let case = Case::new(&greedy(), &[8, 32]);
    let ran = case.validate(&["--run-memory", "1GiB"]);
    ends_with(&ran, 5, &["E803", "ConstantOfShape"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_killed_is_an_error_that_names_model_and_input() {
    let case = Case::new(&endless(), &[8, 32]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxq"));
    command.args(["validate", &case.model, &case.model, "--data", &case.data]);
    let parent = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let busy = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ticks = stat.rsplit(')').next().and_then(|it| it.split(' ').nth(12)?.parse().ok());
        // A fifth of a second of computing: it is in the loop.
        ticks.is_some_and(|ticks: u64| ticks > 20)
    };
    let child = (0..2000).find_map(|_| {
        thread::sleep(Duration::from_millis(10));
        children(parent.id()).into_iter().find(busy)
    });
    let child = child.expect("a process runs the model");
    assert!(Command::new("kill").args(["-9", &child]).status().unwrap().success());
    let output = parent.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{error}");
    for part in ["E806", "while it ran on `x` float[", "was killed (signal: 9"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// Processes that any thread of this one has started.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<String> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|it| fs::read_to_string(it.ok()?.path().join("children")).ok());
    lists.flat_map(|it| it.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A library of custom operators that does this when ONNX Runtime asks it for them.
#[cfg(unix)]
fn library(place: &Place, body: &str) -> String {
    let code = format!(
        "#include <stdio.h>\n#include <stdlib.h>\n\
         void *RegisterCustomOps(void *options, const void *api) {{ {body} return 0; }}"
    );
    let (code, library) = (place.write("ops.c", code), place.path("ops.so"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, &code]).status();
    assert!(built.expect("tests need a C compiler, as building onnxq does").success());
    library
}

#[cfg(unix)]
#[test]
fn a_library_that_aborts_is_an_error() {
    let case = Case::new(&greedy(), &[8, 32]);
    let library = library(&case.place, "fputs(\"last words\", stderr); abort();");
    for ran in [
        case.quantize("avx512_vnni", &["--custom-ops", &library]),
        case.validate(&["--custom-ops", &library]),
    ] {
        ends_with(&ran, 5, &["E806", "(signal: 6", "last words"]);
    }
    assert_eq!(case.place.files(), ["m.onnxtxt", "ops.c", "ops.so", "x.npy"]);
}

#[cfg(unix)]
#[test]
fn what_libraries_print_is_kept_from_the_result() {
    let body = "for (int i = 0; i < 300000; i++) { puts(\"noise\"); fputs(\"noise\\n\", stderr); }";
    let case = Case::new(&simple(), &[8, 32]);
    let library = library(&case.place, body);
    let ran = case.validate(&["--json", "--no-latency", "--custom-ops", &library]);
    assert!(!ran.error.contains("noise"), "{}", &ran.error[..200]);
    ran.json();
}

fn simple() -> String {
    let w = constant("w", &[32, 32], 1);
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,32] x) => (float[n,32] y) <{w}> {{ y = MatMul (x, w) }}"#
    )
}

#[test]
fn a_process_of_its_own_changes_no_figure() {
    let case = Case::new(&simple(), &[8, 32]);
    let int8 = case.place.path("int8.onnx");
    let made = run(&["quantize", &case.model, "-r", "avx512_vnni", "-o", &int8]);
    assert_eq!(made.code, 0, "{}", made.error);
    let figures = |more: &[&str]| {
        let args = ["validate", &case.model, &int8, "--data", &case.data, "--json", "--no-latency"];
        run(&[&args[..], more].concat()).json()["figures"].clone()
    };
    assert_eq!(figures(&[]), figures(&["--in-process"]));
}
