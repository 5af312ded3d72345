//! `Pad`: borders of a constant, of the edge, mirrored or wrapped around.

use super::{
    EvalError,
    call::Call,
    index::{self, axes, elements, pick_from},
    table::Outputs,
};

/// Pads and value were attributes before version 11. A negative pad crops.
pub(super) fn pad(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let rank = input.shape.len();
    let name = if call.opset < 2 { "paddings" } else { "pads" };
    let pads = call.ints_or_input(name, 1)?.unwrap_or_default();
    let all: Vec<i64> = (0..rank as i64).collect();
    let list = axes(&call.ints_or_input("axes", 3)?.unwrap_or(all), rank)?;
    if pads.len() != 2 * list.len() {
        return Err(call.shape_error("pads differ in length"));
    }
    let (mut before, mut shape) = (vec![0; rank], input.shape.clone());
    for (i, &axis) in list.iter().enumerate() {
        before[axis] = pads[i];
        shape[axis] = padded(shape[axis], pads[i], pads[i + list.len()]);
    }
    elements(&shape)?;
    let fill = match call.optional(2) {
        Some(it) if it.numel() != 1 => return Err(call.shape_error("value is not one number")),
        Some(it) => it.clone(),
        None if call.attrs.get("value").is_none() => index::zero(input.dtype),
        None => super::values::real_tensor(input.dtype, &[], [call.float("value", 0.0)?])?,
    };
    let mode = Mode::of(call)?;
    // Offsets in the input of a growing prefix of axes; `None` is a border.
    let mut from = vec![Some(0usize)];
    for (axis, &size) in input.shape.iter().enumerate() {
        let line = (0..shape[axis])
            .map(|it| mode.source((it as i64).saturating_sub(before[axis]), size as i64));
        let line: Vec<Option<usize>> = line.collect();
        let next = |at: Option<usize>| line.iter().map(move |it| Some(at? * size + (*it)?));
        from = from.into_iter().flat_map(next).collect();
    }
    let at = from.into_iter().map(|it| it.map_or((1, 0), |it| (0, it)));
    Ok(vec![pick_from(&[input, &fill], &shape, at)?])
}

/// The size of an axis after padding, far too large instead of overflowing.
fn padded(size: usize, before: i64, after: i64) -> usize {
    let sum = size as i128 + i128::from(before) + i128::from(after);
    usize::try_from(sum.max(0)).unwrap_or(usize::MAX)
}

#[derive(Clone, Copy)]
enum Mode {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

impl Mode {
    fn of(call: &Call) -> Result<Mode, EvalError> {
        Ok(match call.text("mode", "constant")? {
            "constant" => Mode::Constant,
            "edge" => Mode::Edge,
            "reflect" => Mode::Reflect,
            "wrap" => Mode::Wrap,
            other => return Err(call.unsupported(&format!("with mode {other}"))),
        })
    }

    /// Where in an axis of `size` position `at` of the padded axis comes from.
    fn source(self, at: i64, size: i64) -> Option<usize> {
        let inside = |it: i64| (0..size).contains(&it).then_some(it as usize);
        if size == 0 || inside(at).is_some() {
            return inside(at);
        }
        inside(match self {
            Mode::Constant => at,
            Mode::Edge => at.clamp(0, size - 1),
            Mode::Wrap => at.rem_euclid(size),
            Mode::Reflect => {
                let period = (2 * (size - 1)).max(1);
                let it = at.rem_euclid(period);
                it.min(period - it)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    /// `numpy.pad` of `[1, 2, 3]` by 2 before and 1 after.
    #[test]
    fn borders_match_numpy() {
        let (x, pads) = (f32s(&[3], &[1., 2., 3.]), i64s(&[2], &[2, 1]));
        for (mode, expected) in [
            ("constant", [0., 0., 1., 2., 3., 0.]),
            ("edge", [1., 1., 1., 2., 3., 3.]),
            ("reflect", [3., 2., 1., 2., 3., 2.]),
            ("wrap", [2., 3., 1., 2., 3., 1.]),
        ] {
            let attrs = Attrs::default().with("mode", mode);
            close(&eval("Pad", &[&x, &pads], attrs).unwrap(), &expected);
        }
        let crop = eval("Pad", &[&x, &i64s(&[2], &[-1, 1])], Attrs::default()).unwrap();
        close(&crop, &[2., 3., 0.]);
    }
}
