//! Gains and shifts of channels, and the weights that they move into.

use onnxq_ir::{
    Model, NoMatch, Node, NodeId, Patch, Ref, ValueId, no_match,
    ops::Traits,
    tensor::{Tensor, from_f32},
};

/// Which output channel an element of the weight belongs to.
#[derive(Clone, Copy)]
pub(super) struct ChannelAxis {
    pub channels: usize,
    /// Elements from one channel to the next.
    step: usize,
    /// Channels of a group.
    inner: usize,
    /// Elements of a group.
    group: usize,
}

impl ChannelAxis {
    /// Of a `Conv`, `ConvTranspose` or `Gemm` with a constant weight.
    pub(super) fn of(m: &Model, conv: NodeId) -> Result<ChannelAxis, NoMatch> {
        let weight = m.constant(m.operand(conv, 1)?)?;
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

/// `linear` with each output channel times its `gain` plus its `shift`, in place of `last`.
pub(super) fn into_results(
    m: &Model,
    linear: NodeId,
    gain: Vec<f32>,
    shift: &[f32],
    last: NodeId,
) -> Result<Patch, NoMatch> {
    let (x, w) = (m.operand(linear, 0)?, m.operand(linear, 1)?);
    let weight = m.constant(w)?;
    super::scalable(weight)?;
    let axis = ChannelAxis::of(m, linear)?;
    let bias = match m.node(linear).inputs.get(2).copied().flatten() {
        Some(it) => per_channel(m, it, axis.channels)?,
        None => vec![0.0; axis.channels],
    };
    let bias: Vec<f32> = (0..bias.len()).map(|c| bias[c] * gain[c] + shift[c]).collect();
    let bias = from_f32(weight.dtype, &bias).map_err(|err| no_match!("{err}"))?;
    let bias = Tensor::new(weight.dtype, vec![axis.channels], bias);

    let name = super::stem(m, linear);
    let mut patch = Patch::before(last);
    let w = match gain.iter().all(|it| *it == 1.0) {
        true => Ref::from(w),
        false => {
            let scaled = super::scaled(weight, move |i| gain[axis.channel(i)]);
            patch.constant(&m.value(w).name, scaled)
        }
    };
    let bias = patch.constant(&format!("{name}.bias"), bias);
    let Node { op, attrs, .. } = m.node(linear);
    let y = patch.node(&name, &op.to_string(), [x.into(), w, bias], attrs.clone());
    Ok(patch.replace(m.node(last).output(), y))
}

/// A constant with one number for each channel.
pub(super) fn per_channel(m: &Model, value: ValueId, channels: usize) -> Result<Vec<f32>, NoMatch> {
    let values = m.small_f32(value)?;
    if values.len() == channels {
        return Ok(values);
    }
    Err(no_match!("`{}` has {} values for {channels} channels", m.value(value).name, values.len()))
}

/// A node that does the same to all elements of a channel: `gain · x + shift`.
pub(super) struct Affine {
    pub x: ValueId,
    pub gain: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Affine {
    /// What an `Add`, `Sub`, `Mul` or `Div` by a constant does to `[N, channels, …]` of this rank.
    pub(super) fn of(
        m: &Model,
        node: NodeId,
        rank: usize,
        channels: usize,
    ) -> Result<Affine, NoMatch> {
        let op = &m.node(node).op;
        if m.opset("") < 7 {
            return Err(no_match!("{op} of opset {} has another form", m.opset("")));
        }
        if !op.has(Traits::ARITHMETIC) {
            return Err(no_match!("{op} is no gain or shift"));
        }
        let (a, b) = super::pair(m, node)?;
        let (by, x) = if m.constant(b).is_ok() { (b, a) } else { (a, b) };
        let by = spread(m, by, rank, channels)?;
        let same = |value: f32| vec![value; channels];
        let (gain, shift) = match (&*op.name, x == a) {
            ("Add", _) => (same(1.0), by),
            ("Mul", _) => (by, same(0.0)),
            ("Sub", true) => (same(1.0), by.iter().map(|it| -it).collect()),
            ("Sub", false) => (same(-1.0), by),
            ("Div", true) => (by.iter().map(|it| 1.0 / it).collect(), same(0.0)),
            _ => return Err(no_match!("a constant is divided by `{}`", m.value(x).name)),
        };
        match gain.iter().chain(&shift).all(|it| it.is_finite()) {
            true => Ok(Affine { x, gain, shift }),
            false => Err(no_match!("{op} is by a value that is not finite")),
        }
    }
}

/// A constant that broadcasts to `[1, channels, 1, …]` of this rank.
fn spread(m: &Model, value: ValueId, rank: usize, channels: usize) -> Result<Vec<f32>, NoMatch> {
    let shape = &m.constant(value)?.shape;
    let of_channels =
        |(from_end, size): (usize, &usize)| *size == 1 || from_end + 2 == rank && *size == channels;
    if shape.len() > rank || !shape.iter().rev().enumerate().all(of_channels) {
        let name = &m.value(value).name;
        return Err(no_match!(
            "`{name}` {shape:?} is not one number for each of {channels} channels"
        ));
    }
    let values = m.small_f32(value)?;
    Ok(if values.len() == 1 { vec![values[0]; channels] } else { values })
}
