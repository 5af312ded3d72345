//! Values one after the other along an axis.

use onnxq_ir::{NoMatch, no_match};

use super::{Lowered, reshape::positive};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

struct Concat {
    outer: usize,
    /// Elements of each operand below a place of the outer axes.
    widths: Vec<usize>,
}

impl<R: Real> Op<R> for Concat {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let all: usize = self.widths.iter().sum();
        let mut start = 0;
        for (index, width) in self.widths.iter().enumerate() {
            let x = at.x(index);
            for outer in 0..self.outer {
                let to = outer * all + start;
                at.y[to..to + width].copy_from_slice(&x[outer * width..(outer + 1) * width]);
            }
            start += width;
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (dy, all): (_, usize) = (at.dy, self.widths.iter().sum());
        let mut start = 0;
        for (index, width) in self.widths.iter().enumerate() {
            if let Some(dx) = at.grad(index) {
                dx.add(|i| dy[i / width * all + start + i % width]);
            }
            start += width;
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

pub(super) fn concat<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let count = site.node().inputs.len();
    let inputs = (0..count).map(|it| site.slot(it)).collect::<Result<Vec<_>, _>>()?;
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|it| site.shape(*it)).collect();
    let first = shapes.first().ok_or_else(|| no_match!("it has no inputs"))?;
    let axis = positive(&[site.int("axis", 0)], first.len())?[0];
    let around = |it: &Vec<usize>| (it[..axis].to_vec(), it[axis + 1..].to_vec());
    if shapes.iter().any(|it| it.len() != first.len() || around(it) != around(first)) {
        return Err(no_match!("the shapes {shapes:?} do not go together"));
    }
    let inner: usize = first[axis + 1..].iter().product();
    let outer = first[..axis].iter().product();
    let mut shape = first.clone();
    shape[axis] = shapes.iter().map(|it| it[axis]).sum();
    let widths = shapes.iter().map(|it| it[axis] * inner).collect();
    Ok(Lowered::new(Concat { outer, widths }, inputs, shape))
}
