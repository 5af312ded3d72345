//! Laws and examples of the text syntax.

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    ir::{Attr, Attrs, Def, Function, GraphId, Op, ValueId},
    tensor::{DType, Dim, Tensor, TensorType},
};

const ALL: PrintOptions = PrintOptions { max_elements: usize::MAX, value_info: true };

/// Texts that are printed as they stand.
const CANONICAL: &[&str] = &[
    r#"<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
main (float[batch,64] x) => (float[batch,?] y) <
   uint8[32,1,32] w,
   float[2] scales = {0.5, 1e-9},
   float zero = {-0},
   uint8[0] none = {}
> {
   t = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 4> (x, w, scales, , none)
   [last] y = Add (t, zero)
}
"#,
    r#"<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3], producer_name: "a \"b\" \\ \u{a}", producer_version: "1", domain: "d", model_version: 3, doc_string: "doc", metadata_props: ["k": "v", "": "w"]>
"" () => () {
}
"#,
    r#"<ir_version: 8, opset_import: ["" : 17]>
attributes (x) => (y) {
   y = "my-domain".sub."a.b":over <i = -3, f = 2.0, nan = nan, inf = -inf, small = 1e-45, s = "\xff\u{1b}", none: ints = [], ints = [1, 2], floats = [1.0, 2.5], strings = ["a", "b"], no: tensors = [], t = float[2] {1, 2}, ts = [int64 {1}, bool[2] {0, 1}], large = int8[2,5] {...}, ty = float[n], tys = [seq(map(string, float[])), opaque(a.b, c), opaque(), opaque(d), optional(sparse_tensor(int4[2]))], sp = sparse_tensor(float[9]) {int64[2] {1, 5}, float[2] {1, 2}}> (x, "")
}
"#,
    r#"<ir_version: 8, opset_import: ["" : 17]>
types (float16[2] a = {0.1, 65504.0}, bfloat16[1] b = {1.0}, seq(float[]) l) => (float16[2] a) <
   double[2] d = {0.1, inf},
   int4[3] i4 = {-8, 7, -1},
   uint2[5] u2 = {0, 1, 2, 3, 0},
   int2[1] i2 = {-2},
   float6e2m3[5] f6 = {63, 1, 2, 3, 62},
   float4e2m1[1] f4 = {15},
   uint64 u64 = {18446744073709551615},
   complex64[1] c = {1, -2},
   string[2] s = {"", "\xff"},
   sparse_tensor(float[3,3]) sp = {int64[1] {4}, float[1] {1}}
> {
   y = Op (d, i4, u2, i2, f6, f4, u64, c, s, sp)
}
"#,
    r#"<ir_version: 8, opset_import: ["" : 17]>
captured (bool c, float x) => (float y) <
   float k = {1}
> {
   t = Neg (x)
   y = If (c) <
      then_branch = "then body" () => (float z) <
         float k2 = {2}
      > {
         a = Add (t, k)
         z = Mul (a, k2)
      },
      note = 1,
      else_branch = otherwise () => (t) {
         a = Add (t, x)
      }
   >
}
"#,
    r#"<ir_version: 8, opset_import: ["" : 17]>
"/m/model" (float "/m/layers.0/in", float "float", float "onnx::MatMul_12") => ("a \"b\"") {
   ["/m/layers.0"] "a \"b\"", , other, "" = Split ("/m/layers.0/in", "float", "onnx::MatMul_12")
}
"#,
    r#"<ir_version: 8, opset_import: ["" : 17]>
main (x) => (y) {
   y = f.scaled <alpha = 2.0> (x)
}
<domain: "f", overload: "o", opset_import: ["" : 17], doc_string: "d", metadata_props: ["k": "v"]>
scaled <alpha, beta = 1.0> (x) => (y) <
   float two = {2}
> {
   a = Constant <value_float: float = @alpha, untyped = @beta> ()
   y = Mul (x, a)
   z = Mul (a, two)
}
"#,
];

#[test]
fn canonical_texts_are_printed_as_they_stand() {
    for text in CANONICAL {
        let model = parse(text).unwrap_or_else(|it| panic!("{it}\n{text}"));
        model.verify().unwrap();
        assert_eq!(print(&model), *text);
    }
}

#[test]
fn long_lists_are_broken() {
    let list = |ty: &str| (0..9).map(|i| format!("{ty} v{i}")).collect::<Vec<_>>();
    let inputs = list("float[batch,sequence,128]");
    let text = format!("main ({}) => (v1) {{ }}", inputs.join(", "));
    let printed = print(&parse(&text).unwrap());
    assert!(printed.contains(&format!("main (\n   {}\n) => (\n", inputs.join(",\n   "))));
    assert_eq!(print(&parse(&printed).unwrap()), printed);
}

#[test]
fn the_loose_forms_mean_the_same() {
    let loose = r#"# a comment
        main (float[2]x,)=>(y)<float[2] t, float[2] w={1.0,2},># another
        {t=Relu(x)[]y=Op(t,w,)<a: float = 1, b: floats = [1, 2], c = [1, 2.0], d = tensor_name () => () {}> }"#;
    let strict = r#"<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
main (float[2] x) => (y) <
   float[2] w = {1, 2},
   float[2] t
> {
   t = Relu (x)
   y = Op (t, w) <
      a = 1.0,
      b = [1.0, 2.0],
      c = [1.0, 2.0],
      d = tensor_name () => () {
      }
   >
}
"#;
    assert_eq!(print_with(&parse(loose).unwrap(), &ALL), strict);
}

#[test]
fn what_has_no_elements_and_no_node_is_filled() {
    let model = parse("m (x) => (y) <float[3] w, int64[2] i> { y = Op (x, w, i) }").unwrap();
    let text = print(&model);
    assert!(text.contains("float[3] w = {-0.78, -0.04, 0.7}"), "{text}");
    assert!(text.contains("int64[2] i = {3, 0}"), "{text}");
}

#[test]
fn an_initializer_named_as_an_input_is_its_default() {
    let text = "m (float w) => (y) <float w = {1}> { y = Neg (w) }";
    let printed = print(&parse(text).unwrap());
    assert!(printed.contains("m (float w = {1}) => (y) {"), "{printed}");
}

#[test]
fn shadowed_names_are_told_apart() {
    let text =
        "m (x, c) => (y) { t = Neg (x) y = If (c) <then_branch = b () => (t) { t = Neg (t) }> }";
    let printed = print(&parse(text).unwrap());
    assert!(printed.contains("b () => (t_1) {\n         t_1 = Neg (t)\n"), "{printed}");
    assert_eq!(print(&parse(&printed).unwrap()), printed);
}

#[test]
fn errors_say_where() {
    let error = |text: &str| parse(text).map(|it| print(&it)).unwrap_err().to_string();
    assert_eq!(error(""), "line 1, column 1: expected a name, found the end");
    assert_eq!(error("m (x) =>\n (é)"), "line 2, column 3: expected a name, found `é`");
    let cases = [
        ("m (x) => (y) {}", "`y` is not defined before its use"),
        ("m (x, x) => () {}", "`x` is defined twice"),
        ("m () => () <float[n] w> {}", "`w` is not computed, and its shape is not fixed"),
        ("m () => () <float[9999999999] w> {}", "`w` is too large"),
        ("m () => () <float[2] w = {1}> {}", "expected 2 elements, found 1"),
        ("m () => () <int4 w = {8}> {}", "`8` does not fit int4"),
        ("m () => () <float w = {1e99}> {}", "`1e99` does not fit float"),
        ("m () => () <w> {}", "`w` has no type"),
        ("m () => () { = A <a = []> () }", "an empty list needs a type"),
        ("m () => () { = A <a: int = 1.5> () }", "the value is not a `int`"),
        ("m () => () { = A <a: real = 1> () }", "no attribute is a `real`"),
        ("m () => () { = A <a = 1, a = 2> () }", "`a` is given twice"),
        ("m () => () { = A (a.b) }", "expected `)`, found `.`"),
        ("m () => () { = \"A (a) }", "the string has no end"),
        ("<size: 1> m () => () {}", "there is no field `size`"),
        ("m () => () {} f <g = h () => () {}> () => () {}", "`g` cannot be a graph"),
    ];
    for (text, message) in cases {
        assert_eq!(error(text).split_once(": ").unwrap().1, message);
    }
}

#[test]
fn depth_is_limited() {
    let nested = |depth: usize| {
        let open = "g () => () { = If <b = ".repeat(depth);
        format!("{open}1{}", "> () }".repeat(depth))
    };
    let deep = parse(&nested(100)).unwrap();
    let text = print(&deep);
    assert_eq!(print(&parse(&text).unwrap()), text);
    assert!(parse(&nested(101)).err().unwrap().message.contains("nests deeper than 100"));
    assert!(parse(&format!("m ({}", "seq(".repeat(1 << 20))).is_err());
}

const NAMES: &[&str] =
    &["", "x", "y", "x_1", "v1", "float", "nan", "/a.b:0", "q\"\\\n", "é\u{202e}"];

/// What a random node is made from.
#[test]
fn a_dimension_is_an_int64_and_an_empty_symbol_is_unknown() {
    let model = |dim: &str| {
        parse(&format!(
            "<ir_version: 8, opset_import: [\"\" : 21]>\n\
             main (float[{dim}] x) => (float[2] y) {{ y = Relu (x) }}"
        ))
    };
    let error = model("18446744073709551361").err().unwrap().to_string();
    assert!(error.contains("the dimension is not an int64"), "{error}");
    let m = model("\"\"").unwrap();
    let input = m.graph(m.main).inputs[0];
    assert_eq!(m.value(input).ty.as_ref().unwrap().shape.as_deref(), Some(&[Dim::Unknown][..]));
}

type Draw = (Index, Vec<Index>, Vec<Index>, Index, Option<bool>);

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let indices = |max| proptest::collection::vec(any::<Index>(), 0..max);
    let draw = (any::<Index>(), indices(4), indices(4), any::<Index>(), any::<Option<bool>>());
    proptest::collection::vec(draw, 0..12)
}

/// A model of random nodes; a draw with `Some(true)` opens a body, `Some(false)` closes it.
fn model(draws: &[Draw]) -> Model {
    let mut model = Model::empty();
    let main = model.main;
    let ty = TensorType::new(DType::F32, [Dim::Symbol("a + b".into()), Dim::Unknown]);
    let mut known = vec![model.add_input(main, "x", Some(ty)), model.add_input(main, "", None)];
    fill(&mut model, main, &mut known, &mut draws.iter());
    let body = model.add_graph();
    let mut known = vec![model.add_input(body, "x", None)];
    fill(&mut model, body, &mut known, &mut draws[draws.len() / 2..].iter());
    model.functions.push(Function {
        op: Op::new("a.b.f"),
        body,
        opsets: vec![("".into(), 1)],
        attributes: vec!["é".to_owned()],
        defaults: Attrs::default().with("k", 1.5),
        doc: String::new(),
        metadata: Vec::new(),
    });
    model
}

fn fill<'a>(
    model: &mut Model,
    graph: GraphId,
    known: &mut Vec<ValueId>,
    draws: &mut impl Iterator<Item = &'a Draw>,
) {
    let (outer, mut last) = (known.len(), None);
    while let Some((op, inputs, outputs, attr, body)) = draws.next() {
        if *body == Some(false) {
            break;
        }
        let name = *attr.get(NAMES);
        let constant = model.add_constant(graph, name, tensor(*op));
        known.push(constant);
        let mut attrs = Attrs::default().with(name, any_attr(*attr));
        if *body == Some(true) {
            let inner = model.add_graph();
            fill(model, inner, known, draws);
            attrs.set("body", Attr::Graphs(vec![inner]));
        }
        let inputs = inputs.iter().map(|it| it.get(known)).copied();
        let inputs = inputs.enumerate().map(|(i, it)| (i != 1).then_some(it)).collect();
        let outputs: Vec<ValueId> = outputs
            .iter()
            .map(|it| model.add_value(it.get::<&str>(NAMES), None, Def::Input(graph, None)))
            .collect();
        known.extend(&outputs);
        last = outputs.first().copied().or(last);
        if let Some(it) = last {
            model.set_type(it, TensorType { dtype: DType::I64, shape: None });
        }
        let op = (Op::new(op.get::<&str>(&["Relu", "a.b-c.Op", "é"])), name.into());
        model.add_node(graph, None, op, inputs, attrs, outputs);
    }
    if let Some(value) = last {
        model.add_output(graph, value);
    }
    known.truncate(outer);
}

fn tensor(index: Index) -> Tensor {
    let dtype = *index.get(DType::ALL);
    let shape = [vec![], vec![2], vec![0, 3], vec![3, 5]][index.index(4)].clone();
    elements::Filler::default().tensor(dtype, &shape).unwrap()
}

fn any_attr(index: Index) -> Attr {
    let strings = vec![b"\xff\"".to_vec().into(), NAMES[8].as_bytes().to_vec().into()];
    let list = [
        Attr::Int(i64::MIN),
        Attr::Float(1.0),
        Attr::Floats(vec![f32::MIN_POSITIVE, f32::NEG_INFINITY, -0.0, f32::NAN]),
        Attr::Ints(vec![]),
        Attr::Strings(strings),
        Attr::Tensor(tensor(index)),
        Attr::Tensors(vec![tensor(index); 2]),
        Attr::Ref { name: "k".into(), kind: 7 },
        Attr::Type(vec![0x0a, 2, 8, 1].into()),
    ];
    index.get(&list).clone()
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(draws in draws()) {
        let model = model(&draws);
        model.verify().unwrap();
        for options in [ALL, PrintOptions::default()] {
            let text = print_with(&model, &options);
            let back = match parse(&text) {
                Ok(it) => it,
                Err(it) => return Err(TestCaseError::fail(format!("{it}\n{text}"))),
            };
            back.verify().unwrap();
            prop_assert_eq!(print_with(&back, &options), text);
        }
    }

    #[test]
    fn no_text_is_too_strange(text in r##"([<>(){}\[\]=:,."#@\\ \n-]|[a-z0-9]|float|=>|\PC){0,60}"##) {
        let _ = parse(&text);
    }

    #[test]
    fn broken_texts_are_errors_or_models(
        which in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), any::<Index>(), "\\PC{0,3}|[<>(){}=,\"]"), 1..4),
    ) {
        let mut text = which.get(CANONICAL).to_string();
        for (at, len, with) in &edits {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary((at + len.index(8)).min(text.len()));
            text.replace_range(at..end.max(at), with);
        }
        if let Ok(model) = parse(&text) {
            let printed = print(&model);
            match parse(&printed) {
                Ok(it) => prop_assert_eq!(print(&it), printed),
                Err(it) => return Err(TestCaseError::fail(format!("{it}\n{text}\n{printed}"))),
            }
        }
    }
}
