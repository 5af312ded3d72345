//! Names of dimensions that the data disproves.

use crate::{
    common::{
        arrays::{noise, npz},
        outside::{Place, Run, run},
    },
    odd_outputs::constant,
};

/// Both inputs call their second dimension `N`. ONNX Runtime takes the memory of `r` for `l`, as if
/// they were equally large, and fails.
fn model(use_of_q: &str) -> String {
    let constants = [constant("w", &[32, 32], 1), constant("v", &[32, 32], 2)].join(", ");
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[b,N,32] q, float[b,N,32] k) => (float[b,M,32] y) <{constants}> {{
   p = MatMul (q, w)
   a = Relu (p)
   r = Add (a, a)
   {use_of_q}
   l = Sub (k, m)
   y = MatMul (l, v)
}}"#
    )
}

const MEAN: &str = "m = ReduceMean <axes = [1], keepdims = 1> (r)";

struct Case {
    place: Place,
    model: String,
    data: String,
}

impl Case {
    fn new(model: &str, [q, k]: [usize; 2]) -> Case {
        let place = Place::new();
        let model = place.write("m.onnxtxt", model);
        let arrays = [("q", noise(&[8, q, 32], 3)), ("k", noise(&[8, k, 32], 4))];
        let data = place.write("x.npz", npz(&arrays));
        Case { place, model, data }
    }

    fn run(&self, command: &str, more: &[&str]) -> Run {
        run(&[&[command, &self.model], more].concat())
    }
}

const SAID: &str =
    "the name `N` of a dimension is not true and is forgotten: it is 5 in one input and 9 in `k`";

#[test]
fn a_name_that_is_not_true_is_forgotten_and_not_written() {
    let case = Case::new(&model(MEAN), [5, 9]);
    for recipe in ["avx512_vnni", "avx512_vnni_static", "int4_quality"] {
        let output = case.place.path(&format!("{recipe}.onnx"));
        let data = ["--calibration", &case.data, "--validate", "--data", &case.data];
        let args = ["-r", recipe, "-o", &output, "--no-latency", "--gate", "sqnr_db>=10"];
        let ran = case.run("quantize", &[&args[..], &data].concat());
        assert_eq!(ran.code, 0, "{recipe}: {}", ran.error);
        assert!(ran.error.contains(SAID) && ran.out.contains(SAID), "{}", ran.error);
        assert_eq!(ran.out.matches("W214").count(), 1, "{}", ran.out);
        // Both inputs may have any size now, so that this one says nothing any more.
        let ran = run(&["validate", &output, &output, "--data", &case.data, "--no-latency"]);
        assert_eq!(ran.code, 0, "{recipe}: {}", ran.error);
        assert!(!ran.out.contains("W214"), "{}", ran.out);
    }
}

#[test]
fn conversions_with_data_forget_it_too() {
    let case = Case::new(&model(MEAN), [5, 9]);
    let output = case.place.path("half.onnx");
    let args = ["--to", "float16", "--keep-io", "-o", &output, "--calibration", &case.data];
    let ran = case.run("convert", &args);
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert!(ran.error.contains(SAID), "{}", ran.error);
    let ran = case.run("validate", &[&output, "--data", &case.data, "--layers", "--no-latency"]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert!(ran.out.contains(SAID), "{}", ran.out);
    let stats = case.place.path("stats.safetensors");
    let args = ["-r", "int4_quality", "--data", &case.data, "-o", &stats];
    let ran = case.run("calibrate", &args);
    assert_eq!(ran.code, 0, "{}", ran.error);
}

/// Names are true here: what has other sizes is no data for this model.
#[test]
fn data_that_the_model_does_not_take_is_an_error() {
    let case = Case::new(&model("m = Add (r, k)"), [5, 9]);
    let ran = case.run("validate", &[&case.model, "--data", &case.data]);
    assert_eq!(ran.code, 3, "{}", ran.error);
    assert!(ran.error.contains("E603") && ran.error.contains("`N`"), "{}", ran.error);
}
