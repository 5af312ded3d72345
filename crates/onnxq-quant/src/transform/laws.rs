//! What holds for every transform that finds scales.

use proptest::prelude::*;

use super::*;
use onnxq_ir::tensor::ZeroPoints;
use onnxq_numerics::{
    scheme::{Granularity, Range},
    specs::{Settings, Spec},
};

const K: usize = 32;

fn reader(values: &[f32]) -> Reader {
    let granularity = Granularity::Block(16);
    Reader {
        rows: Tensor::from_f32(&[values.len() / K, K], values.iter().copied()),
        scheme: Scheme {
            bits: 4,
            zero_points: ZeroPoints::Symmetric,
            granularity,
            range: Range::Full,
            superblock: None,
        },
        scale: DType::F32,
    }
}

fn stats(max_abs: &[f32]) -> InputStats {
    let mean_square = max_abs.iter().map(|it| it * it / 3.0).collect();
    InputStats { rows: 7, mean_square, max_abs: max_abs.to_vec(), hessian: None, drift: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn scales_are_positive_and_equal_for_tied_channels(
        weights in prop::collection::vec(prop_oneof![4 => -2f32..2.0, 1 => Just(0.0)], 3 * K),
        activations in prop::collection::vec(prop_oneof![4 => 0f32..50.0, 1 => Just(0.0)], K),
    ) {
        let ties = Ties { heads: 4, shared: 2, size: K / 4 };
        for spec in TransformSpec::all() {
            prop_assert_eq!(spec.check(), Ok(()));
            let Work::Scales(it) = spec.transform().work() else { continue };
            let scales = it.scales(&[reader(&weights)], &stats(&activations), ties).unwrap();
            prop_assert_eq!(scales.len(), K);
            for (j, scale) in scales.iter().enumerate() {
                prop_assert!(*scale > 0.0 && scale.is_finite(), "{}: {scale}", spec.name());
                let tied = (0..K).filter(|it| ties.source(*it) == ties.source(j));
                for other in tied {
                    prop_assert_eq!(*scale, scales[other], "{}", spec.name());
                }
            }
        }
    }
}
