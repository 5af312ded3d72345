//! Inputs for any model: made up, and the same in each run.

use std::collections::BTreeMap;

use onnxq_ir::{
    Model,
    tensor::{DType, Tensor, TensorType, from_f32},
};

/// A tensor for each input: floats in -1..1, integers in 0..3, any booleans; `size` stands for
/// what is not fixed. An attention mask is ones, with padding at the end of the first row.
pub(crate) fn inputs(model: &Model, size: usize) -> BTreeMap<String, Tensor> {
    let mut random = Random(1);
    let mut map = BTreeMap::new();
    for &id in &model.graph(model.main).inputs {
        let value = model.value(id);
        let Some(TensorType { dtype, shape: Some(shape) }) = &value.ty else {
            panic!("the input `{}` has no shape", value.name);
        };
        let shape = shape.iter().map(|it| it.fixed().unwrap_or(size)).collect();
        let tensor = match &*value.name {
            "attention_mask" => padding(shape),
            _ => random.tensor(*dtype, shape),
        };
        map.insert(value.name.to_string(), tensor);
    }
    map
}

fn padding(shape: Vec<usize>) -> Tensor {
    let (count, row) = (shape.iter().product::<usize>(), shape[1]);
    Tensor::from_i64(&shape, (0..count).map(|it| i64::from(it + 1 != row)))
}

/// A fixed sequence (splitmix64): the same inputs at each run, on each machine.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn tensor(&mut self, dtype: DType, shape: Vec<usize>) -> Tensor {
        let count = shape.iter().product();
        if dtype.is_float() {
            let values: Vec<f32> = (0..count).map(|_| self.float()).collect();
            return Tensor::new(dtype, shape, from_f32(dtype, &values).unwrap());
        }
        let limit = if dtype == DType::Bool { 2 } else { 3 };
        let numbers = (0..count).map(|_| (self.next() % limit).to_le_bytes());
        let bytes: Vec<u8> = numbers.flat_map(|it| it.into_iter().take(dtype.bits() / 8)).collect();
        Tensor::new(dtype, shape, bytes)
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }
}
