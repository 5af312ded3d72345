//! A file may hold its nodes in any valid order, as tools leave it that sort a graph anew.

use onnxq_ir::{Model, ctx::Ctx, onnx};
use onnxq_quant::recipe;
use onnxq_rewrite as rewrite;

use crate::common::{
    FIXTURES, fixture, quantized,
    shuffle::{shuffle, structure},
};

fn prepared(mut model: Model) -> Model {
    rewrite::run(&mut model, rewrite::STANDARD, &Ctx::silent()).unwrap();
    model.verify().unwrap();
    model
}

fn shuffled(model: &Model, seed: u64) -> Model {
    let mut other = model.clone();
    shuffle(&mut other, seed);
    other
}

#[test]
fn three_exports_are_prepared_alike_in_20_orders() {
    for name in FIXTURES {
        let model = onnx::open(&fixture(name), &Default::default()).unwrap().model;
        let expected = structure(&prepared(model.clone()));
        for seed in 0..20 {
            let actual = structure(&prepared(shuffled(&model, seed)));
            assert_eq!(actual, expected, "{name} in order {seed}");
        }
    }
}

#[test]
fn every_way_to_store_weights_is_the_same_in_any_order() {
    let model = onnx::open(&fixture(FIXTURES[0]), &Default::default()).unwrap().model;
    for name in ["avx512_vnni", "avx2", "int4", "int8_weights"] {
        let recipe = recipe::load(name).unwrap();
        let expected = structure(&quantized(&model, &recipe));
        for seed in 0..3 {
            let actual = structure(&quantized(&shuffled(&model, seed), &recipe));
            assert_eq!(actual, expected, "{name} in order {seed}");
        }
    }
}
