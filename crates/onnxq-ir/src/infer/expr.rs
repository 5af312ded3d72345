//! Sizes as polynomials over names, in a normal form: equal sizes compare equal and print alike.
//!
//! A name stands for a dimension, so it is never negative. Everything is bounded and checked:
//! what grows too long or overflows is `None`, an unknown size.

use std::{collections::BTreeMap, sync::Arc};

use crate::tensor::Dim;

/// A sum of products of atoms with integer coefficients.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Expr {
    /// Sorted factors → coefficient, never 0. No factors: the constant.
    pub(super) terms: BTreeMap<Vec<Atom>, i64>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Atom {
    Name(Arc<str>),
    /// The quotient, rounded down. Coefficients of the dividend lie in `0..divisor`.
    Floor(Box<Expr>, i64),
    /// A size that is cut at a constant, as the end of a slice is.
    Min(i64, Box<Expr>),
}

/// Atoms of an expression, inner ones included.
const MAX_SIZE: usize = 64;

impl From<i64> for Expr {
    fn from(it: i64) -> Expr {
        Expr::term(Vec::new(), it)
    }
}

impl Expr {
    /// A size; `None` if unknown.
    pub fn of(dim: &Dim) -> Option<Expr> {
        match dim {
            Dim::Fixed(it) => i64::try_from(*it).ok().map(Expr::from),
            Dim::Symbol(it) => Some(super::expr_text::parse(it)),
            Dim::Unknown => None,
        }
    }

    /// The dimension of that size; unknown if it has no good spelling or is surely negative.
    pub fn dim(&self) -> Dim {
        if let Some(it) = self.constant() {
            return usize::try_from(it).map_or(Dim::Unknown, Dim::Fixed);
        }
        if self.terms.values().all(|it| *it < 0) {
            return Dim::Unknown;
        }
        super::expr_text::print(self).map_or(Dim::Unknown, Dim::Symbol)
    }

    pub(super) fn atom(atom: Atom) -> Expr {
        Expr::term(vec![atom], 1)
    }

    fn term(factors: Vec<Atom>, coefficient: i64) -> Expr {
        let mut terms = BTreeMap::new();
        if coefficient != 0 {
            terms.insert(factors, coefficient);
        }
        Expr { terms }
    }

    pub fn constant(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    /// The summand without names.
    pub(super) fn offset(&self) -> i64 {
        self.terms.get(&Vec::new()).copied().unwrap_or(0)
    }

    pub fn add(&self, other: &Expr) -> Option<Expr> {
        let mut sum = self.clone();
        for (factors, coefficient) in &other.terms {
            sum.add_term(factors.clone(), *coefficient)?;
        }
        sum.bounded()
    }

    pub fn sub(&self, other: &Expr) -> Option<Expr> {
        self.add(&other.scale(-1)?)
    }

    pub fn scale(&self, by: i64) -> Option<Expr> {
        self.mul(&Expr::from(by))
    }

    pub fn mul(&self, other: &Expr) -> Option<Expr> {
        let mut product = Expr::default();
        for (a, x) in &self.terms {
            for (b, y) in &other.terms {
                let mut factors: Vec<Atom> = a.iter().chain(b).cloned().collect();
                factors.sort();
                product.add_term(factors, x.checked_mul(*y)?)?;
            }
        }
        product.bounded()
    }

    /// The quotient, if the division leaves nothing over whatever the names stand for.
    pub fn div_exact(&self, by: &Expr) -> Option<Expr> {
        let (by_factors, by_coefficient) = by.leading()?;
        let (mut rest, mut quotient) = (self.clone(), Expr::default());
        // Each step removes the leading term and adds smaller ones, so this ends; the bound is
        // for the time it takes.
        for _ in 0..MAX_SIZE {
            let Some((factors, coefficient)) = rest.leading() else { return quotient.bounded() };
            if coefficient.checked_rem(by_coefficient)? != 0 {
                return None;
            }
            let factors = without(factors, by_factors)?;
            let step = Expr::term(factors, coefficient.checked_div(by_coefficient)?);
            rest = rest.sub(&step.mul(by)?)?;
            quotient = quotient.add(&step)?;
        }
        None
    }

    /// The quotient rounded down; `None` if `by` is not positive.
    pub fn div_floor(&self, by: i64) -> Option<Expr> {
        if by <= 0 {
            return None;
        }
        let (mut whole, mut rest) = (Expr::default(), Expr::default());
        for (factors, coefficient) in &self.terms {
            whole.add_term(factors.clone(), coefficient.div_euclid(by))?;
            rest.add_term(factors.clone(), coefficient.rem_euclid(by))?;
        }
        whole.add(&rest.floor(by)?)?.bounded()
    }

    /// The quotient rounded up.
    pub fn div_ceil(&self, by: i64) -> Option<Expr> {
        self.add(&Expr::from(by.checked_sub(1)?))?.div_floor(by)
    }

    /// `floor(self / by)` where the coefficients of `self` lie in `0..by`.
    fn floor(mut self, mut by: i64) -> Option<Expr> {
        let offset = self.offset();
        let common = self.names_gcd(by);
        if common == by {
            return Some(Expr::default());
        }
        if common > 1 {
            let shrink = |(factors, it): (Vec<Atom>, i64)| (factors, it / common);
            self.terms = self.terms.into_iter().map(shrink).filter(|it| it.1 != 0).collect();
            by /= common;
        }
        // floor((floor(p/a) + b)/c) = floor((p + a*b)/(a*c))
        if let Some((Atom::Floor(inner, divisor), 1)) = self.only_name() {
            let shift = Expr::from(divisor.checked_mul(offset / common)?);
            return inner.add(&shift)?.div_floor(divisor.checked_mul(by)?);
        }
        Some(Expr::atom(Atom::Floor(Box::new(self), by)))
    }

    /// The greatest common divisor of `by` and the coefficients of names.
    fn names_gcd(&self, by: i64) -> i64 {
        let names = self.terms.iter().filter(|(factors, _)| !factors.is_empty());
        names.fold(by, |sum, (_, it)| gcd(sum, *it))
    }

    /// The one term with names, if it has one factor.
    fn only_name(&self) -> Option<(&Atom, i64)> {
        let mut names = self.terms.iter().filter(|(factors, _)| !factors.is_empty());
        let (factors, coefficient) = names.next()?;
        match (&factors[..], names.next()) {
            ([atom], None) => Some((atom, *coefficient)),
            _ => None,
        }
    }

    /// The smaller of the two sizes, if it can be told or one is a constant.
    pub fn smaller(&self, other: &Expr) -> Option<Expr> {
        if other.sub(self)?.at_least(0) {
            return Some(self.clone());
        }
        if self.sub(other)?.at_least(0) {
            return Some(other.clone());
        }
        match (self.constant(), other.constant()) {
            (Some(limit), None) => Expr::atom(Atom::Min(limit, Box::new(other.clone()))).bounded(),
            (None, Some(limit)) => Expr::atom(Atom::Min(limit, Box::new(self.clone()))).bounded(),
            _ => None,
        }
    }

    /// Whether it is `limit` or more, whatever the names stand for.
    pub fn at_least(&self, limit: i64) -> bool {
        self.offset() >= limit
            && self.terms.iter().all(|(factors, coefficient)| {
                factors.is_empty() || *coefficient > 0 && factors.iter().all(Atom::not_negative)
            })
    }

    /// Whether it differs from 1, whatever the names stand for: then it does not broadcast.
    pub fn never_one(&self) -> bool {
        match self.constant() {
            Some(it) => it != 1,
            None => self.at_least(2) || self.terms.values().fold(0, |sum, it| gcd(sum, *it)) > 1,
        }
    }

    /// The size if no slice was cut short.
    pub fn unclamped(&self) -> Option<Expr> {
        let mut out = Expr::default();
        for (factors, coefficient) in &self.terms {
            let mut product = Expr::from(*coefficient);
            for atom in factors {
                product = match atom {
                    Atom::Min(limit, inner) if *limit > 1 => product.mul(inner)?,
                    _ => product.mul(&Expr::atom(atom.clone()))?,
                };
            }
            out = out.add(&product)?;
        }
        Some(out)
    }

    fn add_term(&mut self, factors: Vec<Atom>, coefficient: i64) -> Option<()> {
        let sum = self.terms.get(&factors).copied().unwrap_or(0).checked_add(coefficient)?;
        match sum {
            0 => self.terms.remove(&factors),
            _ => self.terms.insert(factors, sum),
        };
        Some(())
    }

    /// The greatest term by degree, then by factors: an order that products keep.
    fn leading(&self) -> Option<(&Vec<Atom>, i64)> {
        let greatest = self.terms.iter().max_by_key(|(factors, _)| (factors.len(), *factors))?;
        Some((greatest.0, *greatest.1))
    }

    fn bounded(self) -> Option<Expr> {
        (self.size() <= MAX_SIZE).then_some(self)
    }

    fn size(&self) -> usize {
        let inner = |it: &Atom| match it {
            Atom::Name(_) => 1,
            Atom::Floor(inner, _) | Atom::Min(_, inner) => 1 + inner.size(),
        };
        self.terms.keys().map(|it| 1 + it.iter().map(inner).sum::<usize>()).sum()
    }
}

impl Atom {
    fn not_negative(&self) -> bool {
        match self {
            Atom::Name(_) => true,
            Atom::Floor(inner, _) => inner.at_least(0),
            Atom::Min(limit, inner) => *limit >= 0 && inner.at_least(0),
        }
    }
}

/// The factors that remain of `factors` without those of `other`, if it has them all.
fn without(factors: &[Atom], other: &[Atom]) -> Option<Vec<Atom>> {
    let mut rest = factors.to_vec();
    for it in other {
        let at = rest.iter().position(|own| own == it)?;
        rest.remove(at);
    }
    Some(rest)
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i64::try_from(a).unwrap_or(1)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small polynomials over `a`, `b`, `c`, with rounded quotients and cuts in them.
    pub(crate) fn exprs() -> impl Strategy<Value = Expr> {
        let name = prop::sample::select(vec!["a", "b", "c"]);
        let leaf = prop_oneof![
            (-3i64..5).prop_map(Expr::from),
            name.prop_map(|it| Expr::atom(Atom::Name(it.into())))
        ];
        leaf.prop_recursive(3, 8, 2, |inner| {
            (inner.clone(), inner, 0..5).prop_map(|(a, b, kind)| {
                let made = match kind {
                    0 => a.add(&b),
                    1 => a.sub(&b),
                    2 => a.mul(&b),
                    3 => a.div_floor(2 + b.offset().abs()),
                    _ => a.smaller(&Expr::from(b.offset())),
                };
                made.unwrap_or(a)
            })
        })
    }

    fn value(it: &Expr, names: &[i64; 3]) -> i64 {
        let atom = |it: &Atom| match it {
            Atom::Name(it) => names[(it.as_bytes()[0] - b'a') as usize],
            Atom::Floor(inner, by) => value(inner, names).div_euclid(*by),
            Atom::Min(limit, inner) => value(inner, names).min(*limit),
        };
        it.terms.iter().map(|(factors, k)| k * factors.iter().map(atom).product::<i64>()).sum()
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_the_values(a in exprs(), b in exprs(), by in 1i64..7, at: [u8; 3]) {
            let at = at.map(|it| i64::from(it % 40));
            let (x, y) = (value(&a, &at), value(&b, &at));
            let check = |it: Option<Expr>, want: i64| it.is_none_or(|it| value(&it, &at) == want);
            prop_assert!(check(a.add(&b), x + y));
            prop_assert!(check(a.sub(&b), x - y));
            prop_assert!(check(a.mul(&b), x * y));
            prop_assert!(check(a.smaller(&b), x.min(y)));
            prop_assert!(check(a.div_floor(by), x.div_euclid(by)));
            prop_assert!(check(a.div_ceil(by), -((-x).div_euclid(by))));
            if let Some(quotient) = a.div_exact(&b) {
                prop_assert_eq!(value(&quotient, &at) * y, x);
            }
        }

        #[test]
        fn equal_sums_and_products_have_one_form(a in exprs(), b in exprs(), c in exprs()) {
            prop_assert_eq!(a.add(&b), b.add(&a));
            prop_assert_eq!(a.mul(&b), b.mul(&a));
            let both = |x: Option<Expr>, y: Option<Expr>| x.is_none() || y.is_none() || x == y;
            let nested = |f: fn(&Expr, &Expr) -> Option<Expr>| {
                both(f(&a, &b).and_then(|it| f(&it, &c)), f(&b, &c).and_then(|it| f(&a, &it)))
            };
            prop_assert!(nested(Expr::add));
            prop_assert!(nested(Expr::mul));
            let spread = a.mul(&b).zip(a.mul(&c)).and_then(|(x, y)| x.add(&y));
            prop_assert!(both(b.add(&c).and_then(|it| a.mul(&it)), spread));
        }

        #[test]
        fn a_product_divides_by_its_factors(a in exprs(), b in exprs()) {
            if b != Expr::default() && let Some(product) = a.mul(&b) {
                prop_assert_eq!(product.div_exact(&b), Some(a));
            }
        }

        #[test]
        fn what_is_sure_holds(a in exprs(), limit in -3i64..4, at: [u8; 3]) {
            let x = value(&a, &at.map(|it| i64::from(it % 6)));
            prop_assert!(!a.at_least(limit) || x >= limit);
            prop_assert!(!a.never_one() || x != 1);
        }
    }

    #[test]
    fn overflow_and_growth_are_unknown() {
        let big = Expr::from(i64::MAX);
        assert_eq!(big.add(&Expr::from(1)), None);
        assert_eq!(Expr::from(i64::MIN).div_exact(&Expr::from(-1)), None);
        assert_eq!(big.div_ceil(2), None);
        let mut it = super::super::expr_text::parse("a + b + c + d");
        let grown = (0..9).try_for_each(|_| {
            it = it.mul(&it).ok_or(())?;
            Ok::<(), ()>(())
        });
        assert_eq!(grown, Err(()));
    }
}
