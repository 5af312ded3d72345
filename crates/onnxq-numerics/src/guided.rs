//! Rows of inputs that count by what their outputs mean to the model's loss.
//!
//! Kim et al., "GuidedQuant: Large Language Model Quantization via Exploiting End Loss Guidance",
//! 2025: to second order the loss grows by the squares of `∂loss/∂y · Δy`, so a row `x` of an input
//! counts the mean of `(∂loss/∂y_j)²` over the output channels `j` that share a Hessian.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::specs::{Wrong, within};

/// Which rows of a weight's inputs count, and how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hessians {
    /// All tokens the same.
    #[default]
    Inputs,
    /// Each token by what the model's loss makes of the outputs there. Where `mixed` compares ways of
    /// storing a weight, all tokens count the same.
    Guided,
}

/// The most groups of output channels of a weight: each has a matrix of its own.
const MOST_GROUPS: u32 = 4;

/// What is wrong with settings of a solver that can be guided.
pub fn check(hessian: Hessians, groups: u32) -> Result<(), Wrong> {
    within("groups", groups, 1..=MOST_GROUPS)?;
    if groups > 1 && hessian == Hessians::Inputs {
        let what = format!("is {groups}, and only `hessian: guided` knows groups");
        return Err(Wrong::about("groups", what));
    }
    Ok(())
}

/// The rows of a weight of `n` that belong to a group.
pub fn group_rows(n: usize, groups: usize, group: usize) -> Range<usize> {
    n * group / groups..n * (group + 1) / groups
}

/// How much each row counts for each group of output channels: `[groups * rows]`, given the gradient
/// of the loss for the outputs, `[rows, n]`. Their scale means nothing.
pub fn row_weights(gradient: ArrayView2<f32>, groups: usize) -> Vec<f32> {
    let (rows, n) = gradient.dim();
    let mut weights = Vec::with_capacity(groups * rows);
    for group in 0..groups {
        let channels = group_rows(n, groups, group);
        for row in gradient.outer_iter() {
            let own = channels.clone().map(|it| f64::from(row[it]).powi(2));
            weights.push((own.sum::<f64>() / channels.len().max(1) as f64) as f32);
        }
    }
    weights
}

/// The rows that count, as they are.
pub(crate) fn counted(x: ArrayView2<f32>, weights: &[f32]) -> Array2<f32> {
    x.select(Axis(0), &counting(weights))
}

/// Rows whose products count as their weights say: each times the root of its own. Those of weight
/// zero are left out, as sums of other numbers of terms round differently.
pub fn weighted(x: ArrayView2<f32>, weights: &[f32]) -> Array2<f32> {
    let own = counting(weights);
    let mut rows = x.select(Axis(0), &own);
    for (mut row, at) in rows.outer_iter_mut().zip(own) {
        let root = weights[at].sqrt();
        row.mapv_inplace(|it| it * root);
    }
    rows
}

fn counting(weights: &[f32]) -> Vec<usize> {
    weights.iter().enumerate().filter(|it| *it.1 != 0.0).map(|it| it.0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        moments::Moments,
        stats::{InputStats, Needs},
    };

    fn moments(x: &Array2<f32>, weights: Option<&[f32]>) -> InputStats {
        let mut moments = Moments::new(x.ncols(), Needs::Hessian);
        match weights {
            Some(it) => moments.add_weighted(x.view(), it).unwrap(),
            None => moments.add(x.view()).unwrap(),
        }
        moments.finish()
    }

    fn rows() -> impl Strategy<Value = Array2<f32>> {
        (1usize..9, 1usize..20).prop_flat_map(|(rows, k)| {
            let values = prop::collection::vec(-3f32..3.0, rows * k);
            values.prop_map(move |it| Array2::from_shape_vec((rows, k), it).unwrap())
        })
    }

    proptest! {
        #[test]
        fn ones_change_no_bit(x in rows()) {
            prop_assert_eq!(moments(&x, Some(&vec![1.0; x.nrows()])), moments(&x, None));
        }

        #[test]
        fn rows_that_count_nothing_are_as_if_absent(x in rows(), at in any::<prop::sample::Index>()) {
            let at = at.index(x.nrows());
            let mut weights = vec![1.0; x.nrows()];
            weights[at] = 0.0;
            let others: Vec<usize> = (0..x.nrows()).filter(|it| *it != at).collect();
            let without = x.select(Axis(0), &others);
            prop_assert_eq!(moments(&x, Some(&weights)), moments(&without, None));
        }

        #[test]
        fn a_row_that_counts_four_times_is_as_four_rows(x in rows()) {
            // The root of four is exact; a sum of four equal terms need not be.
            let own = moments(&x, Some(&vec![4.0; x.nrows()]));
            let plain = moments(&x, None);
            let largest = own.mean_square.iter().fold(0f32, |a, b| a.max(*b));
            for (a, b) in own.mean_square.iter().zip(&plain.mean_square) {
                prop_assert!((a - 4.0 * b).abs() <= 1e-6 * largest);
            }
            prop_assert_eq!(own.max_abs, plain.max_abs);
        }

        #[test]
        fn groups_cover_all_rows_in_order(n in 0usize..999, groups in 1usize..=4) {
            let all: Vec<usize> = (0..groups).flat_map(|it| group_rows(n, groups, it)).collect();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn weights_are_the_mean_squares_of_a_groups_gradients() {
        let gradient = ndarray::array![[1.0, 3.0, 2.0], [0.0, 0.0, 4.0]];
        assert_eq!(row_weights(gradient.view(), 1), [14.0 / 3.0, 16.0 / 3.0]);
        // One channel, then two.
        assert_eq!(row_weights(gradient.view(), 2), [1.0, 0.0, 6.5, 8.0]);
    }

    #[test]
    fn groups_need_guidance() {
        assert!(check(Hessians::Guided, 4).is_ok() && check(Hessians::Inputs, 1).is_ok());
        let wrong = check(Hessians::Inputs, 2).unwrap_err().of("gptq");
        assert_eq!(
            wrong.to_string(),
            "`groups` of gptq is 2, and only `hessian: guided` knows groups"
        );
        assert!(check(Hessians::Guided, 5).is_err() && check(Hessians::Guided, 0).is_err());
    }
}
