//! Whether a weight's scales keep their precision as float16.

use rayon::prelude::*;

use super::ops::{Site, rows};
use onnxq_ir::{Model, NoMatch, no_match, tensor::ZeroPoints};
use onnxq_numerics::scheme::{Granularity, Scheme};

/// The smallest and the largest magnitude that float16 holds with all of its 11 bits.
const NORMAL: std::ops::RangeInclusive<f32> = 6.103_515_6e-5..=65504.0;
/// Elements read at once.
const PIECE: usize = 1 << 20;

/// Reads the weight, and refuses if round-to-nearest gives a block a scale beyond `NORMAL`.
///
/// Solvers shrink that scale by a factor of a few at most, which costs as many of its last bits.
/// Blocks of zeros have no scale to lose.
pub(crate) fn fit(m: &Model, site: &Site, scheme: &Scheme) -> Result<(), NoMatch> {
    let rows = rows(site, m.constant(site.weight)?);
    let (n, k) = (rows.shape[0], rows.shape[1].max(1));
    let block = match scheme.granularity {
        Granularity::Channel => k,
        Granularity::Block(it) => it,
    };
    let piece = PIECE / k + 1;
    let starts: Vec<usize> = (0..n).step_by(piece).collect();
    let misfit = |start: &usize| {
        let values = match rows.rows_f32(*start..(start + piece).min(n)) {
            Ok(it) => it,
            Err(err) => return Some(no_match!("float16 scales: {err}")),
        };
        let mut blocks = values.chunks(k).flat_map(|it| it.chunks(block));
        let scale = blocks.find_map(|it| {
            let scale = scale(it, scheme);
            (scale != 0.0 && !NORMAL.contains(&scale)).then_some(scale)
        })?;
        Some(no_match!("float16 cannot hold a scale of {scale:.1e}"))
    };
    match starts.par_iter().find_map_first(misfit) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// The magnitude of a block's scale by round-to-nearest.
fn scale(block: &[f32], scheme: &Scheme) -> f32 {
    let low = block.iter().copied().fold(0.0, f32::min);
    let high = block.iter().copied().fold(0.0, f32::max);
    if scheme.zero_points == ZeroPoints::Symmetric {
        return high.max(-low) / (1u32 << (scheme.bits - 1)) as f32;
    }
    high / scheme.max_quantized() - low / scheme.max_quantized()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops;
    use onnxq_ir::text;
    use onnxq_numerics::scheme::Range;

    /// `None`: float16 does. The weight is `[16, 2]`; each column is a block.
    fn misfit(first: f32, second: f32) -> Option<String> {
        let column = |it: usize| if it.is_multiple_of(2) { first } else { second };
        let values: Vec<String> = (0..32).map(|it| format!("{:e}", column(it))).collect();
        let text = format!(
            "<opset_import: [\"\" : 17]> main (float[1,16] x) => (float[1,2] y)
             <float[16,2] w = {{{}}}> {{ y = MatMul (x, w) }}",
            values.join(", ")
        );
        let m = text::parse(&text).unwrap();
        let site = ops::site(&m, m.nodes()[0]).unwrap().unwrap();
        let scheme = Scheme {
            bits: 4,
            zero_points: ZeroPoints::Symmetric,
            granularity: Granularity::Block(16),
            range: Range::Full,
            superblock: None,
        };
        fit(&m, &site, &scheme).err().map(|it| it.to_string())
    }

    #[test]
    fn zeros_and_common_values_fit_and_extremes_do_not() {
        assert_eq!(misfit(0.0, -0.5), None);
        assert_eq!(misfit(0.5, 1e-5).unwrap(), "float16 cannot hold a scale of 1.2e-6");
        assert_eq!(misfit(0.5, -6e5).unwrap(), "float16 cannot hold a scale of 7.5e4");
    }

    proptest! {
        #[test]
        fn what_fits_keeps_eleven_bits(exponent in -40f32..40.0) {
            let value = exponent.exp2();
            let half = half::f16::from_f32(value / 8.0).to_f32() * 8.0;
            if misfit(1.0, value).is_none() {
                prop_assert!((half - value).abs() <= value / 2048.0, "{value} {half}");
            } else {
                prop_assert!(!(6.2e-5..6e4).contains(&(value / 8.0)));
            }
        }
    }
}
