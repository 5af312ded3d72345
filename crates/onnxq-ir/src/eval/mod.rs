//! The reference evaluator: what a model means, computed plainly, for constant folding and tests.

mod attention;
mod binary;
mod call;
mod cast;
mod control;
mod conv;
mod einsum;
mod gather;
mod generate;
mod heads;
mod index;
mod math;
mod matmul;
mod nbits;
mod norm;
mod pad;
mod pool;
mod quant;
mod reduce;
mod resize;
mod rotary;
mod scatter;
mod scope;
mod seen;
mod shape;
mod sort;
mod table;
mod unary;
mod values;
mod window;

use std::collections::BTreeMap;

pub use self::{
    call::Call,
    table::{Evaluate, OPS},
};
use crate::{
    diag::{Code, Diagnostic},
    ir::{Model, NodeId, Op},
    tensor::{DType, Tensor, TensorError},
};

/// The most elements a value may have, so that a hostile shape cannot exhaust memory.
pub const LIMIT: usize = 1 << 28;

#[derive(Clone, Debug, thiserror::Error)]
pub enum EvalError {
    #[error("attribute `{name}` {what}")]
    Attribute { name: String, what: &'static str },
    #[error("an integer is divided by zero")]
    DivideByZero,
    #[error("index {index} is outside a dimension of {size}")]
    Index { index: i64, size: usize },
    #[error("`{name}` is missing")]
    MissingInput { name: String },
    #[error("node `{node}`: {source}")]
    Node { node: String, source: Box<EvalError> },
    #[error("{what}")]
    Shape { what: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error("graphs and functions nest too deeply")]
    TooDeep,
    #[error("a value of shape {shape:?} has more than {LIMIT} elements")]
    TooLarge { shape: Vec<usize> },
    #[error("expected {expected}, got {got}")]
    Type { expected: &'static str, got: DType },
    #[error("the evaluator does not know {op}")]
    Unsupported { op: String },
}

impl Diagnostic for EvalError {
    fn code(&self) -> Code {
        match self {
            EvalError::MissingInput { .. } => Code::E607,
            EvalError::Node { source, .. } => source.code(),
            EvalError::TooLarge { .. } => Code::E302,
            _ => Code::E407,
        }
    }
}

/// The outputs of the main graph for the given inputs, by name.
///
/// Inputs with a default may be left out.
pub fn run(
    model: &Model,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, EvalError> {
    let graph = model.graph(model.main);
    let name = |it: &_| model.value(*it).name.to_string();
    let given = graph.inputs.iter().map(|it| inputs.get(&*model.value(*it).name).cloned());
    let outputs = scope::Scope::main(model).with(model.main, given.collect())?.run(model.main)?;
    Ok(graph.outputs.iter().map(name).zip(outputs).collect())
}

/// The outputs of one node for the given inputs.
///
/// What the bodies of a control-flow node capture must be constant.
pub fn node(
    model: &Model,
    node: NodeId,
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, EvalError> {
    scope::Scope::of(model, model.node(node).graph).evaluate(node, inputs)
}

/// Whether the table has the operator; a model's own functions are known beyond it.
pub fn knows(op: &Op) -> bool {
    table::find(op).is_some()
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::ir::{Attrs, Def};

    /// One node of opset `version` on its own.
    pub(super) fn eval_at(
        version: i64,
        op: &str,
        inputs: &[Option<Tensor>],
        attrs: Attrs,
        outputs: usize,
    ) -> Result<Vec<Tensor>, EvalError> {
        let mut model = Model::empty();
        model.set_opset("", version);
        let main = model.main;
        let values =
            inputs.iter().map(|it| it.as_ref().map(|_| model.add_input(main, "x", None))).collect();
        let results =
            (0..outputs).map(|_| model.add_value("y", None, Def::Input(main, None))).collect();
        let id = model.add_node(main, None, (Op::new(op), "".into()), values, attrs, results);
        node(&model, id, inputs)
    }

    /// One node of opset 21 with one output.
    pub(super) fn eval(op: &str, inputs: &[&Tensor], attrs: Attrs) -> Result<Tensor, EvalError> {
        let inputs: Vec<_> = inputs.iter().map(|it| Some((*it).clone())).collect();
        Ok(eval_at(21, op, &inputs, attrs, 1)?.remove(0))
    }

    pub(super) fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_f32(shape, values.iter().copied())
    }

    pub(super) fn i64s(shape: &[usize], values: &[i64]) -> Tensor {
        Tensor::from_i64(shape, values.iter().copied())
    }

    pub(super) fn raw(dtype: DType, shape: &[usize], values: &[u8]) -> Tensor {
        Tensor::new(dtype, shape.to_vec(), values.to_vec())
    }

    #[track_caller]
    pub(super) fn close(actual: &Tensor, expected: &[f32]) {
        let actual = actual.to_f32().unwrap();
        assert_eq!(actual.len(), expected.len());
        for (a, b) in actual.iter().zip(expected) {
            assert!((a - b).abs() <= 2e-6 * b.abs().max(1.0), "{actual:?} is not {expected:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};
    use crate::ir::Attrs;

    #[test]
    fn hostile_shapes_are_refused_before_allocation() {
        let huge = i64s(&[3], &[i64::MAX, i64::MAX, 4]);
        let one = f32s(&[1], &[1.0]);
        for (op, inputs) in [
            ("ConstantOfShape", vec![&huge]),
            ("Expand", vec![&one, &huge]),
            ("Range", vec![&i64s(&[], &[0]), &i64s(&[], &[i64::MAX]), &i64s(&[], &[1])]),
            ("Tile", vec![&one, &i64s(&[1], &[i64::MAX])]),
            ("Pad", vec![&one, &i64s(&[2], &[i64::MAX, i64::MAX])]),
            ("OneHot", vec![&i64s(&[1], &[0]), &i64s(&[], &[i64::MAX]), &f32s(&[2], &[0., 1.])]),
        ] {
            let result = eval(op, &inputs, Attrs::default());
            assert!(matches!(result, Err(EvalError::TooLarge { .. })), "{op}: {result:?}");
        }
    }

    #[test]
    fn an_unknown_operator_is_an_error_and_not_known() {
        assert!(!knows(&Op::new("com.example.Frobnicate")));
        assert!(knows(&Op::new("com.microsoft.MatMulNBits")));
        let result = eval("com.example.Frobnicate", &[], Attrs::default());
        assert!(matches!(result, Err(EvalError::Unsupported { .. })));
    }

    #[test]
    fn no_operator_panics_on_odd_inputs() {
        let odd = [
            f32s(&[], &[-1.5]),
            f32s(&[0, 3], &[]),
            f32s(&[2, 3], &[1., f32::NAN, 3., f32::INFINITY, -5., 6.]),
            f32s(&[1, 2, 2], &[1., 2., 3., 4.]),
            i64s(&[2], &[-7, i64::MAX]),
            i64s(&[0], &[]),
            i64s(&[], &[i64::MIN]),
            raw(DType::I4, &[3], &[0x21, 0x03]),
            raw(DType::Bool, &[2], &[0, 1]),
            Tensor::strings(vec![1], vec![bytes::Bytes::from_static(b"a")]),
        ];
        for (op, _) in OPS {
            for first in 0..odd.len() {
                for second in 0..odd.len() {
                    for count in 0..6 {
                        let pair = [&odd[first], &odd[second]];
                        let inputs: Vec<_> =
                            (0..count).map(|it| Some(pair[it % 2].clone())).collect();
                        for version in [9, 21] {
                            let _ = eval_at(version, op, &inputs, Attrs::default(), 1);
                        }
                    }
                }
            }
        }
    }
}
