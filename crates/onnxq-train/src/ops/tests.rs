//! Every row: forward as the reference evaluator, backward as central differences in `f64`.

use std::collections::{BTreeMap, BTreeSet};

use onnxq_ir::{
    Def, Model, ValueId, eval,
    tensor::{DType, Tensor},
    text,
};

use super::Table;
use crate::{
    lower::{Request, lower},
    params::{LeafId, Leaves, Trained, Weights},
    tape::{Gradient, Grads, Program, SlotId, Tape},
};

/// `inputs => outputs`, a body, and constants of the graph. Float inputs become trained constants;
/// those whose name begins with `p` are positive and apart from each other.
const CASES: &[(&str, &str)] = &[
    ("Abs", "(float[2,3] x) => (float[2,3] y) { y = Abs (x) }"),
    (
        "Add",
        "(float[2,3] x, float[3] b, float[2,1] c) => (float[2,3] y) { a = Add (x, b) y = Add (c, a) }",
    ),
    (
        "Attention",
        "(float[2,2,3,4] q, float[2,1,5,4] k, float[2,1,5,3] v) => (float[2,2,3,3] y) { y = Attention <is_causal = 1> (q, k, v) }",
    ),
    (
        "Attention",
        "(float[1,3,8] q, float[1,3,4] k, float[1,3,4] v, bool[3,3] mask) => (float[1,3,8] y) { y = Attention <q_num_heads = 2, kv_num_heads = 1, scale = 0.7, softcap = 1.5> (q, k, v, mask) }",
    ),
    (
        "Attention",
        "(float[1,3,4] q, int64[1,3] seen) => (float[1,3,4] y) { f = Cast <to = 1> (seen) l = Log (f) y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, q, q, l) }",
    ),
    ("Cast", "(float[2,3] x) => (float[2,3] y) { a = Mul (x, x) y = Cast <to = 1> (a) }"),
    (
        "Clip",
        "<float low = {-0.4}, float high = {0.5}> (float[2,3] x) => (float[2,3] y) { y = Clip (x, low, high) }",
    ),
    (
        "Concat",
        "(float[2,3] x, float[2,2] z) => (float[2,8] y) { y = Concat <axis = -1> (x, z, x) }",
    ),
    ("Div", "(float[2,3] x, float[3] p) => (float[2,3] y) { y = Div (x, p) }"),
    ("Dropout", "(float[2,3] x) => (float[2,3] y) { y = Dropout (x) }"),
    ("Erf", "(float[2,3] x) => (float[2,3] y) { y = Erf (x) }"),
    ("Exp", "(float[2,3] x) => (float[2,3] y) { y = Exp (x) }"),
    (
        "Expand",
        "<int64[3] shape = {2, 4, 3}> (float[4,1] x) => (float[2,4,3] y) { y = Expand (x, shape) }",
    ),
    ("Flatten", "(float[2,3,2] x) => (float[2,6] y) { y = Flatten (x) }"),
    ("Gather", "(float[4,3] x, int64[2,2] at) => (float[2,2,3] y) { y = Gather (x, at) }"),
    (
        "Gather",
        "(float[2,4,3] x, int64[2,2] at) => (float[2,2,2,3] y) { y = Gather <axis = 1> (x, at) }",
    ),
    ("Gelu", "(float[2,3] x) => (float[2,3] y) { y = Gelu (x) }"),
    ("Gelu", "(float[2,3] x) => (float[2,3] y) { y = Gelu <approximate = \"tanh\"> (x) }"),
    (
        "Gemm",
        "(float[3,2] a, float[4,3] b, float[4] c) => (float[2,4] y) { y = Gemm <transA = 1, transB = 1, alpha = 0.5, beta = 2.0> (a, b, c) }",
    ),
    ("Identity", "(float[2,3] x) => (float[2,3] y) { y = Identity (x) }"),
    (
        "LayerNormalization",
        "(float[2,3,4] x, float[4] g, float[4] b) => (float[2,3,4] y) { y = LayerNormalization <axis = -1, epsilon = 0.01> (x, g, b) }",
    ),
    ("Log", "(float[2,3] p) => (float[2,3] y) { y = Log (p) }"),
    ("MatMul", "(float[2,3,4] a, float[4,5] b) => (float[2,3,5] y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[2,1,3,4] a, float[3,4,2] b) => (float[2,3,3,2] y) { y = MatMul (a, b) }"),
    ("MatMul", "(float[3,3] a) => (float[3,3] y) { y = MatMul (a, a) }"),
    ("Max", "(float[2,3] x, float[3] z) => (float[2,3] y) { y = Max (x, z) }"),
    ("Mul", "(float[2,3] x, float[2,1] b) => (float[2,3] y) { a = Mul (x, b) y = Mul (a, x) }"),
    ("Neg", "(float[2,3] x) => (float[2,3] y) { y = Neg (x) }"),
    ("Pow", "<float by = {3.0}> (float[2,3] p) => (float[2,3] y) { y = Pow (p, by) }"),
    ("Pow", "<float by = {1.7}> (float[2,3] p) => (float[2,3] y) { y = Pow (p, by) }"),
    (
        "RMSNormalization",
        "(float[2,3,4] x, float[4] g) => (float[2,3,4] y) { y = RMSNormalization <axis = -1, epsilon = 0.01> (x, g) }",
    ),
    ("Reciprocal", "(float[2,3] p) => (float[2,3] y) { y = Reciprocal (p) }"),
    (
        "ReduceMax",
        "<int64[1] axes = {-1}> (float[2,3] p) => (float[2,1] y) { y = ReduceMax (p, axes) }",
    ),
    (
        "ReduceMean",
        "<int64[1] axes = {1}> (float[2,3,2] x) => (float[2,2] y) { y = ReduceMean <keepdims = 0> (x, axes) }",
    ),
    (
        "ReduceSum",
        "<int64[2] axes = {0, 2}> (float[2,3,2] x) => (float[1,3,1] y) { y = ReduceSum (x, axes) }",
    ),
    ("Relu", "(float[2,3] x) => (float[2,3] y) { y = Relu (x) }"),
    (
        "Reshape",
        "<int64[2] shape = {0, -1}> (float[2,3,2] x) => (float[2,6] y) { a = Mul (x, x) y = Reshape (a, shape) }",
    ),
    (
        "RotaryEmbedding",
        "(float[2,3,8] x, float[5,2] c, float[5,2] s, int64[2,3] at) => (float[2,3,8] y) { y = RotaryEmbedding <num_heads = 2> (x, c, s, at) }",
    ),
    (
        "RotaryEmbedding",
        "(float[1,2,3,6] x, float[1,3,2] c, float[1,3,2] s) => (float[1,2,3,6] y) { y = RotaryEmbedding <interleaved = 1, rotary_embedding_dim = 4> (x, c, s) }",
    ),
    ("Sigmoid", "(float[2,3] x) => (float[2,3] y) { y = Sigmoid (x) }"),
    (
        "SimplifiedLayerNormalization",
        "(float[3,4] x, float[4] g) => (float[3,4] y) { y = SimplifiedLayerNormalization <axis = -1> (x, g) }",
    ),
    (
        "Slice",
        "<int64[2] s = {3, -1}, int64[2] e = {0, -4}, int64[2] axes = {0, 1}, int64[2] by = {-2, -1}> (float[4,5] x) => (float[2,3] y) { y = Slice (x, s, e, axes, by) }",
    ),
    ("Softmax", "(float[2,3,2] x) => (float[2,3,2] y) { y = Softmax <axis = 1> (x) }"),
    ("Split", "(float[2,5] x) => (float[2,3] y) { y, z = Split <axis = 1, num_outputs = 2> (x) }"),
    ("Sqrt", "(float[2,3] p) => (float[2,3] y) { y = Sqrt (p) }"),
    (
        "Squeeze",
        "<int64[1] axes = {1}> (float[2,1,3] x) => (float[2,3] y) { y = Squeeze (x, axes) }",
    ),
    ("Sub", "(float[2,3] x, float[1] b) => (float[2,3] y) { y = Sub (b, x) }"),
    ("Sum", "(float[2,3] x, float[3] b) => (float[2,3] y) { y = Sum (x, b, x) }"),
    ("Tanh", "(float[2,3] x) => (float[2,3] y) { y = Tanh (x) }"),
    ("Transpose", "(float[2,3,4] x) => (float[4,2,3] y) { y = Transpose <perm = [2, 0, 1]> (x) }"),
    (
        "Unsqueeze",
        "<int64[2] axes = {0, -1}> (float[2,3] x) => (float[1,2,3,1] y) { y = Unsqueeze (x, axes) }",
    ),
    ("Where", "(bool[2,1] c, float[2,3] x, float[3] z) => (float[2,3] y) { y = Where (c, x, z) }"),
    (
        "com.microsoft.GroupQueryAttention",
        "(float[1,3,8] q, float[1,3,4] k, float[1,3,4] v, int32[1] last, int32 total) => (float[1,3,8] y) { y = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 1> (q, k, v, , , last, total) }",
    ),
    (
        "com.microsoft.QuickGelu",
        "(float[2,3] x) => (float[2,3] y) { y = com.microsoft.QuickGelu <alpha = 1.2> (x) }",
    ),
    (
        "com.microsoft.RotaryEmbedding",
        "<int64[1] at = {1}> (float[2,3,8] x, float[5,2] c, float[5,2] s) => (float[2,3,8] y) { y = com.microsoft.RotaryEmbedding (x, at, c, s) }",
    ),
    (
        "com.microsoft.RotaryEmbedding",
        "(float[2,2,3,4] x, int64[2,3] at, float[5,2] c, float[5,2] s) => (float[2,2,3,4] y) { y = com.microsoft.RotaryEmbedding (x, at, c, s) }",
    ),
    (
        "com.microsoft.SkipSimplifiedLayerNormalization",
        "(float[2,3,4] x, float[2,3,4] s, float[4] g) => (float[2,3,4] y) { n, a, b, c = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, s, g) y = Mul (n, c) }",
    ),
];

/// A model with weights, and the integers that are its inputs.
struct Example {
    m: Model,
    inputs: BTreeMap<ValueId, Tensor>,
}

impl Example {
    fn new(case: &str) -> Example {
        let (constants, graph) = match case.strip_prefix('<') {
            Some(rest) => {
                let (list, graph) = rest.split_once('>').unwrap();
                let list: Vec<String> = list.split(", ").map(str::to_owned).collect();
                (join(list), graph)
            }
            None => (String::new(), case),
        };
        let (signature, body) = graph.split_once('{').unwrap();
        let text = format!(
            "<ir_version: 11, opset_import: [\"\" : 23, \"com.microsoft\" : 1]>\nmain {signature} {constants} {{ {body}"
        );
        let mut m = text::parse(&text).unwrap_or_else(|err| panic!("{text}\n{err}"));
        let mut inputs = BTreeMap::new();
        let main = m.main;
        let list = m.graph(main).inputs.clone();
        let (integers, floats): (Vec<ValueId>, Vec<ValueId>) =
            list.into_iter().partition(|it| m.dtype(*it) != Some(DType::F32));
        for (at, id) in integers.iter().enumerate() {
            inputs.insert(*id, integer(&m, *id, at));
        }
        for (at, id) in floats.iter().enumerate() {
            let shape: Vec<usize> =
                m.shape(*id).unwrap().iter().map(|it| it.fixed().unwrap()).collect();
            let positive = m.value(*id).name.starts_with('p');
            let value = |i: usize| {
                let x = ((i * 7919 + at * 31 + 17) % 101) as f32 / 50.0 - 1.0;
                if positive { 0.5 + (i as f32 * 0.37) % 1.9 } else { x }
            };
            let tensor = Tensor::from_f32(&shape, (0..shape.iter().product()).map(value));
            m.value_mut(*id).def = Def::Const(tensor);
        }
        m.graph_mut(main).inputs = integers;
        m.graph_mut(main).constants.extend(floats);
        Example { m, inputs }
    }

    fn program(&self, weights: &mut Weights, memory: usize) -> Program<f64> {
        let outputs = ["y".to_owned()];
        let watched = BTreeSet::new();
        let (model, inputs) = (&self.m, &self.inputs);
        let request = Request { model, inputs, outputs: &outputs, watched: &watched, memory };
        lower(&request, weights).unwrap_or_else(|err| panic!("{}: {err}", text::print(&self.m)))
    }
}

fn join(list: Vec<String>) -> String {
    // A comma inside of braces is none between constants.
    format!("<{}>", list.join(", "))
}

fn integer(m: &Model, id: ValueId, at: usize) -> Tensor {
    let shape: Vec<usize> = m.shape(id).unwrap().iter().map(|it| it.fixed().unwrap()).collect();
    let len: usize = shape.iter().product();
    match m.dtype(id).unwrap() {
        DType::Bool => {
            let bytes: Vec<u8> = (0..len).map(|it| u8::from(it % 3 != 1)).collect();
            Tensor::new(DType::Bool, shape, bytes)
        }
        DType::I32 => {
            // The last places and the length of a text of three tokens.
            let bytes: Vec<u8> = [2i32, 3][at].to_le_bytes().to_vec();
            Tensor::new(DType::I32, shape, bytes)
        }
        _ => Tensor::from_i64(&shape, (0..len).map(|it| ((it * 5 + 1) % 4) as i64)),
    }
}

/// Everything is trained.
fn all() -> Weights {
    Weights::new(|_, _, name| {
        // Angles have no gradient.
        let trained = !["c", "s"].contains(&name);
        trained.then_some(Trained { rate: Some(1.0), scale_rate: 1.0 })
    })
}

/// Dense gradients of all leaves.
struct Dense(BTreeMap<LeafId, Vec<f64>>, Vec<usize>);

impl Grads<f64> for Dense {
    fn take(&mut self, leaf: LeafId) -> Gradient<f64> {
        match self.0.remove(&leaf) {
            Some(values) => Gradient { values, fresh: false },
            None => Gradient { values: vec![f64::NAN; self.1[leaf.0]], fresh: true },
        }
    }

    fn give(&mut self, leaf: LeafId, gradient: Gradient<f64>) {
        if gradient.fresh {
            return;
        }
        match self.0.get_mut(&leaf) {
            Some(sum) => sum.iter_mut().zip(gradient.values).for_each(|(it, more)| *it += more),
            None => drop(self.0.insert(leaf, gradient.values)),
        }
    }

    fn see(&mut self, _: SlotId, _: &[f64]) {}
}

/// A function of the output that treats no element as another.
fn weigh(y: &[f64]) -> (f64, Vec<f64>) {
    let by = |i: usize| ((i * 13 + 5) % 11) as f64 / 7.0 - 0.6;
    (y.iter().enumerate().map(|(i, y)| y * by(i)).sum(), (0..y.len()).map(by).collect())
}

#[test]
fn every_row_has_a_case_and_the_table_is_sorted() {
    for row in Table::<f32>::ROWS {
        let found = CASES.iter().any(|it| it.0 == row.op) || row.op == "DequantizeLinear";
        assert!(found, "no case for {}", row.op);
    }
    assert!(Table::<f32>::ROWS.is_sorted_by(|a, b| a.op < b.op));
}

#[test]
fn forward_is_what_the_reference_evaluator_says() {
    for (op, case) in CASES {
        let example = Example::new(case);
        let named =
            |(id, it): (&ValueId, &Tensor)| (example.m.value(*id).name.to_string(), it.clone());
        let right = match eval::run(&example.m, &example.inputs.iter().map(named).collect()) {
            Ok(right) => right["y"].to_f32().unwrap(),
            // What the evaluator leaves out, filetests compare with ONNX Runtime.
            Err(err) => panic!("{op}: {err}"),
        };
        let mut weights = all();
        let program = example.program(&mut weights, usize::MAX);
        let leaves = weights.leaves().unwrap().cast::<f64>();
        let mut tape = Tape::default();
        tape.forward(&example.m, &program, &leaves, &example.inputs, false).unwrap();
        let own = tape.output(program.outputs["y"]);
        assert_eq!(own.len(), right.len(), "{op}");
        for (own, right) in own.iter().zip(&right) {
            assert!(
                (own - f64::from(*right)).abs() < 2e-6 * (1.0 + own.abs()),
                "{op}: {own} {right}\n{case}"
            );
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    for (op, case) in CASES {
        let example = Example::new(case);
        let mut weights = all();
        let program = example.program(&mut weights, usize::MAX);
        let leaves = weights.leaves().unwrap().cast::<f64>();
        let loss = |leaves: &Leaves<f64>| {
            let mut tape = Tape::default();
            tape.forward(&example.m, &program, leaves, &example.inputs, false).unwrap();
            weigh(tape.output(program.outputs["y"])).0
        };
        let grads = gradients(&example, &program, &weights, &leaves);
        assert!(!grads.is_empty(), "{op}");
        for (leaf, own) in grads {
            for (at, gradient) in own.iter().enumerate() {
                let moved = |by: f64| {
                    let mut leaves = leaves.clone();
                    leaves.get_mut(leaf)[at] += by;
                    loss(&leaves)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let scale = 1.0 + slope.abs();
                assert!(
                    (slope - gradient).abs() < 1e-6 * scale,
                    "{op} {at}: {slope} {gradient}\n{case}"
                );
            }
        }
    }
}

fn gradients(
    example: &Example,
    program: &Program<f64>,
    weights: &Weights,
    leaves: &Leaves<f64>,
) -> BTreeMap<LeafId, Vec<f64>> {
    let mut tape = Tape::default();
    tape.forward(&example.m, program, leaves, &example.inputs, true).unwrap();
    let root = program.outputs["y"];
    let dy = weigh(tape.output(root)).1;
    let sizes = (0..weights.leaf_count()).map(|it| weights.shape(LeafId(it)).iter().product());
    let mut dense = Dense(BTreeMap::new(), sizes.collect());
    tape.backward(program, leaves, vec![(root, dy)], &mut dense);
    dense.0
}

/// Two layers with a residual stream, an embedding and a head.
const NET: &str = "(float[7,6] e, int64[2,5] at, float[6] n, float[6,6] q, float[6,6] k, float[6,6] v, float[6,9] u, float[9,6] d, float[6] g, float[6,7] h) => (float[2,5,7] y) {
    x = Gather (e, at)
    a = RMSNormalization <axis = -1> (x, n)
    aq = MatMul (a, q) ak = MatMul (a, k) av = MatMul (a, v)
    b = Attention <q_num_heads = 3, kv_num_heads = 3, is_causal = 1> (aq, ak, av)
    x1 = Add (x, b)
    c = RMSNormalization <axis = -1> (x1, g)
    f = MatMul (c, u) s = Sigmoid (f) fs = Mul (f, s) w = MatMul (fs, d)
    x2 = Add (x1, w)
    i = RMSNormalization <axis = -1> (x2, n)
    y = MatMul (i, h)
}";

#[test]
fn recomputing_changes_no_bit() {
    let example = Example::new(NET);
    let mut weights = all();
    let whole = example.program(&mut weights, usize::MAX);
    let leaves = weights.leaves().unwrap().cast::<f64>();
    let right = gradients(&example, &whole, &weights, &leaves);
    let mut peaks = BTreeSet::new();
    for memory in [whole.bytes() / 2, whole.bytes() / 3, 0] {
        let program = example.program(&mut weights, memory);
        assert!(program.segments() > 1 && program.bytes() < whole.bytes());
        assert_eq!(gradients(&example, &program, &weights, &leaves), right);
        peaks.insert(program.segments());
    }
    assert!(!peaks.is_empty());
}

#[test]
fn a_node_without_a_row_is_named() {
    let example = Example::new("(float[2,3] x) => (float[2,3] y) { a = Mul (x, x) y = Ceil (a) }");
    let (outputs, watched) = (["y".to_owned()], BTreeSet::new());
    let (model, inputs) = (&example.m, &example.inputs);
    let memory = usize::MAX;
    let request = Request { model, inputs, outputs: &outputs, watched: &watched, memory };
    let err = lower::<f32>(&request, &mut all()).err().unwrap();
    assert_eq!(err.to_string(), "node `Ceil → y` has no gradient here: Ceil has no gradient");
}
