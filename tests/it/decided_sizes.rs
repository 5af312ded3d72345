//! Outputs whose sizes depend on numbers: both models go on from what the reference decides.

use crate::{
    common::outside::run,
    odd_outputs::{Case, constant},
};

/// A detector: what NonMaxSuppression keeps of 16 boxes is classified.
fn detector() -> String {
    let constants = [
        constant("w", &[32, 32], 1),
        constant("wb", &[32, 4], 2),
        constant("wc", &[32, 2], 3),
        constant("wk", &[32, 8], 4),
        "int64 k = {20}, float iou = {0.5}, float threshold = {0.5}".to_owned(),
        "int64 two = {2}, int64[1] zeroth = {0}".to_owned(),
    ];
    let constants = constants.join(", ");
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[1,16,32] x) => (float[n,4] kept, float[n,8] kinds, int64[n,3] selected, float[1,16,32] h) <{constants}> {{
   a = MatMul (x, w)
   h = Relu (a)
   boxes = MatMul (h, wb)
   c = MatMul (h, wc)
   s = Sigmoid (c)
   scores = Transpose <perm = [0, 2, 1]> (s)
   [nms] selected = NonMaxSuppression (boxes, scores, k, iou, threshold)
   at = Gather <axis = 1> (selected, two)
   all = Squeeze (boxes, zeroth)
   kept = Gather (all, at)
   rows = Squeeze (h, zeroth)
   features = Gather (rows, at)
   kinds = MatMul (features, wk)
}}"#
    )
}

/// Rows that are chosen by their sign, in two ways, and a length that is a sum.
fn chosen(body: &str, outputs: &str) -> String {
    let (w, v) = (constant("w", &[32, 32], 1), constant("v", &[32, 32], 2));
    let numbers = "float zero = {0}, int64 from = {0}, int64 step = {1}, int64[1] first = {0}, int64[1] last = {1}";
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[1,32] x) => ({outputs}) <{w}, {v}, {numbers}> {{
   a = MatMul (x, w)
   b = Relu (a)
   y = MatMul (b, v)
   {body}
}}"#
    )
}

const NON_ZERO: &str = "p = Greater (y, zero)
   at = NonZero (p)
   places = Transpose (at)
   picked = GatherND (y, places)";
const COMPRESS: &str = "row = Squeeze (y, first)
   p = Greater (row, zero)
   picked = Compress <axis = 0> (row, p)";
const LENGTH: &str = "d = Abs (y)
   sum = ReduceSum <keepdims = 0> (d)
   length = Cast <to = 7> (sum)
   at = Range (from, length, step)
   times = Cast <to = 1> (at)
   column = Unsqueeze (times, last)
   picked = Mul (column, y)";

fn judged(model: &str, shape: &[usize], beside: &[&str], outputs: &[&str], settled: &[&str]) {
    let case = Case::new(model, shape);
    let ran = case.quantize("avx512_vnni_static", &["--json", "--validate"]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    let report = ran.json();
    let figures = &report["validate"]["outputs"];
    for name in outputs.iter().chain(beside) {
        let db = figures[name]["sqnr_db"].as_f64();
        assert!(db.is_some_and(|it| it > 20.0), "{name}: {figures}");
    }
    settled.iter().for_each(|it| assert!(figures[it].is_null(), "{it}"));
    let said = report["validate"]["warnings"].as_array().unwrap().iter();
    let said: Vec<_> = said.filter(|it| it["code"] == "W213").collect();
    assert_eq!(said.len(), 1, "{said:?}");
    for name in beside.iter().chain(settled) {
        assert!(said[0]["message"].as_str().unwrap().contains(&format!("`{name}`")), "{said:?}");
    }
}

#[test]
fn a_detector_is_judged_with_the_boxes_that_the_reference_keeps() {
    let outputs = ["kept", "kinds", "h"];
    judged(&detector(), &[16, 16, 32], &["boxes", "scores"], &outputs, &["selected"]);
}

#[test]
fn chosen_rows_and_lengths_are_judged_too() {
    judged(&chosen(NON_ZERO, "float[n] picked"), &[24, 32], &["y"], &["picked"], &[]);
    judged(&chosen(COMPRESS, "float[n] picked"), &[24, 32], &["row"], &["picked"], &[]);
    let outputs = "float[n,32] picked, int64[n] at";
    judged(&chosen(LENGTH, outputs), &[24, 32], &["sum"], &["picked"], &["at"]);
}

#[test]
fn every_command_and_report_says_what_is_judged() {
    let case = Case::new(&detector(), &[16, 16, 32]);
    let ran =
        case.quantize("avx512_vnni", &["--gate", "sqnr_db>=20", "--gate", "boxes:sqnr_db>=20"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    let candidate = case.place.path("avx512_vnni.onnx");
    let report = case.place.path("report");
    let pair = [&*case.model, &*candidate, "--data", &case.data];
    let all = ["--full", "--report", &report, "--gate", "kinds:sqnr_db>=90"];
    let ran = run(&[&["validate"], &pair[..], &all].concat());
    assert_eq!(ran.code, 1, "{}", ran.error);
    let said = "sizes depend on computed numbers at `nms`";
    assert!(ran.out.contains(said), "{}", ran.out);
    for name in ["index.html", "report.md", "report.json"] {
        let text = std::fs::read_to_string(format!("{report}/{name}")).unwrap();
        assert!(text.contains("sizes depend on computed numbers at"), "{name}");
    }
    for more in [&[][..], &["--layers", "--bisect"]] {
        let ran = run(&[&["compare"], &pair[..], more].concat());
        assert_eq!((ran.code, ran.error.matches(said).count()), (0, 1), "{}", ran.error);
    }
}

#[test]
fn a_gate_on_what_is_settled_says_what_decides() {
    let case = Case::new(&detector(), &[16, 16, 32]);
    let ran = case.validate(&["--no-latency", "--gate", "selected:equal>=1"]);
    assert_eq!(ran.code, 2, "{}", ran.error);
    assert!(ran.error.contains("follows from what decides sizes"), "{}", ran.error);
    assert!(ran.error.contains("boxes"), "{}", ran.error);
}

/// Other tools rename nodes and values; the same operators stand at the same places.
#[test]
fn a_candidate_with_other_names_is_judged() {
    let case = Case::new(&detector(), &[16, 16, 32]);
    let other = detector().replace("boxes", "b0").replace("scores", "s0").replace("[nms] ", "");
    let other = case.place.write(
        "other.onnxtxt",
        other.replace("int64 two", "int64 twice").replace(", two)", ", twice)"),
    );
    let args = ["validate", &case.model, &other, "--data", &case.data, "--no-latency"];
    let ran = run(&[&args[..], &["--gate", "max_abs<=0"]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    assert!(ran.out.contains("boxes") && ran.out.contains("scores"), "{}", ran.out);
}
