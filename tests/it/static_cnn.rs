//! Static recipes on a convolutional network, from outside and in ONNX Runtime.

use std::path::Path;

use crate::common::{
    arrays::{noise, npz},
    for_this_cpu,
    outside::{Place, run},
    relative_error, runtime,
};
use onnxq_ir::{onnx, tensor::Tensor};
use onnxq_run::engine::SessionOptions;
use serde_json::Value;

/// Two convolutions worth computing in int8, one that is not, one too small to store in int8, a
/// residual, a pool and a product.
pub(crate) fn network(opset: u32) -> String {
    let text = r#"<ir_version: 8, opset_import: ["" : OPSET]>
        main (float[n,3,12,12] x) => (float[n,10] y) <
            float[3,3,1,1] colours, float[24,3,3,3] stem, float[24] stem_bias, float[24,24,3,3] first, float[24] bias,
            float[24,24,3,3] second, float[24,10] head, float[10] head_bias
        > {
            z = Conv (x, colours)
            s = Conv <pads = [1,1,1,1]> (z, stem, stem_bias)
            t = Relu (s)
            a = Conv <pads = [1,1,1,1]> (t, first, bias)
            b = Relu (a)
            c = Conv <pads = [1,1,1,1]> (b, second)
            d = Add (c, t)
            e = Relu (d)
            p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (e)
            g = GlobalAveragePool (p)
            f = Flatten (g)
            y = Gemm (f, head, head_bias)
        }"#;
    text.replace("OPSET", &opset.to_string())
}

const SAMPLES: usize = 6;

pub(crate) fn data(place: &Place, name: &str, seed: u64) -> String {
    place.write(name, npz(&[("x", noise(&[SAMPLES, 3, 12, 12], seed))]))
}

/// What `quantize` says.
fn quantize(place: &Place, opset: u32, recipe: &str, output: &str) -> Value {
    let model = place.write("m.onnxtxt", network(opset));
    let calibration = data(place, "train.npz", 1);
    let output = place.path(output);
    let args = ["quantize", &model, "-r", recipe, "-f", "-o", &output, "--json"];
    run(&[&args[..], &["--calibration", &calibration]].concat()).json()["quantize"].clone()
}

/// `y` for other data.
fn outputs(path: &str) -> Tensor {
    let mut session = runtime().open(Path::new(path), &SessionOptions::default()).unwrap();
    let x = noise(&[SAMPLES, 3, 12, 12], 2);
    session.run(&[("x", &x)]).unwrap().remove(0).1
}

/// The operators of the file, with the domain of all but the standard ones.
fn ops(path: &str) -> Vec<String> {
    let m = onnx::open(Path::new(path), &Default::default()).unwrap().model;
    m.nodes().into_iter().map(|it| m.node(it).op.to_string()).collect()
}

fn row<'a>(it: &'a Value, node: &str) -> &'a Value {
    let rows = it["nodes"].as_array().unwrap();
    rows.iter().find(|it| it["node"].as_str().unwrap().ends_with(node)).unwrap()
}

#[test]
fn both_forms_agree_within_one_step() {
    let place = Place::new();
    let base = for_this_cpu("avx512_vnni_static");
    let form = |name: &str| {
        let text = format!(
            "onnxq: 1\nname: {name}\nextends: {base}\nquantize:\n  \
             - ops: [Gemm, MatMul]\n    format: [{name}]\n  \
             - ops: [Conv]\n    min_intensity: 90\n    format: [{name}]\n"
        );
        let recipe = place.write(&format!("{name}.yaml"), text);
        let output = format!("{name}.onnx");
        quantize(&place, 17, &recipe, &output);
        place.path(&output)
    };
    let (qdq, qoperator) = (form("qdq"), form("qoperator"));
    let has = |path: &str, op: &str| ops(path).iter().any(|it| it == op);
    assert!(has(&qdq, "Conv") && !has(&qdq, "QLinearConv"), "{:?}", ops(&qdq));
    assert!(has(&qoperator, "QLinearConv"), "{:?}", ops(&qoperator));
    assert!(has(&qoperator, "com.microsoft.QLinearAdd"), "{:?}", ops(&qoperator));
    let (a, b) = (outputs(&qdq).to_f32().unwrap(), outputs(&qoperator).to_f32().unwrap());
    // 255 steps span the output.
    let (lo, hi) = a.iter().fold((0f32, 0f32), |(lo, hi), it| (lo.min(*it), hi.max(*it)));
    let step = (hi - lo) / 255.0;
    for (a, b) in a.iter().zip(b.iter()) {
        assert!((a - b).abs() <= 1.001 * step, "{a} and {b} are more than {step} apart");
    }
}

#[test]
fn an_old_operator_set_is_raised_and_reasons_are_given() {
    let place = Place::new();
    let it = quantize(&place, 12, "avx512_vnni_static", "q.onnx");
    let path = place.path("q.onnx");
    let written = onnx::open(Path::new(&path), &Default::default()).unwrap().model;
    assert!(written.opset("") >= 13, "{}", written.opset(""));
    let original = place.write("m.onnx", onnx::to_bytes(&parsed(12)).unwrap());
    let error = relative_error(&outputs(&original), &outputs(&path));
    assert!(error < 0.1, "{error}");
    // The stem computes too little for int8.
    let stem = row(&it, "s");
    assert_eq!(stem["format"], "stored", "{stem}");
    assert!(stem["note"].as_str().unwrap().contains("int8 is no faster"), "{stem}");
    for node in it["nodes"].as_array().unwrap() {
        let told = node["format"].is_string() || node["kept"].is_string() || node["weight"] == "";
        assert!(told, "{node}");
    }
}

#[test]
fn recipes_of_other_devices_take_the_same_network() {
    let place = Place::new();
    for recipe in ["avx2_static", "arm64_static"] {
        let it = quantize(&place, 17, recipe, &format!("{recipe}.onnx"));
        assert!(row(&it, "z")["kept"].as_str().unwrap().contains("fewer than"), "{recipe}: {it}");
    }
}

fn parsed(opset: u32) -> onnxq_ir::Model {
    onnxq_ir::text::parse(&network(opset)).unwrap()
}

#[test]
fn the_order_of_images_changes_no_byte() {
    let place = Place::new();
    let model = place.write("m.onnxtxt", network(17));
    let all = noise(&[SAMPLES, 3, 12, 12], 1);
    let values = all.to_f32().unwrap();
    let backwards = values.chunks_exact(3 * 12 * 12).rev().flatten().copied();
    let backwards = Tensor::from_f32(&all.shape, backwards);
    let mut files = Vec::new();
    for (name, data, threads) in [("a", all.clone(), "1"), ("b", backwards, "2")] {
        let calibration = place.write(&format!("{name}.npz"), npz(&[("x", data)]));
        let output = place.path(&format!("{name}.onnx"));
        let args = ["quantize", &model, "-r", "avx512_vnni_static", "-o", &output];
        let it = run(&[&args[..], &["--calibration", &calibration, "--threads", threads]].concat());
        assert_eq!(it.code, 0, "{}", it.error);
        files.push(std::fs::read(&output).unwrap());
    }
    assert!(files[0] == files[1], "the order of images changes the result");
}

/// Weights of convolutions are rounded by what their patches are, whether the layers before are
/// quantized already or not; by any number of threads.
#[test]
fn data_rounds_kernels() {
    let place = Place::new();
    let model = onnxq_ir::text::parse(&network(17)).unwrap();
    let float = place.write("m.onnx", onnx::to_bytes(&model).unwrap());
    let error = |solver: &str, sequential: bool| {
        let text = format!(
            "onnxq: 1\nname: stored\ncalibration: {{sequential: {sequential}}}\nquantize:\n  - ops: [Conv]\n    \
             weight: {{dtype: int8, symmetric: true, granularity: channel, solver: {solver}}}\n    \
             activation: none\n    format: [stored]\n"
        );
        let recipe = place.write("r.yaml", text);
        quantize(&place, 17, &recipe, "q.onnx");
        relative_error(&outputs(&float), &outputs(&place.path("q.onnx")))
    };
    let rounded = error("rtn", false);
    for (sequential, most) in [(false, 0.75), (true, 0.95)] {
        let solved = error("gptq", sequential);
        assert!(solved < most * rounded, "{sequential}: {solved} is not much less than {rounded}");
    }
}

/// Second moments grow with the square of a patch: wide ones are rounded without, and it is said.
#[test]
fn the_widest_patches_are_not_related() {
    let place = Place::new();
    let model = place.write(
        "m.onnxtxt",
        "<ir_version: 8, opset_import: [\"\" : 17]> main (float[n,576,3,3] x) => (float[n,4,1,1] y)
         <float[4,576,3,3] w> { y = Conv (x, w) }",
    );
    let calibration = place.write("x.npz", npz(&[("x", noise(&[2, 576, 3, 3], 1))]));
    let text = "onnxq: 1\nname: wide\nquantize:\n  - ops: [Conv]\n    weight: {dtype: int8, \
                symmetric: true, granularity: channel, solver: gptq}\n    activation: none\n    \
                format: [stored]\n";
    let (recipe, output) = (place.write("r.yaml", text), place.path("q.onnx"));
    let args = ["quantize", &model, "-r", &recipe, "-o", &output, "--json"];
    let json = run(&[&args[..], &["--calibration", &calibration]].concat()).json();
    let note = json["quantize"]["nodes"][0]["note"].to_string();
    assert!(note.contains("its patches have 5184 values, too many to relate"), "{note}");
}
