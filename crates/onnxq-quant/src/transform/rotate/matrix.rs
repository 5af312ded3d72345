//! An orthogonal matrix of any size that spreads each channel evenly over all others.

use std::f64::consts::TAU;

/// `Q = D·S·H`, applied to rows from the right in `O(n·(odd + log n))` steps.
///
/// `D` are random signs. `S` is symmetric and orthogonal: the Kronecker product of the Hartley
/// matrix of the odd part of `n`, `cas(2π·ij/odd)/√odd` (Bracewell 1983), and of the Hadamard
/// matrix of its power of two, so its largest element is at most `√(2/n)`. `H`, if wanted, is the
/// Householder reflection that brings the image of the vector of ones back to itself.
pub(super) struct Rotation {
    n: usize,
    signs: Vec<f64>,
    /// `[odd, odd]`, row-major.
    hartley: Vec<f64>,
    odd: usize,
    /// The unit normal of the mirror.
    mirror: Option<Vec<f64>>,
}

impl Rotation {
    /// A rotation of `n` channels; with `keeps_mean` it leaves the mean of a row as it is.
    pub(super) fn new(n: usize, seed: u64, keeps_mean: bool) -> Rotation {
        let odd = n >> n.trailing_zeros();
        let cas = |it: usize| {
            let angle = TAU * (it % odd) as f64 / odd as f64;
            (angle.cos() + angle.sin()) / (odd as f64).sqrt()
        };
        let hartley = (0..odd * odd).map(|it| cas(it / odd * (it % odd))).collect();
        let mut state = seed;
        let signs = (0..n).map(|_| if split_mix(&mut state) >> 63 == 0 { 1.0 } else { -1.0 });
        let mut q = Rotation { n, signs: signs.collect(), hartley, odd, mirror: None };
        if keeps_mean {
            q.mirror = q.mirror_of_ones();
        }
        q
    }

    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// `row·Q`, in place.
    pub(super) fn rotate(&self, row: &mut [f64]) {
        row.iter_mut().zip(&self.signs).for_each(|(it, sign)| *it *= sign);
        let power = self.n / self.odd;
        row.chunks_exact_mut(power).for_each(hadamard);
        if self.odd > 1 {
            self.mix(row, power);
        }
        if let Some(normal) = &self.mirror {
            let dot: f64 = row.iter().zip(normal).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(normal).for_each(|(it, b)| *it -= 2.0 * dot * b);
        }
    }

    /// The Hartley matrix over elements that lie `power` apart.
    fn mix(&self, row: &mut [f64], power: usize) {
        let mut column = vec![0.0; self.odd];
        for j in 0..power {
            column.iter_mut().enumerate().for_each(|(i, it)| *it = row[i * power + j]);
            for (i, weights) in self.hartley.chunks_exact(self.odd).enumerate() {
                row[i * power + j] = column.iter().zip(weights).map(|(a, b)| a * b).sum();
            }
        }
    }

    fn mirror_of_ones(&self) -> Option<Vec<f64>> {
        let mut image = vec![1.0; self.n];
        self.rotate(&mut image);
        image.iter_mut().for_each(|it| *it -= 1.0);
        let length = image.iter().map(|it| it * it).sum::<f64>().sqrt();
        (length > 1e-9).then(|| image.into_iter().map(|it| it / length).collect())
    }
}

/// The orthonormal Walsh-Hadamard transform of a power of two elements.
pub(in super::super) fn hadamard(values: &mut [f64]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let factor = 1.0 / (values.len() as f64).sqrt();
    values.iter_mut().for_each(|it| *it *= factor);
}

/// SplitMix64 (Steele, Lea and Flood 2014): written out, because the bytes of a model must not
/// depend on the version of a library.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(q: &Rotation) -> Vec<Vec<f64>> {
        let unit = |i| (0..q.len()).map(|j| f64::from(u8::from(i == j))).collect();
        let rotated = |mut row: Vec<f64>| {
            q.rotate(&mut row);
            row
        };
        (0..q.len()).map(unit).map(rotated).collect()
    }

    proptest! {
        #[test]
        fn it_is_orthogonal_and_spreads_each_channel(
            n in 1usize..100,
            seed: u64,
            keeps_mean: bool,
        ) {
            let q = rows(&Rotation::new(n, seed, keeps_mean));
            for (i, a) in q.iter().enumerate() {
                for (j, b) in q.iter().enumerate() {
                    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    prop_assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
            }
            let largest = q.iter().flatten().fold(0.0, |max: f64, it| max.max(it.abs()));
            // The mirror moves some of them a little, in few channels much.
            prop_assert!(keeps_mean || largest <= (2.0 / n as f64).sqrt() + 1e-12);
        }

        #[test]
        fn the_mean_is_kept_if_wanted(n in 1usize..100, seed: u64) {
            let q = Rotation::new(n, seed, true);
            let mut row: Vec<f64> = (0..n).map(|it| (it * it % 17) as f64 - 3.0).collect();
            let before: f64 = row.iter().sum();
            q.rotate(&mut row);
            prop_assert!((row.iter().sum::<f64>() - before).abs() < 1e-9);
        }
    }
}
