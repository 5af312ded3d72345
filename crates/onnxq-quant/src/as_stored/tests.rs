//! Laws: what a scheme holds has the same values, and what it does not hold is refused.

use proptest::prelude::*;

use super::*;

struct Fixed(QMatrix);

impl QSource for Fixed {
    fn shape(&self) -> QShape {
        self.0.shape
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        Ok(self.0.rows(rows))
    }
}

fn matrix(shape: QShape, seed: u64) -> QMatrix {
    let next = |at: usize| (seed.wrapping_add(at as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let code = |at| (next(at) % (1 << shape.bits)) as u8;
    let blocks = (shape.n, shape.blocks());
    let zero = |at: usize| match shape.zero_points {
        ZeroPoints::Symmetric => shape.middle(),
        _ => code(at + 7777),
    };
    QMatrix::plain(
        shape,
        Array2::from_shape_fn((shape.n, shape.k), |it| code(it.0 * shape.k + it.1)),
        Array2::from_shape_fn(blocks, |it| (next(it.0 * 31 + it.1) % 64) as f32 - 32.0),
        Array2::from_shape_fn(blocks, |it| zero(it.0 * 17 + it.1)),
    )
}

fn zero_points() -> impl Strategy<Value = ZeroPoints> {
    prop_oneof![Just(ZeroPoints::Symmetric), Just(ZeroPoints::Asymmetric)]
}

proptest! {
    #[test]
    fn what_is_held_has_the_same_values(
        n in 1usize..4,
        k in 1usize..9,
        block in prop_oneof![Just(16usize), Just(32), Just(64), Just(usize::MAX)],
        bits in prop_oneof![Just(2u32), Just(4), Just(8)],
        to_bits in prop_oneof![Just(2u32), Just(4), Just(8)],
        to_block in prop_oneof![Just(16usize), Just(32), Just(64)],
        zeros in zero_points(),
        to_zeros in zero_points(),
        seed in any::<u64>(),
    ) {
        let k = 8 * k;
        let block = if block == usize::MAX { k } else { block };
        let grid = QShape { n, k, block, bits, zero_points: zeros, scale: DType::F16, superblock: None };
        let scheme = Scheme {
            bits: to_bits,
            zero_points: to_zeros,
            granularity: Granularity::Block(to_block),
            range: scheme::Range::Full,
            superblock: None,
        };
        prop_assert!(!holds(&scheme, DType::BF16, grid));
        prop_assume!(holds(&scheme, DType::F32, grid));
        let own = matrix(grid, seed);
        let base = Arc::new(Fixed(own.clone()));
        let source = AsStored { name: "w".into(), base, to: scheme.shape(n, k, DType::F32) };
        let made = source.solve(0..n).unwrap();
        prop_assert_eq!(made.shape, source.shape());
        prop_assert!(made.quantized.iter().all(|it| u32::from(*it) < 1 << to_bits));
        prop_assert_eq!(made.dequantize(), own.dequantize());
        let (own_scheme, _) = scheme_of(grid);
        prop_assert!(holds(&own_scheme, DType::F32, grid), "{:?}", own_scheme);
    }
}

#[test]
fn scales_that_are_no_numbers_are_said() {
    let scale = DType::F32;
    let grid = QShape {
        n: 2,
        k: 32,
        block: 16,
        bits: 4,
        zero_points: ZeroPoints::Symmetric,
        scale,
        superblock: None,
    };
    let mut own = matrix(grid, 1);
    own.scales[(1, 1)] = f32::INFINITY;
    let source = AsStored { name: "w".into(), base: Arc::new(Fixed(own)), to: grid };
    assert!(source.solve(0..1).is_ok());
    let error = source.solve(1..2).unwrap_err().to_string();
    assert_eq!(error, "weight `w` holds a scale beyond floats at [1, 16]");
}

#[test]
fn narrow_ranges_and_finer_grids_hold_nothing() {
    let (zero_points, scale) = (ZeroPoints::Symmetric, DType::F16);
    let grid = QShape { n: 2, k: 64, block: 32, bits: 4, zero_points, scale, superblock: None };
    let (scheme, scales) = scheme_of(grid);
    assert_eq!(scales, Scales::Float16);
    assert!(holds(&scheme, DType::F16, grid));
    let others = [
        Scheme { bits: 2, ..scheme },
        Scheme { range: scheme::Range::Narrow, ..scheme },
        Scheme { granularity: Granularity::Block(64), ..scheme },
        Scheme { granularity: Granularity::Channel, ..scheme },
    ];
    assert!(others.iter().all(|it| !holds(it, DType::F16, grid)));
    assert!(!holds(&scheme, DType::F16, QShape { scale: DType::F32, ..grid }));
    let zeros = QShape { zero_points: ZeroPoints::Asymmetric, ..grid };
    assert!(!holds(&scheme, DType::F16, zeros));
    assert!(holds(&Scheme { bits: 8, ..scheme }, DType::F16, zeros));
}
