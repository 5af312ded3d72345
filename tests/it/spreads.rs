//! How weights and activations of the worst layers are spread, and where quantized ranges end.

use onnxq_report::{
    Report,
    document::{LayerError, Spread, parse},
};

use crate::{
    common::{
        fixture,
        outside::{Place, run},
    },
    static_cnn::{data, network},
};

/// Layers with a picture of their weight.
fn layers(args: &[&str], place: &Place) -> Vec<LayerError> {
    let to = place.path("report");
    let said = run(&[&["validate"], args, &["--layers", "--report", &to]].concat());
    let path = std::path::Path::new(&to).join("report.json");
    let report: Report = parse(&std::fs::read(&path).expect(&said.error), &path).unwrap();
    let layers = report.attribution.unwrap().layers;
    layers.into_iter().filter(|layer| layer.weight_spread.is_some()).collect()
}

fn count(spread: &Spread) -> u64 {
    spread.histogram.counts.iter().sum()
}

#[test]
fn weights_of_a_language_model_are_on_the_grid_of_their_block() {
    let place = Place::new();
    let (model, output) = (fixture("model.onnx"), place.path("int4.onnx"));
    let model = model.to_str().unwrap();
    run(&["quantize", model, "-r", "int4", "-o", &output]);
    let ids = fixture("eval_ids.npy");
    let data = ["--data", ids.to_str().unwrap(), "--samples", "2"];
    let found = layers(&[&[model, &output][..], &data].concat(), &place);
    assert!(found.len() > 20, "{}", found.len());
    let products = found.iter().filter(|layer| layer.input_spread.is_some());
    let input = |layer: &LayerError| layer.input_spread.clone().unwrap();
    // Their activations stay in float.
    assert!(products.clone().all(|layer| input(layer).holds.is_none() && !input(layer).dynamic));
    assert!(products.count() > 20);
    for layer in &found {
        let weight = layer.weight_spread.as_ref().unwrap();
        assert_eq!(weight.unit, "grid", "{}", layer.node);
        assert!(weight.scale_per.as_ref().unwrap().starts_with("block of "), "{weight:?}");
        // Rounding to nearest chooses its scales by the largest number.
        assert!(weight.outside.unwrap() < 0.2, "{weight:?}");
    }
}

#[test]
fn ranges_of_a_static_network_are_those_of_its_file() {
    let place = Place::new();
    let model = onnxq_ir::text::parse(&network(17)).unwrap();
    let model = place.write("m.onnx", onnxq_ir::onnx::to_bytes(&model).unwrap());
    let [train, test] = [("train.npz", 1), ("test.npz", 2)].map(|it| data(&place, it.0, it.1));
    let output = place.path("static.onnx");
    let recipe = ["-r", "avx512_vnni_static", "--calibration", &train];
    run(&[&["quantize", &model, "-o", &output], &recipe[..]].concat());
    let found = layers(&[&model, &output, "--data", &test], &place);
    let with_range = found.iter().filter(|layer| {
        let input = layer.input_spread.as_ref();
        input.is_some_and(|input| input.holds.is_some_and(|held| held.low < held.high))
    });
    let list: Vec<&LayerError> = with_range.collect();
    assert!(!list.is_empty(), "{found:?}");
    for layer in list {
        let (weight, input) =
            (layer.weight_spread.as_ref().unwrap(), layer.input_spread.as_ref().unwrap());
        assert_eq!(weight.scale_per.as_deref(), Some("channel"));
        assert_eq!(weight.outside, Some(0.0));
        assert!(count(weight) > 0 && count(input) > 0, "{layer:?}");
        assert!(input.outside.unwrap() < 0.05, "{input:?}");
        assert_eq!(input.histogram.edges.len(), input.histogram.counts.len() + 1);
    }
}

#[test]
fn a_range_that_each_run_finds_is_said_to_be_so() {
    let place = Place::new();
    let (model, output) = (fixture("model.onnx"), place.path("int8.onnx"));
    let model = model.to_str().unwrap();
    let ids = fixture("eval_ids.npy");
    let data = ["--data", ids.to_str().unwrap(), "--samples", "1"];
    let quantize = ["quantize", model, "-r", "avx512_vnni", "-f", "-o", &output];
    run(&[&quantize[..], &["--set", "transforms=[]"]].concat());
    let found = layers(&[&[model, &output][..], &data].concat(), &place);
    let dynamic = found.iter().filter_map(|layer| layer.input_spread.as_ref());
    let dynamic: Vec<&Spread> = dynamic.filter(|input| input.dynamic).collect();
    assert!(found.iter().all(|layer| !layer.weight_spread.as_ref().unwrap().stored));
    assert!(dynamic.len() > 10 && dynamic.iter().all(|input| input.holds.is_none()), "{found:?}");
    // A rotation leaves no product of the original as it was.
    run(&quantize);
    let found = layers(&[&[model, &output][..], &data].concat(), &place);
    let moved = found.iter().filter(|layer| layer.weight_spread.as_ref().unwrap().stored);
    assert!(moved.clone().count() > 10 && moved.clone().all(|layer| layer.input_spread.is_none()));
}
