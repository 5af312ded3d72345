//! `Resize` and `Upsample`: nearest and linear, one axis after the other.

use super::{
    EvalError,
    call::{Call, wrong},
    index::{around, axes, elements, shape},
    pool::numbers_tensor,
    table::Outputs,
    values::{ints, numbers},
};

/// Inputs: x, region of interest (from version 11), scales, sizes.
pub(super) fn resize(call: &Call) -> Outputs {
    if call.opset < 11 {
        return upsample(call);
    }
    if call.flag("antialias", false)?
        || call.text("keep_aspect_ratio_policy", "stretch")? != "stretch"
    {
        return Err(call.unsupported("with antialias or a kept aspect ratio"));
    }
    let input = call.input(0)?;
    let rank = input.shape.len();
    let all: Vec<i64> = (0..rank as i64).collect();
    let list = axes(call.ints("axes")?.unwrap_or(&all), rank)?;
    let (mut to, mut scales) = (input.shape.clone(), vec![1.0; rank]);
    match (call.optional(2).filter(|it| it.numel() > 0), call.optional(3)) {
        (_, Some(given)) if given.numel() > 0 => {
            let sizes = shape(&ints(given)?)?;
            check_len(call, sizes.len(), list.len())?;
            for (&axis, size) in list.iter().zip(sizes) {
                to[axis] = size;
                scales[axis] = size as f32 / input.shape[axis] as f32;
            }
        }
        (Some(given), _) => {
            let given = given.to_f32()?;
            check_len(call, given.len(), list.len())?;
            for (&axis, scale) in list.iter().zip(given) {
                to[axis] = scaled(call, input.shape[axis], scale)?;
                scales[axis] = scale;
            }
        }
        _ => return Err(wrong("scales", "and sizes are missing")),
    }
    let coordinates = Coordinates::of(call.text("coordinate_transformation_mode", "half_pixel")?);
    let coordinates = coordinates.ok_or_else(|| call.unsupported("with these coordinates"))?;
    let method = match call.text("mode", "nearest")? {
        "nearest" => Method::Nearest(rounding(call)?),
        "linear" => Method::Linear,
        other => return Err(call.unsupported(&format!("with mode {other}"))),
    };
    resample(call, &to, &scales, coordinates, &method)
}

/// Before version 11 coordinates were scaled from the corner and rounded down, or up where the
/// image shrinks.
pub(super) fn upsample(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let scales = call.input(1)?.to_f32()?;
    check_len(call, scales.len(), input.shape.len())?;
    let sizes = input.shape.iter().zip(&scales).map(|(size, scale)| scaled(call, *size, *scale));
    let to = sizes.collect::<Result<Vec<_>, _>>()?;
    let method = match call.text("mode", "nearest")? {
        "nearest" => Method::Corner,
        "linear" | "bilinear" => Method::Linear,
        other => return Err(call.unsupported(&format!("with mode {other}"))),
    };
    resample(call, &to, &scales, Coordinates::Asymmetric, &method)
}

enum Method {
    Nearest(fn(f32) -> f32),
    /// Nearest before version 11: each axis rounds down if it grows and up if it shrinks.
    Corner,
    Linear,
}

#[derive(Clone, Copy)]
enum Coordinates {
    AlignCorners,
    Asymmetric,
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
}

impl Coordinates {
    fn of(name: &str) -> Option<Coordinates> {
        Some(match name {
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            _ => return None,
        })
    }

    /// Where position `at` of an axis of `to` elements lies in an axis of `from` elements.
    fn source(self, at: usize, from: usize, to: usize, scale: f32) -> f32 {
        let position = at as f32;
        match self {
            Coordinates::AlignCorners if to == 1 => 0.0,
            Coordinates::AlignCorners => position * (from - 1) as f32 / (to - 1) as f32,
            Coordinates::PytorchHalfPixel if to == 1 => 0.0,
            Coordinates::Asymmetric => position / scale,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => {
                (position + 0.5) / scale - 0.5
            }
            Coordinates::HalfPixelSymmetric => {
                let center = from as f32 / 2.0;
                let offset = center * (1.0 - to as f32 / (scale * from as f32));
                offset + (position + 0.5) / scale - 0.5
            }
        }
    }
}

fn resample(
    call: &Call,
    to: &[usize],
    scales: &[f32],
    coordinates: Coordinates,
    method: &Method,
) -> Outputs {
    let input = call.input(0)?;
    elements(to)?;
    if input.numel() == 0 && !to.contains(&0) {
        return Err(call.shape_error("nothing to resize"));
    }
    let mut values = numbers(input)?;
    let mut shape = input.shape.clone();
    for axis in 0..to.len() {
        if shape[axis] == to[axis] && scales[axis] == 1.0 {
            continue;
        }
        let (from, size) = (shape[axis], to[axis]);
        let method = match (method, scales[axis] < 1.0) {
            (Method::Corner, true) => &Method::Nearest(f32::ceil),
            (Method::Corner, false) => &Method::Nearest(f32::floor),
            (other, _) => other,
        };
        let blends: Vec<Blend> = (0..size)
            .map(|it| Blend::of(coordinates.source(it, from, size, scales[axis]), from, method))
            .collect();
        let (outer, _, inner) = around(&shape, axis);
        shape[axis] = size;
        elements(&shape)?;
        values = blended(&values, &blends, (outer, from, inner));
    }
    let is_float = input.dtype.is_float();
    let values = if is_float { values } else { values.into_iter().map(f64::trunc).collect() };
    Ok(vec![numbers_tensor(input, &shape, values)?])
}

/// Two neighbours and the share of the second.
struct Blend {
    first: usize,
    second: usize,
    share: f64,
}

impl Blend {
    fn of(at: f32, size: usize, method: &Method) -> Blend {
        let last = size.saturating_sub(1);
        let inside = at.clamp(0.0, last as f32);
        match method {
            Method::Nearest(round) => {
                let first = (round(at).max(0.0) as usize).min(last);
                Blend { first, second: first, share: 0.0 }
            }
            Method::Linear | Method::Corner => {
                let first = inside as usize;
                let share = f64::from(inside) - first as f64;
                Blend { first, second: (first + 1).min(last), share }
            }
        }
    }
}

fn blended(
    values: &[f64],
    blends: &[Blend],
    (outer, size, inner): (usize, usize, usize),
) -> Vec<f64> {
    let mut out = Vec::with_capacity(outer * blends.len() * inner);
    for row in 0..outer {
        for it in blends {
            let first = &values[(row * size + it.first) * inner..][..inner];
            let second = &values[(row * size + it.second) * inner..][..inner];
            let mix =
                |(a, b): (&f64, &f64)| if it.share == 0.0 { *a } else { a + (b - a) * it.share };
            out.extend(first.iter().zip(second).map(mix));
        }
    }
    out
}

fn rounding(call: &Call) -> Result<fn(f32) -> f32, EvalError> {
    Ok(match call.text("nearest_mode", "round_prefer_floor")? {
        "ceil" => f32::ceil,
        "floor" => f32::floor,
        "round_prefer_ceil" => |it| (it + 0.5).floor(),
        "round_prefer_floor" => |it| (it - 0.5).ceil(),
        other => return Err(call.unsupported(&format!("with nearest_mode {other}"))),
    })
}

fn scaled(call: &Call, size: usize, scale: f32) -> Result<usize, EvalError> {
    if scale.is_nan() || scale <= 0.0 {
        return Err(call.shape_error("a scale is not positive"));
    }
    let size = (size as f32 * scale).floor() as usize;
    elements(&[size]).map(|_| size)
}

fn check_len(call: &Call, len: usize, expected: usize) -> Result<(), EvalError> {
    if len == expected { Ok(()) } else { Err(call.shape_error("sizes differ in rank")) }
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs, tensor::Tensor};

    /// Computed by ONNX Runtime 1.31.1.
    #[test]
    fn coordinates_follow_their_mode() {
        let x = f32s(&[1, 1, 1, 2], &[1., 3.]);
        let scales = f32s(&[4], &[1., 1., 1., 2.]);
        for (mode, coordinates, expected) in [
            ("linear", "half_pixel", [1., 1.5, 2.5, 3.]),
            ("linear", "align_corners", [1., 1.6666666, 2.3333333, 3.]),
            ("linear", "asymmetric", [1., 2., 3., 3.]),
            ("nearest", "asymmetric", [1., 1., 3., 3.]),
        ] {
            let attrs = Attrs::default()
                .with("mode", mode)
                .with("coordinate_transformation_mode", coordinates)
                .with("nearest_mode", "floor");
            let inputs = [Some(x.clone()), None, Some(scales.clone())];
            close(&eval_at(13, "Resize", &inputs, attrs, 1).unwrap()[0], &expected);
        }
    }

    #[test]
    fn nothing_cannot_grow() {
        let empty = Tensor::from_f32(&[1, 0], []);
        let inputs = [Some(empty), None, None, Some(i64s(&[2], &[1, 4]))];
        assert!(eval_at(13, "Resize", &inputs, Attrs::default(), 1).is_err());
    }
}
