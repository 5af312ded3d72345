//! Transforms move difficulty between an activation's channels and the weights that read it.
//!
//! For a positive scale `s_j` per input channel, `x'_j = x_j / s_j` is folded into what computes
//! `x`, and `w'_j = w_j · s_j`: the float function stays the same, what quantization loses does
//! not. `rotate` and `hadamard` move it between channels instead.

mod arrange_inputs;
mod awq;
mod equalize;
pub mod fold;
mod hadamard;
mod rotate;
mod scratch;
mod smooth_quant;

use std::ops::Range;

use onnxq_ir::{
    Model, NoMatch, NodeId,
    tensor::{DType, Tensor, TensorError},
};
use onnxq_numerics::{
    scheme::Scheme,
    specs,
    stats::{Hessian, InputStats},
};

specs! {
    /// A transform and its settings, as a recipe names it.
    pub enum TransformSpec("transform", "a transform", "TransformSettings") as transform: Transform {
    } with settings {
        arrange_inputs::ArrangeInputs,
        awq::Awq,
        equalize::Equalize,
        hadamard::Hadamard,
        rotate::Rotate,
        smooth_quant::SmoothQuant,
    }
}

/// Leaves what the model computes the same and makes it easier to quantize.
pub trait Transform: Send + Sync {
    /// What it does, and so what it must know.
    fn work(&self) -> Work<'_>;
}

/// What a transform does.
pub enum Work<'a> {
    /// It finds scales for channels of activations, and needs data.
    Scales(&'a dyn FindScales),
    /// It changes the model and looks at no activation.
    Model(&'a dyn ChangeModel),
}

pub trait FindScales: Send + Sync {
    /// Whether a node may be inserted where nothing absorbs the scales.
    fn mul(&self) -> bool;

    /// The scale of each channel of an activation, `[k]`: positive, and equal for tied channels.
    fn scales(
        &self,
        readers: &[Reader],
        stats: &InputStats,
        ties: Ties,
    ) -> Result<Vec<f32>, TensorError>;
}

pub trait ChangeModel: Send + Sync {
    fn change(&self, m: &mut Model) -> Result<Changed, TensorError>;
}

/// What a transform did to the model.
#[derive(Debug)]
pub struct Changed {
    /// In one line.
    pub summary: String,
    /// Nodes that it left alone, and why.
    pub missed: Vec<(NodeId, NoMatch)>,
    /// New nodes whose weights are to stay in float, and why.
    pub float: Vec<(NodeId, NoMatch)>,
    /// Nodes that read or write a rotated stream.
    pub rotated: Vec<NodeId>,
}

impl TransformSpec {
    /// Whether it looks at activations; else it is a change of the model alone.
    pub fn needs_data(&self) -> bool {
        matches!(self.transform().work(), Work::Scales(_))
    }
}

/// A weight that reads the activation.
pub struct Reader {
    /// `[n, k]`: a row per output channel.
    pub rows: Tensor,
    pub scheme: Scheme,
    /// Element type of the stored scales.
    pub scale: DType,
}

/// Which channels of an activation must have the same scale.
///
/// Heads that share a value head read the same numbers, so channel `(head, i)` is tied to channel
/// `(other, i)` of every head of its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ties {
    /// Heads in the activation.
    pub heads: usize,
    /// Heads in what computes it.
    pub shared: usize,
    /// Channels of a head.
    pub size: usize,
}

impl Ties {
    /// No channel is tied to another.
    pub fn none(channels: usize) -> Ties {
        Ties { heads: 1, shared: 1, size: channels }
    }

    /// The channel of what computes the activation that channel `j` of it comes from.
    pub fn source(&self, j: usize) -> usize {
        let repeat = self.heads / self.shared;
        j / self.size / repeat * self.size + j % self.size
    }

    /// Channels of what computes the activation.
    pub fn sources(&self) -> usize {
        self.shared * self.size
    }

    /// Each channel gets what `join` makes of all channels tied to it, first to last.
    fn pooled(&self, values: &[f32], join: impl Fn(f32, f32) -> f32) -> Vec<f32> {
        let mut pools: Vec<Option<f32>> = vec![None; self.sources()];
        for (j, &value) in values.iter().enumerate() {
            let pool = &mut pools[self.source(j)];
            *pool = Some(pool.map_or(value, |it| join(it, value)));
        }
        (0..values.len()).map(|j| pools[self.source(j)].unwrap_or(0.0)).collect()
    }
}

/// The statistics of an activation whose channels were divided by `scales`, `[k]`: as if it had
/// been observed again.
pub fn rescale(stats: &InputStats, scales: &[f32]) -> InputStats {
    let hessian = stats.hessian.as_ref().map(|it| {
        let pairs = (0..it.k).flat_map(|i| (0..=i).map(move |j| (i, j)));
        let values = pairs.zip(&it.lower);
        let lower = values.map(|((i, j), value)| value / scales[i] / scales[j]).collect();
        Hessian { k: it.k, lower }
    });
    let by = |values: &[f32], power: i32| -> Vec<f32> {
        values.iter().zip(scales).map(|(it, s)| it / s.powi(power)).collect()
    };
    InputStats {
        rows: stats.rows,
        mean_square: by(&stats.mean_square, 2),
        max_abs: by(&stats.max_abs, 1),
        hessian,
        drift: None,
    }
}

/// What a node is called: by its own name, or by that of what it computes.
fn named(m: &Model, node: NodeId) -> String {
    let name = &m.node(node).name;
    let name = if name.is_empty() { &m.value(m.node(node).output()).name } else { name };
    name.to_string()
}

/// Reads a matrix some rows at a time: their numbers and their values.
fn in_pieces(rows: &Tensor, mut read: impl FnMut(Range<usize>, &[f32])) -> Result<(), TensorError> {
    const PIECE: usize = 1 << 22;
    let count = PIECE / rows.shape[1].max(1) + 1;
    for start in (0..rows.shape[0]).step_by(count) {
        let range = start..(start + count).min(rows.shape[0]);
        read(range.clone(), &rows.rows_f32(range)?);
    }
    Ok(())
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaled_statistics_are_those_of_the_scaled_input() {
        let x = [[1.0f32, -2.0, 0.5], [3.0, 1.0, -4.0]];
        let scales = [2.0f32, 0.5, 4.0];
        let stats = |x: &[[f32; 3]; 2]| {
            let mean = |i: usize, j: usize| (x[0][i] * x[0][j] + x[1][i] * x[1][j]) / 2.0;
            let pairs = (0..3).flat_map(|i| (0..=i).map(move |j| (i, j)));
            InputStats {
                rows: 2,
                mean_square: (0..3).map(|j| mean(j, j)).collect(),
                max_abs: (0..3).map(|j| x[0][j].abs().max(x[1][j].abs())).collect(),
                hessian: Some(Hessian { k: 3, lower: pairs.map(|(i, j)| mean(i, j)).collect() }),
                drift: None,
            }
        };
        let scaled = x.map(|row| [0, 1, 2].map(|j| row[j] / scales[j]));
        assert_eq!(rescale(&stats(&x), &scales), stats(&scaled));
        let diagonal = InputStats { hessian: None, ..stats(&x) };
        assert_eq!(rescale(&diagonal, &scales), InputStats { hessian: None, ..stats(&scaled) });
    }

    #[test]
    fn channels_of_heads_that_share_a_value_head_are_tied() {
        let ties = Ties { heads: 4, shared: 2, size: 2 };
        let sources: Vec<usize> = (0..8).map(|j| ties.source(j)).collect();
        assert_eq!(sources, [0, 1, 0, 1, 2, 3, 2, 3]);
        let pooled = ties.pooled(&[1., 2., 3., 1., 5., 6., 4., 8.], f32::max);
        assert_eq!(pooled, [3., 2., 3., 2., 5., 8., 5., 8.]);
        assert_eq!(Ties::none(3).pooled(&[1., 2., 3.], f32::max), [1., 2., 3.]);
    }
}
