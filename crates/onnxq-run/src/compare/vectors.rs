//! Whether embeddings rank each other alike: what a search sees of an error.

use rayon::prelude::*;

/// Samples whose similarities are compared with each other; pairs grow with their square.
const SAMPLES: usize = 512;

/// Vectors of the first samples, of both models, scaled to length 1.
#[derive(Default)]
pub(super) struct Vectors {
    reference: Vec<Vec<f32>>,
    candidate: Vec<Vec<f32>>,
}

impl Vectors {
    pub(super) fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        if self.reference.len() < SAMPLES {
            self.reference.push(unit(reference));
            self.candidate.push(unit(candidate));
        }
    }

    /// Spearman's rank correlation of the cosines of all pairs. Fewer than three samples have no
    /// ranking.
    pub(super) fn rank_correlation(&self) -> Option<f64> {
        if self.reference.len() < 3 {
            return None;
        }
        let (a, b) = (ranks(&cosines(&self.reference)), ranks(&cosines(&self.candidate)));
        pearson(&a, &b)
    }
}

fn unit(vector: &[f64]) -> Vec<f32> {
    let length = vector.iter().map(|it| it * it).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(|it| (it / length) as f32).collect()
}

/// Of each pair once.
fn cosines(list: &[Vec<f32>]) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let row = |at: usize| (0..at).map(|other| dot(&list[at], &list[other])).collect::<Vec<_>>();
    (1..list.len()).into_par_iter().map(row).collect::<Vec<_>>().concat()
}

/// Places in the order of size; equal values share the mean of their places.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = |it: &&usize| values[**it] == values[order[start]];
        let count = order[start..].iter().take_while(same).count();
        let mean = start as f64 + (count - 1) as f64 / 2.0;
        order[start..start + count].iter().for_each(|it| ranks[*it] = mean);
        start += count;
    }
    ranks
}

/// `None` if one side is constant.
fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let count = a.len() as f64;
    let mean = (a.iter().sum::<f64>() / count, b.iter().sum::<f64>() / count);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean.0, b - mean.1);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa.sqrt() * bb.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(candidate: impl Fn(f64) -> f64) -> Vectors {
        let mut it = Vectors::default();
        for at in 0..5 {
            let angle = f64::from(at * at) * 0.1;
            let turned = candidate(angle);
            it.add(&[angle.cos(), angle.sin()], &[3.0 * turned.cos(), 3.0 * turned.sin()]);
        }
        it
    }

    #[test]
    fn only_the_order_of_similarities_counts() {
        assert_eq!(vectors(|it| it + 1.0).rank_correlation(), Some(1.0));
        assert!(vectors(|it| it * 1.3).rank_correlation().unwrap() > 0.999);
        assert!(vectors(|it| (it * 37.0).sin()).rank_correlation().unwrap() < 0.9);
        assert_eq!(Vectors::default().rank_correlation(), None);
    }

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
    }
}
