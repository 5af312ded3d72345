//! A session on the reference evaluator: slow, exact, and there without ONNX Runtime.

use std::collections::BTreeMap;

use super::{EngineError, IoInfo, Session, match_inputs};
use onnxq_ir::{
    Model, ValueId, eval,
    tensor::{DType, Tensor, TensorType},
};

/// Runs `model` operator by operator in the reference evaluator.
pub fn session(model: Model) -> Box<dyn Session> {
    let ends = |list: &[ValueId]| list.iter().map(|it| info(&model, *it)).collect();
    let graph = model.graph(model.main);
    let (inputs, outputs) = (ends(&graph.inputs), ends(&graph.outputs));
    Box::new(Evaluated { inputs, outputs, model })
}

struct Evaluated {
    inputs: Vec<IoInfo>,
    outputs: Vec<IoInfo>,
    model: Model,
}

impl Session for Evaluated {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let values = match_inputs(&self.inputs, inputs)?;
        let named = self.inputs.iter().zip(values);
        let named: BTreeMap<String, Tensor> =
            named.map(|(it, value)| (it.name.clone(), value.clone())).collect();
        let mut outputs = eval::run(&self.model, &named)?;
        let output = |it: &IoInfo| Some((it.name.clone(), outputs.remove(&it.name)?));
        Ok(self.outputs.iter().filter_map(output).collect())
    }
}

fn info(model: &Model, value: ValueId) -> IoInfo {
    let it = model.value(value);
    let unknown = TensorType { dtype: DType::F32, shape: None };
    IoInfo { name: it.name.to_string(), ty: it.ty.clone().unwrap_or(unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_runs_and_inputs_are_checked() {
        let text = "main (float[n] x) => (float[n] y) { y = Add (x, x) }";
        let mut session = session(onnxq_ir::text::parse(text).unwrap());
        let x = Tensor::from_f32(&[2], [1.0, 2.5]);
        let outputs = session.run(&[("x", &x)]).unwrap();
        assert_eq!(outputs[0].1.to_f32().unwrap(), [2.0, 5.0]);
        assert!(matches!(session.run(&[]), Err(EngineError::MissingInput { .. })));
    }
}
