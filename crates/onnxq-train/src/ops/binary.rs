//! Sums, differences, products and quotients of elements.

use onnxq_ir::{NoMatch, no_match};

use super::{
    Lowered,
    broadcast::{Stretch, common},
};
use crate::{
    lower::Site,
    real::{Real, vectorized},
    tape::{Backward, Forward, Keeps, Op},
};

/// `Σ signᵢ xᵢ`.
struct Sum {
    negative: Vec<bool>,
    stretches: Vec<Stretch>,
}

impl<R: Real> Op<R> for Sum {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let len = at.y.len();
        for (index, stretch) in self.stretches.iter().enumerate() {
            let (x, negative) = (at.x(index), self.negative[index]);
            let y = &mut *at.y;
            vectorized(|| {
                stretch.runs(
                    len,
                    #[inline(always)]
                    |start, place, count, step| {
                        let y = &mut y[start..start + count];
                        for (i, it) in y.iter_mut().enumerate() {
                            let value = x[place + i * step];
                            let value = if negative { -value } else { value };
                            *it = if index == 0 { value } else { *it + value };
                        }
                    },
                );
            });
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        for (index, stretch) in self.stretches.iter().enumerate() {
            let negative = self.negative[index];
            let Some(dx) = at.grad(index) else { continue };
            vectorized(|| {
                stretch.add(
                    dx,
                    dy.len(),
                    #[inline(always)]
                    |i| if negative { -dy[i] } else { dy[i] },
                );
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

struct Mul([Stretch; 2]);

impl<R: Real> Op<R> for Mul {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (a, b) = (at.x(0), at.x(1));
        elementwise(
            &self.0,
            at.y,
            #[inline(always)]
            |i, j| a[i] * b[j],
        );
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (dy, a, b) = (at.dy, at.x(0), at.x(1));
        let [of_a, of_b] = &self.0;
        if let Some(da) = at.grad(0) {
            vectorized(|| {
                of_a.add(
                    da,
                    dy.len(),
                    #[inline(always)]
                    |i| dy[i] * b[of_b.place(i)],
                )
            });
        }
        if let Some(db) = at.grad(1) {
            vectorized(|| {
                of_b.add(
                    db,
                    dy.len(),
                    #[inline(always)]
                    |i| dy[i] * a[of_a.place(i)],
                )
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1])
    }
}

struct Div([Stretch; 2]);

impl<R: Real> Op<R> for Div {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (a, b) = (at.x(0), at.x(1));
        elementwise(
            &self.0,
            at.y,
            #[inline(always)]
            |i, j| a[i] / b[j],
        );
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (dy, a, b) = (at.dy, at.x(0), at.x(1));
        let [of_a, of_b] = &self.0;
        if let Some(da) = at.grad(0) {
            of_a.add(da, dy.len(), |i| dy[i] / b[of_b.place(i)]);
        }
        if let Some(db) = at.grad(1) {
            of_b.add(db, dy.len(), |i| {
                let b = b[of_b.place(i)];
                -(dy[i] * a[of_a.place(i)] / (b * b))
            });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1])
    }
}

/// The larger of two; the gradient goes to the first of equal ones.
struct Max([Stretch; 2]);

impl<R: Real> Op<R> for Max {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (a, b) = (at.x(0), at.x(1));
        elementwise(
            &self.0,
            at.y,
            #[inline(always)]
            |i, j| a[i].max(b[j]),
        );
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (dy, a, b) = (at.dy, at.x(0), at.x(1));
        let [of_a, of_b] = &self.0;
        let first = |i: usize| a[of_a.place(i)] >= b[of_b.place(i)];
        if let Some(da) = at.grad(0) {
            of_a.add(da, dy.len(), |i| if first(i) { dy[i] } else { R::default() });
        }
        if let Some(db) = at.grad(1) {
            of_b.add(db, dy.len(), |i| if first(i) { R::default() } else { dy[i] });
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1])
    }
}

/// `y[i] = of(place of i in a, place of i in b)`.
#[inline(always)]
fn elementwise<R: Real>([a, b]: &[Stretch; 2], y: &mut [R], of: impl Fn(usize, usize) -> R) {
    let whole = matches!((a, b), (Stretch::Same, Stretch::Same));
    vectorized(|| {
        if whole {
            for (i, it) in y.iter_mut().enumerate() {
                *it = of(i, i);
            }
        } else {
            for (i, it) in y.iter_mut().enumerate() {
                *it = of(a.place(i), b.place(i));
            }
        }
    });
}

pub(super) fn add<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    sum(site, |_| false)
}

/// The sum of the first two inputs, whatever else there is.
pub(super) fn add_first<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    sum_of(site, 2, |_| false)
}

pub(super) fn sub<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    sum(site, |index| index == 1)
}

fn sum<R: Real>(
    site: &mut Site<'_, '_, R>,
    negative: fn(usize) -> bool,
) -> Result<Lowered<R>, NoMatch> {
    let count = site.node().inputs.len();
    sum_of(site, count, negative)
}

fn sum_of<R: Real>(
    site: &mut Site<'_, '_, R>,
    count: usize,
    negative: fn(usize) -> bool,
) -> Result<Lowered<R>, NoMatch> {
    let inputs = (0..count).map(|it| site.slot(it)).collect::<Result<Vec<_>, _>>()?;
    let mut shape = Vec::new();
    for it in &inputs {
        shape = common(&shape, &site.shape(*it))?;
    }
    let stretches = inputs.iter().map(|it| Stretch::new(&site.shape(*it), &shape)).collect();
    let negative = (0..count).map(negative).collect();
    Ok(Lowered::new(Sum { negative, stretches }, inputs, shape))
}

fn pair<R: Real, O: Op<R> + 'static>(
    site: &mut Site<'_, '_, R>,
    op: fn([Stretch; 2]) -> O,
) -> Result<Lowered<R>, NoMatch> {
    if site.node().inputs.len() != 2 {
        return Err(no_match!("it has {} inputs", site.node().inputs.len()));
    }
    let inputs = [site.slot(0)?, site.slot(1)?];
    let shapes = inputs.map(|it| site.shape(it));
    let shape = common(&shapes[0], &shapes[1])?;
    let stretches = shapes.map(|it| Stretch::new(&it, &shape));
    Ok(Lowered::new(op(stretches), inputs.to_vec(), shape))
}

pub(super) fn mul<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    pair(site, Mul)
}

pub(super) fn div<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    pair(site, Div)
}

pub(super) fn max<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    pair(site, Max)
}
