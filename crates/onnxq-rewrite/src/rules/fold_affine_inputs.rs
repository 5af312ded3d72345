//! A constant gain or shift of the channels moves into the convolutions that read it.
//!
//! ```text
//! Conv(Add(Mul(x, g), s), w, b)      →      Conv(x, w·g, b + Σ w·s)
//! ```
//!
//! A shift only if nothing is padded: padding is zero after the shift. And only if every reader is
//! such a convolution, or both `x` and its copy would be kept.

use super::channels::Affine;
use crate::Rule;
use onnxq_ir::{
    Attr, Def, Model, NoMatch, NodeId, Patch, User, ValueId, no_match,
    tensor::{Dim, Tensor, from_f32},
};

pub(super) const FOLD_AFFINE_INPUTS: Rule = Rule {
    name: "fold-affine-inputs",
    help: "move an Add, Sub, Mul or Div by a constant into the weights of the Convs after it",
    root: "Conv",
    apply,
};

fn apply(m: &Model, conv: NodeId) -> Result<Patch, NoMatch> {
    let axis = InputAxis::of(m, conv)?;
    let Affine { x, gain, shift } = chain(m, conv, axis)?;
    let (it, w) = (m.node(conv), m.operand(conv, 1)?);
    let weight = m.constant(w)?;
    let name = super::stem(m, conv);
    let mut patch = Patch::before(conv);
    let bias = match shift.iter().any(|it| *it != 0.0) {
        true => Some(shifted(m, conv, weight, axis, shift)?),
        false => None,
    };
    let scaled = super::scaled(weight, move |i| gain[axis.channel(i)]);
    let mut inputs = vec![x.into(), patch.constant(&m.value(w).name, scaled)];
    match (bias, m.operand(conv, 2)) {
        (Some(new), _) => inputs.push(patch.constant(&format!("{name}.bias"), new)),
        (None, Ok(old)) => inputs.push(old.into()),
        (None, Err(_)) => {}
    }
    let y = patch.node(&name, "Conv", inputs, it.attrs.clone());
    Ok(patch.replace(it.output(), y))
}

/// Which input channel an element of the weight `[outputs, channels / group, …]` belongs to.
#[derive(Clone, Copy)]
struct InputAxis {
    /// Of all groups.
    channels: usize,
    /// Dimensions of the weight, and so of the input.
    rank: usize,
    kernel: usize,
    /// Input channels of a group.
    inner: usize,
    /// Elements of a group.
    group: usize,
}

impl InputAxis {
    /// Misses where the weights or the bias are not constant.
    fn of(m: &Model, conv: NodeId) -> Result<InputAxis, NoMatch> {
        let weight = m.constant(m.operand(conv, 1)?)?;
        super::scalable(weight)?;
        if let Ok(bias) = m.operand(conv, 2) {
            m.constant(bias)?;
        }
        let [rows, inner, kernel @ ..] = &weight.shape[..] else {
            return Err(no_match!("the weight has the shape {:?}", weight.shape));
        };
        let groups = usize::try_from(m.int_attr(conv, "group", 1)).unwrap_or(0);
        if weight.numel() == 0 || groups == 0 || !rows.is_multiple_of(groups) {
            return Err(no_match!("{groups} groups of a weight {weight:?}"));
        }
        Ok(InputAxis {
            channels: inner * groups,
            rank: weight.shape.len(),
            kernel: kernel.iter().product(),
            inner: *inner,
            group: weight.numel() / groups,
        })
    }

    fn channel(self, element: usize) -> usize {
        element / self.group * self.inner + element / self.kernel % self.inner
    }
}

/// All that constants do to the channels before `conv`, as one step.
fn chain(m: &Model, conv: NodeId, axis: InputAxis) -> Result<Affine, NoMatch> {
    let input = m.operand(conv, 0)?;
    let padded = readers_pad(m, input, axis.channels)?;
    let mut all = link(m, input, axis, padded)?;
    while m.only_use(all.x).is_ok()
        && let Ok(it) = link(m, all.x, axis, padded)
    {
        for c in 0..axis.channels {
            all.shift[c] += all.gain[c] * it.shift[c];
            all.gain[c] *= it.gain[c];
        }
        all.x = it.x;
    }
    match all.gain.iter().chain(&all.shift).all(|it| it.is_finite()) {
        true => Ok(all),
        false => Err(no_match!("`{}` is scaled beyond all numbers", m.value(input).name)),
    }
}

/// Whether one of the readers of `value` pads it; a miss if one cannot take over gain and shift.
fn readers_pad(m: &Model, value: ValueId, channels: usize) -> Result<bool, NoMatch> {
    let mut padded = false;
    for it in &m.value(value).uses {
        let reader = match it.user {
            User::Node(node) if it.index == 0 && m.node(node).op.is("Conv") => node,
            _ => return Err(no_match!("`{}` has a use that is no Conv", m.value(value).name)),
        };
        if InputAxis::of(m, reader)?.channels != channels {
            return Err(no_match!("{} has other channels", m.node_label(reader)));
        }
        padded |= pads(m, reader);
    }
    Ok(padded)
}

fn pads(m: &Model, conv: NodeId) -> bool {
    match m.node(conv).attrs.get("auto_pad") {
        Some(Attr::String(it)) if it[..] == *b"VALID" => false,
        Some(Attr::String(it)) if it[..] == *b"NOTSET" => explicit(m, conv),
        None => explicit(m, conv),
        Some(_) => true,
    }
}

fn explicit(m: &Model, conv: NodeId) -> bool {
    m.ints_attr(conv, "pads").is_some_and(|it| it.iter().any(|it| *it != 0))
}

/// The step that computes `value`; its input must have the same channels.
fn link(m: &Model, value: ValueId, axis: InputAxis, padded: bool) -> Result<Affine, NoMatch> {
    let Def::Node(node) = m.value(value).def else {
        return Err(no_match!("`{}` is not computed", m.value(value).name));
    };
    let it = Affine::of(m, node, axis.rank, axis.channels)?;
    if padded && it.shift.iter().any(|it| *it != 0.0) {
        return Err(no_match!("`{}` is padded after the shift", m.value(value).name));
    }
    // A constant must not have been what made the value as large as it is.
    let dims = m.shape(it.x)?;
    match dims.get(1) {
        Some(Dim::Fixed(size)) if dims.len() == axis.rank && *size == axis.channels => Ok(it),
        _ => {
            let name = &m.value(it.x).name;
            Err(no_match!("`{name}` is not known to have {} channels", axis.channels))
        }
    }
}

/// The bias that `shift` of the input channels adds up to. Lazy, as the weight is.
fn shifted(
    m: &Model,
    conv: NodeId,
    weight: &Tensor,
    axis: InputAxis,
    shift: Vec<f32>,
) -> Result<Tensor, NoMatch> {
    let bias = match m.operand(conv, 2) {
        Ok(it) => Some(m.constant(it)?.clone()),
        Err(_) => None,
    };
    let (weight, rows) = (weight.clone(), weight.shape[0]);
    if bias.as_ref().is_some_and(|it| it.numel() != rows) {
        return Err(no_match!("the bias has not one number for each of {rows} channels"));
    }
    Ok(Tensor::lazy(weight.dtype, vec![rows], move || {
        let values = weight.to_f32()?;
        let row = values.len() / rows;
        let mut sums = match &bias {
            Some(it) => it.to_f32()?,
            None => vec![0.0; rows],
        };
        for (r, sum) in sums.iter_mut().enumerate() {
            let terms = (r * row..(r + 1) * row)
                .map(|i| f64::from(values[i]) * f64::from(shift[axis.channel(i)]));
            *sum = (f64::from(*sum) + terms.sum::<f64>()) as f32;
        }
        Ok(from_f32(weight.dtype, &sums)?.into())
    }))
}
