//! Attention and feed-forward, with norms and sums around them.

use std::collections::BTreeMap;

use super::{
    Form,
    embed::Inputs,
    graph::Graph,
    mask::{self, Causal},
    rotary::{self, Turn},
};
use crate::arch::{Architecture, Attention, Block, Mlp, Norm, Qkv, Sublayer};
use onnxq_ir::{Attrs, ValueId, tensor::DType};

/// What blocks share, made once.
pub(super) struct Shared<'a> {
    architecture: &'a Architecture,
    turns: Vec<Turn>,
    masks: Masks,
    inputs: &'a Inputs,
}

enum Masks {
    /// What is added to the products of queries and keys, by the window.
    Added(BTreeMap<Option<usize>, ValueId>),
    /// Length of each text, less 1, and of the longest.
    Lengths([ValueId; 2]),
}

/// What one block needs of it.
pub(super) struct Layer {
    turn: Option<Turn>,
    past: Option<[ValueId; 2]>,
    mask: Mask,
}

#[derive(Clone, Copy)]
enum Mask {
    Added(ValueId),
    Lengths([ValueId; 2]),
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        graph: &mut Graph,
        architecture: &'a Architecture,
        inputs: &'a Inputs,
        form: Form,
    ) -> Shared<'a> {
        let rotaries = architecture.rotaries.iter().enumerate();
        let (masks, turns) = match form {
            Form::GroupQuery => {
                let lengths = lengths(graph, inputs);
                let context = (architecture.context, lengths[1]);
                let turns = rotaries.map(|(i, it)| rotary::tables(graph, it, i, context)).collect();
                (Masks::Lengths(lengths), turns)
            }
            Form::Standard => {
                let turns = rotaries.map(|(i, it)| rotary::turns(graph, it, i, inputs)).collect();
                (Masks::Added(masks(graph, architecture, inputs)), turns)
            }
        };
        Shared { architecture, turns, masks, inputs }
    }

    pub(super) fn of(&self, layer: usize) -> Layer {
        let attention = &self.architecture.blocks[layer].attention.body;
        Layer {
            turn: attention.rotary.map(|it| self.turns[it]),
            past: self.inputs.past.get(layer).copied(),
            mask: match &self.masks {
                Masks::Added(masks) => Mask::Added(masks[&attention.window]),
                Masks::Lengths(lengths) => Mask::Lengths(*lengths),
            },
        }
    }
}

/// A mask for each window that a block has.
fn masks(
    graph: &mut Graph,
    architecture: &Architecture,
    inputs: &Inputs,
) -> BTreeMap<Option<usize>, ValueId> {
    let windows = architecture.blocks.iter().map(|it| it.attention.body.window);
    let windows: std::collections::BTreeSet<Option<usize>> = windows.collect();
    if !architecture.is_decoder() {
        let mask = mask::full(graph, inputs);
        return windows.into_iter().map(|it| (it, mask)).collect();
    }
    let causal = Causal::new(graph, inputs);
    windows.into_iter().map(|it| (it, causal.mask(graph, it))).collect()
}

/// What `GroupQueryAttention` knows padding by: it must stand at the end.
fn lengths(graph: &mut Graph, inputs: &Inputs) -> [ValueId; 2] {
    let none = Attrs::default;
    let axis = graph.ints("one_list", &[1], &[1]);
    let attrs = none().with("keepdims", 0i64);
    let sums = graph.node("ReduceSum", "text_lengths", [inputs.mask, axis], attrs);
    let one = graph.ints("one", &[], &[1]);
    let last = graph.node("Sub", "last_places", [sums, one], none());
    let last = graph.cast("seqlens_k", last, DType::I32);
    let total = graph.length("total_list", inputs.mask, 1);
    let total = graph.squeeze("total", total);
    let total = graph.cast("total_sequence_length", total, DType::I32);
    [last, total]
}

/// The vectors after a block, and its keys and values if there is a cache.
pub(super) fn block(
    graph: &mut Graph,
    block: &Block,
    x: ValueId,
    layer: &Layer,
) -> (ValueId, Option<[ValueId; 2]>) {
    let mut present = None;
    let x = sublayer(graph, &block.attention, x, |graph, it, x| {
        let (y, pair) = attention(graph, it, x, layer, &block.attention.name);
        present = pair;
        y
    });
    let x = sublayer(graph, &block.mlp, x, |graph, it, x| mlp(graph, it, x, &block.mlp.name));
    (x, present)
}

fn sublayer<T>(
    graph: &mut Graph,
    sublayer: &Sublayer<T>,
    x: ValueId,
    body: impl FnOnce(&mut Graph, &T, ValueId) -> ValueId,
) -> ValueId {
    let normed = |graph: &mut Graph, norm: &Option<Norm>, x| match norm {
        Some(norm) => graph.norm(norm, x),
        None => x,
    };
    let input = normed(graph, &sublayer.input_norm, x);
    let y = body(graph, &sublayer.body, input);
    let y = normed(graph, &sublayer.output_norm, y);
    let sum = graph.node("Add", &format!("{}.sum", sublayer.name), [x, y], Attrs::default());
    normed(graph, &sublayer.sum_norm, sum)
}

fn mlp(graph: &mut Graph, mlp: &Mlp, x: ValueId, name: &str) -> ValueId {
    let up = graph.linear(&mlp.up, x);
    let act = format!("{name}.activation");
    let inner = match &mlp.gate {
        None => graph.activation(mlp.activation, &act, up),
        Some(gate) => {
            let gate = graph.linear(gate, x);
            let gate = graph.activation(mlp.activation, &act, gate);
            graph.node("Mul", &format!("{name}.gated"), [gate, up], Attrs::default())
        }
    };
    graph.linear(&mlp.down, inner)
}

fn attention(
    graph: &mut Graph,
    attention: &Attention,
    x: ValueId,
    layer: &Layer,
    name: &str,
) -> (ValueId, Option<[ValueId; 2]>) {
    let [q, k, v] = qkv(graph, attention, x, name);
    let q = norm_heads(graph, attention.q_norm.as_ref(), q, attention.heads, attention.head_size);
    let k =
        norm_heads(graph, attention.k_norm.as_ref(), k, attention.kv_heads, attention.head_size);
    let outputs = match layer.mask {
        Mask::Added(mask) => standard(graph, attention, [q, k, v], (mask, layer), name),
        Mask::Lengths(lengths) => group_query(graph, attention, [q, k, v], (lengths, layer), name),
    };
    let present = layer.past.map(|_| [outputs[1], outputs[2]]);
    (graph.linear(&attention.out, outputs[0]), present)
}

fn qkv(graph: &mut Graph, attention: &Attention, x: ValueId, name: &str) -> [ValueId; 3] {
    match &attention.qkv {
        Qkv::Apart(three) => [0, 1, 2].map(|at| graph.linear(&three[at], x)),
        Qkv::Joint(one) => {
            let joint = graph.linear(one, x);
            let (q, kv) =
                (attention.heads * attention.head_size, attention.kv_heads * attention.head_size);
            let sizes = [q, kv, kv].map(|it| it as i64);
            let sizes = graph.ints("qkv_sizes", &[3], &sizes);
            let attrs = Attrs::default().with("axis", 2i64);
            let inputs = vec![Some(joint), Some(sizes)];
            let parts = graph.nodes("Split", &format!("{name}.qkv"), inputs, attrs, 3);
            [parts[0], parts[1], parts[2]]
        }
    }
}

/// Norms each head by itself.
fn norm_heads(
    graph: &mut Graph,
    norm: Option<&Norm>,
    x: ValueId,
    heads: usize,
    head_size: usize,
) -> ValueId {
    let Some(norm) = norm else { return x };
    let apart = [0, 0, heads as i64, head_size as i64];
    let apart = graph.reshape(&format!("{}.heads", norm.name), x, &apart);
    let normed = graph.norm(norm, apart);
    let joined = [0, 0, (heads * head_size) as i64];
    graph.reshape(&format!("{}.joined", norm.name), normed, &joined)
}

fn standard(
    graph: &mut Graph,
    attention: &Attention,
    [q, k, v]: [ValueId; 3],
    (mask, layer): (ValueId, &Layer),
    name: &str,
) -> Vec<ValueId> {
    let mut turn = |part: &str, x: ValueId, heads: usize| {
        let Some(Turn { cos, sin, size }) = layer.turn else { return x };
        let mut attrs = Attrs::default().with("num_heads", heads);
        if size != attention.head_size {
            attrs.set("rotary_embedding_dim", size.into());
        }
        graph.node("RotaryEmbedding", &format!("{name}.{part}_rotated"), [x, cos, sin], attrs)
    };
    let (q, k) = (turn("q", q, attention.heads), turn("k", k, attention.kv_heads));
    let mut inputs = vec![Some(q), Some(k), Some(v), Some(mask)];
    inputs.extend(layer.past.iter().flatten().map(|it| Some(*it)));
    let mut attrs = Attrs::default()
        .with("scale", attention.scale)
        .with("q_num_heads", attention.heads)
        .with("kv_num_heads", attention.kv_heads);
    if let Some(cap) = attention.softcap {
        attrs.set("softcap", cap.into());
    }
    let outputs = if layer.past.is_some() { 3 } else { 1 };
    graph.nodes("Attention", &format!("{name}.attention"), inputs, attrs, outputs)
}

fn group_query(
    graph: &mut Graph,
    attention: &Attention,
    [q, k, v]: [ValueId; 3],
    ([last, total], layer): ([ValueId; 2], &Layer),
    name: &str,
) -> Vec<ValueId> {
    let mut inputs = vec![Some(q), Some(k), Some(v)];
    inputs.extend(layer.past.iter().flatten().map(|it| Some(*it)));
    inputs.extend([Some(last), Some(total)]);
    inputs.extend(layer.turn.iter().flat_map(|it| [Some(it.cos), Some(it.sin)]));
    let mut attrs = Attrs::default()
        .with("num_heads", attention.heads)
        .with("kv_num_heads", attention.kv_heads)
        .with("scale", attention.scale)
        .with("do_rotary", i64::from(layer.turn.is_some()))
        .with("local_window_size", attention.window.map_or(-1, |it| it as i64));
    if let Some(cap) = attention.softcap {
        attrs.set("softcap", cap.into());
    }
    graph.nodes("com.microsoft.GroupQueryAttention", name, inputs, attrs, 3)
}
