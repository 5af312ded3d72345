//! What becomes of small decoders; tests/it/kv_cache.rs runs them.

use super::*;
use onnxq_ir::{
    diag::Code,
    tensor::{DType, TensorType},
    text,
};

const CAUSAL: &str = r#"<ir_version: 11, opset_import: ["" : 23]>
main (float[batch,seq,16] x) => (float[batch,seq,16] y) {
   [attn] y = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1, scale = 0.5> (x, x, x)
}"#;

fn refusal(body: &str) -> String {
    let body = CAUSAL.replace("{\n", &format!("{{\n{body}\n")).replace("(x, x, x)", "(z, z, z)");
    let mut m = text::parse(&body).unwrap();
    let before = text::print(&m);
    let error = add_kv_cache(&mut m, &Ctx::silent()).unwrap_err();
    assert_eq!((error.code(), text::print(&m)), (Code::E411, before));
    error.to_string()
}

#[test]
fn what_looks_at_other_tokens_is_refused() {
    let says = |body: &str, what: &str| {
        let error = refusal(body);
        assert!(error.contains(what), "{body}: {error}");
    };
    says("z = Softmax <axis = 1> (x)", "along the tokens");
    says("t = Transpose <perm = [0,2,1]> (x) s = MatMul (x, t) z = MatMul (s, x)", "each other");
    says("one = Constant <value = int64 {1}> () z = CumSum (x, one)", "may mix");
    says("s = Shape (x) f = Cast <to = 1> (s) m = ReduceMean (f) z = Mul (x, m)", "ReduceMean");
    says("s = Size (x) f = Cast <to = 1> (s) z = Mul (x, f)", "the number of tokens");
}

#[test]
fn eight_bits_take_another_operator() {
    let mut m = text::parse(CAUSAL).unwrap();
    assert_eq!(caches(&m).unwrap_err(), CacheError::NoCache);
    add_kv_cache(&mut m, &Ctx::silent()).unwrap();
    let scales = [Scales { key: 0.5, value: 0.25 }];
    assert_eq!(to_int8(&mut m, &scales, &Ctx::silent()), Ok(1));
    m.verify().unwrap();
    let is_gqa = |it: &NodeId| m.node(*it).op.is("com.microsoft.GroupQueryAttention");
    let node = m.nodes().into_iter().find(is_gqa).unwrap();
    let it = m.node(node);
    assert_eq!((&*it.name, it.inputs.len(), it.inputs[10]), ("attn", 14, None));
    assert_eq!(m.float_attr(node, "scale", 0.0), 0.5);
    assert_eq!(m.int_attr(node, "kv_cache_bit_width", 0), 8);
    assert_eq!(m.constant(it.inputs[13].unwrap()).unwrap().to_f32().unwrap(), [0.25]);
    let ty = |id: onnxq_ir::ValueId| m.value(id).ty.clone().unwrap().to_string();
    let (inputs, outputs) = (&m.graph(m.main).inputs, &m.graph(m.main).outputs);
    assert_eq!(ty(inputs[1]), "int8[batch,2,past_sequence_length,8]");
    assert_eq!(ty(outputs[2]), "int8[batch,2,past_sequence_length + seq,8]");
    assert_eq!(ty(it.inputs[5].unwrap()), TensorType::new(DType::I32, [batch()]).to_string());
    // Nothing is padded, so the operator needs no mask.
    assert!(!m.nodes().iter().any(|it| m.node(*it).op.is("Where")));
}

fn batch() -> onnxq_ir::tensor::Dim {
    onnxq_ir::tensor::Dim::Symbol("batch".into())
}

#[test]
fn the_largest_value_has_the_largest_code() {
    assert_eq!(Scales::of_largest([254.0, 0.0]), Scales { key: 2.0, value: 1.0 });
}
