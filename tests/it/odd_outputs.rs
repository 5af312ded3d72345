//! Models whose outputs or batches are not what a comparison expects.

use crate::common::{
    arrays::{noise, npy},
    outside::{Place, Run, run},
};

/// A constant of noise in ONNX text.
pub(crate) fn constant(name: &str, dims: &[usize], seed: u64) -> String {
    let values = noise(dims, seed).to_f32().unwrap();
    let list: Vec<String> = values.iter().map(|it| format!("{it:?}")).collect();
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("float[{}] {name} = {{{}}}", dims.join(","), list.join(","))
}

/// A model and data for it.
pub(crate) struct Case {
    pub place: Place,
    pub model: String,
    pub data: String,
}

impl Case {
    pub(crate) fn new(model: &str, shape: &[usize]) -> Case {
        let place = Place::new();
        let (model, data) =
            (place.write("m.onnxtxt", model), place.write("x.npy", npy(&noise(shape, 3))));
        Case { place, model, data }
    }

    pub(crate) fn validate(&self, more: &[&str]) -> Run {
        run(&[&["validate", &self.model, &self.model, "--data", &self.data], more].concat())
    }

    pub(crate) fn quantize(&self, recipe: &str, more: &[&str]) -> Run {
        let output = self.place.path(&format!("{recipe}.onnx"));
        let args = ["quantize", &self.model, "-r", recipe, "-o", &output, "-f"];
        let data = ["--calibration", &self.data, "--data", &self.data, "--no-latency"];
        run(&[&args[..], &data, more].concat())
    }
}

fn with_sequence(outputs: &str) -> String {
    let (w, v) = (constant("w", &[32, 32], 1), constant("v", &[32, 32], 2));
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,32] x) => ({outputs}) <{w}, {v}> {{
   a = MatMul (x, w)
   b = Relu (a)
   y = MatMul (b, v)
   s = SequenceConstruct (y, b)
}}"#
    )
}

#[test]
fn outputs_that_are_no_tensors_are_left_out_and_named() {
    let case = Case::new(&with_sequence("float[n,32] y, seq(float[n,32]) s"), &[8, 32]);
    let named = "outputs that are no tensors are left out (`s` is Sequence<";
    let ran = case.validate(&["--no-latency", "--gate", "sqnr_db>=90"]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert!(ran.out.contains(&format!("warning [W211]: {named}")), "{}", ran.out);
    for recipe in ["avx512_vnni", "avx512_vnni_static", "int4_quality"] {
        let ran = case.quantize(recipe, &["--gate", "sqnr_db>=5"]);
        assert_eq!(ran.code, 0, "{recipe}: {}", ran.error);
        assert!((ran.out + &ran.error).contains(named), "{recipe}");
    }
}

#[test]
fn a_model_without_a_tensor_among_its_outputs_is_a_named_error() {
    let case = Case::new(&with_sequence("seq(float[n,32]) s"), &[8, 32]);
    let text = "no output of the models is a tensor (`s` is Sequence<";
    for ran in [case.validate(&[]), case.quantize("avx512_vnni_static", &[])] {
        assert_eq!(ran.code, 3, "{}", ran.error);
        assert!(ran.error.contains("E609") && ran.error.contains(text), "{}", ran.error);
    }
}

/// A GRU between two products; its first state is for a batch of one, if that is what `batch` says.
fn recurrent(batch: &str) -> String {
    let constants = [
        constant("w", &[16, 16], 1),
        constant("wx", &[1, 48, 16], 2),
        constant("wh", &[1, 48, 16], 3),
        constant("h", &[1, 1, 16], 4),
        constant("v", &[16, 16], 5),
    ];
    let constants = constants.join(", ");
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[{batch},5,16] x) => (float[{batch},5,16] y) <{constants}, int64[1] one = {{1}}> {{
   a = MatMul (x, w)
   t = Transpose <perm = [1, 0, 2]> (a)
   g, last = GRU <hidden_size = 16> (t, wx, wh, "", "", h)
   s = Squeeze (g, one)
   u = Transpose <perm = [1, 0, 2]> (s)
   y = MatMul (u, v)
}}"#
    )
}

#[test]
fn samples_run_one_by_one_where_a_batch_fails() {
    let baked = Case::new(&recurrent("batch"), &[6, 5, 16]);
    let stated = Case::new(&recurrent("1"), &[6, 5, 16]);
    let measured = |case: &Case, warns: bool| {
        let ran = case.quantize("int8_weights", &["--json", "--validate"]);
        let report = ran.json();
        let text = report.to_string();
        assert_eq!(text.matches("they ran one by one").count(), usize::from(warns), "{text}");
        assert!(!ran.error.contains("ERROR"), "{}", ran.error);
        let outputs = report["validate"]["outputs"].clone();
        assert!(outputs["y"]["sqnr_db"].is_number(), "{text}");
        outputs
    };
    assert_eq!(measured(&baked, true), measured(&stated, false));
}

/// In sequential mode layers see what the quantized ones before them compute: the weights of a
/// recurrent layer, too, which stay the second and third of its inputs.
#[test]
fn gptq_goes_through_recurrent_layers_in_order() {
    let case = Case::new(&recurrent("batch"), &[6, 5, 16]);
    let ran = case.quantize("int4_quality", &["--gate", "sqnr_db>=15"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
}

/// Boxes in pixels and scores of which most are near zero, in one output. Three channels of the hidden
/// layer are far larger than the others, and matter for boxes only. `shift` is added to scores.
fn detector(shift: f32) -> String {
    let values = |dims: &[usize], seed| noise(dims, seed).to_f32().unwrap();
    let list = |name: &str, dims: &str, values: &[f32]| {
        let list: Vec<String> = values.iter().map(|it| format!("{it:?}")).collect();
        format!("float[{dims}] {name} = {{{}}}", list.join(","))
    };
    let mut hidden = values(&[32, 48], 1);
    hidden.iter_mut().enumerate().filter(|it| it.0 % 48 < 3).for_each(|it| *it.1 *= 60.0);
    let mut scores = values(&[48, 6], 2);
    scores[..18].fill(0.0);
    let constants = [
        list("w", "32,48", &hidden),
        constant("wb", &[48, 6], 3),
        list("wc", "48,6", &scores),
        format!("float bias = {{{:?}}}, float pixels = {{300}}", shift - 6.0),
    ];
    let constants = constants.join(", ");
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,32] x) => (float[n,12] y) <{constants}> {{
   a = MatMul (x, w)
   h = Relu (a)
   b = MatMul (h, wb)
   boxes = Mul (b, pixels)
   c = MatMul (h, wc)
   d = Add (c, bias)
   scores = Sigmoid (d)
   y = Concat <axis = 1> (boxes, scores)
}}"#
    )
}

#[test]
fn the_worst_part_of_an_output_is_judged() {
    let case = Case::new(&detector(0.0), &[16, 32]);
    let other = case.place.write("other.onnxtxt", detector(0.3));
    let judged = |gate: &str| {
        let args =
            ["validate", &case.model, &other, "--data", &case.data, "--no-latency", "--gate"];
        run(&[&args[..], &[gate]].concat())
    };
    for passes in ["y[boxes]:sqnr_db>=90", "y[0:6]:sqnr_db>=90", "y[scores]:sqnr_db>=5"] {
        assert_eq!(judged(passes).code, 0, "{passes}");
    }
    for fails in ["y:sqnr_db>=40", "sqnr_db>=40", "y[6:12]:sqnr_db>=40", "y[scores]:sqnr_db>=40"] {
        let ran = judged(fails);
        assert_eq!(ran.code, 1, "{fails}: {}", ran.error);
        assert!(ran.out.contains("y[scores]"), "{fails}: {}", ran.out);
    }
    let unknown = judged("z[scores]:sqnr_db>=40");
    assert_eq!(unknown.code, 2, "{}", unknown.error);
    let nowhere = judged("y[nothing]:sqnr_db>=40");
    assert_eq!(nowhere.code, 1, "{}", nowhere.error);
}

#[test]
fn the_report_has_the_parts_of_an_output_everywhere() {
    let case = Case::new(&detector(0.0), &[16, 32]);
    let report = case.place.path("report");
    let ran = case.validate(&["--no-latency", "--report", &report]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert!(ran.out.contains("y[scores]"), "{}", ran.out);
    let read = |name: &str| std::fs::read_to_string(format!("{report}/{name}")).unwrap();
    let names = ["index.html", "report.md"].map(read);
    assert!(names.iter().all(|it| it.contains("join several quantities")));
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
    let part = &json["outputs"]["y[scores]"]["part"];
    assert_eq!(part, &serde_json::json!({"output": "y", "axis": 1, "from": 6, "to": 12}));
}

#[test]
fn activations_are_chosen_by_the_worst_part() {
    let case = Case::new(&detector(0.0), &[64, 32]);
    let ran = case.quantize("avx512_vnni_static", &["--json", "--validate"]);
    let report = ran.json();
    let db = |name: &str| report["validate"]["outputs"][name]["sqnr_db"].as_f64().unwrap();
    assert!(db("y") >= 20.0 && db("y[scores]") >= 20.0, "{} {}", db("y"), db("y[scores]"));
}
