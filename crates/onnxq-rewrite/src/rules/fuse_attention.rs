//! Attention in single operators becomes one `Attention` of opset 23.
//!
//! ```text
//! MatMul(Softmax(Add(Mul(MatMul(q, Transpose(k)), scale), mask)), v)      →      Attention(q, k, v, mask)
//! ```
//!
//! With it go the repetition of keys and values for groups of heads, the concatenation with a
//! past, the transpositions of heads, and the guard against rows that see no key. The operator
//! takes any mask, so none has to be understood, and a bias beside it (ALiBi) is added to it before.
//! (Vaswani et al., <https://arxiv.org/abs/1706.03762>.)
//!
//! With a cache ONNX Runtime 1.31 runs it 1.1 to 1.4 times as fast as
//! `com.microsoft.GroupQueryAttention` (at 512 tokens without a cache 5 to 6 % slower;
//! `benches/attention.py`), and also where that refuses: several tokens after a past in a batch, heads
//! of odd sizes.

use super::{
    attention_mask::{Mask, masked},
    heads::{Split, split, unscaled},
    of_type, pair, scalar, stem,
};
use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, User, ValueId, no_match,
    tensor::{DType, Dim},
};

pub(super) const FUSE_ATTENTION: Rule = Rule {
    name: "fuse-attention",
    help: "make one Attention of products, softmax, masks and caches (opset 23)",
    root: "Softmax",
    apply,
};

fn apply(m: &Model, softmax: NodeId) -> Result<Patch, NoMatch> {
    let site = Site::of(m, softmax)?;
    if m.opset("") < 23 {
        return Err(no_match!("Attention needs opset 23, the model has {}", m.opset("")));
    }
    Flat::of(m, &site).map_or_else(|_| site.emit(m), |it| it.emit(m, &site))
}

/// The parts of an attention.
pub(crate) struct Site {
    pub softmax: NodeId,
    /// `[batch, heads, length, size]`.
    pub q: ValueId,
    pub k: Keys,
    /// `[batch, groups, total, size]`.
    pub v: ValueId,
    /// Of keys and values, before they are repeated for each head.
    pub groups: usize,
    pub heads: usize,
    pub scale: f32,
    pub mask: Mask,
    /// `[batch, heads, length, size]`.
    pub output: ValueId,
}

#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// `[batch, groups, total, size]`.
    Heads(ValueId),
    /// `[batch, total, groups, size]`: exporters merge two transpositions into one.
    Rows(ValueId),
}

impl Site {
    pub(crate) fn of(m: &Model, softmax: NodeId) -> Result<Site, NoMatch> {
        let axis = m.int_attr(softmax, "axis", if m.opset("") < 13 { 1 } else { -1 });
        if axis != -1 && axis != 3 {
            return Err(no_match!("the softmax is along axis {axis}, not the keys"));
        }
        let (scores, mask) = masked(m, m.operand(softmax, 0)?)?;
        let (product, mut scale) = unscaled(m, scores);
        let (q, k) = pair(m, m.producer(product, "MatMul")?)?;
        let ((q, by_q), (k, by_k)) = (unscaled(m, q), unscaled(m, k));
        scale *= by_q * by_k;
        of_type(m, q, &[DType::F32, DType::F16])?;
        let [batch, heads, _, _] = &m.shape(q)?[..] else {
            return Err(no_match!("`{}` is not split into heads", m.value(q).name));
        };
        let Some(heads) = heads.fixed() else {
            return Err(no_match!("the number of heads is not known"));
        };
        let (v, output) = weighted(m, softmax)?;
        let k = match transposed_keys(m, k)? {
            Keys::Heads(it) => Keys::Heads(once(m, it, heads)),
            it => it,
        };
        let v = once(m, v, heads);
        let groups = m.shape(v)?.get(1).and_then(Dim::fixed);
        let Some(groups) = groups.filter(|it| *it > 0 && heads % it == 0) else {
            return Err(no_match!("the groups of `{}` are not known", m.value(v).name));
        };
        let axis = if matches!(k, Keys::Heads(_)) { 1 } else { 2 };
        if m.shape(k.value())?.get(axis).and_then(Dim::fixed) != Some(groups) {
            return Err(no_match!("keys and values have different groups"));
        }
        // Products broadcast, the operator does not.
        for it in [k.value(), v] {
            if !m.shape(it)?[0].surely_equals(batch) {
                return Err(no_match!("`{}` may be of another batch", m.value(it).name));
            }
        }
        Ok(Site { softmax, q, k, v, groups, heads, scale, mask, output })
    }

    fn attrs(&self) -> Attrs {
        Attrs::default().with("scale", self.scale)
    }

    /// With heads as they are: two transpositions more, but whatever they come from.
    fn emit(&self, m: &Model) -> Result<Patch, NoMatch> {
        let Keys::Heads(k) = self.k else {
            return Err(no_match!("keys are transposed in another way than queries and values"));
        };
        let mut patch = Patch::before(self.softmax);
        let mask = self.mask.emit(m, &mut patch, self.q)?;
        let inputs = inputs([self.q.into(), k.into(), self.v.into()], mask, None);
        let y = patch.node(&stem(m, self.softmax), "Attention", inputs, self.attrs());
        Ok(patch.replace(self.output, y))
    }
}

fn inputs(qkv: [Ref; 3], mask: Option<Ref>, past: Option<[Ref; 2]>) -> Vec<Ref> {
    let mut inputs = qkv.to_vec();
    if mask.is_some() || past.is_some() {
        inputs.push(mask.unwrap_or(Ref::None));
    }
    inputs.extend(past.into_iter().flatten());
    inputs
}

impl Keys {
    pub(crate) fn value(self) -> ValueId {
        match self {
            Keys::Heads(it) | Keys::Rows(it) => it,
        }
    }
}

/// The values that the softmax weighs, and the result. Rows that are not numbers may become 0.
fn weighted(m: &Model, softmax: NodeId) -> Result<(ValueId, ValueId), NoMatch> {
    let mut weights = m.node(softmax).output();
    if let Some(guarded) = guard(m, weights) {
        weights = guarded;
    }
    let matmul = m.only_use(weights)?;
    if !m.node(matmul).op.is("MatMul") || m.operand(matmul, 0)? != weights {
        return Err(no_match!("the softmax weighs no values"));
    }
    Ok((m.operand(matmul, 1)?, m.node(matmul).output()))
}

/// `Where(IsNaN(weights), 0, weights)`.
fn guard(m: &Model, weights: ValueId) -> Option<ValueId> {
    let users = &m.value(weights).uses;
    let node = |it: &User| match it {
        User::Node(it) => Some(*it),
        _ => None,
    };
    let users: Vec<NodeId> = users.iter().filter_map(|it| node(&it.user)).collect();
    let [a, b] = users[..] else { return None };
    let (test, select) = if m.node(a).op.is("IsNaN") { (a, b) } else { (b, a) };
    let is_guard = m.node(test).op.is("IsNaN")
        && m.node(select).op.is("Where")
        && m.only_use(m.node(test).output()) == Ok(select)
        && m.operand(select, 2) == Ok(weights)
        && m.operand(select, 1).and_then(|it| scalar(m, it)) == Ok(0.0);
    is_guard.then(|| m.node(select).output())
}

/// The keys before `[batch, groups, size, total]`.
fn transposed_keys(m: &Model, k: ValueId) -> Result<Keys, NoMatch> {
    let transpose = m.producer(k, "Transpose")?;
    let value = m.operand(transpose, 0)?;
    match m.ints_attr(transpose, "perm") {
        Some([0, 1, 3, 2]) => Ok(Keys::Heads(value)),
        Some([0, 2, 3, 1]) => Ok(Keys::Rows(value)),
        it => Err(no_match!("the keys are transposed by {it:?}")),
    }
}

/// Keys or values before each is repeated for the heads that share it.
fn once(m: &Model, repeated: ValueId, heads: usize) -> ValueId {
    let before = || -> Result<ValueId, NoMatch> {
        let expand = m.producer(m.operand(m.producer(repeated, "Reshape")?, 0)?, "Expand")?;
        let unsqueeze = m.producer(m.operand(expand, 0)?, "Unsqueeze")?;
        let axes = match m.ints_attr(unsqueeze, "axes") {
            Some(it) => it.to_vec(),
            None => m.small_i64(m.operand(unsqueeze, 1)?)?,
        };
        let [_, groups, times, _, _] = &m.shape(m.node(expand).output())?[..] else {
            return Err(no_match!("another expansion"));
        };
        let product = groups.fixed().zip(times.fixed()).map(|(a, b)| a * b);
        match axes == [2] && product == Some(heads) {
            true => m.operand(unsqueeze, 0),
            false => Err(no_match!("another expansion")),
        }
    };
    before().unwrap_or(repeated)
}

/// An attention whose operands were `[batch, length, heads · size]`.
struct Flat {
    q: Split,
    k: Split,
    v: Split,
    past: Option<Past>,
    /// `[batch, length, heads, size]`.
    output: ValueId,
}

#[derive(Clone, Copy)]
struct Past {
    /// Keys and values of earlier tokens, `[batch, groups, past, size]`.
    values: [ValueId; 2],
    /// With those of this run.
    present: [ValueId; 2],
}

impl Flat {
    fn of(m: &Model, site: &Site) -> Result<Flat, NoMatch> {
        let (k, v, past) = match site.k {
            Keys::Rows(k) => (Split::of(m, k)?, Split::of_transposed(m, site.v)?, None),
            Keys::Heads(k) => {
                let (k, v, past) = Past::before(m, k, site.v)?;
                (Split::of_transposed(m, k)?, Split::of_transposed(m, v)?, past)
            }
        };
        let transpose = m.only_use(site.output)?;
        if m.ints_attr(transpose, "perm") != Some(&[0, 2, 1, 3]) {
            return Err(no_match!("the heads of the result are not joined"));
        }
        let output = m.node(transpose).output();
        Ok(Flat { q: Split::of_transposed(m, site.q)?, k, v, past, output })
    }

    fn emit(&self, m: &Model, site: &Site) -> Result<Patch, NoMatch> {
        let mut patch = Patch::before(site.softmax);
        let mask = site.mask.emit(m, &mut patch, site.q)?;
        let qkv = [self.q, self.k, self.v].map(|it| it.flat(m, &mut patch));
        let past = self.past.map(|it| it.values.map(Ref::from));
        let attrs = site.attrs();
        let attrs = attrs.with("q_num_heads", site.heads as i64);
        let attrs = attrs.with("kv_num_heads", site.groups as i64);
        let name = stem(m, site.softmax);
        let inputs = inputs(qkv, mask, past);
        let joined = format!("{name}_joined");
        let (y, present) = match self.past {
            None => (patch.named(&name, &joined, "Attention", inputs, attrs), None),
            Some(_) => {
                let outputs = [&*joined, "present_key", "present_value"];
                let [y, k, v] = patch.named_outputs(&name, outputs, "Attention", inputs, attrs);
                (y, Some([k, v]))
            }
        };
        let y = split(&mut patch, &format!("{name}_heads"), y, site.heads, self.v.size);
        let mut patch = patch.replace(self.output, y);
        for (old, new) in self.past.iter().zip(present) {
            for (old, new) in old.present.into_iter().zip(new) {
                patch = patch.replace(old, new);
            }
        }
        Ok(patch)
    }
}

impl Past {
    /// Keys and values of this run, and those before them.
    fn before(
        m: &Model,
        k: ValueId,
        v: ValueId,
    ) -> Result<(ValueId, ValueId, Option<Past>), NoMatch> {
        let (Ok(a), Ok(b)) = (m.producer(k, "Concat"), m.producer(v, "Concat")) else {
            return Ok((k, v, None));
        };
        let joins = |it| {
            let axis = m.int_attr(it, "axis", 0);
            m.node(it).inputs.len() == 2 && (axis == 2 || axis == -2)
        };
        if !joins(a) || !joins(b) {
            return Err(no_match!("keys and values are joined in another way"));
        }
        let ((past_k, k_new), (past_v, v_new)) = (pair(m, a)?, pair(m, b)?);
        for (it, end) in [(k, "Softmax"), (v, "MatMul")] {
            let nodes = m.value(it).uses.iter().filter(|it| matches!(it.user, User::Node(_)));
            if nodes.count() > 1 {
                return Err(no_match!("`{}` has other uses", m.value(it).name));
            }
            used_once(m, it, end)?;
        }
        let past = Past { values: [past_k, past_v], present: [k, v] };
        Ok((k_new, v_new, Some(past)))
    }
}

/// What leads from the cache to the softmax, or to the product with it, is used there alone, so it
/// goes with them: nothing that stays may read the cache before `Attention` computes it.
fn used_once(m: &Model, cache: ValueId, end: &str) -> Result<(), NoMatch> {
    let node = |it: ValueId| {
        m.value(it).uses.iter().find_map(|it| match it.user {
            User::Node(it) => Some(it),
            _ => None,
        })
    };
    let mut at = node(cache);
    // Unsqueeze, Expand, Reshape, Transpose, Mul; MatMul, Mul, Add, and casts of the scores.
    for _ in 0..10 {
        let Some(user) = at.filter(|it| !m.node(*it).op.is(end)) else { break };
        at = Some(m.only_use(m.node(user).output())?);
    }
    Ok(())
}
