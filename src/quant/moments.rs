//! Moments of a layer's input, in sums that no order of the rows changes.

use ndarray::ArrayView2;

use super::{
    solve::BadStats,
    stats::{Hessian, InputStats, Needs},
};

#[derive(Clone)]
pub struct Moments {
    rows: u64,
    square: Vec<i128>,
    max_abs: Vec<f32>,
    hessian: Option<Vec<i128>>,
}

const ONE: f64 = (1u64 << 60) as f64;

impl Moments {
    pub fn new(k: usize, needs: Needs) -> Moments {
        let hessian = (needs == Needs::Hessian).then(|| vec![0; Hessian::len_of(k)]);
        Moments { rows: 0, square: vec![0; k], max_abs: vec![0.0; k], hessian }
    }

    pub fn bytes(k: usize, needs: Needs) -> usize {
        let hessian = if needs == Needs::Hessian { Hessian::len_of(k) } else { 0 };
        20 * k + 16 * hessian
    }

    pub fn add(&mut self, x: ArrayView2<f32>) -> Result<(), BadStats> {
        for row in x.rows() {
            for (j, &value) in row.iter().enumerate() {
                if !value.is_finite() {
                    return Err(BadStats("values that are not finite"));
                }
                self.square[j] += fixed(value, value);
                self.max_abs[j] = self.max_abs[j].max(value.abs());
            }
            if let Some(hessian) = &mut self.hessian {
                let mut at = 0;
                for i in 0..row.len() {
                    for j in 0..=i {
                        hessian[at] += fixed(row[i], row[j]);
                        at += 1;
                    }
                }
            }
            self.rows += 1;
        }
        Ok(())
    }

    pub fn finish(self) -> InputStats {
        let rows = self.rows;
        let mean = |it: &i128| (*it as f64 / ONE / rows.max(1) as f64) as f32;
        let hessian = self
            .hessian
            .map(|it| Hessian { k: self.square.len(), lower: it.iter().map(mean).collect() });
        let mean_square = self.square.iter().map(mean).collect();
        InputStats { rows, mean_square, max_abs: self.max_abs, hessian }
    }
}

fn fixed(a: f32, b: f32) -> i128 {
    (f64::from(a) * f64::from(b) * ONE) as i128
}
