//! Laws and examples of type inference.

use proptest::prelude::*;

use super::{InferReport, OPS, run};
use crate::{
    ir::{Attr, Attrs, Def, Function, GraphId, Model, Op, ValueId},
    tensor::{DType, Dim, Tensor, TensorType},
};

/// A main graph that grows node by node; the name of a value is its number.
struct Build {
    model: Model,
    graph: GraphId,
}

impl Build {
    fn new() -> Build {
        let mut model = Model::empty();
        model.set_opset("", 18);
        let graph = model.main;
        Build { model, graph }
    }

    /// `float[batch,4]`, with numbers, names and `?`.
    fn input(&mut self, dtype: DType, dims: &str) -> ValueId {
        self.model.add_input(self.graph, "x", Some(ty(dtype, dims)))
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        let tensor = Tensor::from_i64(&[values.len()], values.iter().copied());
        self.model.add_constant(self.graph, "c", tensor)
    }

    fn int(&mut self, value: i64) -> ValueId {
        self.model.add_constant(self.graph, "c", Tensor::from_i64(&[], [value]))
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        self.nodes(op, inputs, attrs, 1)[0]
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.node(op, inputs, Attrs::default())
    }

    fn nodes(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attrs: Attrs,
        outputs: usize,
    ) -> Vec<ValueId> {
        let graph = self.graph;
        let out: Vec<ValueId> = (0..outputs)
            .map(|_| self.model.add_value("y", None, Def::Input(graph, None)))
            .collect();
        let inputs = inputs.iter().copied().map(Some).collect();
        self.model.add_node(graph, None, (Op::new(op), "".into()), inputs, attrs, out.clone());
        out
    }

    fn infer(&mut self) -> InferReport {
        run(&mut self.model)
    }

    fn shown(&self, value: ValueId) -> String {
        self.model.value(value).ty.as_ref().map_or("none".to_owned(), TensorType::to_string)
    }
}

fn ty(dtype: DType, dims: &str) -> TensorType {
    let dim = |it: &str| match it.trim().parse() {
        Ok(it) => Dim::Fixed(it),
        _ if it.trim() == "?" => Dim::Unknown,
        _ => Dim::Symbol(it.trim().into()),
    };
    TensorType::new(dtype, dims.split(',').filter(|it| !it.is_empty()).map(dim))
}

fn axis(it: i64) -> Attrs {
    Attrs::default().with("axis", it)
}

#[test]
fn a_reshape_built_from_shapes_has_symbols() {
    let mut b = Build::new();
    let x = b.input(DType::F32, "batch,sequence,128");
    let (zero, one, axes) = (b.int(0), b.int(1), b.ints(&[0]));
    let shape = b.op("Shape", &[x]);
    let parts = [zero, one].map(|at| b.node("Gather", &[shape, at], axis(0)));
    let [batch, length] = parts.map(|it| b.op("Unsqueeze", &[it, axes]));
    let (heads, rest) = (b.ints(&[4]), b.ints(&[-1]));
    let target = b.node("Concat", &[batch, length, heads, rest], axis(0));
    let split = b.op("Reshape", &[x, target]);
    let perm = Attrs::default().with("perm", vec![0, 2, 1, 3]);
    let turned = b.node("Transpose", &[split], perm);
    let flat = b.ints(&[-1, 32]);
    let all = b.op("Reshape", &[turned, flat]);
    let report = b.infer();
    assert_eq!(b.shown(turned), "float[batch,4,sequence,32]");
    assert_eq!(b.shown(all), "float[4*batch*sequence,32]");
    assert_eq!((report.known, report.total), (9, 9));
}

#[test]
fn a_past_grows_by_the_sequence() {
    let mut b = Build::new();
    let past = b.input(DType::F32, "b,2,past,32");
    let now = b.input(DType::F32, "b,2,s,32");
    let mask = b.input(DType::I64, "b,s + past");
    let keys = b.node("Concat", &[past, now], axis(2));
    let scores = b.ints(&[0, 1]);
    let wide = b.op("Unsqueeze", &[mask, scores]);
    let (at, zero, one) = (b.int(2), b.int(0), b.int(1));
    let shape = b.op("Shape", &[keys]);
    let total = b.node("Gather", &[shape, at], axis(0));
    let range = b.op("Range", &[zero, total, one]);
    let seen = b.op("LessOrEqual", &[range, wide]);
    b.infer();
    // As the file spells it, though the normal form would have `past` first.
    assert_eq!(b.shown(keys), "float[b,2,s + past,32]");
    assert_eq!(b.shown(seen), "bool[1,1,b,s + past]");
}

#[test]
fn the_idiom_of_expand_is_followed() {
    // Exporters replace -1 by 1 in the target: Where(target == -1, ones, target).
    let mut b = Build::new();
    let x = b.input(DType::F32, "1,1,n,1");
    let y = b.input(DType::F32, "n,s");
    let shape = b.op("Shape", &[y]);
    let open = b.ints(&[-1, 1]);
    let target = b.node("Concat", &[open, shape], axis(0));
    let ones = Attrs::default().with("value", Tensor::from_i64(&[1], [1]));
    let rank = b.op("Shape", &[target]);
    let ones = b.node("ConstantOfShape", &[rank], ones);
    let minus = b.int(-1);
    let minus = b.op("Mul", &[ones, minus]);
    let test = b.op("Equal", &[target, minus]);
    let target = b.op("Where", &[test, ones, target]);
    let wide = b.op("Expand", &[x, target]);
    b.infer();
    assert_eq!(b.shown(wide), "float[1,1,n,s]");
}

#[test]
fn slices_of_symbols() {
    let mut b = Build::new();
    let x = b.input(DType::F32, "s");
    let y = b.input(DType::F32, "s,past + s");
    let table = b.input(DType::F32, "512");
    let shape = b.op("Shape", &[y]);
    let (one, zero, first, far) = (b.ints(&[1]), b.ints(&[0]), b.ints(&[0]), b.ints(&[i64::MAX]));
    let length = b.node("Gather", &[shape, first], axis(0));
    let total = b.node("Gather", &[shape, one], axis(0));
    let past = b.op("Sub", &[total, length]);
    let new = b.op("Slice", &[y, past, total, one]);
    let rows = b.op("Slice", &[table, zero, length]);
    let sum = b.op("Add", &[rows, x]);
    let minus = b.ints(&[-1]);
    let last = b.op("Slice", &[x, minus, far]);
    let rest = b.op("Slice", &[x, zero, minus]);
    let back = b.op("Slice", &[x, minus, rest]);
    b.infer();
    assert_eq!(b.shown(new), "float[s,s]");
    assert_eq!(b.shown(rows), "float[min(512, s)]");
    assert_eq!(b.shown(sum), "float[s]");
    assert_eq!(b.shown(last), "float[min(1, s)]");
    assert_eq!(b.shown(rest), "float[s - min(1, s)]");
    assert_eq!(b.shown(back), "float[?]");
}

#[test]
fn windows_slide_over_symbols() {
    let mut b = Build::new();
    let x = b.input(DType::F32, "n,3,h,224");
    let w = b.input(DType::F32, "8,3,3,3");
    let attrs = || Attrs::default().with("pads", vec![1, 1, 1, 1]).with("strides", vec![2, 2]);
    let conv = b.node("Conv", &[x, w], attrs());
    let pool = b.node(
        "MaxPool",
        &[conv],
        Attrs::default().with("kernel_shape", vec![2, 2]).with("strides", vec![2, 2]),
    );
    let up = b.node(
        "Upsample",
        &[pool],
        Attrs::default().with("scales", Attr::Floats(vec![1., 1., 2., 2.])),
    );
    b.infer();
    assert_eq!(b.shown(conv), "float[n,8,floor((h + 1)/2),112]");
    assert_eq!(b.shown(pool), "float[n,8,floor((h + 1)/4),56]");
    assert_eq!(b.shown(up), "float[n,8,2*floor((h + 1)/4),112]");
}

#[test]
fn quantized_operators_take_types_from_zero_points() {
    let mut b = Build::new();
    let x = b.input(DType::F32, "n,64");
    let scale = b.model.add_constant(b.graph, "scale", Tensor::scalar(0.5));
    let zero = b.model.add_constant(b.graph, "zero", Tensor::new(DType::I8, vec![], vec![0u8]));
    let quantized = b.op("QuantizeLinear", &[x, scale, zero]);
    let float = b.op("DequantizeLinear", &[quantized, scale, zero]);
    let weight = b.input(DType::U8, "32,2,16");
    let attrs = Attrs::default().with("N", 32i64).with("K", 64i64);
    let product = b.node("com.microsoft.MatMulNBits", &[x, weight, scale], attrs);
    let parts = b.nodes("DynamicQuantizeLinear", &[x], Attrs::default(), 3);
    b.infer();
    assert_eq!(b.shown(quantized), "int8[n,64]");
    assert_eq!(b.shown(float), "float[n,64]");
    assert_eq!(b.shown(product), "float[n,32]");
    assert_eq!([0, 1, 2].map(|it| b.shown(parts[it])), ["uint8[n,64]", "float", "uint8"]);
}

#[test]
fn branches_agree_on_what_both_say() {
    let mut b = Build::new();
    let test = b.input(DType::Bool, "");
    let x = b.input(DType::F32, "n,4");
    let main = b.graph;
    let mut branch = |inner: &[&str]| {
        b.graph = b.model.add_graph();
        let y = inner.iter().fold(x, |it, op| b.op(op, &[it]));
        b.model.add_output(b.graph, y);
        b.graph
    };
    let (then, other) = (branch(&["Relu", "Transpose"]), branch(&["Abs"]));
    b.graph = main;
    let attrs = Attrs::default()
        .with("then_branch", Attr::Graph(then))
        .with("else_branch", Attr::Graph(other));
    let y = b.node("If", &[test], attrs);
    b.infer();
    assert_eq!(b.shown(y), "float[?,?]");
}

#[test]
fn a_loop_knows_only_what_no_iteration_changes() {
    let mut b = Build::new();
    let (count, test) = (b.int(3), b.input(DType::Bool, ""));
    let (x, y) = (b.input(DType::F32, "n,4"), b.input(DType::F32, "4"));
    let main = b.graph;
    b.graph = b.model.add_graph();
    let inputs: Vec<ValueId> = (0..3).map(|_| b.model.add_input(b.graph, "i", None)).collect();
    let twice = b.node("Concat", &[inputs[2], inputs[2]], axis(0));
    let inner = b.op("Relu", &[y]);
    for it in [inputs[1], twice, inner] {
        b.model.add_output(b.graph, it);
    }
    let body = b.graph;
    b.graph = main;
    let attrs = Attrs::default().with("body", Attr::Graph(body));
    let out = b.nodes("Loop", &[count, test, x], attrs, 2);
    b.infer();
    assert_eq!(b.shown(out[0]), "float[]");
    assert_eq!(b.shown(out[1]), "float[?,4]");
    assert_eq!(b.shown(inputs[0]), "int64[]");
}

#[test]
fn calls_of_a_function_differ() {
    let mut b = Build::new();
    let main = b.graph;
    b.graph = b.model.add_graph();
    let x = b.model.add_input(b.graph, "x", None);
    let attrs = Attrs::default().with("to", Attr::Ref { name: "kind".into(), kind: 2 });
    let y = b.node("Cast", &[x], attrs);
    b.model.add_output(b.graph, y);
    b.model.functions.push(Function {
        op: Op::new("local.AsKind"),
        body: b.graph,
        opsets: vec![("".into(), 18)],
        attributes: Vec::new(),
        defaults: Attrs::default().with("kind", i64::from(DType::F16.number())),
        doc: String::new(),
        metadata: Vec::new(),
    });
    b.graph = main;
    let (a, c) = (b.input(DType::F32, "n"), b.input(DType::F32, "4"));
    let a = b.op("local.AsKind", &[a]);
    let attrs = Attrs::default().with("kind", i64::from(DType::I64.number()));
    let c = b.node("local.AsKind", &[c], attrs);
    let report = b.infer();
    assert_eq!((b.shown(a), b.shown(c)), ("float16[n]".into(), "int64[4]".into()));
    assert_eq!(b.shown(y), "none");
    assert!(report.unknown_ops.is_empty());
}

#[test]
fn what_the_file_says_of_outputs_stays() {
    let mut b = Build::new();
    let x = b.input(DType::F32, "batch,4");
    let y = b.op("Relu", &[x]);
    b.model.set_type(y, ty(DType::F32, "out,?"));
    let z = b.op("Relu", &[y]);
    let odd = b.op("acme.Odd", &[z]);
    b.model.add_output(b.graph, y);
    let report = b.infer();
    assert_eq!(b.shown(y), "float[out,?]");
    // Inside, more is known.
    assert_eq!(b.shown(z), "float[batch,4]");
    assert_eq!(b.shown(odd), "none");
    assert_eq!(
        report,
        InferReport { known: 1, total: 3, unknown_ops: [("acme.Odd".to_owned(), 1)].into() }
    );
}

/// Attributes that rows ask for, and values that they may not like.
const NAMES: &[&str] = &[
    "N",
    "allowzero",
    "auto_pad",
    "axes",
    "axis",
    "batch_dims",
    "bits",
    "blocksize",
    "ceil_mode",
    "dilations",
    "direction",
    "ends",
    "equation",
    "gather_axis",
    "group",
    "hidden_size",
    "k",
    "keepdims",
    "kernel_shape",
    "kv_num_heads",
    "layout",
    "noop_with_empty_axes",
    "num_heads",
    "num_scan_inputs",
    "output_dtype",
    "output_padding",
    "output_shape",
    "pads",
    "perm",
    "q_num_heads",
    "qkv_hidden_sizes",
    "scales",
    "shape",
    "split",
    "starts",
    "steps",
    "strides",
    "to",
    "transA",
    "transB",
    "value",
    "value_ints",
];

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![5 => -4i64..6, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
}

fn attr() -> impl Strategy<Value = Attr> {
    prop_oneof![
        3 => number().prop_map(Attr::Int),
        3 => prop::collection::vec(number(), 0..5).prop_map(Attr::Ints),
        1 => prop::collection::vec(any::<f32>(), 0..5).prop_map(Attr::Floats),
        1 => prop::sample::select(vec!["SAME_UPPER", "VALID", "ij,jk->ik", "bidirectional", "ii,é"])
            .prop_map(Attr::from),
        1 => prop::collection::vec(number(), 0..5).prop_map(|it| Attr::Tensor(Tensor::from_i64(&[it.len()], it))),
        1 => Just(Attr::Ref { name: "axis".into(), kind: 2 }),
    ]
}

type RandomNode = (usize, Vec<Option<usize>>, Vec<(usize, Attr)>, usize);

fn nodes() -> impl Strategy<Value = Vec<RandomNode>> {
    let inputs = prop::collection::vec(prop::option::weighted(0.9, 0usize..64), 0..6);
    let attrs = prop::collection::vec((0..NAMES.len(), attr()), 0..5);
    prop::collection::vec((0..OPS.len(), inputs, attrs, 0usize..4), 1..16)
}

fn first_values(b: &mut Build) -> Vec<ValueId> {
    let mut values = Vec::new();
    for (dtype, dims) in [
        (DType::F32, "b,s,8"),
        (DType::F32, "b,4,s,8"),
        (DType::I64, "b,past + s"),
        (DType::F32, "8,8"),
        (DType::U8, "?"),
        (DType::F32, ""),
        (DType::I64, "0,3"),
        (DType::Bool, "s"),
        (DType::F16, "b,3,h,w"),
        (DType::I8, "18446744073709551615,2"),
    ] {
        values.push(b.input(dtype, dims));
    }
    for list in
        [&[0][..], &[1], &[-1], &[], &[i64::MIN], &[i64::MAX, 2], &[0, -1, 4], &[1, 1, 2, 2]]
    {
        values.push(b.ints(list));
    }
    values.push(b.int(2));
    values.push(b.model.add_constant(b.graph, "f", Tensor::from_f32(&[4], [1., 1., 2., 0.5])));
    values.push(b.model.add_constant(
        b.graph,
        "short",
        Tensor::new(DType::I64, vec![2], vec![0u8; 3]),
    ));
    values.push(b.model.add_input(b.graph, "untyped", None));
    for at in 0..3 {
        let shape = b.op("Shape", &[values[at]]);
        values.push(shape);
    }
    values
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn any_graph_is_inferred_without_panic(list in nodes(), opset in 1i64..25) {
        let mut b = Build::new();
        b.model.set_opset("", opset);
        let mut values = first_values(&mut b);
        for (op, inputs, attrs, outputs) in list {
            let mut all = Attrs::default();
            for (name, value) in attrs {
                all.set(NAMES[name], value);
            }
            let inputs = inputs.iter().map(|it| it.map(|it| values[it % values.len()])).collect();
            let out: Vec<ValueId> =
                (0..outputs).map(|_| b.model.add_value("y", None, Def::Input(b.graph, None))).collect();
            b.model.add_node(b.graph, None, (Op::new(OPS[op].0), "".into()), inputs, all, out.clone());
            values.extend(out);
        }
        let report = b.infer();
        prop_assert!(report.known <= report.total && report.unknown_ops.is_empty());
        // A second run learns nothing new and changes nothing.
        let types: Vec<_> = b.model.values().map(|(_, it)| it.ty.clone()).collect();
        b.infer();
        let again: Vec<_> = b.model.values().map(|(_, it)| it.ty.clone()).collect();
        prop_assert_eq!(types, again);
    }
}
