//! What holds for every step: it keeps the values, the interface and the invariants.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{STANDARD, run, steps, testing::Builder};
use onnxq_ir::{Attrs, Model, ValueId, ctx::Ctx, eval, tensor::Tensor};

const SIZE: usize = 2;

proptest! {
    /// Values are small integers, so that every order of summation gives the same floats.
    #[test]
    fn steps_keep_what_a_model_computes(choices in proptest::collection::vec(any::<[u8; 4]>(), 1..24)) {
        let model = model(&choices);
        let before = outputs(&model);
        for it in steps() {
            let mut model = model.clone();
            run(&mut model, &[it.name()], &Ctx::silent()).unwrap();
            model.verify().unwrap();
            prop_assert_eq!(&outputs(&model), &before, "{}", it.name());
        }
        let mut model = model;
        run(&mut model, STANDARD, &Ctx::silent()).unwrap();
        model.verify().unwrap();
        prop_assert_eq!(&outputs(&model), &before);
    }
}

/// A graph of square matrices: each choice is a node, or a constant.
fn model(choices: &[[u8; 4]]) -> Model {
    let mut b = Builder::new();
    let mut values = vec![b.input("x", "2,2"), b.floats("c", &[SIZE, SIZE], &[1., 0., 2., -1.])];
    let off = b.constant("off", Tensor::new(onnxq_ir::tensor::DType::Bool, vec![], vec![0u8]));
    let ratio = b.floats("ratio", &[], &[0.5]);
    for &[op, a, c, flags] in choices {
        let (a, c) = (values[a as usize % values.len()], values[c as usize % values.len()]);
        let new = node(&mut b, op, [a, c], flags, [ratio, off]);
        values.push(new);
    }
    let last = values.len() - 1;
    for at in [last, last / 2] {
        // Inputs, constants and outputs have names of their own.
        let y = b.node("Identity", &[values[at]]);
        b.output(y, &format!("y{at}"));
    }
    let it = values[last];
    if last > 1
        && b.model.value(it).uses.len() > 1
        && matches!(b.model.value(it).def, onnxq_ir::Def::Node(_))
    {
        b.output(it, "also");
    }
    b.model
}

fn node(
    b: &mut Builder,
    op: u8,
    [a, c]: [ValueId; 2],
    flags: u8,
    dropout: [ValueId; 2],
) -> ValueId {
    let bit = |at: u8| i64::from(flags >> at & 1);
    let square = Tensor::from_f32(&[SIZE, SIZE], (0..4).map(|it| f32::from(flags >> it & 3) - 1.0));
    match op % 10 {
        0 => b.constant("w", square),
        1 => b.node_with("Constant", &[], Attrs::default().with("value", square)),
        2 => b.node("Identity", &[a]),
        3 => b.node("Dropout", &[a, dropout[0], dropout[1]]),
        4 => {
            b.node_with("Transpose", &[a], Attrs::default().with("perm", vec![bit(0), 1 - bit(0)]))
        }
        5 => b.node_with("Cast", &[a], Attrs::default().with("to", 1i64)),
        6 => b.node("Sub", &[a, c]),
        7 => {
            // Keeps numbers small: Gemm is the only product.
            let a = b.node("Sign", &[a]);
            let w = b.constant("w", square);
            let attrs = Attrs::default().with("transA", bit(0)).with("transB", bit(1));
            let attrs = attrs.with("alpha", 1.0 + bit(2) as f32).with("beta", bit(3) as f32 * 2.0);
            let c = b.node("Sign", &[c]);
            b.node_with("Gemm", &[a, w, c], attrs)
        }
        8 => {
            let sum = b.node("Add", &[a, c]);
            let mean = b.node_with("ReduceMax", &[sum], Attrs::default().with("axes", vec![-1]));
            b.node("Sub", &[sum, mean])
        }
        _ => b.node("Relu", &[a]),
    }
}

fn outputs(model: &Model) -> BTreeMap<String, Vec<f32>> {
    let x = Tensor::from_f32(&[SIZE, SIZE], [3., -2., 0., 5.]);
    let outputs = eval::run(model, &BTreeMap::from([("x".to_owned(), x)])).unwrap();
    outputs.into_iter().map(|(name, it)| (name, it.to_f32().unwrap())).collect()
}
