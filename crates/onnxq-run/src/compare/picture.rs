//! Outputs that are images or maps.

use onnxq_report::summary::finite;

/// Where a map between 0 and 1 says yes, as text detectors are read.
const THRESHOLD: f32 = 0.3;

/// Counts over all elements.
#[derive(Default)]
pub(super) struct Picture {
    range: Option<(f32, f32)>,
    elements: usize,
    error_square: f64,
    both: usize,
    either: usize,
}

impl Picture {
    /// Finite values of both models.
    pub(super) fn add(&mut self, reference: &[f32], candidate: &[f32]) {
        for (r, c) in reference.iter().zip(candidate) {
            let (low, high) = self.range.unwrap_or((*r, *r));
            self.range = Some((low.min(*r), high.max(*r)));
            self.error_square += (f64::from(*r) - f64::from(*c)).powi(2);
            let (r, c) = (*r > THRESHOLD, *c > THRESHOLD);
            self.both += usize::from(r && c);
            self.either += usize::from(r || c);
        }
        self.elements += reference.len();
    }

    /// The range of the reference squared, in proportion to the mean squared error.
    pub(super) fn psnr_db(&self) -> Option<f64> {
        let (low, high) = self.range?;
        let peak = f64::from(high) - f64::from(low);
        finite(10.0 * (peak * peak * self.elements as f64 / self.error_square).log10())
    }

    /// Of maps of probabilities: 1 if both say yes at the same places, or nowhere.
    pub(super) fn iou(&self) -> Option<f64> {
        let (low, high) = self.range?;
        let is_map = low >= -1e-5 && high <= 1.0 + 1e-5;
        let share = if self.either == 0 { 1.0 } else { self.both as f64 / self.either as f64 };
        is_map.then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_overlap_and_pictures_have_a_peak() {
        let mut it = Picture::default();
        it.add(&[0.0, 1.0, 0.9, 0.1], &[0.0, 0.9, 0.2, 0.5]);
        assert_eq!(it.iou(), Some(1.0 / 3.0));
        let mse: f64 = (0.01 + 0.49 + 0.16) / 4.0;
        assert!((it.psnr_db().unwrap() - 10.0 * (1.0 / mse).log10()).abs() < 1e-5);
        it.add(&[2.0], &[2.0]);
        assert_eq!(it.iou(), None);
        assert_eq!(Picture::default().psnr_db(), None);
    }
}
