//! What a node costs when it runs, predicted: enough to weigh one candidate for an activation
//! against another, not to tell how long a model takes.
//!
//! The constants were fitted to chains of two MatMuls (768 × 3072, 128 rows, one thread) on a Xeon
//! with AVX-512 VNNI; ratios between candidates move little from CPU to CPU.

use super::plan::Activation;

/// The extent of a product, per row (token) of its activation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Product {
    /// The length of a row: what is summed over.
    pub k: u64,
    /// Columns of all weights that read the activation together.
    pub n: u64,
}

/// Picoseconds per multiplication with int8 and with float kernels.
const INT8: f64 = 4.4;
const FLOAT: f64 = 15.0;
/// Picoseconds per element: quantized values under a known range; a range found first; rows divided
/// by their largest magnitude, which their results are multiplied with again.
const QUANTIZE: f64 = 150.0;
const FIND_RANGE: f64 = 300.0;
const NORMALIZE: f64 = 600.0;

impl Product {
    /// Picoseconds per row; `None` stands for float.
    pub fn time(self, activation: Option<Activation>) -> u64 {
        let (k, n) = (self.k as f64, self.n as f64);
        let Some(activation) = activation else { return (FLOAT * k * n) as u64 };
        let quantize = match activation {
            Activation::Static => k * QUANTIZE,
            Activation::DynamicPerTensor => k * (QUANTIZE + FIND_RANGE),
            Activation::DynamicPerToken => k * (QUANTIZE + FIND_RANGE + NORMALIZE) + n * NORMALIZE,
        };
        (INT8 * k * n + quantize) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_in_the_order_that_was_measured() {
        let layer = Product { k: 768, n: 3072 };
        let time = |it| layer.time(it);
        assert!(time(Some(Activation::DynamicPerTensor)) < time(Some(Activation::DynamicPerToken)));
        assert!(time(Some(Activation::DynamicPerToken)) < time(None));
        // 0.39 against 0.32 of float there.
        let ratio = time(Some(Activation::DynamicPerToken)) as f64
            / time(Some(Activation::DynamicPerTensor)) as f64;
        assert!((1.1..1.4).contains(&ratio), "{ratio}");
    }
}
