//! Attention of the standard (opset 23) and `GroupQueryAttention`, without a past.

use onnxq_ir::{NoMatch, no_match, tensor::DType};

use super::{Lowered, broadcast::Stretch, softmax::softmax};
use crate::{
    lower::Site,
    real::{Into, Real, View, product, vectorized},
    tape::{Backward, Forward, Keeps, Op},
};

/// How the heads of an operand lie in memory.
#[derive(Clone, Copy, Debug)]
struct Heads {
    heads: usize,
    tokens: usize,
    size: usize,
    /// `[batch, heads, tokens, size]` rather than `[batch, tokens, heads · size]`.
    heads_first: bool,
}

impl Heads {
    /// The `[tokens, size]` matrix of a head.
    fn view(self, batch: usize, head: usize) -> View {
        let Heads { heads, tokens, size, heads_first } = self;
        match heads_first {
            true => View::dense(size).from((batch * heads + head) * tokens * size),
            false => View {
                start: (batch * tokens * heads + head) * size,
                rows: heads * size,
                columns: 1,
            },
        }
    }
}

/// `y = softmax(scale · q kᵀ + mask) v` by head; heads of queries share those of keys in groups.
struct Attention {
    batch: usize,
    q: Heads,
    k: Heads,
    v: Heads,
    y: Heads,
    scale: f64,
    softcap: f64,
    causal: bool,
    mask: Option<Mask>,
}

struct Mask {
    /// Which input.
    index: usize,
    /// True and false rather than numbers to add.
    is_bool: bool,
    stretch: Stretch,
}

impl Attention {
    /// Every head: its number in the batch, and the views of queries, keys, values and result.
    fn heads(&self) -> impl Iterator<Item = (usize, [View; 4])> + '_ {
        let group = self.q.heads / self.k.heads;
        (0..self.batch * self.q.heads).map(move |at| {
            let (b, h) = (at / self.q.heads, at % self.q.heads);
            let views = [
                self.q.view(b, h),
                self.k.view(b, h / group),
                self.v.view(b, h / group),
                self.y.view(b, h),
            ];
            (at, views)
        })
    }

    fn scores(&self) -> usize {
        self.q.tokens * self.k.tokens
    }

    /// Products become what the softmax takes.
    fn masked<R: Real>(
        &self,
        at: usize,
        rows: &mut [R],
        reals: Option<&[R]>,
        ints: Option<&[i64]>,
    ) {
        let (start, keys, never) = (at * self.scores(), self.k.tokens, R::of(f64::NEG_INFINITY));
        if self.softcap > 0.0 {
            let cap = R::of(self.softcap);
            rows.iter_mut().for_each(|it| *it = cap * (*it / cap).tanh());
        }
        if let Some(mask) = &self.mask {
            for (i, it) in rows.iter_mut().enumerate() {
                let place = mask.stretch.place(start + i);
                match (reals, ints) {
                    (Some(list), _) => *it += list[place],
                    (_, Some(list)) if list[place] == 0 => *it = never,
                    _ => {}
                }
            }
        }
        if self.causal {
            for (t, row) in rows.chunks_exact_mut(keys).enumerate() {
                // Without a past, query t sees the first t + 1 keys, however many there are.
                row[(t + 1).min(keys)..].fill(never);
            }
        }
        rows.chunks_exact_mut(keys).for_each(softmax);
    }

    /// What a softmax hands on of the gradients of its weights; both are `[queries, keys]`. With a cap,
    /// `raw` are the scores before it.
    fn unmasked<R: Real>(&self, weights: &[R], dp: &mut [R], raw: Option<&[R]>) {
        let keys = self.k.tokens;
        vectorized(|| {
            for (p, d) in weights.chunks_exact(keys).zip(dp.chunks_exact_mut(keys)) {
                let mut lanes = [R::default(); 8];
                for (i, (p, d)) in p.iter().zip(d.iter()).enumerate() {
                    lanes[i % 8] += *p * *d;
                }
                let along = lanes.into_iter().sum::<R>();
                d.iter_mut().zip(p).for_each(|(d, p)| *d = *p * (*d - along));
            }
        });
        if let Some(raw) = raw {
            let cap = R::of(self.softcap);
            for (d, raw) in dp.iter_mut().zip(raw) {
                let t = (*raw / cap).tanh();
                *d *= R::of(1.0) - t * t;
            }
        }
    }

    fn multiply<R: Real>(&self, q: (&[R], View), k: (&[R], View), to: &mut [R], start: usize) {
        let shape = [self.q.tokens, self.q.size, self.k.tokens];
        let to = (to, View::dense(self.k.tokens).from(start));
        product(shape, self.scale, q, (k.0, k.1.transposed()), to, Into::Fresh);
    }
}

impl<R: Real> Op<R> for Attention {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (q, k, v) = (at.x(0), at.x(1), at.x(2));
        let mask = self.mask.as_ref();
        let reals = mask.filter(|it| !it.is_bool).map(|it| at.x(it.index));
        let ints = mask.filter(|it| it.is_bool).map(|it| at.ints(it.index));
        let scores = self.scores();
        let shape = [self.q.tokens, self.k.tokens, self.v.size];
        for (head, [q_at, k_at, v_at, y_at]) in self.heads() {
            let start = head * scores;
            let weights = &mut at.saved[0];
            self.multiply((q, q_at), (k, k_at), weights, start);
            self.masked(head, &mut weights[start..start + scores], reals, ints);
            let weights = (&weights[..], View::dense(self.k.tokens).from(start));
            product(shape, 1.0, weights, (v, v_at), (at.y, y_at), Into::Fresh);
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (q, k, v, dy) = (at.x(0), at.x(1), at.x(2), at.dy);
        let (scores, keys, weights) = (self.scores(), self.k.tokens, &at.saved[0]);
        let (queries, size, width) = (self.q.tokens, self.q.size, self.v.size);
        let mut dp = vec![R::default(); scores];
        let mut raw = vec![R::default(); if self.softcap > 0.0 { scores } else { 0 }];
        let dense = View::dense(keys);
        for (head, [q_at, k_at, v_at, y_at]) in self.heads() {
            let weights = &weights[head * scores..(head + 1) * scores];
            if let Some(dv) = at.grad(2) {
                let (dv, weights) = (dv.cleared(), (weights, dense.transposed()));
                product([keys, queries, width], 1.0, weights, (dy, y_at), (dv, v_at), Into::Added);
            }
            let values = (v, v_at.transposed());
            product([queries, width, keys], 1.0, (dy, y_at), values, (&mut dp, dense), Into::Fresh);
            if !raw.is_empty() {
                self.multiply((q, q_at), (k, k_at), &mut raw, 0);
            }
            self.unmasked(weights, &mut dp, (!raw.is_empty()).then_some(&raw[..]));
            if let Some(dq) = at.grad(0) {
                let (dq, dp) = (dq.cleared(), (&dp[..], dense));
                product([queries, keys, size], self.scale, dp, (k, k_at), (dq, q_at), Into::Added);
            }
            if let Some(dk) = at.grad(1) {
                let (dk, dp) = (dk.cleared(), (&dp[..], dense.transposed()));
                product([keys, queries, size], self.scale, dp, (q, q_at), (dk, k_at), Into::Added);
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1, 2])
    }

    fn saves(&self) -> Vec<usize> {
        vec![self.batch * self.q.heads * self.scores()]
    }
}

/// The heads of an operand: of four axes, or of three and a count.
fn heads(shape: &[usize], count: usize) -> Result<(usize, Heads), NoMatch> {
    match *shape {
        [batch, heads, tokens, size] => {
            Ok((batch, Heads { heads, tokens, size, heads_first: true }))
        }
        [batch, tokens, width] if count > 0 && width % count == 0 => {
            let size = width / count;
            Ok((batch, Heads { heads: count, tokens, size, heads_first: false }))
        }
        _ => Err(no_match!("a value of shape {shape:?}, with {count} heads")),
    }
}

/// A past of no tokens is as none.
fn no_past<R: Real>(site: &mut Site<'_, '_, R>, index: usize) -> Result<(), NoMatch> {
    if site.has_input(index) {
        let slot = site.slot(index)?;
        if site.shape(slot).iter().product::<usize>() > 0 {
            return Err(no_match!("it has a past, and training reads texts from their beginning"));
        }
    }
    Ok(())
}

fn build<R: Real>(
    site: &mut Site<'_, '_, R>,
    counts: [usize; 2],
    causal: bool,
    mask: Option<usize>,
) -> Result<Lowered<R>, NoMatch> {
    if site.output > 0 {
        return Err(no_match!("its output {} is used", site.output));
    }
    let mut inputs = vec![site.slot(0)?, site.slot(1)?, site.slot(2)?];
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|it| site.shape(*it)).collect();
    let (batch, q) = heads(&shapes[0], counts[0])?;
    let ((b, k), (c, v)) = (heads(&shapes[1], counts[1])?, heads(&shapes[2], counts[1])?);
    let fits =
        b == batch && c == batch && k.heads == v.heads && k.tokens == v.tokens && k.size == q.size;
    if !fits || k.heads == 0 || q.heads % k.heads != 0 || k.tokens < q.tokens {
        return Err(no_match!("queries, keys and values of shapes {shapes:?}"));
    }
    let scale = match site.float("scale", 0.0) {
        0.0 => 1.0 / (q.size as f64).sqrt(),
        it => it,
    };
    let y = Heads { size: v.size, ..q };
    let mut op = Attention {
        batch,
        q,
        k,
        v,
        y,
        scale,
        softcap: site.float("softcap", 0.0),
        causal,
        mask: None,
    };
    if let Some(index) = mask {
        let is_bool = site.is_host(index) && site.host_type(index)? == DType::Bool;
        let slot = site.slot(index)?;
        if site.wanted(slot) {
            return Err(no_match!("what is added to its scores is trained"));
        }
        let (own, to) = (site.shape(slot), [batch, q.heads, q.tokens, k.tokens]);
        if super::broadcast::common(&own, &to)? != to {
            return Err(no_match!("a mask of shape {own:?} for {to:?}"));
        }
        op.mask = Some(Mask { index: inputs.len(), is_bool, stretch: Stretch::new(&own, &to) });
        inputs.push(slot);
    }
    let shape = match y.heads_first {
        true => vec![batch, y.heads, y.tokens, y.size],
        false => vec![batch, y.tokens, y.heads * y.size],
    };
    Ok(Lowered::new(op, inputs, shape))
}

pub(super) fn attention<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    no_past(site, 4)?;
    no_past(site, 5)?;
    if site.int("qk_matmul_output_mode", 0) != 0 || site.has_input(6) {
        return Err(no_match!("it has outputs or inputs of a newer version"));
    }
    let counts = ["q_num_heads", "kv_num_heads"].map(|it| site.int(it, 0) as usize);
    let causal = site.int("is_causal", 0) != 0;
    let mask = site.has_input(3).then_some(3);
    build(site, counts, causal, mask)
}

/// Causal by itself. Texts are as long as `total_sequence_length` says, without padding.
pub(super) fn group_query<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    no_past(site, 3)?;
    no_past(site, 4)?;
    if site.int("do_rotary", 0) != 0 {
        return Err(no_match!("it rotates by itself: distil the plain layout, then import it"));
    }
    if site.int("local_window_size", -1) > 0 || site.has_input(9) || site.has_input(10) {
        return Err(no_match!("it has a window, a bias or places: distil the plain layout"));
    }
    if !site.has_input(1) {
        return Err(no_match!("queries, keys and values are one input"));
    }
    let counts = ["num_heads", "kv_num_heads"].map(|it| site.int(it, 0) as usize);
    build(site, counts, true, None)
}
