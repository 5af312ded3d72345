//! A normalisation with constant statistics moves into the convolution or `Gemm` before it.
//!
//! ```text
//! BatchNormalization(Conv(x, w, b), s, t, mean, var)      →      Conv(x, w·g, (b - mean)·g + t)
//! with g = s / √(var + epsilon), per output channel
//! ```

use super::channels::{ChannelAxis, into_results, per_channel};
use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, ValueId, no_match};

pub(super) const FOLD_BATCHNORM: Rule = Rule {
    name: "fold-batchnorm",
    help: "move BatchNormalization into the weights of the Conv, ConvTranspose or Gemm before it",
    root: "BatchNormalization",
    apply,
};

fn apply(m: &Model, bn: NodeId) -> Result<Patch, NoMatch> {
    inference(m, bn)?;
    let conv = linear(m, m.operand(bn, 0)?)?;
    super::same_graph(m, conv, bn)?;
    m.only_use(m.node(conv).output())?;
    let channels = ChannelAxis::of(m, conv)?.channels;
    let (gain, shift) = affine(m, bn, channels)?;
    into_results(m, conv, gain, &shift, bn)
}

/// Only with fixed statistics is it an affine function.
fn inference(m: &Model, bn: NodeId) -> Result<(), NoMatch> {
    if m.opset("") < 7 {
        return Err(no_match!("BatchNormalization of opset {} has another form", m.opset("")));
    }
    if m.int_attr(bn, "training_mode", 0) != 0 || m.int_attr(bn, "spatial", 1) != 1 {
        return Err(no_match!("BatchNormalization is not in its inference form"));
    }
    let is_used = |it: &&ValueId| !m.value(**it).name.is_empty() || !m.value(**it).uses.is_empty();
    match m.node(bn).outputs[1..].iter().find(is_used) {
        Some(it) => Err(no_match!("statistics `{}` are computed", m.value(*it).name)),
        None => Ok(()),
    }
}

fn linear(m: &Model, value: ValueId) -> Result<NodeId, NoMatch> {
    let conv = m.producer(value, "Conv");
    let other = |reason| {
        ["ConvTranspose", "Gemm"].iter().find_map(|it| m.producer(value, it).ok()).ok_or(reason)
    };
    let node = conv.or_else(other)?;
    let one = |name| m.float_attr(node, name, 1.0) == 1.0;
    if m.node(node).op.is("Gemm") && !(one("alpha") && one("beta")) {
        return Err(no_match!("{} is scaled", m.node_label(node)));
    }
    Ok(node)
}

/// Gain and shift of each channel.
fn affine(m: &Model, bn: NodeId, channels: usize) -> Result<(Vec<f32>, Vec<f32>), NoMatch> {
    let read = |index| per_channel(m, m.operand(bn, index)?, channels);
    let (scale, shift, mean, var) = (read(1)?, read(2)?, read(3)?, read(4)?);
    let epsilon = f64::from(m.float_attr(bn, "epsilon", 1e-5));
    let gain: Vec<f64> =
        (0..channels).map(|c| f64::from(scale[c]) / (f64::from(var[c]) + epsilon).sqrt()).collect();
    if let Some(c) = gain.iter().position(|it| !it.is_finite()) {
        return Err(no_match!("variance {} of channel {c} gives no finite scale", var[c]));
    }
    let shift = (0..channels).map(|c| (f64::from(shift[c]) - f64::from(mean[c]) * gain[c]) as f32);
    Ok((gain.iter().map(|it| *it as f32).collect(), shift.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;
    use onnxq_ir::Attrs;

    /// A convolution of two output channels, normalised with gains 2 and 3.
    fn model(op: &str, shape: &[usize], attrs: Attrs) -> (Builder, ValueId) {
        let mut b = Builder::new();
        let x = b.input("x", "1,2,4,4");
        let weight: Vec<f32> = (1..=shape.iter().product::<usize>()).map(|it| it as f32).collect();
        let w = b.floats("w", shape, &weight);
        let c = b.node_with(op, &[x, w], attrs);
        let stats = [[2., 3.], [5., 0.], [1., 0.], [1., 1.]].map(|it| b.floats("stat", &[2], &it));
        let attrs = Attrs::default().with("epsilon", 0.0);
        let y =
            b.node_with("BatchNormalization", &[c, stats[0], stats[1], stats[2], stats[3]], attrs);
        b.output(y, "y");
        (b, c)
    }

    #[test]
    fn the_gain_scales_output_channels() {
        let (mut b, _) = model("Conv", &[2, 2, 1, 1], Attrs::default());
        assert_eq!(b.run("fold-batchnorm").0, 1);
        assert_eq!(b.ops(), ["Conv"]);
        assert_eq!(b.constant_at(0, 1).to_f32().unwrap(), [2., 4., 9., 12.]);
        assert_eq!(b.constant_at(0, 2).to_f32().unwrap(), [3., 0.]);
    }

    #[test]
    fn channels_of_a_transposed_convolution_are_on_the_second_axis() {
        let (mut b, _) = model("ConvTranspose", &[2, 2, 1, 1], Attrs::default());
        b.run("fold-batchnorm");
        assert_eq!(b.constant_at(0, 1).to_f32().unwrap(), [2., 6., 6., 12.]);

        let grouped = Attrs::default().with("group", 2i64);
        let (mut b, _) = model("ConvTranspose", &[2, 1, 1, 2], grouped);
        b.run("fold-batchnorm");
        assert_eq!(b.constant_at(0, 1).to_f32().unwrap(), [2., 4., 9., 12.]);
    }

    #[test]
    fn another_use_keeps_the_convolution() {
        let (mut b, c) = model("Conv", &[2, 2, 1, 1], Attrs::default());
        b.output(c, "c");
        b.misses("fold-batchnorm", "`c` has other uses");
    }

    #[test]
    fn statistics_must_fit_the_channels() {
        let (mut b, _) = model("Conv", &[3, 2, 1, 1], Attrs::default());
        b.misses("fold-batchnorm", "`stat` has 2 values for 3 channels");
    }

    #[test]
    fn training_and_negative_variances_are_left_alone() {
        let (mut b, _) = model("Conv", &[2, 2, 1, 1], Attrs::default());
        let bn = b.model.nodes()[1];
        b.model.set_attr(bn, "epsilon", (-1.0f32).into());
        b.misses("fold-batchnorm", "variance 1 of channel 0 gives no finite scale");
        b.model.set_attr(bn, "training_mode", 1i64.into());
        b.misses("fold-batchnorm", "BatchNormalization is not in its inference form");
    }
}
