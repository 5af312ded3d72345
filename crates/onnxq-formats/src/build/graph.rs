//! Nodes and constants with names that reports can show.

use std::collections::BTreeMap;

use crate::{
    Weights,
    arch::{Activation, Linear, Norm, NormKind, Param},
};
use onnxq_ir::{
    Attrs, Def, GraphId, Model, Op, ValueId,
    tensor::{DType, Dim, Tensor, TensorType},
};

/// The standard that has `Attention`, `RMSNormalization` and `RotaryEmbedding`, and its format.
const OPSET: i64 = 23;
const IR_VERSION: i64 = 11;

pub(super) struct Graph<'a> {
    pub(super) model: Model,
    weights: &'a Weights,
    /// By name and rows; what is added to a parameter is the same wherever it is read.
    params: BTreeMap<(String, Option<(usize, usize)>), ValueId>,
    ints: BTreeMap<(Vec<usize>, Vec<i64>), ValueId>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(weights: &'a Weights, model_type: &str) -> Graph<'a> {
        let mut model = Model::empty();
        model.ir_version = IR_VERSION;
        model.producer_name = "onnxq".to_owned();
        model.producer_version = env!("CARGO_PKG_VERSION").to_owned();
        model.metadata = vec![(super::MODEL_TYPE.to_owned(), model_type.to_owned())];
        model.set_opset("", OPSET);
        model.set_opset("com.microsoft", 1);
        let main = model.main;
        model.graph_mut(main).name = "main_graph".to_owned();
        Graph { model, weights, params: BTreeMap::new(), ints: BTreeMap::new() }
    }

    pub(super) fn finish(mut self) -> Model {
        self.model.remove_all_dead();
        self.model
    }

    pub(super) fn input(&mut self, name: &str, dtype: DType, dims: Vec<Dim>) -> ValueId {
        self.model.add_input(self.model.main, name, Some(TensorType::new(dtype, dims)))
    }

    /// Makes a value an output, under a name.
    pub(super) fn output(&mut self, name: &str, value: ValueId, dims: Vec<Dim>) {
        let output = self.model.value_mut(value);
        output.name = name.into();
        output.ty = Some(TensorType::new(DType::F32, dims));
        output.declared = true;
        self.model.add_output(self.model.main, value);
    }

    pub(super) fn node<const N: usize>(
        &mut self,
        op: &str,
        name: &str,
        inputs: [ValueId; N],
        attrs: Attrs,
    ) -> ValueId {
        self.nodes(op, name, inputs.map(Some).to_vec(), attrs, 1)[0]
    }

    /// A node with several outputs, called like it and numbered from the second on.
    pub(super) fn nodes(
        &mut self,
        op: &str,
        name: &str,
        inputs: Vec<Option<ValueId>>,
        attrs: Attrs,
        outputs: usize,
    ) -> Vec<ValueId> {
        let main = self.model.main;
        self.nodes_in(main, op, name, inputs, attrs, outputs)
    }

    pub(super) fn nodes_in(
        &mut self,
        graph: GraphId,
        op: &str,
        name: &str,
        inputs: Vec<Option<ValueId>>,
        attrs: Attrs,
        outputs: usize,
    ) -> Vec<ValueId> {
        let value = |it: usize| if it == 0 { name.to_owned() } else { format!("{name}_{it}") };
        let outputs: Vec<ValueId> = (0..outputs)
            .map(|it| self.model.add_value(&value(it), None, Def::Input(graph, None)))
            .collect();
        let op = (Op::new(op), name.into());
        self.model.add_node(graph, None, op, inputs, attrs, outputs.clone());
        outputs
    }

    pub(super) fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.model.add_constant(self.model.main, name, tensor)
    }

    pub(super) fn scalar(&mut self, name: &str, value: f32) -> ValueId {
        self.constant(name, Tensor::scalar(value))
    }

    /// Whole numbers; the same ones are one constant.
    pub(super) fn ints(&mut self, name: &str, shape: &[usize], values: &[i64]) -> ValueId {
        let key = (shape.to_vec(), values.to_vec());
        if let Some(known) = self.ints.get(&key) {
            return *known;
        }
        let value = self.constant(name, Tensor::from_i64(shape, values.iter().copied()));
        self.ints.insert(key, value);
        value
    }

    /// A parameter as it is stored, once.
    pub(super) fn param(&mut self, param: &Param) -> ValueId {
        if let Some(known) = self.known(param) {
            return known;
        }
        let tensor = match self.weights.plus(param) {
            0.0 => self.weights.get(param),
            plus => raised(self.weights.get(param), plus),
        };
        let value = self.constant(&param.name, tensor);
        self.params.insert(key(param), value);
        value
    }

    fn known(&self, param: &Param) -> Option<ValueId> {
        self.params.get(&key(param)).copied()
    }

    /// The weight of a product, inputs in rows. One that is a table already stays one table.
    fn matrix(&mut self, linear: &Linear) -> ValueId {
        if let Some(table) = self.known(&linear.weight).filter(|_| !linear.turned) {
            let name = format!("{}.weight", linear.name);
            let attrs = Attrs::default().with("perm", vec![1i64, 0]);
            return self.node("Transpose", &name, [table], attrs);
        }
        let tensor = self.weights.get(&linear.weight);
        let tensor = if linear.turned { tensor } else { tensor.transposed() };
        let name = format!("{}.weight", linear.name);
        self.constant(&name, tensor)
    }

    /// `x · weight + bias`.
    pub(super) fn linear(&mut self, linear: &Linear, x: ValueId) -> ValueId {
        let weight = self.matrix(linear);
        let product = self.node("MatMul", &linear.name, [x, weight], Attrs::default());
        let Some(bias) = &linear.bias else { return product };
        let bias = self.param(bias);
        self.node("Add", &format!("{}.add", linear.name), [product, bias], Attrs::default())
    }

    pub(super) fn norm(&mut self, norm: &Norm, x: ValueId) -> ValueId {
        let mut inputs = vec![Some(x), Some(self.param(&norm.weight))];
        inputs.extend(norm.bias.as_ref().map(|it| Some(self.param(it))));
        let op = match norm.kind {
            NormKind::Rms => "RMSNormalization",
            NormKind::Layer => "LayerNormalization",
        };
        let attrs = Attrs::default().with("axis", -1i64).with("epsilon", norm.epsilon);
        self.nodes(op, &norm.name, inputs, attrs, 1)[0]
    }

    pub(super) fn activation(&mut self, activation: Activation, name: &str, x: ValueId) -> ValueId {
        let none = Attrs::default();
        let (op, attrs) = match activation {
            Activation::Gelu => ("Gelu", none),
            Activation::GeluTanh => ("Gelu", none.with("approximate", "tanh")),
            Activation::Relu => ("Relu", none),
            // With alpha 1 it is `x · sigmoid(x)`, in one kernel.
            Activation::Silu => ("com.microsoft.QuickGelu", none.with("alpha", 1.0f32)),
            Activation::Tanh => ("Tanh", none),
        };
        self.node(op, name, [x], attrs)
    }

    pub(super) fn cast(&mut self, name: &str, x: ValueId, dtype: DType) -> ValueId {
        let attrs = Attrs::default().with("to", i64::from(dtype.number()));
        self.node("Cast", name, [x], attrs)
    }

    /// Length of an axis, as one number in a list.
    pub(super) fn length(&mut self, name: &str, of: ValueId, axis: i64) -> ValueId {
        let attrs = Attrs::default().with("start", axis).with("end", axis + 1);
        self.node("Shape", name, [of], attrs)
    }

    /// The only number of a list.
    pub(super) fn squeeze(&mut self, name: &str, list: ValueId) -> ValueId {
        self.node("Squeeze", name, [list], Attrs::default())
    }

    pub(super) fn reshape(&mut self, name: &str, x: ValueId, shape: &[i64]) -> ValueId {
        let shape = self.ints(&format!("{name}.shape"), &[shape.len()], shape);
        self.node("Reshape", name, [x, shape], Attrs::default())
    }
}

fn key(param: &Param) -> (String, Option<(usize, usize)>) {
    (param.name.clone(), param.rows.as_ref().map(|it| (it.start, it.end)))
}

/// A small tensor with a number added to each element.
pub(crate) fn raised(tensor: Tensor, plus: f32) -> Tensor {
    let shape = tensor.shape.clone();
    Tensor::lazy(DType::F32, shape.clone(), move || {
        let values = tensor.to_f32()?;
        Tensor::from_f32(&shape, values.into_iter().map(|it| it + plus)).bytes()
    })
}
