//! A normalisation with constant statistics moves into the convolution or `Gemm` before it.
//!
//! ```text
//! BatchNormalization(Conv(x, w, b), s, t, mean, var)      →      Conv(x, w·g, (b - mean)·g + t)
//! with g = s / √(var + epsilon), per output channel
//! ```

use crate::{
    ir::{Model, NoMatch, Node, NodeId, Patch, ValueId},
    no_match,
    rewrite::Rule,
    tensor::{Tensor, from_f32},
};

pub const FOLD_BATCHNORM: Rule = Rule {
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
    let (x, w) = (m.operand(conv, 0)?, m.operand(conv, 1)?);
    let weight = m.constant(w)?;
    super::scalable(weight)?;
    let axis = ChannelAxis::of(m, conv, weight)?;
    let (gain, shift) = affine(m, bn, axis.channels)?;
    let bias = match m.node(conv).inputs.get(2).copied().flatten() {
        Some(it) => per_channel(m, it, axis.channels)?,
        None => vec![0.0; axis.channels],
    };

    let bias: Vec<f32> = (0..bias.len()).map(|c| bias[c] * gain[c] + shift[c]).collect();
    let bias = from_f32(weight.dtype, &bias).map_err(|err| no_match!("{err}"))?;
    let bias = Tensor::new(weight.dtype, vec![axis.channels], bias);

    let name = super::stem(m, conv);
    let mut patch = Patch::before(bn);
    let w = patch.constant(&m.value(w).name, super::scaled(weight, move |i| gain[axis.channel(i)]));
    let bias = patch.constant(&format!("{name}.bias"), bias);
    let Node { op, attrs, .. } = m.node(conv);
    let y = patch.node(&name, &op.to_string(), [x.into(), w, bias], attrs.clone());
    Ok(patch.replace(m.node(bn).output(), y))
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

/// Which output channel an element of the weight belongs to.
#[derive(Clone, Copy)]
struct ChannelAxis {
    channels: usize,
    /// Elements from one channel to the next.
    step: usize,
    /// Channels of a group.
    inner: usize,
    /// Elements of a group.
    group: usize,
}

impl ChannelAxis {
    fn of(m: &Model, conv: NodeId, weight: &Tensor) -> Result<ChannelAxis, NoMatch> {
        let [rows, columns, kernel @ ..] = &weight.shape[..] else {
            return Err(no_match!("the weight has the shape {:?}", weight.shape));
        };
        let kernel: usize = kernel.iter().product();
        let groups = usize::try_from(m.int_attr(conv, "group", 1)).unwrap_or(0);
        if weight.numel() == 0 || groups == 0 || rows % groups != 0 {
            return Err(no_match!("{groups} groups of a weight {weight:?}"));
        }
        // Conv has [channels, inputs / group, …], ConvTranspose [inputs, channels / group, …], Gemm
        // [inputs, channels] or the transpose of it.
        Ok(match &*m.node(conv).op.name {
            "Gemm" if m.int_attr(conv, "transB", 0) == 0 => {
                ChannelAxis { channels: *columns, step: 1, inner: *columns, group: weight.numel() }
            }
            "Gemm" => {
                ChannelAxis { channels: *rows, step: *columns, inner: *rows, group: weight.numel() }
            }
            "Conv" => {
                let step = columns * kernel;
                ChannelAxis { channels: *rows, step, inner: *rows, group: weight.numel() }
            }
            _ => {
                let group = rows / groups * columns * kernel;
                ChannelAxis { channels: columns * groups, step: kernel, inner: *columns, group }
            }
        })
    }

    fn channel(self, element: usize) -> usize {
        element / self.group * self.inner + element / self.step % self.inner
    }
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

fn per_channel(m: &Model, value: ValueId, channels: usize) -> Result<Vec<f32>, NoMatch> {
    let values = m.small_f32(value)?;
    if values.len() == channels {
        return Ok(values);
    }
    Err(no_match!("`{}` has {} values for {channels} channels", m.value(value).name, values.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ir::Attrs, rewrite::testing::Builder};

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
