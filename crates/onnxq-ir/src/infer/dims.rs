//! Shapes together: broadcasting, sums and products of dimensions, what two sources agree on.

use super::expr::Expr;
use crate::tensor::{Dim, Shape, TensorType};

pub(super) fn add(a: &Dim, b: &Dim) -> Dim {
    with(a, b, |a, b| a.add(b))
}

pub(super) fn mul(a: &Dim, b: &Dim) -> Dim {
    with(a, b, |a, b| a.mul(b))
}

pub(super) fn div_exact(a: &Dim, b: &Dim) -> Dim {
    with(a, b, |a, b| a.div_exact(b))
}

/// A size from an attribute or a constant; negative ones are unknown.
pub(super) fn from_int(it: i64) -> Dim {
    usize::try_from(it).map_or(Dim::Unknown, Dim::Fixed)
}

/// `map` of the size, unknown where that is.
pub(super) fn map(dim: &Dim, map: impl Fn(&Expr) -> Option<Expr>) -> Dim {
    to_dim(Expr::of(dim).and_then(|it| map(&it)))
}

pub(super) fn to_dim(it: Option<Expr>) -> Dim {
    it.map_or(Dim::Unknown, |it| it.dim())
}

fn with(a: &Dim, b: &Dim, op: impl Fn(&Expr, &Expr) -> Option<Expr>) -> Dim {
    to_dim(Expr::of(a).zip(Expr::of(b)).and_then(|(a, b)| op(&a, &b)))
}

pub(super) fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::Fixed(1), |product, it| mul(&product, it))
}

/// A shape of which only the rank is known; `None` for a rank that no model has.
pub(super) fn of_rank(rank: usize) -> Option<Shape> {
    const MAX_RANK: usize = 64;
    (rank <= MAX_RANK).then(|| vec![Dim::Unknown; rank])
}

/// The shape that all of `shapes` stretch to, as numpy does it. `None` if a rank is unknown.
pub(super) fn broadcast(shapes: &[Option<Shape>]) -> Option<Shape> {
    let mut out = Shape::new();
    for shape in shapes {
        out = broadcast_two(&out, shape.as_ref()?);
    }
    Some(out)
}

fn broadcast_two(a: &Shape, b: &Shape) -> Shape {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    let lead = long.len() - short.len();
    let stretched = long[lead..].iter().zip(short).map(|(a, b)| broadcast_dim(a, b));
    long[..lead].iter().cloned().chain(stretched).collect()
}

fn broadcast_dim(a: &Dim, b: &Dim) -> Dim {
    let one = Dim::Fixed(1);
    match (Expr::of(a), Expr::of(b)) {
        _ if a == b || *b == one => a.clone(),
        _ if *a == one => b.clone(),
        // What is not 1 does not stretch, so the result has that size or the model is wrong.
        (Some(it), None) | (None, Some(it)) if it.never_one() => it.dim(),
        (Some(a), Some(b)) => to_dim(broadcast_exprs(a, b)),
        _ => Dim::Unknown,
    }
}

fn broadcast_exprs(a: Expr, b: Expr) -> Option<Expr> {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    match (low.never_one(), high.never_one()) {
        _ if low == high => Some(low),
        // A slice that was cut short would not fit the other side.
        _ if low.unclamped().as_ref() == Some(&high) => Some(high),
        _ if high.unclamped().as_ref() == Some(&low) => Some(low),
        (true, true) => match (low.constant(), high.constant()) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some(high),
            _ => Some(low),
        },
        (true, false) => Some(low),
        (false, true) => Some(high),
        (false, false) => None,
    }
}

/// What is true of both, as after an `If`.
pub(super) fn common(a: &TensorType, b: &TensorType) -> Option<TensorType> {
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            let same = |(a, b): (&Dim, &Dim)| if a == b { a.clone() } else { Dim::Unknown };
            Some(a.iter().zip(b).map(same).collect())
        }
        _ => None,
    };
    (a.dtype == b.dtype).then_some(TensorType { dtype: a.dtype, shape })
}

/// A type the file states, and what inference adds to it: numbers over symbols over nothing.
///
/// Where both have a symbol, the inferred one wins: it is made of the names of the inputs. It wins
/// over another rank or number, too: exporters state wrong ones, which ONNX Runtime ignores.
pub(super) fn refine(declared: &TensorType, inferred: &TensorType) -> TensorType {
    let shape = match (&declared.shape, &inferred.shape) {
        (Some(own), Some(new)) if own.len() == new.len() => {
            Some(own.iter().zip(new).map(|(own, new)| refine_dim(own, new)).collect())
        }
        (own, None) => own.clone(),
        (_, new) => new.clone(),
    };
    TensorType { dtype: declared.dtype, shape }
}

/// Whether a stated shape cannot be that of a value with the inferred type.
pub(super) fn contradicts(declared: &TensorType, inferred: &TensorType) -> bool {
    let (Some(own), Some(new)) = (&declared.shape, &inferred.shape) else { return false };
    let differ = |it: (&Dim, &Dim)| matches!(it, (Dim::Fixed(a), Dim::Fixed(b)) if a != b);
    own.len() != new.len() || own.iter().zip(new).any(differ)
}

fn refine_dim(declared: &Dim, inferred: &Dim) -> Dim {
    match (declared, inferred) {
        (_, Dim::Fixed(_)) => inferred.clone(),
        (Dim::Fixed(_), _) | (_, Dim::Unknown) => declared.clone(),
        _ => inferred.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dim(text: &str) -> Dim {
        Dim::Symbol(text.into())
    }

    fn numpy(a: &[usize], b: &[usize]) -> Vec<usize> {
        let rank = a.len().max(b.len());
        let at = |it: &[usize], axis: usize| {
            (axis + it.len()).checked_sub(rank).map_or(1, |axis| it[axis])
        };
        let one = |axis| match (at(a, axis), at(b, axis)) {
            (1, it) | (it, 1) => it,
            (a, b) => {
                assert_eq!(a, b);
                a
            }
        };
        (0..rank).map(one).collect()
    }

    proptest! {
        #[test]
        fn broadcasting_is_that_of_numpy(
            full in prop::collection::vec(0usize..4, 0..5), cut_a in 0usize..5, cut_b in 0usize..5, ones: [u8; 2],
        ) {
            let side = |cut: usize, ones: u8| -> Vec<usize> {
                let keep = full.iter().enumerate().skip(cut);
                keep.map(|(i, it)| if ones >> i & 1 == 1 { 1 } else { *it }).collect()
            };
            let (a, b) = (side(cut_a, ones[0]), side(cut_b, ones[1]));
            let shape = |it: &[usize]| Some(it.iter().map(|it| Dim::Fixed(*it)).collect::<Shape>());
            prop_assert_eq!(broadcast(&[shape(&a), shape(&b)]), shape(&numpy(&a, &b)));
        }

        #[test]
        fn order_does_not_matter(
            a in prop::sample::select(vec!["a", "b", "2*a", "a + 2", "min(9, a)", "1", "7", "?"]),
            b in prop::sample::select(vec!["a", "b", "2*b", "b + 3", "min(9, b)", "1", "7", "?"]),
        ) {
            let read = |it: &str| match it.parse() {
                Ok(it) => Dim::Fixed(it),
                _ if it == "?" => Dim::Unknown,
                _ => dim(it),
            };
            let (a, b) = (read(a), read(b));
            prop_assert_eq!(broadcast_dim(&a, &b), broadcast_dim(&b, &a));
        }
    }

    #[test]
    fn symbols_broadcast_only_when_sure() {
        for (a, b, want) in [
            (dim("a"), dim("a"), dim("a")),
            (dim("a"), dim("b"), Dim::Unknown),
            (dim("a"), Dim::Unknown, Dim::Unknown),
            (dim("a"), Dim::Fixed(8), Dim::Fixed(8)),
            (dim("a"), dim("2*b"), dim("2*b")),
            (dim("min(512, a)"), dim("a"), dim("a")),
            (dim("min(1, a)"), dim("a"), Dim::Unknown),
            (Dim::Fixed(3), Dim::Fixed(4), Dim::Unknown),
        ] {
            assert_eq!(broadcast_dim(&a, &b), want, "{a} {b}");
        }
    }

    #[test]
    fn a_file_may_know_more_or_less() {
        let shape = |dims: [Dim; 4]| TensorType::new(crate::tensor::DType::F32, dims);
        let own = shape([Dim::Fixed(2), dim("unk"), Dim::Unknown, dim("n")]);
        let new = shape([dim("a"), dim("a"), dim("a"), Dim::Unknown]);
        assert_eq!(refine(&own, &new), shape([Dim::Fixed(2), dim("a"), dim("a"), dim("n")]));
    }
}
