//! The factor of a damped Hessian, and the order in which columns are rounded.

use faer::{
    Mat, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch},
};
use ndarray::Array2;

use crate::{
    solve::BadStats,
    stats::{Hessian, InputStats},
};

/// Columns that are rounded between two matrix products.
pub(super) const PANEL: usize = 32;

/// Ten times more damping is tried this often. By then the diagonal dominates any matrix of f32.
const ATTEMPTS: u32 = 90;

/// `L` of `P (H + λ I) Pᵀ = Lᵀ L`, its rows divided by their diagonal, and the permutation `P`.
pub struct Feedback {
    /// The column at each position: position 0 is rounded first. `[k]`.
    pub(super) order: Vec<usize>,
    /// `PANEL` rows of `L` each, and of these the columns up to the last diagonal element.
    pub(super) panels: Vec<Array2<f32>>,
    /// What the square of each term of `L Δ` counts: `L[j, j]²`, `[k]`.
    pub(super) weight: Vec<f32>,
    /// What the damping added to the diagonal, `[k]`.
    pub(super) damping: Vec<f32>,
    /// `H + λ I`, columns in the order of the model: `[k, k]`.
    pub(super) hessian: Array2<f32>,
}

impl Feedback {
    pub(super) fn new(
        stats: &InputStats,
        act_order: bool,
        damping: f32,
    ) -> Result<Feedback, BadStats> {
        let hessian = stats.hessian.as_ref().ok_or(BadStats("no Hessian"))?;
        let diagonal = diagonal(hessian)?;
        let order = order(&diagonal, act_order);
        let mut part = f64::from(damping);
        for _ in 0..ATTEMPTS {
            let added = damping_of(&diagonal, part);
            let damping: Vec<f64> = order.iter().map(|it| added[*it]).collect();
            if let Some(factor) = factor(hessian, &diagonal, &order, &damping) {
                let (panels, weight) = panels(&factor);
                let damping: Vec<f32> = damping.iter().map(|it| *it as f32).collect();
                let mut hessian = hessian.full();
                order.iter().zip(&damping).for_each(|(at, it)| hessian[(*at, *at)] += it);
                return Ok(Feedback { order, panels, weight, damping, hessian });
            }
            part = part.max(1e-6) * 10.0;
        }
        Err(BadStats("a Hessian that no damping makes positive definite"))
    }
}

/// `H + λ I`, `[k, k]`, and what was added to its diagonal.
pub(in crate::solve) fn damped(
    stats: &InputStats,
    damping: f32,
) -> Result<(Array2<f32>, Vec<f32>), BadStats> {
    let hessian = stats.hessian.as_ref().ok_or(BadStats("no Hessian"))?;
    let added = damping_of(&diagonal(hessian)?, f64::from(damping));
    let added: Vec<f32> = added.into_iter().map(|it| it as f32).collect();
    let mut full = hessian.full();
    full.diag_mut().iter_mut().zip(&added).for_each(|(it, added)| *it += added);
    Ok((full, added))
}

/// What to add to each column's mean square.
fn damping_of(diagonal: &[f64], part: f64) -> Vec<f64> {
    let alive = diagonal.iter().filter(|it| **it > 0.0);
    let (sum, count) = alive.fold((0.0, 0usize), |(sum, count), it| (sum + it, count + 1));
    let mean = if count == 0 { 1.0 } else { sum / count as f64 };
    // Dead columns are linked to no other: any positive number will do for them.
    let added = |it: &f64| if *it > 0.0 { part * mean } else { (1.0 + part) * mean };
    diagonal.iter().map(added).collect()
}

/// The diagonal of a Hessian that is fit for use.
fn diagonal(hessian: &Hessian) -> Result<Vec<f64>, BadStats> {
    if !hessian.lower.iter().all(|it| it.is_finite()) {
        return Err(BadStats("values that are not finite"));
    }
    let diagonal: Vec<f64> = (0..hessian.k).map(|it| f64::from(hessian.get(it, it))).collect();
    if diagonal.iter().any(|it| *it < 0.0) {
        return Err(BadStats("negative mean squares"));
    }
    Ok(diagonal)
}

/// The columns by falling mean square of their inputs, so that the errors of those that matter
/// most can still be made up for.
fn order(diagonal: &[f64], act_order: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diagonal.len()).collect();
    if act_order {
        order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]).then(a.cmp(b)));
    }
    order
}

/// The Cholesky factor of the damped Hessian with its columns in reverse order, if it has one.
fn factor(
    hessian: &Hessian,
    diagonal: &[f64],
    order: &[usize],
    damping: &[f64],
) -> Option<Mat<f64>> {
    let k = order.len();
    let mut matrix = Mat::from_fn(k, k, |row, column| {
        let (row, column) = (k - 1 - row, k - 1 - column);
        let (a, b) = (order[row], order[column]);
        match (row == column, diagonal[a] > 0.0 && diagonal[b] > 0.0) {
            (true, _) => diagonal[a] + damping[row],
            (false, true) => f64::from(hessian.get(a, b)),
            (false, false) => 0.0,
        }
    });
    // One thread: the sums of several would depend on their number.
    let scratch = cholesky_in_place_scratch::<f64>(k, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(matrix.as_mut(), Default::default(), Par::Seq, stack, Default::default())
        .ok()?;
    let finite = |column: usize| (column..k).all(|row| matrix[(row, column)].is_finite());
    (0..k).all(finite).then_some(matrix)
}

/// Rows of `L` divided by their diagonal, in panels, and the squares of the diagonal.
fn panels(factor: &Mat<f64>) -> (Vec<Array2<f32>>, Vec<f32>) {
    let k = factor.nrows();
    // Reversing rows and columns makes a lower factor `C Cᵀ` the lower factor `Lᵀ L`.
    let at = |row: usize, column: usize| factor[(k - 1 - column, k - 1 - row)];
    let panels = (0..k).step_by(PANEL).map(|start| {
        let end = (start + PANEL).min(k);
        Array2::from_shape_fn((end - start, end), |(row, column)| {
            let row = start + row;
            if column <= row { (at(row, column) / at(row, row)) as f32 } else { 0.0 }
        })
    });
    let weight = (0..k).map(|it| (at(it, it) * at(it, it)) as f32).collect();
    (panels.collect(), weight)
}
