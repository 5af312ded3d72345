//! How far a candidate's numbers are from the reference's; rows in, figures out.
//!
//! Sums are in `f64` and in the order of the elements, so figures do not depend on threads.

use pulp::Arch;

use crate::compare::softmax::Pair;

/// Sums over one row of both outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Errors {
    pub elements: usize,
    pub reference_square: f64,
    pub candidate_square: f64,
    pub product: f64,
    pub error_square: f64,
    pub error_sum: f64,
    pub error_max: f64,
}

impl Errors {
    /// Sums are kept in eight lanes, whatever the CPU has.
    pub(super) fn of(arch: Arch, reference: &[f32], candidate: &[f32]) -> Errors {
        arch.dispatch(|| errors(reference, candidate))
    }

    pub(super) fn add(&mut self, other: &Errors) {
        self.elements += other.elements;
        self.reference_square += other.reference_square;
        self.candidate_square += other.candidate_square;
        self.product += other.product;
        self.error_square += other.error_square;
        self.error_sum += other.error_sum;
        self.error_max = self.error_max.max(other.error_max);
    }

    /// Two zero vectors point the same way; a zero vector and another one do not.
    pub(super) fn cosine(&self) -> f64 {
        match (self.reference_square == 0.0, self.candidate_square == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            _ => self.product / (self.reference_square.sqrt() * self.candidate_square.sqrt()),
        }
    }

    /// Infinite if there is no error.
    pub(super) fn sqnr_db(&self) -> f64 {
        10.0 * (self.reference_square / self.error_square).log10()
    }

    pub(super) fn mean_abs(&self) -> f64 {
        self.error_sum / self.elements as f64
    }
}

#[inline(always)]
fn errors(reference: &[f32], candidate: &[f32]) -> Errors {
    const LANES: usize = 8;
    let mut sums = [[0.0f64; LANES]; 6];
    let mut add = |at: usize, r: f32, c: f32| {
        let (r, c) = (f64::from(r), f64::from(c));
        let error = (r - c).abs();
        sums[0][at] += r * r;
        sums[1][at] += c * c;
        sums[2][at] += r * c;
        sums[3][at] += error * error;
        sums[4][at] += error;
        sums[5][at] = if error > sums[5][at] { error } else { sums[5][at] };
    };
    let (mut r, mut c) = (reference.chunks_exact(LANES), candidate.chunks_exact(LANES));
    for (r, c) in (&mut r).zip(&mut c) {
        for at in 0..LANES {
            add(at, r[at], c[at]);
        }
    }
    let rest = r.remainder().iter().zip(c.remainder()).enumerate();
    rest.for_each(|(at, (r, c))| add(at, *r, *c));
    let sum = |at: usize| sums[at].iter().sum();
    Errors {
        elements: reference.len(),
        reference_square: sum(0),
        candidate_square: sum(1),
        product: sum(2),
        error_square: sum(3),
        error_sum: sum(4),
        error_max: sums[5].iter().copied().fold(0.0, f64::max),
    }
}

/// What one token's logits say about both models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token {
    /// KL(reference ‖ candidate) of their distributions, in nats.
    pub kl: f64,
    /// The first of the most likely tokens of each.
    pub top: (usize, usize),
    /// The reference's top is among the candidate's first five.
    pub in_top5: bool,
    /// Logarithms of the tops' probabilities, each in its own model.
    pub log_top: (f64, f64),
    /// Negative log-likelihood of the true next token under the reference and the candidate.
    pub surprise: Option<(f64, f64)>,
}

impl Token {
    /// Both rows must be finite.
    pub(super) fn of(
        arch: Arch,
        reference: &[f32],
        candidate: &[f32],
        next: Option<usize>,
    ) -> Token {
        let pair = Pair::of(arch, reference, candidate);
        let (of_reference, of_candidate) = pair.log_sum;
        let surprise = next.filter(|it| *it < reference.len()).map(|it| {
            (of_reference - f64::from(reference[it]), of_candidate - f64::from(candidate[it]))
        });
        let log_top = (
            f64::from(reference[pair.top.0]) - of_reference,
            f64::from(candidate[pair.top.1]) - of_candidate,
        );
        Token { kl: pair.kl, top: pair.top, in_top5: pair.place < 5, log_top, surprise }
    }

    pub(super) fn same_top(&self) -> bool {
        self.top.0 == self.top.1
    }
}

pub(super) fn count_non_finite(row: &[f32]) -> usize {
    row.iter().filter(|it| !it.is_finite()).count()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    use super::*;

    fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        (1usize..40).prop_flat_map(|len| {
            let row = || proptest::collection::vec(-30f32..30.0, len);
            (row(), row())
        })
    }

    proptest! {
        #[test]
        fn kl_is_positive_and_zero_for_equal_rows((r, c) in pair()) {
            prop_assert!(Token::of(Arch::new(), &r, &c, None).kl >= 0.0);
            let same = Token::of(Arch::new(), &r, &r, Some(0));
            prop_assert_eq!((same.kl, same.same_top()), (0.0, true));
            let (a, b) = same.surprise.unwrap();
            prop_assert!(a == b && a >= 0.0);
        }

        #[test]
        fn kl_ignores_a_constant_added_to_logits((r, c) in pair(), shift in -8i8..8) {
            // Whole numbers, so that the sum is exact.
            let (r, c): (Vec<f32>, Vec<f32>) = (r.iter().map(|it| it.round()).collect(), c.iter().map(|it| it.round()).collect());
            let moved: Vec<f32> = c.iter().map(|it| it + f32::from(shift)).collect();
            let (a, b) = (Token::of(Arch::new(), &r, &c, Some(0)), Token::of(Arch::new(), &r, &moved, Some(0)));
            prop_assert!((a.kl - b.kl).abs() < 1e-9);
            prop_assert_eq!(a.same_top(), b.same_top());
            prop_assert!((a.surprise.unwrap().1 - b.surprise.unwrap().1).abs() < 1e-9);
        }

        #[test]
        fn scaling_keeps_the_cosine_and_sets_the_sqnr((r, _) in pair(), power in 1i32..10) {
            prop_assume!(r.iter().any(|it| it.abs() > 1e-3));
            let factor = 1.0 - 0.5f32.powi(power);
            let scaled: Vec<f32> = r.iter().map(|it| it * factor).collect();
            let errors = Errors::of(Arch::new(), &r, &scaled);
            prop_assert!((errors.cosine() - 1.0).abs() < 1e-6);
            // The error is r / 2^power.
            prop_assert!((errors.sqnr_db() - 20.0 * 2f64.log10() * f64::from(power)).abs() < 1e-2);
            prop_assert_eq!(Errors::of(Arch::new(), &r, &r).sqnr_db(), f64::INFINITY);
        }

        #[test]
        fn rows_add_up_to_the_whole((r, c) in pair(), cut in 0usize..40) {
            let cut = cut.min(r.len());
            let mut sum = Errors::of(Arch::new(), &r[..cut], &c[..cut]);
            sum.add(&Errors::of(Arch::new(), &r[cut..], &c[cut..]));
            let whole = Errors::of(Arch::new(), &r, &c);
            prop_assert_eq!((sum.elements, sum.error_max), (whole.elements, whole.error_max));
            prop_assert!((sum.error_square - whole.error_square).abs() <= 1e-9 * whole.error_square);
        }
    }

    #[test]
    fn kl_of_two_coins() {
        let coin = |p: f32| [p.ln(), (1.0 - p).ln()];
        let token = Token::of(Arch::new(), &coin(0.5), &coin(0.25), Some(1));
        assert_relative_eq!(token.kl, 0.5 * 2f64.ln() + 0.5 * (2f64 / 3.0).ln(), epsilon = 1e-7);
        let (reference, candidate) = token.surprise.unwrap();
        assert_relative_eq!(reference, 2f64.ln(), epsilon = 1e-7);
        assert_relative_eq!(candidate, -(0.75f64.ln()), epsilon = 1e-7);
        assert_eq!(Token::of(Arch::new(), &coin(0.5), &coin(0.5), Some(2)).surprise, None);
    }

    #[test]
    fn zero_vectors_have_a_cosine() {
        assert_eq!(Errors::of(Arch::new(), &[0.0], &[0.0]).cosine(), 1.0);
        assert_eq!(Errors::of(Arch::new(), &[0.0], &[1.0]).cosine(), 0.0);
    }
}
