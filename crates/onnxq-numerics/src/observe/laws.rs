//! What every observer must do, whatever it was shown.

use proptest::prelude::*;

use super::*;
use crate::specs::{Settings, Spec};

const ALL: &[&str] = ObserverSpec::NAMES;

fn spec(name: &str) -> ObserverSpec {
    serde_json::from_str(&format!("\"{name}\"")).unwrap()
}

fn stats(samples: &[Vec<f32>]) -> RangeStats {
    let mut stats = RangeStats::default();
    samples.iter().for_each(|it| stats.add(it).unwrap());
    stats
}

fn samples() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let sizes = prop_oneof![Just(-30i32), Just(0), Just(3), Just(30)];
    (sizes, 0u32..3).prop_flat_map(|(size, sides)| {
        let value = (-1f32..1.0, 0i32..12).prop_map(move |(it, down)| {
            let it = it.powi(3) * 2f32.powi(size - down);
            match sides {
                0 => it.max(0.0),
                1 => -it.abs() - 2f32.powi(size),
                _ => it,
            }
        });
        prop::collection::vec(prop::collection::vec(value, 0..60), 0..4)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ranges_hold_zero_and_nothing_that_was_not_seen(samples in samples()) {
        let stats = stats(&samples);
        let whole = stats.whole();
        for name in ALL {
            let range = spec(name).range(&stats, 256, false);
            prop_assert!(whole.lo <= range.lo && range.hi <= whole.hi, "{name} {range:?}");
            prop_assert!(range.lo <= 0.0 && range.hi >= 0.0, "{name} {range:?}");
            let even = spec(name).range(&stats, 256, true);
            prop_assert_eq!(-even.lo, even.hi);
            prop_assert!(even.hi <= whole.hi.max(-whole.lo));
            let nothing = whole.lo == whole.hi;
            prop_assert!(nothing || range.lo < range.hi, "{name} {range:?} {whole:?}");
        }
    }

    #[test]
    fn order_changes_nothing(samples in samples()) {
        let forwards = stats(&samples);
        let reversed: Vec<Vec<f32>> =
            samples.iter().rev().map(|it| it.iter().rev().copied().collect()).collect();
        let backwards = stats(&reversed);
        for name in ALL {
            let spec = spec(name);
            prop_assert_eq!(spec.range(&forwards, 256, false), spec.range(&backwards, 256, false));
        }
    }

    #[test]
    fn mse_is_never_worse_than_the_whole_range(samples in samples(), levels in 16u32..256) {
        let stats = stats(&samples);
        for symmetric in [false, true] {
            for norm in [1.0, 2.0, 3.0] {
                let whole = spec("min_max").range(&stats, levels, symmetric);
                let chosen = Mse { norm }.range(&stats, levels, symmetric);
                let error = |it| expected_error(&stats, it, levels, norm);
                prop_assert!(error(chosen) <= error(whole));
            }
        }
    }

    #[test]
    fn all_percent_are_the_whole_range(samples in samples()) {
        let stats = stats(&samples);
        let all = Percentile { percentile: 100.0 };
        prop_assert_eq!(all.range(&stats, 256, false), stats.whole());
    }

    #[test]
    fn sizes_change_with_the_values(samples in samples(), power in -8i32..8) {
        let factor = 2f32.powi(power);
        let scaled: Vec<Vec<f32>> =
            samples.iter().map(|it| it.iter().map(|it| it * factor).collect()).collect();
        let (plain, scaled) = (stats(&samples), stats(&scaled));
        for name in ["min_max", "percentile", "average"] {
            let (a, b) = (spec(name).range(&plain, 256, false), spec(name).range(&scaled, 256, false));
            prop_assert_eq!(a.hi * factor, b.hi, "{}", name);
        }
    }
}

/// The sum of twelve even numbers is almost normal.
fn normal(count: u32) -> Vec<f32> {
    let mut state = 1u32;
    let mut even = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| (0..12).map(|_| even()).sum::<f32>() - 6.0).collect()
}

#[test]
fn a_rare_outlier_is_clipped_and_an_even_spread_is_not() {
    let mut values = normal(20_000);
    values.push(300.0);
    let outlier = stats(&[values]);
    let even: Vec<f32> = (0..20_000).map(|it| it as f32 / 1e4 - 0.5).collect();
    let even = stats(&[even]);
    for name in ["entropy", "percentile"] {
        let percentile = Percentile { percentile: 99.98 };
        let spec =
            if name == "entropy" { spec(name) } else { ObserverSpec::Percentile(percentile) };
        let range = spec.range(&outlier, 256, false);
        assert!(range.lo < -2.0 && range.hi < 10.0, "{name} {range:?}");
    }
    for name in ["entropy", "mse"] {
        let range = spec(name).range(&even, 256, false);
        assert!(range.lo <= -0.48 && range.hi >= 1.45, "{name} {range:?}");
    }
}

/// Banner, Nahshan and Soudry, 2019: a normal distribution is best cut at 2.55 deviations for 4
/// bits.
#[test]
fn few_levels_clip_more_and_a_higher_norm_clips_less() {
    let normal = stats(&[normal(100_000)]);
    let reach = |norm, levels| Mse { norm }.range(&normal, levels, true).hi;
    assert!((2.3..2.8).contains(&reach(2.0, 16)), "{}", reach(2.0, 16));
    assert!(reach(2.0, 16) < reach(4.0, 16));
    assert!(reach(2.0, 16) < reach(2.0, 256));
}

#[test]
fn values_after_relu_keep_zero_as_their_end() {
    let values: Vec<f32> = normal(20_000).into_iter().map(|it| it.max(0.0)).collect();
    let stats = stats(&[values]);
    for name in ALL {
        let range = spec(name).range(&stats, 256, false);
        assert!(range.lo == 0.0 && range.hi > 2.0, "{name} {range:?}");
    }
}

#[test]
fn a_word_stands_alone_or_with_settings() {
    let read = |text: &str| serde_json::from_str::<ObserverSpec>(text);
    assert_eq!(read("\"min_max\"").unwrap(), ObserverSpec::default());
    let percentile = ObserverSpec::Percentile(Percentile { percentile: 99.9 });
    assert_eq!(read(r#"{"percentile": {"percentile": 99.9}}"#).unwrap(), percentile);
    let text = serde_json::to_string(&percentile).unwrap();
    assert_eq!(read(&text).unwrap(), percentile);
    assert!(read(r#"{"mse": {"nrom": 2}}"#).is_err());
    assert!(read("\"median\"").is_err());
    assert!(read(r#"{"percentile": {"percentile": 7}}"#).unwrap().check().is_err());
    assert!(percentile.check().is_ok());
}
