//! Products of matrices.

use onnxq_ir::{NoMatch, no_match};

use super::Lowered;
use crate::{
    lower::Site,
    real::{Into, Real, View, product},
    tape::{Backward, Forward, Keeps, Op},
};

/// `y = a b` for each pair of matrices; where `b` is one matrix, the rows of all `a` at once.
struct MatMul {
    /// Rows of `a`, its columns, columns of `b`.
    shape: [usize; 3],
    /// By product: which matrices of `a` and `b`.
    pairs: Vec<[usize; 2]>,
    flip: [bool; 2],
    scale: f64,
}

impl MatMul {
    fn views(&self, [i, j]: [usize; 2]) -> (View, View) {
        let [m, k, n] = self.shape;
        let view = |[rows, columns]: [usize; 2], flip: bool| match flip {
            true => View::dense(rows).transposed(),
            false => View::dense(columns),
        };
        (view([m, k], self.flip[0]).from(i * m * k), view([k, n], self.flip[1]).from(j * k * n))
    }
}

impl<R: Real> Op<R> for MatMul {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let [m, _, n] = self.shape;
        let (a, b) = (at.x(0), at.x(1));
        for (index, pair) in self.pairs.iter().enumerate() {
            let (a_at, b_at) = self.views(*pair);
            let y_at = View::dense(n).from(index * m * n);
            product(self.shape, self.scale, (a, a_at), (b, b_at), (at.y, y_at), Into::Fresh);
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let [m, k, n] = self.shape;
        let (dy, a, b) = (at.dy, at.x(0), at.x(1));
        let dy_at = |index| View::dense(n).from(index * m * n);
        for (operand, shape) in [(0, [m, n, k]), (1, [k, m, n])] {
            let Some(gradient) = at.grad(operand) else { continue };
            // One product fills the whole gradient; several share its parts.
            let whole = self.pairs.len() == 1 && gradient.fresh;
            let into = if whole { Into::Fresh } else { Into::Added };
            let values = if whole {
                gradient.fresh = false;
                &mut gradient.values[..]
            } else {
                gradient.cleared()
            };
            for (index, pair) in self.pairs.iter().enumerate() {
                let (a_at, b_at) = self.views(*pair);
                let dy = (dy, dy_at(index));
                if operand == 0 {
                    let b = (b, b_at.transposed());
                    product(shape, self.scale, dy, b, (values, a_at), into);
                } else {
                    let a = (a, a_at.transposed());
                    product(shape, self.scale, a, dy, (values, b_at), into);
                }
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1])
    }
}

pub(super) fn matmul<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let inputs = [site.slot(0)?, site.slot(1)?];
    let [a, b] = inputs.map(|it| site.shape(it));
    let ([.., m, k], [.., k_of_b, n]) = (&a[..], &b[..]) else {
        return Err(no_match!("an operand is a vector"));
    };
    if k != k_of_b {
        return Err(no_match!("{k} columns meet {k_of_b} rows"));
    }
    let (outer_a, outer_b) = (&a[..a.len() - 2], &b[..b.len() - 2]);
    let mut shape = super::broadcast::common(outer_a, outer_b)?;
    let (rows, pairs) = match outer_b.iter().all(|it| *it == 1) {
        // All rows meet the same matrix.
        true => (outer_a.iter().product::<usize>() * m, vec![[0, 0]]),
        false => (*m, pairs(outer_a, outer_b, &shape)),
    };
    let op = MatMul { shape: [rows, *k, *n], pairs, flip: [false; 2], scale: 1.0 };
    shape.extend([*m, *n]);
    Ok(Lowered::new(op, inputs.to_vec(), shape))
}

fn pairs(a: &[usize], b: &[usize], to: &[usize]) -> Vec<[usize; 2]> {
    use super::broadcast::Stretch;
    let (of_a, of_b) = (Stretch::new(a, to), Stretch::new(b, to));
    (0..to.iter().product()).map(|it| [of_a.place(it), of_b.place(it)]).collect()
}

/// `alpha · a b + beta · c`.
struct Gemm {
    product: MatMul,
    beta: f64,
    c: Option<super::broadcast::Stretch>,
}

impl<R: Real> Op<R> for Gemm {
    fn forward(&self, at: &mut Forward<'_, R>) {
        self.product.forward(at);
        if let Some(stretch) = &self.c {
            let (c, beta) = (at.x(2), R::of(self.beta));
            for (i, it) in at.y.iter_mut().enumerate() {
                *it += beta * c[stretch.place(i)];
            }
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        self.product.backward(at);
        let (dy, beta) = (at.dy, R::of(self.beta));
        if let Some(stretch) = &self.c
            && let Some(dc) = at.grad(2)
        {
            stretch.add(dc, dy.len(), |i| beta * dy[i]);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1])
    }
}

pub(super) fn gemm<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let flip = [site.int("transA", 0) != 0, site.int("transB", 0) != 0];
    let mut inputs = vec![site.slot(0)?, site.slot(1)?];
    let [a, b] = [0, 1].map(|it| site.shape(inputs[it]));
    let (&[p, q], &[r, s]) = (&a[..], &b[..]) else {
        return Err(no_match!("operands are no matrices"));
    };
    let (m, k) = if flip[0] { (q, p) } else { (p, q) };
    let (k_of_b, n) = if flip[1] { (s, r) } else { (r, s) };
    if k != k_of_b {
        return Err(no_match!("{k} columns meet {k_of_b} rows"));
    }
    let scale = site.float("alpha", 1.0);
    let product = MatMul { shape: [m, k, n], pairs: vec![[0, 0]], flip, scale };
    let mut c = None;
    if site.has_input(2) {
        let slot = site.slot(2)?;
        inputs.push(slot);
        c = Some(super::broadcast::Stretch::new(&site.shape(slot), &[m, n]));
    }
    let op = Gemm { product, beta: site.float("beta", 1.0), c };
    Ok(Lowered::new(op, inputs, vec![m, n]))
}
