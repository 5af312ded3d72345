//! Initializers with the same bytes become one, so that tied weights are seen to be tied.
//!
//! No tensor is hashed more than once, and none at all unless another has its type and shape and
//! agrees with it in a few samples.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::{Pass, PassError, trace};
use onnxq_ir::{
    Def, GraphId, Model, ValueId,
    ctx::Ctx,
    tensor::{DType, Tensor},
};

pub(super) const DEDUPE_CONSTANTS: Pass = Pass {
    name: "dedupe-constants",
    help: "make one of initializers with the same bytes",
    limited: true,
    run,
};

/// A tensor, and how it is known before its bytes are read.
type Group = (DType, Vec<usize>, bool);
type Hash = [u8; 32];

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut twins = 0;
    for (value, twin) in twins_of(model) {
        if twins == ctx.max_rewrites {
            break;
        }
        // Outputs keep their names, which an Identity would have to give them.
        if model.is_output(value) {
            continue;
        }
        if ctx.trace.is_some() {
            let what = format!("the same as `{}`", model.value(twin).name);
            trace(ctx, DEDUPE_CONSTANTS.name, &model.value(value).name, &what);
        }
        model.replace_all_uses(value, twin);
        twins += 1;
    }
    Ok(twins)
}

/// `(value, its earlier twin)`; the twin is visible wherever the value is.
fn twins_of(m: &Model) -> Vec<(ValueId, ValueId)> {
    let mut groups: BTreeMap<Group, Vec<(GraphId, ValueId)>> = BTreeMap::new();
    let mut parts = Vec::new();
    for graph in m.graphs().into_iter().filter(|it| m.in_main(*it)) {
        for &value in &m.graph(graph).constants {
            let Def::Const(tensor) = &m.value(value).def else { continue };
            if m.value(value).uses.is_empty() {
                continue;
            }
            if tensor.quantized().is_some() {
                parts.push((graph, value));
            } else if tensor.place().is_some() {
                let group = (tensor.dtype, tensor.shape.clone(), tensor.is_transposed());
                groups.entry(group).or_default().push((graph, value));
            }
        }
    }
    let mut twins = Vec::new();
    // The same part of one quantized weight, whose bytes do not exist yet.
    First { m, seen: HashMap::new(), twins: &mut twins }.unseen(parts, |it| {
        let (source, part, packing) = it.quantized()?;
        Some((Arc::as_ptr(source).cast::<()>().addr(), part, packing, it.shape.clone()))
    });
    for members in groups.into_values().filter(|it| it.len() > 1) {
        find_twins(m, members, &mut twins);
    }
    // A twin by its place may have a twin by its bytes.
    let first: BTreeMap<ValueId, ValueId> = twins.into_iter().collect();
    first.iter().map(|(value, twin)| (*value, *first.get(twin).unwrap_or(twin))).collect()
}

/// Narrows a group down: by place, by samples, by all bytes.
fn find_twins(m: &Model, members: Vec<(GraphId, ValueId)>, twins: &mut Vec<(ValueId, ValueId)>) {
    let mut first = First { m, seen: HashMap::new(), twins };
    let rest = first.unseen(members, |it| it.place());
    for sampled in same(m, rest, |it| hash(it, true)) {
        let mut first = First { m, seen: HashMap::new(), twins };
        first.unseen(sampled, |it| hash(it, false));
    }
}

/// The first value of each key, in each graph.
struct First<'a, K> {
    m: &'a Model,
    seen: HashMap<(GraphId, K), ValueId>,
    twins: &'a mut Vec<(ValueId, ValueId)>,
}

impl<K: std::hash::Hash + Eq + Clone> First<'_, K> {
    /// Pairs each value with the first of its key in its graph or in the main graph, and
    /// returns those that are the first themselves.
    fn unseen(
        &mut self,
        members: Vec<(GraphId, ValueId)>,
        key: impl Fn(&Tensor) -> Option<K>,
    ) -> Vec<(GraphId, ValueId)> {
        let mut unseen = Vec::new();
        for (graph, value) in members {
            let Some(key) = tensor(self.m, value).and_then(&key) else { continue };
            let main = self.seen.get(&(self.m.main, key.clone()));
            match main.or_else(|| self.seen.get(&(graph, key.clone()))) {
                Some(twin) => self.twins.push((value, *twin)),
                None => {
                    self.seen.insert((graph, key), value);
                    unseen.push((graph, value));
                }
            }
        }
        unseen
    }
}

/// The members by their key; those without a companion are left out.
fn same<K: Ord>(
    m: &Model,
    members: Vec<(GraphId, ValueId)>,
    key: impl Fn(&Tensor) -> Option<K>,
) -> Vec<Vec<(GraphId, ValueId)>> {
    if members.len() < 2 {
        return Vec::new();
    }
    let mut by_key: BTreeMap<K, Vec<(GraphId, ValueId)>> = BTreeMap::new();
    for (graph, value) in members {
        if let Some(key) = tensor(m, value).and_then(&key) {
            by_key.entry(key).or_default().push((graph, value));
        }
    }
    by_key.into_values().filter(|it| it.len() > 1).collect()
}

fn tensor(m: &Model, value: ValueId) -> Option<&Tensor> {
    m.constant(value).ok()
}

/// The hash of the bytes, or of some of them; a tensor that cannot be read has no twin.
fn hash(tensor: &Tensor, only_samples: bool) -> Option<Hash> {
    const SAMPLE: usize = 4 << 10;
    // Of a view, the bytes that exist: its group consists of views.
    let base = if tensor.is_transposed() { tensor.transposed() } else { tensor.clone() };
    let bytes = base.bytes().ok()?;
    let mut hash = Sha256::new();
    if only_samples && bytes.len() > 4 * SAMPLE {
        let last = bytes.len() - SAMPLE;
        for at in [0, last / 3, last / 3 * 2, last] {
            hash.update(&bytes[at..at + SAMPLE]);
        }
    } else {
        hash.update(&bytes);
    }
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    /// The sum of all constants, so that each has a use.
    fn model(constants: &[Tensor]) -> Builder {
        let mut b = Builder::new();
        let mut y = b.input("x", "2");
        for (i, it) in constants.iter().enumerate() {
            let c = b.constant(&format!("c{i}"), it.clone());
            y = b.node("Add", &[y, c]);
        }
        b.output(y, "y");
        b
    }

    #[test]
    fn equal_bytes_of_one_type_and_shape_are_one() {
        let ones = Tensor::from_f32(&[2], [1., 1.]);
        let mut b = model(&[
            ones.clone(),
            Tensor::from_f32(&[2], [1., 2.]),
            Tensor::from_f32(&[2], [1., 1.]),
            ones.reshaped(vec![1, 2]),
            Tensor::from_i64(&[1], [0x3f80_0000_3f80_0000]),
            ones.clone(),
        ]);
        let (changes, lines) = b.run("dedupe-constants");
        assert_eq!(changes, 2);
        assert_eq!(lines[0], "dedupe-constants: `c2`: the same as `c0`");
        assert_eq!(lines[1], "dedupe-constants: `c5`: the same as `c0`");
    }

    #[test]
    fn large_tensors_that_differ_between_the_samples_stay_two() {
        let mut values = vec![1.0; 100_000];
        let a = Tensor::from_f32(&[100_000], values.clone());
        let twin = Tensor::from_f32(&[100_000], values.clone());
        values[20_000] = 2.0;
        let b = Tensor::from_f32(&[100_000], values);
        let mut b = model(&[a, b, twin]);
        assert_eq!(b.run("dedupe-constants").0, 1);
    }

    #[test]
    fn views_of_the_same_weight_are_one_and_differ_from_the_weight() {
        let w = Tensor::from_f32(&[2, 2], [1., 2., 3., 4.]);
        let copy = Tensor::from_f32(&[2, 2], [1., 2., 3., 4.]).transposed();
        let mut b = model(&[w.transposed(), w.clone(), w.transposed(), copy]);
        let (changes, lines) = b.run("dedupe-constants");
        assert_eq!(changes, 2, "{lines:?}");
        assert!(lines.iter().all(|it| it.ends_with("the same as `c0`")), "{lines:?}");
    }

    #[test]
    fn what_is_not_computed_yet_is_not_read() {
        let lazy = || Tensor::lazy(DType::F32, vec![2], || panic!("read"));
        assert_eq!(model(&[lazy(), lazy()]).run("dedupe-constants").0, 0);
    }
}
