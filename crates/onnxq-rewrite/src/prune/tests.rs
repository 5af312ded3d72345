//! What is refused, and why. Whole models are in `tests/it/prune.rs`.

use super::*;
use crate::testing::Builder;
use onnxq_ir::{Attrs, diag::Diagnostic, tensor::DType};

/// Two tokens of width 2, and products that keep the width.
struct Layers {
    b: Builder,
    stream: ValueId,
}

impl Layers {
    fn new() -> Layers {
        let mut b = Builder::new();
        let stream = b.input("x", "1,t,2");
        Layers { b, stream }
    }

    fn product(&mut self, x: ValueId) -> ValueId {
        let weight = self.b.floats("w", &[2, 2], &[1., 2., 3., 4.]);
        self.b.node("MatMul", &[x, weight])
    }

    /// `softmax(x xᵀ) x`, as an exporter writes it.
    fn attention(&mut self) -> ValueId {
        let x = self.product(self.stream);
        let turned = Attrs::default().with("perm", vec![0i64, 2, 1]);
        let turned = self.b.node_with("Transpose", &[x], turned);
        let scores = self.b.node("MatMul", &[x, turned]);
        let weights = self.b.node_with("Softmax", &[scores], Attrs::default().with("axis", -1i64));
        self.b.node("MatMul", &[weights, x])
    }

    fn block(&mut self) -> ValueId {
        let x = self.product(self.stream);
        let x = self.b.node("Relu", &[x]);
        self.product(x)
    }

    fn add(&mut self, term: ValueId) -> ValueId {
        self.stream = self.b.node("Add", &[self.stream, term]);
        self.stream
    }

    fn layer(&mut self) -> ValueId {
        let attention = self.attention();
        self.add(attention);
        let block = self.block();
        self.add(block)
    }

    fn done(mut self) -> Model {
        let (y, name) = (self.stream, "y");
        self.b.output(y, name);
        self.b.model
    }
}

fn reason(model: &Model) -> String {
    let error = layers(model).unwrap_err();
    assert_eq!(error.code(), Code::E412);
    error.to_string()
}

#[test]
fn pairs_of_sums_are_layers() {
    let mut made = Layers::new();
    let ends = [made.layer(), made.layer(), made.layer()];
    let mut model = made.done();
    let found = layers(&model).unwrap();
    assert_eq!(found.iter().map(|it| it.output).collect::<Vec<_>>(), ends);
    remove_layers(&mut model, &[0, 2]).unwrap();
    model.verify().unwrap();
    let [only] = &layers(&model).unwrap()[..] else { panic!("one layer") };
    let names = [only.input, only.output].map(|it| model.value(it).name.to_string());
    assert_eq!(names, ["x", "y"]);
    assert_eq!(remove_layers(&mut model, &[0]), Err(PruneError::All { count: 1 }));
}

#[test]
fn attention_and_block_beside_each_other_are_a_layer() {
    for nested in [false, true] {
        let mut made = Layers::new();
        for _ in 0..2 {
            let (attention, block) = (made.attention(), made.block());
            match nested {
                false => {
                    let both = made.b.node("Add", &[attention, block]);
                    made.add(both);
                }
                true => {
                    made.add(attention);
                    made.add(block);
                }
            }
        }
        let mut model = made.done();
        assert_eq!(layers(&model).unwrap().len(), 2, "{nested}");
        assert_eq!(feed_forward(&model, 1).unwrap().width, 2);
        remove_layers(&mut model, &[0]).unwrap();
        assert_eq!(layers(&model).unwrap().len(), 1);
    }
}

#[test]
fn models_without_layers_say_why() {
    assert!(reason(&Model::empty()).contains("no sum adds an attention"));
    let mut made = Layers::new();
    let block = made.block();
    made.add(block);
    assert!(reason(&made.done()).contains("no sum adds an attention"));
    let mut made = Layers::new();
    made.layer();
    let attention = made.attention();
    made.add(attention);
    assert!(reason(&made.done()).contains("1 sums follow each other"));
    let mut made = Layers::new();
    let block = made.block();
    made.add(block);
    made.layer();
    assert!(reason(&made.done()).contains("before any attention"));
    let mut made = Layers::new();
    let scale = made.b.floats("s", &[2], &[1., 1.]);
    let op = "com.microsoft.SkipSimplifiedLayerNormalization";
    made.stream = made.b.node(op, &[made.stream, made.stream, scale]);
    assert!(reason(&made.done()).contains("residual sum fused into it"));
}

#[test]
fn what_reads_two_layers_stands_against_it() {
    let mut made = Layers::new();
    made.layer();
    let inner = made.attention();
    made.add(inner);
    let block = made.block();
    made.add(block);
    let block = made.block();
    let joined = made.b.node("Mul", &[block, inner]);
    let y = made.b.node("Relu", &[joined]);
    made.b.output(y, "z");
    assert!(layers(&made.done()).is_err());
    let mut made = Layers::new();
    let first = made.layer();
    made.b.output(first, "hidden");
    made.layer();
    let mut model = made.done();
    let error = remove_layers(&mut model, &[0]).unwrap_err();
    assert!(error.to_string().contains("the output `hidden` of the model"), "{error}");
    remove_layers(&mut model, &[1]).unwrap();
    model.verify().unwrap();
}

#[test]
fn channels_that_mix_are_not_taken_apart() {
    let mix = |op: &str, attrs: Attrs| {
        let mut made = Layers::new();
        let attention = made.attention();
        made.add(attention);
        let x = made.product(made.stream);
        let x = made.b.node_with(op, &[x], attrs);
        let x = made.product(x);
        made.add(x);
        feed_forward(&made.done(), 0).map(|it| it.width)
    };
    assert_eq!(mix("Sigmoid", Attrs::default()), Ok(2));
    let error = mix("Softmax", Attrs::default()).unwrap_err();
    assert!(error.to_string().contains("mixes hidden channels"), "{error}");
    assert!(mix("Cast", Attrs::default().with("to", i64::from(DType::F32.number()))).is_ok());
}

#[test]
fn what_something_else_reads_is_not_narrowed() {
    let mut made = Layers::new();
    let attention = made.attention();
    made.add(attention);
    let inner = made.product(made.stream);
    let block = made.product(inner);
    made.add(block);
    made.b.output(inner, "inner");
    let error = feed_forward(&made.done(), 0).unwrap_err();
    assert!(error.to_string().contains("`inner` has other uses"), "{error}");
}

/// What would take the square of its length if nothing bounded it.
#[test]
fn long_models_without_layers_are_refused_soon() {
    let mut made = Layers::new();
    let first = made.stream;
    let mut nested = made.product(first);
    for at in 0..1500 {
        nested = match at % 2 {
            0 => made.b.node("Relu", &[nested]),
            _ => made.b.node("Add", &[first, nested]),
        };
    }
    for _ in 0..1500 {
        nested = made.b.node("Add", &[nested, nested]);
        let other = made.b.node("Neg", &[first]);
        nested = made.b.node("Add", &[nested, other]);
    }
    made.stream = nested;
    assert!(reason(&made.done()).contains("no sum adds an attention"));
}
