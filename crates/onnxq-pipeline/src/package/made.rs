//! Inputs that are made up: good enough to see whether two forms of a model compute the same.

use half::f16;

use super::compared::feeds;
use onnxq_ir::tensor::{DType, Dim, Tensor};
use onnxq_run::{
    data::{self, Batch},
    engine::{IoInfo, Session},
};

/// Sizes of axes that a model leaves open: one token and several take different kernels; images are
/// larger.
const SIZES: &[usize] = &[8, 1, 2, 16, 32, 64, 128, 224];
/// Sizes that are enough.
const ENOUGH: usize = 2;
/// No input has more elements: a model may state any shape.
const MOST: usize = 1 << 26;
/// Whole numbers are below this: tables that they are looked up in are larger.
const NUMBERS: usize = 7;

type Run = (Batch, Vec<(String, Tensor)>);

/// Runs of a model on inputs of the first sizes that it accepts, or why it accepts none.
pub(super) fn runs(session: &mut dyn Session, inputs: &[IoInfo]) -> Result<Vec<Run>, String> {
    let (mut runs, mut refusal) = (Vec::<Run>::new(), None);
    for &size in SIZES {
        let Some(batch) = inputs.iter().map(|it| named(it, size)).collect::<Option<Batch>>() else {
            refusal.get_or_insert("an input has a type or size that cannot be made up".to_owned());
            break;
        };
        if runs.iter().any(|(known, _)| is_same(known, &batch)) {
            continue;
        }
        match session.run(&feeds(&batch)) {
            Ok(outputs) => runs.push((batch, outputs)),
            Err(error) => drop(refusal.get_or_insert(error.to_string())),
        }
        if runs.len() == ENOUGH {
            break;
        }
    }
    match runs.is_empty() {
        true => Err(refusal.unwrap_or_default()),
        false => Ok(runs),
    }
}

/// Where a model states every size, all are the same.
fn is_same(a: &Batch, b: &Batch) -> bool {
    a.iter().zip(b).all(|(a, b)| a.1.shape == b.1.shape)
}

fn named(input: &IoInfo, size: usize) -> Option<(String, Tensor)> {
    let made = data::make(input, (1, size)).or_else(|| numbers(input, size))?;
    Some((input.name.clone(), made))
}

/// Numbers that are neither all the same nor large; what is not fixed has so many elements, of the first
/// axis one.
fn numbers(input: &IoInfo, size: usize) -> Option<Tensor> {
    let dims = input.ty.shape.as_deref().unwrap_or_default();
    let axis = |(axis, dim): (usize, &Dim)| dim.fixed().unwrap_or(if axis == 0 { 1 } else { size });
    let shape: Vec<usize> = dims.iter().enumerate().map(axis).collect();
    let count = shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it))?;
    if count > MOST {
        return None;
    }
    let whole = (0..count).map(|it| it * 3 % NUMBERS);
    let part = (0..count).map(|it| (it * 37 % 101) as f32 / 50.0 - 1.0);
    let bytes: Vec<u8> = match input.ty.dtype {
        DType::Bool => whole.map(|it| (it % 2) as u8).collect(),
        DType::I8 | DType::U8 => whole.map(|it| it as u8).collect(),
        DType::I16 | DType::U16 => whole.flat_map(|it| (it as u16).to_le_bytes()).collect(),
        DType::I32 | DType::U32 => whole.flat_map(|it| (it as u32).to_le_bytes()).collect(),
        DType::I64 | DType::U64 => whole.flat_map(|it| (it as u64).to_le_bytes()).collect(),
        DType::F16 => part.flat_map(|it| f16::from_f32(it).to_le_bytes()).collect(),
        DType::F32 => part.flat_map(f32::to_le_bytes).collect(),
        DType::F64 => part.flat_map(|it| f64::from(it).to_le_bytes()).collect(),
        DType::String => {
            let words = vec![bytes::Bytes::from_static(b"a"); count];
            return Some(Tensor::strings(shape, words));
        }
        _ => return None,
    };
    Some(Tensor::new(input.ty.dtype, shape, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::TensorType;

    fn input(name: &str, dtype: DType, dims: Vec<Dim>) -> IoInfo {
        IoInfo { name: name.into(), ty: TensorType::new(dtype, dims) }
    }

    #[test]
    fn open_axes_get_the_size_and_the_batch_is_one() {
        let open = || Dim::Symbol("n".into());
        let image = input("x", DType::F32, vec![open(), Dim::Fixed(3), open(), open()]);
        let (_, made) = named(&image, 4).unwrap();
        assert_eq!(made.shape, [1, 3, 4, 4]);
        let values = made.to_f32().unwrap();
        assert!(values.iter().all(|it| it.abs() <= 1.0) && values[0] != values[1]);
        let mask = input("attention_mask", DType::I64, vec![open(), open()]);
        assert_eq!(named(&mask, 3).unwrap().1.to_i64().unwrap(), [1, 1, 1]);
        let ids = input("input_ids", DType::I64, vec![open(), open()]);
        assert_eq!(named(&ids, 3).unwrap().1.to_i64().unwrap(), [0, 3, 6]);
        let huge = input("x", DType::F32, vec![Dim::Fixed(usize::MAX / 2), Dim::Fixed(3)]);
        assert!(named(&huge, 1).is_none());
        let other = input("x", DType::C64, vec![Dim::Fixed(1)]);
        assert!(named(&other, 1).is_none());
    }
}
