//! A `Constant` node becomes an initializer: every later step knows one kind of constant.
//!
//! ```text
//! c = Constant <value = t> ()      →      <c = t>
//! ```

use crate::Rule;
use onnxq_ir::{Attr, Model, NoMatch, NodeId, Patch, no_match, tensor::Tensor};

pub(super) const CONSTANT_TO_INITIALIZER: Rule = Rule {
    name: "constant-to-initializer",
    help: "make initializers of Constant nodes",
    root: "Constant",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let name = &m.value(m.node(node).output()).name;
    super::bypass_by_constant(m, node, name, tensor(m, node)?)
}

fn tensor(m: &Model, node: NodeId) -> Result<Tensor, NoMatch> {
    let Some((name, value)) = m.node(node).attrs.iter().next() else {
        return Err(no_match!("Constant has no attribute"));
    };
    Ok(match (&**name, value) {
        ("value", Attr::Tensor(it)) => it.clone(),
        ("value_float", Attr::Float(it)) => Tensor::scalar(*it),
        ("value_floats", Attr::Floats(it)) => Tensor::from_f32(&[it.len()], it.iter().copied()),
        ("value_int", Attr::Int(it)) => Tensor::from_i64(&[], [*it]),
        ("value_ints", Attr::Ints(it)) => Tensor::from_i64(&[it.len()], it.iter().copied()),
        ("value_string", Attr::String(it)) => Tensor::strings(vec![], [it.clone()]),
        ("value_strings", Attr::Strings(it)) => Tensor::strings(vec![it.len()], it.clone()),
        ("sparse_value", _) => return Err(no_match!("`sparse_value` has no dense form")),
        _ => return Err(no_match!("`{name}` is no value")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;
    use onnxq_ir::{Attrs, tensor::DType};

    #[test]
    fn every_kind_of_value_becomes_an_initializer() {
        let kinds: [(&str, Attr, DType, &[usize]); 7] = [
            ("value", Tensor::from_f32(&[1, 2], [1., 2.]).into(), DType::F32, &[1, 2]),
            ("value_float", 2.0.into(), DType::F32, &[]),
            ("value_floats", Attr::Floats(vec![1., 2., 3.]), DType::F32, &[3]),
            ("value_int", Attr::Int(7), DType::I64, &[]),
            ("value_ints", vec![7, 8].into(), DType::I64, &[2]),
            ("value_string", "hi".into(), DType::String, &[]),
            ("value_strings", Attr::Strings(vec!["hi".into()]), DType::String, &[1]),
        ];
        for (name, value, dtype, shape) in kinds {
            let mut b = Builder::new();
            let c = b.node_with("Constant", &[], Attrs::default().with(name, value));
            let y = b.node("Relu", &[c]);
            b.output(y, "y");
            assert_eq!(b.run("constant-to-initializer").0, 1, "{name}");
            assert_eq!(b.ops(), ["Relu"]);
            let it = b.constant_at(0, 0);
            assert_eq!((it.dtype, &it.shape[..]), (dtype, shape), "{name}");
        }
    }

    #[test]
    fn an_output_keeps_its_constant() {
        let mut b = Builder::new();
        let c = b.node_with("Constant", &[], Attrs::default().with("value_int", 7i64));
        b.output(c, "c");
        b.misses("constant-to-initializer", "`c` is an output of the graph");
        let y = b.node("Neg", &[c]);
        b.output(y, "y");
        assert_eq!(b.run("constant-to-initializer").0, 1);
        assert_eq!(b.constant_at(1, 0).to_i64().unwrap(), [7]);
    }
}
