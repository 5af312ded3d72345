//! Rotation keeps the float function of whole models, and says why it leaves others alone.

use super::*;
use crate::transform::testing::{outputs_of, parse};
use onnxq_ir::tensor::Tensor;

fn outputs(m: &Model) -> Vec<f32> {
    outputs_of(m, "ids", Tensor::from_i64(&[1, 5], [3, 1, 4, 0, 2]))
}

/// Rotates; what the model computes must not change. Says what was done.
#[track_caller]
fn rotates(text: &str) -> (Model, Changed) {
    rotates_by(Rotate::default(), text)
}

#[track_caller]
fn rotates_by(rotate: Rotate, text: &str) -> (Model, Changed) {
    let mut m = parse(text);
    let before = outputs(&m);
    let done = rotate.change(&mut m).unwrap();
    m.verify().unwrap();
    let after = outputs(&m);
    let size = before.iter().fold(0f32, |max, it| max.max(it.abs()));
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() <= 1e-5 * size, "{a} became {b} of {size}");
    }
    (m, done)
}

/// A decoder's block without attention: 12 channels, which are 3 times a power of two.
fn decoder(norm: &str, shift: &str, head: &str) -> String {
    format!(
        "<ir_version: 11, opset_import: [\"\" : 23]>
        main (int64[1,5] ids) => (float[1,5,8] y) <
           float[8,12] table, float[5,12] places, float[12] g1, float[12] b1, float[12] g2,
           float[12] b2, float[12,20] up, float[20,12] down, float[12] bias, float[12,8] head,
           int64[2] swap = {{1, 0}}, float two = {{2}}
        > {{
           e = Gather (table, ids)
           scaled = Mul (e, two)
           x = Add (scaled, places)
           n1 = {norm} <axis = -1> (x, g1{shift1})
           u = MatMul (n1, up)
           r = Relu (u)
           d = MatMul (r, down)
           biased = Add (d, bias)
           z = Add (x, biased)
           n2 = {norm} <axis = -1> (z, g2{shift2})
           {head}
        }}",
        shift1 = shift.replace('#', "1"),
        shift2 = shift.replace('#', "2"),
    )
}

const HEAD: &str = "y = MatMul (n2, head)";

#[test]
fn a_decoder_with_rms_norms_computes_the_same() {
    let (m, done) = rotates(&decoder("RMSNormalization", "", HEAD));
    assert_eq!(done.summary, "rotated 12 channels between 2 norms");
    assert!(done.missed.is_empty());
    let gains = m.nodes().into_iter().filter(|it| m.node(*it).op.is("RMSNormalization"));
    for norm in gains {
        assert_eq!(m.small_f32(m.operand(norm, 1).unwrap()).unwrap(), [1.0; 12]);
    }
}

#[test]
fn a_decoder_with_layer_norms_computes_the_same() {
    let (_, done) = rotates(&decoder("LayerNormalization", ", b#", HEAD));
    assert_eq!(done.summary, "rotated 12 channels between 2 norms");
}

#[test]
fn a_tied_head_stays_tied() {
    for (norm, shift) in [("RMSNormalization", ""), ("LayerNormalization", ", b#")] {
        let mut m = parse(&decoder(norm, shift, HEAD));
        let named = |m: &Model, name: &str| m.values().find(|it| *it.1.name == *name).unwrap().0;
        let table = m.constant(named(&m, "table")).unwrap().clone();
        let head = named(&m, "head");
        m.value_mut(head).def = onnxq_ir::Def::Const(table.transposed());
        let before = outputs(&m);
        let done = Rotate::default().change(&mut m).unwrap();
        assert!(done.summary.ends_with("tied head behind a product of its own"), "{done:?}");
        let size = before.iter().fold(0f32, |max, it| max.max(it.abs()));
        for (a, b) in before.iter().zip(outputs(&m)) {
            assert!((a - b).abs() <= 1e-5 * size, "{a} became {b} of {size}");
        }
        let nodes = m.nodes();
        let of = |op: &str| nodes.iter().rfind(|it| m.node(**it).op.is(op)).copied().unwrap();
        let (gather, head) = (of("Gather"), of("MatMul"));
        let place = |node, index| m.constant(m.operand(node, index).unwrap()).unwrap().place();
        assert_eq!(place(gather, 0), place(head, 1));
    }
}

#[track_caller]
fn stays(text: &str, reason: &str) {
    let (m, done) = rotates(text);
    assert_eq!(done.summary, format!("no residual stream to rotate: {reason}"));
    assert!(done.missed.iter().any(|it| it.1.to_string() == reason), "{:?}", done.missed);
    let unchanged = parse(text);
    assert_eq!(onnxq_ir::text::print(&m), onnxq_ir::text::print(&unchanged));
}

#[test]
fn a_stream_that_leaves_the_model_is_left_alone() {
    let head = "out = Identity (z) y = MatMul (n2, head)";
    let text = decoder("RMSNormalization", "", head);
    let text = text.replace("(float[1,5,8] y)", "(float[1,5,8] y, float[1,5,12] out)");
    stays(&text, "`out` is an output of the graph");
}

#[test]
fn a_norm_that_is_read_by_more_than_products_is_left_alone() {
    let head = "t = Tanh (n2) y = MatMul (t, head)";
    stays(&decoder("RMSNormalization", "", head), "`n2` is read by Tanh → t");
}

#[test]
fn norms_whose_output_is_the_stream_are_left_alone() {
    let text =
        decoder("LayerNormalization", ", b#", HEAD).replace("Add (x, biased)", "Add (n1, biased)");
    stays(&text, "what its norm computes is itself added to");
}

const VALUES: Rotate = Rotate { seed: 0, values: true };

/// Attention of four query heads and two value heads of three channels, with biases.
fn attention(keeps: &str) -> String {
    format!(
        "<ir_version: 11, opset_import: [\"\" : 23]>
        main (int64[1,5] ids) => (float[1,5,8] y{output}) <
           float[8,10] table, float[10,12] q, float[10,6] k, float[10,6] v, float[6] bias,
           float[12,8] out
        > {{
           x = Gather (table, ids)
           queries = MatMul (x, q)
           keys = MatMul (x, k)
           weighed = MatMul (x, v)
           values = Add (weighed, bias)
           a{keeps} = Attention <q_num_heads = 4, kv_num_heads = 2> (queries, keys, values)
           y = MatMul (a, out)
        }}",
        output = if keeps.is_empty() { "" } else { ", float[1,2,5,3] pv" },
    )
}

#[test]
fn what_attention_weighs_is_rotated_head_by_head() {
    let (m, done) = rotates_by(VALUES, &attention(""));
    assert!(done.summary.ends_with("rotated the values of 1 attention"), "{}", done.summary);
    let plain = parse(&attention(""));
    let named = |m: &Model, name: &str| {
        let (value, _) =
            m.values().find(|(_, it)| *it.name == *name && !it.uses.is_empty()).unwrap();
        m.constant(value).unwrap().to_f32().unwrap()
    };
    for name in ["v", "bias", "out"] {
        assert_ne!(named(&m, name), named(&plain, name), "{name}");
    }
}

#[test]
fn values_that_a_cache_keeps_stay() {
    let text = attention(", pk, pv");
    let (m, done) = rotates_by(VALUES, &text);
    assert!(done.summary.ends_with("the values of attention stay: a cache keeps them"), "{done:?}");
    assert_eq!(onnxq_ir::text::print(&m), onnxq_ir::text::print(&parse(&text)));
}
