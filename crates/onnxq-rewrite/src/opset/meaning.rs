//! Operators whose meaning changed: the same values in other words.

use super::edit::{Edit, Inputs, has_more_outputs, ints, known_dtype, stem, text};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match,
    tensor::{Tensor, position},
};

/// Statistics for each element of a feature (`spatial = 0`) are statistics of flat features.
///
/// ```text
/// BN <spatial = 0> (x, s, …)  →  Reshape(BN(Flatten(x), Reshape(s, [-1]), …), Shape(x))
/// ```
pub(super) fn batch_norm_9(m: &Model, node: NodeId, target: i64) -> Result<Edit, NoMatch> {
    let mut attrs = m.node(node).attrs.clone();
    if m.int_attr(node, "spatial", 1) != 0 {
        let had = attrs.remove("spatial").is_some();
        return Ok(if had { Edit::attrs(node, attrs) } else { Edit::keep(node) });
    }
    not_in_training(m, node)?;
    attrs.remove("spatial");
    let name = stem(m, node);
    let mut patch = Patch::before(node);
    let flat = patch.constant(&format!("{name}.flat"), ints(&[-1]));
    let x: Ref = m.operand(node, 0)?.into();
    let flat_x = Attrs::default().with("axis", 1i64);
    let mut inputs = vec![patch.step(&format!("{name}.rows"), "Flatten", [x], flat_x)];
    for index in 1..5 {
        let it: Ref = m.operand(node, index)?.into();
        let what = format!("{name}.statistic");
        inputs.push(patch.step(&what, "Reshape", [it, flat], Attrs::default()));
    }
    let y = patch.named(
        &m.node(node).name,
        &format!("{name}.flat"),
        "BatchNormalization",
        inputs,
        attrs,
    );
    Ok(Edit::replace(shaped_like(m, node, patch, y, target)))
}

pub(super) fn batch_norm_14(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    not_in_training(m, node)?;
    Ok(Edit::keep(node))
}

fn not_in_training(m: &Model, node: NodeId) -> Result<(), NoMatch> {
    if has_more_outputs(m, node) {
        return Err(no_match!("it has the outputs of training, which opset 14 has not"));
    }
    Ok(())
}

/// `y` in the shape of the first input takes the place of the output.
fn shaped_like(m: &Model, node: NodeId, mut patch: Patch, y: Ref, target: i64) -> Patch {
    let (name, it) = (stem(m, node), m.node(node));
    let x = it.inputs[0].expect("the caller looked at it");
    let shape = patch.step(&format!("{name}.shape"), "Shape", [x.into()], Attrs::default());
    let has_elements = m.shape(x).is_ok_and(|it| it.iter().all(|it| it.fixed().unwrap_or(0) > 0));
    // Zero means "as in the input" unless Reshape is told otherwise, which opset 14 allows.
    let attrs = match !has_elements && target >= 14 {
        true => Attrs::default().with("allowzero", 1i64),
        false => Attrs::default(),
    };
    let output = it.output();
    let y = patch.step(&m.value(output).name, "Reshape", [y, shape], attrs);
    patch.replace(output, y)
}

/// Integers lost the operator.
pub(super) fn float_only(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    match known_dtype(m, m.operand(node, 0)?)? {
        it if it.is_float() => Ok(Edit::keep(node)),
        it => Err(no_match!("the new version does not take {it}")),
    }
}

pub(super) fn grid_sample_20(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mode = match text(m, node, "mode", "bilinear") {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        other => other,
    };
    Ok(Edit::attrs(node, m.node(node).attrs.clone().with("mode", mode)))
}

/// Scale and bias were one for each group and are now one for each channel.
///
/// ```text
/// scale [groups]  →  Reshape(Expand(Reshape(scale, [groups, 1]), [1, channels / groups]), [-1])
/// ```
pub(super) fn group_norm_21(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let x = m.operand(node, 0)?;
    let groups = m.int_attr(node, "num_groups", 0);
    if groups <= 0 {
        return Err(no_match!("it has no `num_groups`"));
    }
    let name = stem(m, node);
    let mut patch = Patch::before(node);
    let channels = m.shape(x).ok().and_then(|it| it.get(1)?.fixed());
    let times = match channels {
        Some(it) => patch.constant(&format!("{name}.times"), ints(&[1, it as i64 / groups])),
        None => channels_per_group(&mut patch, &name, x.into(), groups),
    };
    let column = patch.constant(&format!("{name}.column"), ints(&[groups, 1]));
    let flat = patch.constant(&format!("{name}.flat"), ints(&[-1]));
    for (index, what) in [(1, "scale"), (2, "bias")] {
        let it: Ref = m.operand(node, index)?.into();
        let what = format!("{name}.{what}");
        let it = patch.step(&what, "Reshape", [it, column], Attrs::default());
        let it = patch.step(&what, "Expand", [it, times], Attrs::default());
        let it = patch.step(&what, "Reshape", [it, flat], Attrs::default());
        patch = patch.rewire(node, index, it);
    }
    Ok(Edit::replace(patch))
}

/// `[1, channels / groups]` where the number of channels is not known.
fn channels_per_group(patch: &mut Patch, name: &str, x: Ref, groups: i64) -> Ref {
    let range = Attrs::default().with("start", 1i64).with("end", 2i64);
    let channels = patch.step(&format!("{name}.channels"), "Shape", [x], range);
    let groups = patch.constant(&format!("{name}.groups"), ints(&[groups]));
    let what = format!("{name}.times");
    let times = patch.step(&what, "Div", [channels, groups], Attrs::default());
    let one = patch.constant(&format!("{name}.one"), ints(&[1]));
    patch.step(&what, "Concat", [one, times], Attrs::default().with("axis", 0i64))
}

/// Nearest coordinates were rounded down where the image grows and up where it shrinks, as the
/// tests of that version and ONNX Runtime say; now one attribute says it for all axes. Axes do not
/// influence each other, so where both may happen one node grows the image and another shrinks it.
pub(super) fn resize_11(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let (x, scales) = (m.operand(node, 0)?, m.operand(node, 1)?);
    let mut attrs = m.node(node).attrs.clone();
    let mut patch = Patch::before(node);
    let roi = Tensor::from_f32(&[0], []);
    let roi = patch.constant(&format!("{}.roi", stem(m, node)), roi);
    let (mut x, mut scales): (Ref, Ref) = (x.into(), scales.into());
    // An Upsample has said it already.
    if attrs.get("coordinate_transformation_mode").is_none() {
        let is_nearest = text(m, node, "mode", "nearest") == "nearest";
        let mode = if is_nearest { nearest_mode(m, node) } else { Some("") };
        if is_nearest {
            attrs.set("nearest_mode", mode.unwrap_or("ceil").into());
        }
        attrs.set("coordinate_transformation_mode", "asymmetric".into());
        if mode.is_none() {
            (x, scales) = grown(m, node, &mut patch, [x, roi, scales], &attrs);
        }
    }
    let patch = patch.rewire(node, 2, scales).rewire(node, 1, roi).rewire(node, 0, x);
    Ok(Edit { op: None, attrs: Some(attrs), patch, changes: true })
}

/// How all axes round; `None`: some may in one way and some in the other.
fn nearest_mode(m: &Model, node: NodeId) -> Option<&'static str> {
    let scales = m.small_f32(m.operand(node, 1).ok()?).ok()?;
    let grows = scales.iter().any(|it| *it > 1.0);
    // Every second element, every third: nothing is rounded.
    let rounds_up = scales.iter().any(|it| *it < 1.0 && (1.0 / it).fract() != 0.0);
    match (grows, rounds_up) {
        (true, true) => None,
        (false, true) => Some("ceil"),
        _ => Some("floor"),
    }
}

/// The image with the axes grown that grow, and the scales by which the others shrink.
///
/// ```text
/// Resize(x, s)  →  Resize <ceil> (Resize <floor> (x, Max(s, 1)), Min(s, 1))
/// ```
fn grown(
    m: &Model,
    node: NodeId,
    patch: &mut Patch,
    [x, roi, scales]: [Ref; 3],
    attrs: &Attrs,
) -> (Ref, Ref) {
    let name = stem(m, node);
    let one = patch.constant(&format!("{name}.one"), Tensor::from_f32(&[1], [1.0]));
    let up = patch.step(&format!("{name}.up"), "Max", [scales, one], Attrs::default());
    let down = patch.step(&format!("{name}.down"), "Min", [scales, one], Attrs::default());
    let attrs = attrs.clone().with("nearest_mode", "floor");
    (patch.step(&format!("{name}.grown"), "Resize", [x, roi, up], attrs), down)
}

/// One coordinate transformation went; the region of interest and `scales` became optional.
pub(super) fn resize_13(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mut it = Inputs::of(m, node, 4)?;
    let coordinates = text(m, node, "coordinate_transformation_mode", "half_pixel");
    if coordinates == "tf_half_pixel_for_nn" {
        let mode = text(m, node, "mode", "nearest");
        let nearest = text(m, node, "nearest_mode", "round_prefer_floor");
        if (mode, nearest) != ("nearest", "floor") {
            return Err(no_match!("opset 13 has no {coordinates} with {mode}, {nearest}"));
        }
        // floor((i + 0.5) / scale) is (i + 0.5) / scale - 0.5, rounded, halves up.
        it.set_attr("coordinate_transformation_mode", "half_pixel");
        it.set_attr("nearest_mode", "round_prefer_ceil");
    }
    if coordinates != "tf_crop_and_resize" && m.operand(node, 1).is_ok() {
        it.unset(1);
    }
    // Given sizes, `scales` had to be there and empty.
    if m.operand(node, 3).is_ok() && m.operand(node, 2).is_ok() {
        it.unset(2);
    }
    Ok(it.done())
}

/// The old meaning is no longer the default.
pub(super) fn roi_align_16(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let mode = "coordinate_transformation_mode";
    Ok(Edit::attrs(node, m.node(node).attrs.clone().with(mode, "output_half_pixel")))
}

pub(super) fn scatter_11(_: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    Ok(Edit { op: Some("ScatterElements"), changes: true, ..Edit::keep(node) })
}

/// `Softmax`, `LogSoftmax`, `Hardmax`: everything from the axis on was one line.
///
/// ```text
/// Softmax <axis> (x)  →  Reshape(Softmax <-1> (Flatten <axis> (x)), Shape(x))
/// ```
pub(super) fn softmax_13(m: &Model, node: NodeId, target: i64) -> Result<Edit, NoMatch> {
    let it = m.node(node);
    let (x, axis) = (m.operand(node, 0)?, m.int_attr(node, "axis", 1));
    let is_last = m.rank(x).is_some_and(|rank| axis + 1 == rank as i64) || axis == -1;
    if is_last || rest_is_one(m, node, axis) {
        return Ok(Edit::attrs(node, it.attrs.clone().with("axis", axis)));
    }
    let name = stem(m, node);
    let mut patch = Patch::before(node);
    let flat = Attrs::default().with("axis", axis);
    let flat = patch.step(&format!("{name}.flat"), "Flatten", [x.into()], flat);
    let attrs = it.attrs.clone().with("axis", -1i64);
    let y = patch.named(&it.name, &format!("{name}.line"), &it.op.name, [flat], attrs);
    Ok(Edit::replace(shaped_like(m, node, patch, y, target)))
}

/// Whether nothing after the axis has more than one element.
fn rest_is_one(m: &Model, node: NodeId, axis: i64) -> bool {
    let Ok(shape) = m.operand(node, 0).and_then(|it| m.shape(it)) else { return false };
    let axis = position(axis, shape.len());
    axis.is_some_and(|it| shape[it + 1..].iter().all(|it| it.fixed() == Some(1)))
}

/// Deprecated: `Resize` scales from the corner too, and rounds down, if it is told so.
pub(super) fn upsample_10(m: &Model, node: NodeId, target: i64) -> Result<Edit, NoMatch> {
    let mut attrs = m.node(node).attrs.clone();
    if text(m, node, "mode", "nearest") == "bilinear" {
        attrs.set("mode", "linear".into());
    }
    // Resize 10 cannot say how it rounds, but grows as Upsample does.
    if target > 10 {
        attrs.set("coordinate_transformation_mode", "asymmetric".into());
        if text(m, node, "mode", "nearest") == "nearest" {
            attrs.set("nearest_mode", "floor".into());
        }
    }
    let attrs = Some(attrs);
    Ok(Edit { op: Some("Resize"), attrs, changes: true, ..Edit::keep(node) })
}
