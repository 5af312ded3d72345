//! Numbers in the place of named dimensions, also inside of expressions.

use std::collections::{BTreeMap, BTreeSet};

use super::expr::{Atom, Expr};
use crate::{ir::Name, tensor::Dim};

/// The dimension once the names in `sizes` stand for numbers.
pub fn bind(dim: &Dim, sizes: &BTreeMap<Name, usize>) -> Dim {
    let Dim::Symbol(_) = dim else { return dim.clone() };
    let names = names(dim);
    if !names.iter().any(|it| sizes.contains_key(it)) {
        return dim.clone();
    }
    Expr::of(dim).and_then(|it| bound(&it, sizes)).map_or(Dim::Unknown, |it| it.dim())
}

/// The names in a dimension.
pub fn names(dim: &Dim) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    if let Some(it) = Expr::of(dim) {
        collect(&it, &mut found);
    }
    found
}

fn collect(expr: &Expr, found: &mut BTreeSet<Name>) {
    for atom in expr.terms.keys().flatten() {
        match atom {
            Atom::Name(name) => drop(found.insert(name.clone())),
            Atom::Floor(inner, _) | Atom::Min(_, inner) => collect(inner, found),
        }
    }
}

fn bound(expr: &Expr, sizes: &BTreeMap<Name, usize>) -> Option<Expr> {
    let mut sum = Expr::from(0);
    for (factors, coefficient) in &expr.terms {
        let mut product = Expr::from(*coefficient);
        for factor in factors {
            product = product.mul(&atom(factor, sizes)?)?;
        }
        sum = sum.add(&product)?;
    }
    Some(sum)
}

fn atom(atom: &Atom, sizes: &BTreeMap<Name, usize>) -> Option<Expr> {
    match atom {
        Atom::Name(name) => match sizes.get(name) {
            Some(it) => Some(Expr::from(i64::try_from(*it).ok()?)),
            None => Some(Expr::atom(atom.clone())),
        },
        Atom::Floor(inner, by) => bound(inner, sizes)?.div_floor(*by),
        Atom::Min(limit, inner) => bound(inner, sizes)?.smaller(&Expr::from(*limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(dim: &str, sizes: &[(&str, usize)]) -> Dim {
        let sizes = sizes.iter().map(|(name, it)| ((*name).into(), *it)).collect();
        bind(&Dim::Symbol(dim.into()), &sizes)
    }

    #[test]
    fn numbers_take_the_place_of_names() {
        assert_eq!(bound("batch", &[("batch", 2)]), Dim::Fixed(2));
        assert_eq!(bound("past + seq", &[("past", 3), ("seq", 1)]), Dim::Fixed(4));
        assert_eq!(bound("other", &[("batch", 2)]), Dim::Symbol("other".into()));
        let half = bound("past + seq", &[("past", 3)]);
        assert_eq!(names(&half), BTreeSet::from(["seq".into()]));
    }
}
