//! Compares the numbers that a model computes before and after a rewrite.

use std::collections::BTreeMap;

use libtest_mimic::Failed;
use onnxq::{
    ctx::Ctx,
    eval,
    ir::Model,
    rewrite,
    tensor::{DType, Tensor, TensorType, from_f32},
    text,
};

/// What a symbolic or unknown dimension stands for.
const SIZE: usize = 2;

/// The number of a line `# TOLERANCE: 1e-4`.
pub fn tolerance(input: &str) -> Option<f32> {
    input.lines().find_map(|it| it.strip_prefix("# TOLERANCE:"))?.trim().parse().ok()
}

/// The named passes must not change what the model computes.
pub fn numeric_check(input_text: &str, names: &[&str], tolerance: f32) -> Result<(), Failed> {
    let before = text::parse(input_text)?;
    let mut after = before.clone();
    rewrite::run(&mut after, names, &Ctx::silent())?;
    let inputs = inputs(&before)?;
    let expected = eval::run(&before, &inputs).map_err(|it| it.to_string())?;
    let actual = eval::run(&after, &inputs).map_err(|it| it.to_string())?;
    let names = |it: &BTreeMap<String, Tensor>| it.keys().cloned().collect::<Vec<_>>();
    if names(&expected) != names(&actual) {
        return Err(format!("outputs {:?} became {:?}", names(&expected), names(&actual)).into());
    }
    for (name, expected) in &expected {
        compare(name, expected, &actual[name], tolerance)?;
    }
    Ok(())
}

/// A tensor for each input: floats in -1..1, integers in 0..3, any booleans.
fn inputs(model: &Model) -> Result<BTreeMap<String, Tensor>, Failed> {
    let mut random = Random(1);
    let mut map = BTreeMap::new();
    for &id in &model.graph(model.main).inputs {
        let value = model.value(id);
        let Some(TensorType { dtype, shape: Some(shape) }) = &value.ty else {
            return Err(format!("the input `{}` has no shape", value.name).into());
        };
        let shape: Vec<usize> = shape.iter().map(|it| it.fixed().unwrap_or(SIZE)).collect();
        map.insert(value.name.to_string(), random.tensor(*dtype, shape)?);
    }
    Ok(map)
}

fn compare(name: &str, expected: &Tensor, actual: &Tensor, tolerance: f32) -> Result<(), Failed> {
    if (expected.dtype, &expected.shape) != (actual.dtype, &actual.shape) {
        return Err(format!("the output `{name}` was {expected:?} and is {actual:?}").into());
    }
    if !expected.dtype.is_float() {
        let same = expected.bytes()? == actual.bytes()?;
        return if same { Ok(()) } else { Err(format!("the output `{name}` changed").into()) };
    }
    for (i, (a, b)) in expected.to_f32()?.iter().zip(actual.to_f32()?).enumerate() {
        let close = (a - b).abs() <= tolerance * a.abs().max(1.0);
        if !(close || *a == b || a.is_nan() && b.is_nan()) {
            return Err(format!("the output `{name}` was {a} and is {b} at {i}").into());
        }
    }
    Ok(())
}

/// A fixed sequence (splitmix64): the same inputs at each run, on each machine.
struct Random(u64);

impl Random {
    fn tensor(&mut self, dtype: DType, shape: Vec<usize>) -> Result<Tensor, Failed> {
        let count = shape.iter().product();
        if dtype.is_float() {
            let values: Vec<f32> = (0..count).map(|_| self.float()).collect();
            return Ok(Tensor::new(dtype, shape, from_f32(dtype, &values)?));
        }
        let width = dtype.bits() / 8;
        if width == 0 || matches!(dtype, DType::C64 | DType::C128) {
            return Err(format!("no random numbers are of type {dtype}").into());
        }
        let limit = if dtype == DType::Bool { 2 } else { 3 };
        let numbers = (0..count).map(|_| (self.next() % limit).to_le_bytes());
        let bytes: Vec<u8> = numbers.flat_map(|it| it.into_iter().take(width)).collect();
        Ok(Tensor::new(dtype, shape, bytes))
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }
}
