//! Small models in float16: what is kept, what is cast, what is clamped.

use super::*;
use onnxq_ir::{eval, tensor::Tensor, text};

fn half(text: &str, keep_io: bool) -> (Model, HalfReport) {
    let mut m = text::parse(text).unwrap();
    let report = to_half(&mut m, DType::F16, keep_io, &Largest::new(), &Ctx::silent()).unwrap();
    m.verify().unwrap();
    (m, report)
}

fn ops(m: &Model) -> Vec<String> {
    m.nodes().into_iter().map(|it| m.node(it).op.to_string()).collect()
}

#[test]
fn a_product_is_narrow_from_end_to_end() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}> { y = MatMul (x, w) }"#;
    let (m, report) = half(text, false);
    assert_eq!((ops(&m), report.casts, report.weights), (vec!["MatMul".to_owned()], 0, 1));
    let y = m.graph(m.main).outputs[0];
    assert_eq!((&*m.value(y).name, m.dtype(y)), ("y", Some(DType::F16)));
    let (m, report) = half(text, true);
    assert_eq!(
        (ops(&m), report.casts),
        (["Cast", "MatMul", "Cast"].map(str::to_owned).to_vec(), 2)
    );
    let x = Tensor::from_f32(&[2, 2], [1., 0., 0., 1.]);
    let y = eval::run(&m, &[("x".to_owned(), x)].into()).unwrap();
    assert_eq!(y["y"].to_f32().unwrap(), [1., 2., 3., 4.]);
}

#[test]
fn a_norm_stays_and_its_epsilon_with_it() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2,4] x) => (float[2,4] y) <float two = {2}, float eps = {1e-12}, float[4] g> {
            s = Pow (x, two)
            m = ReduceMean <axes = [-1]> (s)
            e = Add (m, eps)
            r = Sqrt (e)
            d = Div (x, r)
            y = Mul (d, g)
        }"#;
    let (_, report) = half(text, true);
    let kept: Vec<&str> = report.kept.iter().map(|it| &*it.op).collect();
    assert_eq!(kept, ["Pow", "ReduceMean", "Add", "Sqrt"]);
    assert_eq!(report.kept[2].reason, "a constant of 0.000000000001 is zero in float16");
}

#[test]
fn masks_are_clamped_and_weights_out_of_range_stay() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2] x) => (float[2] y, float[2] z) <float low = {-3.4e38}, float[2] big = {1e5, 1}> {
            y = Mul (x, low)
            z = Mul (x, big)
        }"#;
    let (_, report) = half(text, false);
    let clamped = Clamped { value: "low".into(), from: -3.4e38, to: -65504.0 };
    assert_eq!(report.clamped, [clamped]);
    assert_eq!(report.kept[0].reason, "a constant holds 100000, beyond the range of float16");
}

#[test]
fn positions_stay_in_float32_up_to_their_sines() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (int64[4] ids, float[4] x) => (float[4] y) <float[4] f = {1, 0.5, 0.25, 0.125}> {
            p = Cast <to = 1> (ids)
            a = Mul (p, f)
            c = Cos (a)
            y = Mul (x, c)
        }"#;
    let (m, report) = half(text, true);
    assert_eq!(report.kept.len(), 3);
    assert_eq!(ops(&m), ["Cast", "Mul", "Cos", "Cast", "Cast", "Mul", "Cast"]);
}

#[test]
fn bodies_keep_what_they_promise() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (bool c, float[2] x) => (float[2] y) {
            h = Add (x, x)
            y = If (c) <
                then_branch = yes () => (float[2] a) { a = Mul (h, h) },
                else_branch = no () => (float[2] b) { b = Neg (h) }
            >
        }"#;
    let (m, report) = half(text, true);
    assert_eq!(report.converted, 3);
    let x = Tensor::from_f32(&[2], [1., 2.]);
    let c = Tensor::new(DType::Bool, vec![], vec![1u8]);
    let y = eval::run(&m, &[("x".to_owned(), x), ("c".to_owned(), c)].into()).unwrap();
    assert_eq!((y["y"].dtype, y["y"].to_f32().unwrap()), (DType::F32, vec![4., 16.]));
}

#[test]
fn infinity_stays_what_it_is() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (bool[2] c, float[2] x) => (float[2] y) <float low = {-inf}> { y = Where (c, x, low) }"#;
    let (m, report) = half(text, true);
    assert_eq!(report.clamped, []);
    let x = Tensor::from_f32(&[2], [1., 2.]);
    let c = Tensor::new(DType::Bool, vec![2], vec![1u8, 0]);
    let y = eval::run(&m, &[("x".to_owned(), x), ("c".to_owned(), c)].into()).unwrap();
    assert_eq!(y["y"].to_f32().unwrap(), [1., f32::NEG_INFINITY]);
}

#[test]
fn shapes_need_no_casts() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2,4] x) => (int64[2] y, float[2,4] z) <float[4] g> {
            y = Shape (x)
            z = LayerNormalization (x, g)
        }"#;
    let (m, report) = half(text, false);
    assert_eq!((report.casts, report.kept.len(), ops(&m).len()), (0, 0, 2));
}

#[test]
fn bfloat16_has_the_range_of_float32_and_fewer_operators() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[1,2,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z) <float[2,2,1,1] w, float big = {1e20}> {
            y = Conv (x, w)
            z = Mul (x, big)
        }"#;
    let mut m = text::parse(text).unwrap();
    let report = to_half(&mut m, DType::BF16, true, &Largest::new(), &Ctx::silent()).unwrap();
    assert_eq!((report.converted, report.kept.len()), (1, 1));
    assert_eq!(report.kept[0].reason, "it takes bfloat16 from opset 22 on, the model has 17");
}

#[test]
fn scales_of_a_cache_stay_wide() {
    let text = r#"<ir_version: 11, opset_import: ["" : 23]>
        main (float[1,seq,16] x) => (float[1,seq,16] y) {
            y = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (x, x, x)
        }"#;
    let mut m = text::parse(text).unwrap();
    let ctx = Ctx::silent();
    crate::cache::add_kv_cache(&mut m, &ctx).unwrap();
    let step = crate::cache::Scales { key: 0.5, value: 0.25 };
    crate::cache::to_int8(&mut m, &[step], &ctx).unwrap();
    to_half(&mut m, DType::F16, true, &Largest::new(), &ctx).unwrap();
    let scale = m.constants().find(|it| *m.value(it.0).name == *"past_key_values.0.value.scale");
    assert_eq!(scale.unwrap().1.dtype, DType::F32);
}

/// Whatever operator stays in float32 reads what it read before: sequences, results without
/// floats, ai.onnx.ml, domains that nobody knows.
#[test]
fn kept_nodes_read_what_they_took() {
    for (op, output) in [
        ("SplitToSequence", "seq(tensor(float)) s"),
        ("ai.onnx.ml.Normalizer", "float[2] s"),
        ("ai.onnx.ml.Scaler", "float[2] s"),
        ("IsInf", "bool[2] s"),
        ("NonZero", "int64[1,n] s"),
        ("custom.Anything", "float[2] s"),
        ("custom.Anything", "int64[2] s"),
        ("com.microsoft.Unknown", "bool[2] s"),
    ] {
        let (output, name) = (output.trim_start_matches("seq(tensor(float)) "), "s");
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3, "custom" : 1, "com.microsoft" : 1]>
            main (float[2] x) => ({output}) {{ h = Neg (x) {name} = {op} (h) }}"#
        );
        for keep_io in [false, true] {
            let (m, _) = half(&text, keep_io);
            let kept = m.nodes().into_iter().find(|it| m.node(*it).op.is(op)).unwrap();
            let read = m.operand(kept, 0).unwrap();
            let takes_half = ["IsInf", "NonZero"].contains(&op);
            assert!(takes_half || m.dtype(read) == Some(DType::F32), "{op} reads half floats");
        }
    }
}

/// ONNX Runtime crashes on the half one: recurrent layers with time first (Paddle, Keras).
#[test]
fn a_transpose_of_the_first_axis_before_a_product_stays() {
    let of = |perm: &str, between: &str| {
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            main (float[2,3,4] x) => (float[a,b,5] y) <float[{}] w> {{
                t = Transpose <perm = {perm}> (x)
                {between}
                y = MatMul (c, w)
            }}"#,
            if perm == "[1, 2, 0]" { "2,5" } else { "4,5" },
        );
        half(&text, true).1.kept.into_iter().map(|it| it.reason).collect::<Vec<_>>()
    };
    for (perm, between) in [
        ("[1, 0, 2]", "c = Identity (t)"),
        ("[1, 2, 0]", "c = Identity (t)"),
        ("[1, 0, 2]", "d = Cast <to = 10> (t) c = Cast <to = 1> (d)"),
    ] {
        assert!(!of(perm, between).is_empty(), "{perm} {between}");
    }
    assert!(of("[1, 0, 2]", "c = Relu (t)").is_empty());
}

#[test]
fn what_overflowed_on_data_stays() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}> {
            a = MatMul (x, w)
            b = MatMul (a, w)
            y = MatMul (b, w)
        }"#;
    let mut m = text::parse(text).unwrap();
    prepare(&mut m, &Ctx::silent()).unwrap();
    let a = m.values().find(|it| &*it.1.name == "a").unwrap().0;
    let report = to_half(&mut m, DType::F16, true, &[(a, 1e5)].into(), &Ctx::silent()).unwrap();
    let kept: Vec<&str> = report.kept.iter().map(|it| &*it.node).collect();
    assert_eq!(kept, ["MatMul → a", "MatMul → b"]);
    let reason = "values of it reach 1.000e5 on the data, beyond the range of float16";
    assert_eq!(report.kept[0].reason, reason);
}
