//! Functions of one number that the standard library lacks.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The error function, to about 1e-15.
///
/// Below 3 its series with positive terms (DLMF 7.6.2, <https://dlmf.nist.gov/7.6#E2>), above
/// the continued fraction of its complement (DLMF 7.9.1, <https://dlmf.nist.gov/7.9#E1>).
pub(super) fn erf(x: f64) -> f64 {
    let size = x.abs();
    if size >= 6.0 {
        return x.signum();
    }
    if size >= 3.0 {
        return x.signum() * (1.0 - erfc_fraction(size));
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

fn erfc_fraction(x: f64) -> f64 {
    let tail = (1..=40).rev().fold(x, |tail, k| x + f64::from(k) / 2.0 / tail);
    (-x * x).exp() / (PI.sqrt() * tail)
}

pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

pub(super) fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// -1, 0 or 1; NaN stays.
pub(super) fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The greater number, or NaN if one is NaN.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The lesser number, or NaN if one is NaN.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Python's `math.erf`.
    #[test]
    fn erf_is_exact_on_both_sides_of_the_seam() {
        for (x, expected) in [
            (0.0, 0.0),
            (1e-9, 1.1283791670955127e-9),
            (0.5, 0.5204998778130465),
            (-1.0, -0.8427007929497149),
            (2.999, 0.9999777698314002),
            (3.0, 0.9999779095030014),
            (4.5, 0.9999999998033839),
            (f64::INFINITY, 1.0),
        ] {
            assert!((erf(x) - expected).abs() <= 1e-15, "erf({x}) = {}", erf(x));
        }
        assert!(erf(f64::NAN).is_nan());
    }
}
