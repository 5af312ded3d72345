//! A layer with a weight: which of its elements belong to which channel.

use super::scalable;
use crate::transform::in_pieces;
use onnxq_ir::{
    Model, NoMatch, NodeId, no_match,
    tensor::{Tensor, TensorError, from_f32},
};

/// A node with a constant weight, seen as `[rows, columns, rest]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layer {
    pub node: NodeId,
    pub kind: Kind,
    rows: usize,
    columns: usize,
    /// Elements of a kernel.
    rest: usize,
    groups: usize,
    /// Spatial dimensions; 0 for a matrix, whose channels are the last axis of an activation.
    pub spatial: usize,
}

/// Which axes of the weight are channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `[outputs, inputs / groups, …]`
    Conv,
    /// `[inputs, outputs / groups, …]`
    ConvTranspose,
    /// `[inputs, outputs]`
    MatMul,
}

/// The channels that a layer computes, or those that it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Outputs,
    Inputs,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Outputs => Side::Inputs,
            Side::Inputs => Side::Outputs,
        }
    }
}

impl Layer {
    /// The layer that a node is. `None`: it has no weight to speak of.
    pub(crate) fn of(m: &Model, node: NodeId) -> Option<Result<Layer, NoMatch>> {
        let kind = match &*m.node(node).op.to_string() {
            "Conv" => Kind::Conv,
            "ConvTranspose" => Kind::ConvTranspose,
            "MatMul" => Kind::MatMul,
            _ => return None,
        };
        // A product of two activations is no layer.
        if kind == Kind::MatMul && m.constant(m.operand(node, 1).ok()?).is_err() {
            return None;
        }
        Some(Layer::new(m, node, kind))
    }

    fn new(m: &Model, node: NodeId, kind: Kind) -> Result<Layer, NoMatch> {
        let weight = m.operand(node, 1)?;
        let tensor = m.constant(weight)?;
        scalable(m, node, tensor)?;
        let name = &m.value(weight).name;
        if m.only_use(weight).is_err() {
            return Err(no_match!("its weight `{name}` is used elsewhere too"));
        }
        let groups = usize::try_from(m.int_attr(node, "group", 1)).unwrap_or(0);
        let (rows, columns, kernel) = match (kind, &tensor.shape[..]) {
            (Kind::MatMul, [rows, columns]) => (*rows, *columns, &[][..]),
            (Kind::Conv | Kind::ConvTranspose, [rows, columns, kernel @ ..])
                if !kernel.is_empty() =>
            {
                (*rows, *columns, kernel)
            }
            _ => return Err(no_match!("its weight `{name}` is {tensor:?}")),
        };
        let groups = if kind == Kind::MatMul { 1 } else { groups };
        if groups == 0 || !rows.is_multiple_of(groups) || tensor.numel() == 0 {
            return Err(no_match!("its weight {tensor:?} does not fit {groups} groups"));
        }
        let (rest, spatial) = (kernel.iter().product(), kernel.len());
        Ok(Layer { node, kind, rows, columns, rest, groups, spatial })
    }

    pub(crate) fn outputs(&self) -> usize {
        self.channels(Side::Outputs)
    }

    pub(crate) fn inputs(&self) -> usize {
        self.channels(Side::Inputs)
    }

    fn channels(&self, side: Side) -> usize {
        match self.is_by_row(side) {
            true => self.rows,
            false => self.columns * self.groups,
        }
    }

    /// Whether the channels of a side are the rows of the weight.
    fn is_by_row(&self, side: Side) -> bool {
        (side == Side::Outputs) == (self.kind == Kind::Conv)
    }

    /// The channel that column 0 of a row belongs to, on the side that is not by row.
    fn first_column(&self, row: usize) -> usize {
        row / (self.rows / self.groups) * self.columns
    }

    /// The largest magnitude of each channel of a side, the other side's being multiplied.
    pub(crate) fn ranges(
        &self,
        m: &Model,
        side: Side,
        other: &[f64],
    ) -> Result<Vec<f64>, TensorError> {
        let weight = m.operand(self.node, 1).and_then(|it| m.constant(it));
        let matrix = self.matrix(weight.expect("a layer has a weight"));
        let mut ranges = vec![0f64; self.channels(side)];
        let by_row = self.is_by_row(side);
        in_pieces(&matrix, |rows, values| {
            let kernels = values.chunks_exact(self.rest);
            for (at, kernel) in kernels.enumerate() {
                let (row, column) = (rows.start + at / self.columns, at % self.columns);
                let column = self.first_column(row) + column;
                let (own, foreign) = if by_row { (row, column) } else { (column, row) };
                let reach = kernel.iter().fold(0f32, |max, it| max.max(it.abs()));
                ranges[own] = ranges[own].max(f64::from(reach) * other[foreign]);
            }
        })?;
        Ok(ranges)
    }

    /// `[rows, columns · rest]`.
    fn matrix(&self, weight: &Tensor) -> Tensor {
        match self.kind {
            Kind::MatMul => weight.clone(),
            _ => weight.reshaped(vec![self.rows, self.columns * self.rest]),
        }
    }

    /// The weight with its channels multiplied, computed when it is read.
    pub(crate) fn scaled(&self, weight: &Tensor, outputs: &[f64], inputs: &[f64]) -> Tensor {
        let (by_row, by_column) = match self.is_by_row(Side::Outputs) {
            true => (outputs, inputs),
            false => (inputs, outputs),
        };
        let narrow = |list: &[f64]| list.iter().map(|it| *it as f32).collect::<Vec<f32>>();
        let (rows, columns) = (narrow(by_row), narrow(by_column));
        if self.kind == Kind::MatMul {
            return weight.scaled(0, rows).scaled(1, columns);
        }
        let (layer, matrix) = (self.clone(), self.matrix(weight));
        Tensor::lazy(weight.dtype, weight.shape.clone(), move || {
            let mut values = matrix.rows_f32(0..layer.rows)?;
            for (at, kernel) in values.chunks_exact_mut(layer.rest).enumerate() {
                let (row, column) = (at / layer.columns, at % layer.columns);
                let factor = rows[row] * columns[layer.first_column(row) + column];
                kernel.iter_mut().for_each(|it| *it *= factor);
            }
            Ok(from_f32(matrix.dtype, &values)?.into())
        })
    }
}
