//! A Hadamard matrix before the products that narrow a feed-forward block again.
//!
//! `y = x·w` becomes `y = (x·H)·(Hᵀ·w)` with an orthogonal `H` of blocks along the channels: the float
//! function stays the same, and an outlier in one channel of a row is spread over the block. Unlike a
//! rotation of the residual stream, `x·H` cannot be folded into what computes `x`, the result of an
//! activation function, so it is computed in each run: `block` multiplications per number. After
//! Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ChangeModel, Changed, Transform, Work, named,
    rotate::matrix::hadamard,
    scratch::{Place, Scratch},
};
use crate::ops;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match,
    tensor::{DType, Tensor, TensorError, from_f32},
};
use onnxq_numerics::specs::{Settings, Wrong, within};

/// An orthogonal matrix before each product whose activation is the result of a gate, which spreads
/// outliers over blocks of channels. For int8 activations; needs no data and some time in each run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hadamard {
    /// Channels that an outlier is spread over, a power of two from 16 to 1024. Where a row does not
    /// divide into such blocks, the largest power of two that it divides into. Default: 32.
    pub block: usize,
}

impl Default for Hadamard {
    fn default() -> Hadamard {
        // SmolLM2-135M (64 rows of WikiText-2): 0.0098 nats with 64, 0.0090 with 32, 0.0113 with 16.
        Hadamard { block: 32 }
    }
}

impl Settings for Hadamard {
    fn check(&self) -> Result<(), Wrong> {
        within("block", self.block, LEAST..=1024)?;
        match self.block.is_power_of_two() {
            true => Ok(()),
            false => {
                Err(Wrong::new("block", format!("`block` is {}, no power of two", self.block)))
            }
        }
    }
}

impl Transform for Hadamard {
    fn work(&self) -> Work<'_> {
        Work::Model(self)
    }
}

/// Blocks below spread too little to be worth three operators.
const LEAST: usize = 16;

const FLOAT: &str = "it spreads outliers before they are quantized";

impl ChangeModel for Hadamard {
    fn change(&self, m: &mut Model) -> Result<Changed, TensorError> {
        let (mut products, mut missed) = (Vec::new(), Vec::new());
        for node in m.nodes().into_iter().filter(|it| is_after_gate(m, *it)) {
            match Product::new(m, node, self.block) {
                Ok(it) => products.push(it),
                Err(reason) => missed.push((node, reason)),
            }
        }
        let mut scratch = Scratch::new()?;
        let places = products.iter().map(|it| it.weight(m, &mut scratch));
        let places: Vec<Place> = places.collect::<Result<_, _>>()?;
        let bytes = scratch.map()?;
        let mut float = Vec::new();
        for (it, place) in products.iter().zip(&places) {
            float.push((it.apply(m, place.tensor(&bytes))?, NoMatch(FLOAT.into())));
        }
        let summary = match float.len() {
            0 => "no product reads what a gate let through".to_owned(),
            1 => "a Hadamard matrix before 1 product".to_owned(),
            many => format!("a Hadamard matrix before {many} products"),
        };
        Ok(Changed { summary, missed, float, rotated: Vec::new() })
    }
}

/// Whether a product reads what a gate let through: two activations multiplied with each other, one
/// of which is the result of an activation function.
///
/// What an activation function yields alone is positive, mostly: unsigned integers suit it, and a
/// rotation would cost it one of its bits.
fn is_after_gate(m: &Model, node: NodeId) -> bool {
    let is_site = matches!(ops::site(m, node), Some(Ok(it)) if it.kind == ops::Weight::MatMul);
    let gate = || m.producer(m.operand(node, 0)?, "Mul");
    let is_gate =
        |it: NodeId| (0..2).all(|at| m.operand(it, at).is_ok_and(|it| m.constant(it).is_err()));
    is_site && gate().is_ok_and(is_gate) && ops::is_after_activation_function(m, node)
}

/// A product that gets a matrix before it.
struct Product {
    node: NodeId,
    weight: ValueId,
    /// Axes of the activation.
    rank: usize,
    k: usize,
    block: usize,
}

impl Product {
    fn new(m: &Model, node: NodeId, block: usize) -> Result<Product, NoMatch> {
        let (x, weight) = (m.operand(node, 0)?, m.operand(node, 1)?);
        let tensor = m.constant(weight)?;
        let k = tensor.shape[0];
        let block = block.min(1 << k.trailing_zeros());
        if block < LEAST {
            return Err(no_match!("its rows of {k} do not divide into blocks of {LEAST} or more"));
        }
        if m.value(weight).uses.len() > 1 {
            return Err(no_match!("`{}` has other uses", m.value(weight).name));
        }
        let rank = m.rank(x).filter(|it| *it > 0);
        let rank =
            rank.ok_or_else(|| no_match!("the rank of `{}` is not known", m.value(x).name))?;
        Ok(Product { node, weight, rank, k, block })
    }

    /// `Hᵀ·w`, where `H` is symmetric.
    fn weight(&self, m: &Model, scratch: &mut Scratch) -> Result<Place, TensorError> {
        let rows = m.constant(self.weight).expect("it was checked").transposed();
        let place =
            scratch.changed(&rows, |row| row.chunks_exact_mut(self.block).for_each(hadamard))?;
        Ok(place.transposed())
    }

    /// `Reshape → MatMul → Reshape` before the product. Returns the new product.
    fn apply(&self, m: &mut Model, weight: Tensor) -> Result<NodeId, TensorError> {
        let (x, dtype) = (m.operand(self.node, 0).expect("it was checked"), weight.dtype);
        let stem = m.value(x).name.to_string();
        let own = format!("{}_hadamard", named(m, self.node));
        let label = m.value(self.weight).name.to_string();
        let (groups, block) = (self.k / self.block, self.block);
        let mut patch = Patch::before(self.node);
        let apart = patch.constant("blocks", self.shape(&[groups, block]));
        let matrix = patch.constant("hadamard", matrix(block, dtype)?);
        let whole = patch.constant("row", self.shape(&[self.k]));
        let step = |suffix: &str| format!("{stem}_{suffix}");
        let y = patch.step(&step("blocks"), "Reshape", [x.into(), apart], Attrs::default());
        let inputs = [y, matrix];
        let product = patch.named(&own, &step("spread"), "MatMul", inputs, Attrs::default());
        let inputs = [product, whole];
        let y = patch.step(&step("hadamard"), "Reshape", inputs, Attrs::default());
        let weight = patch.constant(&label, weight);
        let made = patch.rewire(self.node, 0, y).rewire(self.node, 1, weight).apply(m);
        Ok(m.producer(made.value(product), "MatMul").expect("it was made"))
    }

    /// The axes before the last as they are, then `tail`.
    fn shape(&self, tail: &[usize]) -> Tensor {
        let dims = std::iter::repeat_n(0, self.rank - 1).chain(tail.iter().map(|it| *it as i64));
        Tensor::from_i64(&[self.rank - 1 + tail.len()], dims)
    }
}

/// The orthonormal matrix of Walsh and Hadamard.
fn matrix(n: usize, dtype: DType) -> Result<Tensor, TensorError> {
    let mut values = vec![0f64; n * n];
    for (at, row) in values.chunks_exact_mut(n).enumerate() {
        row[at] = 1.0;
        hadamard(row);
    }
    let values: Vec<f32> = values.into_iter().map(|it| it as f32).collect();
    Ok(Tensor::new(dtype, vec![n, n], from_f32(dtype, &values)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::testing::{outputs, parse};

    const GATED: &str = "main (float[2,3,4] x) => (float[2,3,5] y)
        <float[4,48] gate, float[4,48] up, float[48,5] down> {
          g = MatMul (x, gate)
          s = Sigmoid (g)
          silu = Mul (g, s)
          u = MatMul (x, up)
          h = Mul (silu, u)
          y = MatMul (h, down)
        }";

    #[test]
    fn the_function_stays_and_the_product_is_still_known_as_that_of_a_gate() {
        let mut m = parse(GATED);
        let before = outputs(&m);
        let done = Hadamard::default().change(&mut m).unwrap();
        assert_eq!(done.summary, "a Hadamard matrix before 1 product");
        let [(new, _)] = done.float[..] else { panic!("{done:?}") };
        // 48 is 3 times 16.
        assert_eq!(m.constant(m.operand(new, 1).unwrap()).unwrap().shape, [16, 16]);
        for (a, b) in outputs(&m).iter().zip(&before) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
        }
        let last = m.nodes().into_iter().last().unwrap();
        assert!(ops::is_after_activation_function(&m, last));
        assert!(Hadamard::default().change(&mut m).unwrap().float.is_empty());
    }

    #[test]
    fn an_activation_function_alone_and_odd_rows_stay_as_they_are() {
        let alone = GATED.replace("h = Mul (silu, u)", "z = Identity (u)  h = Identity (silu)");
        assert!(Hadamard::default().change(&mut parse(&alone)).unwrap().float.is_empty());
        let odd = GATED.replace("48", "24");
        let done = Hadamard::default().change(&mut parse(&odd)).unwrap();
        let reason = done.missed[0].1.to_string();
        assert_eq!(reason, "its rows of 24 do not divide into blocks of 16 or more");
    }

    #[test]
    fn settings_are_checked() {
        assert!(Hadamard { block: 48 }.check().is_err());
        assert!(Hadamard { block: 8 }.check().is_err());
        assert!(Hadamard::default().check().is_ok());
    }
}
