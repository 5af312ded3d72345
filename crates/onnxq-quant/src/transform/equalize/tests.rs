//! Equalization keeps the float function, levels ranges, and says where it could not.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use onnxq_ir::ctx::Ctx;
use onnxq_rewrite as rewrite;

fn model(text: &str) -> Model {
    let mut m = onnxq_ir::text::parse(text).unwrap();
    rewrite::run(&mut m, &["infer-types"], &Ctx::silent()).unwrap();
    m
}

/// Outputs for a fixed input `x` of `[1, 4, 7, 7]`, or of `[7, 28]` elements in another shape.
fn outputs(m: &Model, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|it| ((it * 7 % 11) as f32 - 5.0) / 3.0);
    let x = Tensor::from_f32(shape, values);
    let outputs = onnxq_ir::eval::run(m, &BTreeMap::from([("x".to_owned(), x)])).unwrap();
    outputs.values().flat_map(|it| it.to_f32().unwrap()).collect()
}

/// Values of both signs, whose channels along the first axis differ by up to a factor of 50.
fn uneven(seed: usize, shape: &[usize]) -> String {
    let per = shape[1..].iter().product::<usize>().max(1);
    let value = |it: usize| {
        let channel = it / per;
        let size = [1.0, 0.02, 0.3, 0.9, 0.05][(channel + seed) % 5];
        size * (((it * 37 + seed * 11) % 23) as f32 / 11.5 - 0.97)
    };
    let values: Vec<String> =
        (0..shape.iter().product()).map(|it| format!("{:?}", value(it))).collect();
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let name = format!("w{seed}");
    format!("float[{}] {name} = {{{}}}", dims.join(","), values.join(", "))
}

/// Equalizes; what the model computes must not change. Says the pairs by their widest channels.
#[track_caller]
fn evens(text: &str, shape: &[usize]) -> Equalized {
    let mut m = model(text);
    let before = outputs(&m, shape);
    let done = Equalize::default().apply(&mut m).unwrap();
    m.verify().unwrap();
    let after = outputs(&m, shape);
    assert_eq!(before.len(), after.len());
    let size = before.iter().fold(0f32, |max, it| max.max(it.abs()));
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() <= 1e-5 * size, "{a} became {b} of {size}");
    }
    done
}

fn graph(shape: &str, constants: &[String], nodes: &str) -> String {
    let constants = constants.join(", ");
    format!("main (float[{shape}] x) => (float[n,c,h,w] y) <{constants}> {{ {nodes} }}")
}

#[test]
fn both_sides_of_a_pair_get_one_range() {
    let constants = [uneven(1, &[6, 4, 3, 3]), uneven(2, &[6]), uneven(3, &[5, 6, 1, 1])];
    let text = graph("1,4,7,7", &constants, "a = Conv (x, w1, w2) b = Relu (a) y = Conv (b, w3)");
    let done = evens(&text, &[1, 4, 7, 7]);
    assert_eq!(done.pairs.len(), 1);
    assert!(done.pairs[0].before > 3.0 && done.pairs[0].after < done.pairs[0].before, "{done:?}");
    let mut m = model(&text);
    Equalize::default().apply(&mut m).unwrap();
    let Pairs { layers, pairs, .. } = Pairs::find(&m);
    let range = |node, side| layers[&node].ranges(&m, side, &[1.0; 6]).unwrap();
    let (first, second) =
        (range(pairs[0].first, Side::Outputs), range(pairs[0].second, Side::Inputs));
    for (a, b) in first.iter().zip(&second) {
        assert!((a / b - 1.0).abs() < 1e-5, "{first:?} {second:?}");
    }
    // Twice is once.
    let done = Equalize::default().apply(&mut m).unwrap();
    assert!((done.pairs[0].before / done.pairs[0].after - 1.0).abs() < 1e-4, "{done:?}");
    assert!(done.describe().starts_with("1 pair of layers: widest channel ×"));
}

#[test]
fn a_depthwise_convolution_between_two_others_is_level_with_both() {
    let constants = [
        uneven(1, &[6, 4, 1, 1]),
        uneven(2, &[6]),
        uneven(3, &[6, 1, 3, 3]),
        uneven(4, &[6]),
        uneven(5, &[5, 6, 1, 1]),
    ];
    let nodes = "a = Conv (x, w1, w2) b = Relu (a) c = Conv <group = 6> (b, w3, w4)
                 d = LeakyRelu (c) y = Conv (d, w5)";
    let text = graph("1,4,7,7", &constants, nodes);
    assert_eq!(evens(&text, &[1, 4, 7, 7]).pairs.len(), 2);
    let mut m = model(&text);
    Equalize::default().apply(&mut m).unwrap();
    let Pairs { layers, pairs, .. } = Pairs::find(&m);
    let range = |node, side| layers[&node].ranges(&m, side, &[1.0; 6]).unwrap();
    let first = range(pairs[0].first, Side::Outputs);
    let last = range(pairs[1].second, Side::Inputs);
    let middle = range(pairs[0].second, Side::Outputs);
    for ((a, b), c) in first.iter().zip(&middle).zip(&last) {
        assert!((a / b - 1.0).abs() < 0.02 && (c / b - 1.0).abs() < 0.02, "{a} {b} {c}");
    }
}

#[test]
fn every_way_from_a_layer_to_the_next() {
    for between in [
        "b = Identity (a)",
        "b = PRelu (a, slope)",
        "b = Clip (a, zero)",
        "b = MaxPool <kernel_shape = [2, 2]> (a)",
        "b = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (a)",
        "r = Relu (a) b = GlobalAveragePool (r)",
        "s = Add (a, bias) b = Relu (s)",
        "s = Mul (half, a) t = Div (s, half) b = Relu (t)",
    ] {
        let constants = [
            uneven(1, &[6, 4, 3, 3]),
            uneven(2, &[5, 6, 1, 1]),
            "float[1] slope = {0.3}, float zero = {0}, float[6,1,1] bias, float half = {0.5}"
                .into(),
        ];
        let nodes = format!("a = Conv (x, w1) {between} y = Conv (b, w2)");
        let done = evens(&graph("1,4,7,7", &constants, &nodes), &[1, 4, 7, 7]);
        assert_eq!(done.pairs.len(), 1, "{between}: {done:?}");
    }
}

#[test]
fn matrices_and_transposed_convolutions() {
    let constants = [uneven(1, &[4, 6]), uneven(2, &[6, 5]), "float[6] bias".into()];
    let nodes = "a = MatMul (x, w1) b = Add (bias, a) r = Relu (b) y = MatMul (r, w2)";
    let text =
        format!("main (float[3,4] x) => (float[3,5] y) <{}> {{ {nodes} }}", constants.join(", "));
    assert_eq!(evens(&text, &[3, 4]).pairs.len(), 1);
    let constants = [
        uneven(1, &[4, 3, 2, 2]),
        uneven(2, &[6]),
        uneven(3, &[6, 2, 2, 2]),
        uneven(4, &[5, 4, 1, 1]),
    ];
    let nodes = "a = ConvTranspose <group = 2> (x, w1, w2) b = Relu (a)
                 c = ConvTranspose <group = 2> (b, w3) y = Conv (c, w4)";
    let done = evens(&graph("1,4,3,3", &constants, nodes), &[1, 4, 3, 3]);
    assert_eq!(done.pairs.len(), 2, "{done:?}");
}

#[test]
fn what_cannot_be_equalized_says_why() {
    let check = |nodes: &str, reason: &str| {
        let constants = "float[4,4,1,1] v, float[4,4,1,1] w, float[4] b, float six = {6},
            float zero = {0}, float[1,1,1,7] wide";
        let mut m = model(&graph("1,4,7,7", &[constants.into()], nodes));
        let done = Equalize::default().apply(&mut m).unwrap();
        assert!(done.pairs.is_empty(), "{done:?}");
        assert_eq!(done.describe(), "no pair of layers: nothing to equalize");
        let reasons: Vec<String> = done.missed.iter().map(|it| it.1.to_string()).collect();
        assert_eq!(reasons.last().map(String::as_str), Some(reason), "{nodes}");
    };
    check("y = Conv (x, w)", "`x` is not computed by a layer");
    check(
        "a = Conv (x, v) b = HardSwish (a) y = Conv (b, w)",
        "its input comes through HardSwish, which no scale passes",
    );
    check(
        "a = Conv (x, v) b = Clip (a, zero, six) y = Conv (b, w)",
        "Clip → b clips at values other than zero",
    );
    check("a = Conv (x, v) b = Conv (a, w) y = Add (a, b)", "`a` has other uses");
    check("a = Conv (x, v) b = Add (a, x) y = Conv (b, w)", "Add → b adds two activations");
    check(
        "a = Conv (x, v) b = Add (a, wide) y = Conv (b, w)",
        "`wide` (float[1, 1, 1, 7]) is no number per channel",
    );
    check("a = Conv (x, v) y = Conv (a, v)", "its weight `v` is used elsewhere too");
    check("a = Relu (x) y = Conv (a, w)", "`x` is not computed by a layer");
    check(
        "a = Conv (x, v) y = MatMul (a, wide2)".replace("wide2", "x").as_str(),
        "`x` is not computed by a layer",
    );
}

#[test]
fn channels_that_are_zero_stay_so() {
    let text = "main (float[1,1,2,2] x) => (float[1,1,2,2] y)
        <float[2,1,1,1] v = {0, 8}, float[2] b = {3, 1}, float[1,2,1,1] w = {5, 0.125}>
        { a = Conv (x, v, b) r = Relu (a) y = Conv (r, w) }";
    let mut m = model(text);
    let before = outputs(&m, &[1, 1, 2, 2]);
    Equalize::default().apply(&mut m).unwrap();
    assert_eq!(outputs(&m, &[1, 1, 2, 2]), before);
    let weights: Vec<Vec<f32>> = m
        .nodes()
        .into_iter()
        .filter_map(|it| m.constant(m.operand(it, 1).ok()?).ok()?.to_f32().ok())
        .collect();
    assert_eq!(weights, [[0.0, 1.0], [5.0, 1.0]]);
}

/// A region of convolutions: `(outputs, groups, kernel, activation, bias)` each.
fn region(layers: &[(usize, bool, usize, usize, bool)]) -> String {
    let (mut channels, mut constants, mut nodes) = (4, Vec::new(), String::new());
    let mut value = "x".to_owned();
    for (at, &(outputs, depthwise, kernel, activation, bias)) in layers.iter().enumerate() {
        let (outputs, groups) = if depthwise { (channels, channels) } else { (outputs * 2, 2) };
        let weight = 2 * at + 1;
        constants.push(uneven(weight, &[outputs, channels / groups, kernel, kernel]));
        let mut inputs = format!("{value}, w{weight}");
        if bias {
            constants.push(uneven(weight + 1, &[outputs]));
            write!(inputs, ", w{}", weight + 1).unwrap();
        }
        let pads = "pads = [1, 1, 1, 1]";
        writeln!(nodes, "c{at} = Conv <group = {groups}, {pads}> ({inputs})").unwrap();
        let function = ["Relu", "LeakyRelu", "Identity", "Sigmoid"][activation];
        writeln!(nodes, "a{at} = {function} (c{at})").unwrap();
        (channels, value) = (outputs, format!("a{at}"));
    }
    write!(nodes, "y = Identity ({value})").unwrap();
    graph("1,4,7,7", &constants, &nodes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
    #[test]
    fn chains_of_convolutions_compute_the_same(
        layers in proptest::collection::vec(
            (1usize..4, any::<bool>(), 1usize..4, 0usize..4, any::<bool>()), 2..6),
    ) {
        let done = evens(&region(&layers), &[1, 4, 7, 7]);
        let passing = layers[..layers.len() - 1].iter().filter(|it| it.3 < 3).count();
        prop_assert_eq!(done.pairs.len(), passing);
        for it in &done.pairs {
            prop_assert!(it.before.is_finite() && it.after >= 1.0);
        }
    }
}
