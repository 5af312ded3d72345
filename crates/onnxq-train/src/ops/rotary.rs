//! Rotary position embeddings.

use onnxq_ir::{NoMatch, no_match};

use super::Lowered;
use crate::{
    lower::Site,
    real::{Real, vectorized},
    tape::{Backward, Forward, Keeps, Op},
};

/// Turns pairs of elements by an angle for each token.
struct Rotary {
    /// Batch, tokens, heads, elements of a head.
    dims: [usize; 4],
    /// Whether heads come before tokens.
    heads_first: bool,
    half: usize,
    interleaved: bool,
    at: Positions,
}

/// Where the angles of a token are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Positions {
    /// One after the other, batch by batch.
    InOrder,
    /// In the row that the last operand says.
    Looked,
    /// In the row of its place in the text, after so many that the last operand says.
    After,
}

impl Rotary {
    #[inline(always)]
    fn turn<R: Real>(
        &self,
        [x, cos, sin]: [&[R]; 3],
        positions: Option<&[i64]>,
        inverse: bool,
        mut of: impl FnMut(usize, R),
    ) {
        let [batch, tokens, heads, size] = self.dims;
        for line in 0..batch * tokens * heads {
            let (b, t) = match self.heads_first {
                true => (line / (heads * tokens), line % tokens),
                false => (line / (tokens * heads), line / heads % tokens),
            };
            let at = match (self.at, positions) {
                (Positions::Looked, Some(list)) => list[b * tokens + t] as usize,
                (Positions::After, Some(list)) => list[0] as usize + t,
                _ => b * tokens + t,
            };
            let angle = self.half * at;
            let row = line * size;
            for i in 0..self.half {
                let (p, q) = match self.interleaved {
                    true => (row + 2 * i, row + 2 * i + 1),
                    false => (row + i, row + i + self.half),
                };
                let (c, s) = (cos[angle + i], sin[angle + i]);
                let s = if inverse { -s } else { s };
                of(p, x[p] * c - x[q] * s);
                of(q, x[q] * c + x[p] * s);
            }
            let beyond = row + 2 * self.half..row + size;
            for (i, value) in beyond.clone().zip(&x[beyond]) {
                of(i, *value);
            }
        }
    }
}

impl<R: Real> Op<R> for Rotary {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let operands = [at.x(0), at.x(1), at.x(2)];
        let positions = (self.at != Positions::InOrder).then(|| at.ints(3));
        let y = &mut *at.y;
        vectorized(|| {
            self.turn(
                operands,
                positions,
                false,
                #[inline(always)]
                |i, value| y[i] = value,
            )
        });
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let operands = [at.dy, at.x(1), at.x(2)];
        let positions = (self.at != Positions::InOrder).then(|| at.ints(3));
        let Some(dx) = at.grad(0) else { return };
        let fresh = std::mem::take(&mut dx.fresh);
        let dx = &mut dx.values;
        vectorized(|| {
            self.turn(
                operands,
                positions,
                true,
                #[inline(always)]
                |i, value| {
                    dx[i] = if fresh { value } else { dx[i] + value };
                },
            );
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[1, 2, 3])
    }
}

pub(super) fn rotary<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    lowered(site, [1, 2, 3])
}

/// Positions come before the angles, and may be one for the first token.
pub(super) fn rotary_of_microsoft<R: Real>(
    site: &mut Site<'_, '_, R>,
) -> Result<Lowered<R>, NoMatch> {
    lowered(site, [2, 3, 1])
}

fn lowered<R: Real>(
    site: &mut Site<'_, '_, R>,
    [cos, sin, at]: [usize; 3],
) -> Result<Lowered<R>, NoMatch> {
    let mut inputs = vec![site.slot(0)?, site.slot(cos)?, site.slot(sin)?];
    let (own, table, sines) = (site.shape(inputs[0]), site.shape(inputs[1]), site.shape(inputs[2]));
    if inputs[1..].iter().any(|it| site.wanted(*it)) || table != sines {
        return Err(no_match!("its angles are trained, or of different shapes"));
    }
    let half = *table.last().unwrap_or(&0);
    let stated = site.int("num_heads", 0) as usize;
    let turned = site.int("rotary_embedding_dim", 0) as usize;
    // Microsoft's turns whole heads if nothing else is said, so their number follows.
    let whole = |width: usize| if turned == 0 && half > 0 { width / (2 * half) } else { 0 };
    let count = match own[..] {
        [_, _, width] if stated == 0 && at == 1 => whole(width),
        _ => stated,
    };
    let (dims, heads_first) = match own[..] {
        [batch, heads, tokens, size] => ([batch, tokens, heads, size], true),
        [batch, tokens, width] if count > 0 && width % count == 0 => {
            ([batch, tokens, count, width / count], false)
        }
        _ => return Err(no_match!("a value of shape {own:?}, with {count} heads")),
    };
    let rows = table.iter().product::<usize>() / half.max(1);
    if 2 * half > dims[3] || half == 0 || turned != 0 && turned != 2 * half {
        return Err(no_match!("angles of shape {table:?} for heads of {}", dims[3]));
    }
    let mut positions = Positions::InOrder;
    if site.has_input(at) {
        let slot = site.slot(at)?;
        let one = at == 1 && site.shape(slot).iter().product::<usize>() == 1;
        positions = if one { Positions::After } else { Positions::Looked };
        inputs.push(slot);
    } else if rows != dims[0] * dims[1] {
        return Err(no_match!("angles of shape {table:?} for {} tokens", dims[0] * dims[1]));
    }
    let interleaved = site.int("interleaved", 0) != 0;
    let op = Rotary { dims, heads_first, half, interleaved, at: positions };
    Ok(Lowered::new(op, inputs, own))
}
