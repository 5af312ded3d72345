//! Small models for the tests of rules and passes.

use std::sync::Mutex;

use super::run;
use onnxq_ir::{
    Attrs, Def, Model, Name, NodeId, Op, ValueId,
    ctx::{Ctx, Silent},
    tensor::{DType, Dim, Tensor, TensorType},
};

/// Builds a main graph from top to bottom.
pub(crate) struct Builder {
    pub model: Model,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        let mut model = Model::empty();
        model.set_opset("", 17);
        Builder { model }
    }

    /// A float input; dimensions that are no numbers are symbols, `?` is unknown.
    pub(crate) fn input(&mut self, name: &str, dims: &str) -> ValueId {
        let dims = dims.split(',').filter(|it| !it.is_empty()).map(|it| match it.parse() {
            Ok(number) => Dim::Fixed(number),
            Err(_) if it == "?" => Dim::Unknown,
            Err(_) => Dim::Symbol(it.into()),
        });
        let ty = TensorType::new(DType::F32, dims.collect::<Vec<_>>());
        self.model.add_input(self.model.main, name, Some(ty))
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> ValueId {
        self.constant(name, Tensor::from_f32(shape, values.iter().copied()))
    }

    pub(crate) fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.model.add_constant(self.model.main, name, tensor)
    }

    pub(crate) fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.node_with(op, inputs, Attrs::default())
    }

    pub(crate) fn node_with(&mut self, op: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        let node = self.node_of(op, inputs, attrs, &[""]);
        self.model.node(node).output()
    }

    /// A node with an output for each of `outputs`; empty names are made up.
    pub(crate) fn node_of(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attrs: Attrs,
        outputs: &[&str],
    ) -> NodeId {
        let graph = self.model.main;
        let m = &mut self.model;
        let outputs = outputs
            .iter()
            .map(|it| {
                let made_up = format!("v{}", m.value_count());
                let name = if it.is_empty() { &made_up } else { *it };
                m.add_value(name, None, Def::Input(graph, None))
            })
            .collect();
        let inputs = inputs.iter().map(|it| Some(*it)).collect();
        let name: Name = "".into();
        m.add_node(graph, None, (Op::new(op), name), inputs, attrs, outputs)
    }

    pub(crate) fn output(&mut self, value: ValueId, name: &str) {
        self.model.value_mut(value).name = name.into();
        self.model.add_output(self.model.main, value);
    }

    /// Runs one step; returns how much changed and the trace.
    pub(crate) fn run(&mut self, step: &str) -> (usize, Vec<String>) {
        let lines = Mutex::new(Vec::new());
        let ctx = Ctx { progress: &Silent, trace: Some(&lines), max_rewrites: usize::MAX };
        let done = run(&mut self.model, &[step], &ctx).unwrap();
        (done[0].1, lines.into_inner().unwrap())
    }

    /// Asserts that `step` changes nothing and says why in the only line of its trace.
    #[track_caller]
    pub(crate) fn misses(&mut self, step: &str, reason: &str) {
        let (changes, lines) = self.run(step);
        assert_eq!(changes, 0);
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.ends_with(&format!(": {reason}")), "{line}");
    }

    /// Operators in execution order, subgraphs included.
    pub(crate) fn ops(&self) -> Vec<String> {
        self.model.nodes().into_iter().map(|it| self.model.node(it).op.to_string()).collect()
    }

    /// The constant that is input `index` of the node at `at` in execution order.
    #[track_caller]
    pub(crate) fn constant_at(&self, at: usize, index: usize) -> &Tensor {
        let node = self.model.nodes()[at];
        let value = self.model.operand(node, index).unwrap();
        self.model.constant(value).unwrap()
    }
}
