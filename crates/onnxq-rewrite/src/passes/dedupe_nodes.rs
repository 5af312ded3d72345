//! Nodes that compute the same become one (common subexpressions).
//!
//! ```text
//! a = Shape(x); b = Shape(x); y = Concat(a, b)      →      a = Shape(x); y = Concat(a, a)
//! ```

use std::collections::HashMap;

use crate::{Pass, PassError, trace};
use onnxq_ir::{Attr, Attrs, GraphId, Model, NodeId, ValueId, ctx::Ctx, tensor::Tensor};

pub(super) const DEDUPE_NODES: Pass = Pass {
    name: "dedupe-nodes",
    help: "make one of nodes that compute the same",
    limited: true,
    run,
};

/// Other domains may have operators with a state.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut deduper = Deduper { ctx, merged: 0, scopes: Vec::new() };
    deduper.visit(model, model.main);
    Ok(deduper.merged)
}

struct Deduper<'a> {
    ctx: &'a Ctx<'a>,
    merged: usize,
    /// What was computed before this point, in this graph and in each graph around it.
    scopes: Vec<HashMap<Vec<u8>, NodeId>>,
}

impl Deduper<'_> {
    fn visit(&mut self, model: &mut Model, graph: GraphId) {
        self.scopes.push(HashMap::new());
        for node in model.nodes_of(graph).collect::<Vec<_>>() {
            for inner in model.node(node).attrs.graphs().collect::<Vec<_>>() {
                self.visit(model, inner);
            }
            let Some(key) = key(model, node) else { continue };
            match self.scopes.iter().find_map(|it| it.get(&key)) {
                Some(twin) if self.merged < self.ctx.max_rewrites => {
                    self.merge(model, node, *twin);
                }
                Some(_) => return,
                None => {
                    self.scopes.last_mut().expect("pushed above").insert(key, node);
                }
            }
        }
        self.scopes.pop();
    }

    fn merge(&mut self, model: &mut Model, node: NodeId, twin: NodeId) {
        if self.ctx.trace.is_some() {
            let what = format!("the same as `{}`", model.node_label(twin));
            trace(self.ctx, DEDUPE_NODES.name, &model.node_label(node), &what);
        }
        let outputs = model.node(node).outputs.clone();
        for (old, new) in outputs.into_iter().zip(model.node(twin).outputs.clone()) {
            if model.value(new).ty.is_none()
                && let Some(ty) = model.value(old).ty.clone()
            {
                model.set_type(new, ty);
            }
            model.replace_all_uses(old, new);
        }
        model.remove_dead(node);
        self.merged += 1;
    }
}

/// Equal for nodes that compute the same; `None` for a node that must stay.
fn key(m: &Model, node: NodeId) -> Option<Vec<u8>> {
    let it = m.node(node);
    if !DOMAINS.contains(&&*it.op.domain)
        || super::is_random(&it.op)
        || m.function(&it.op).is_some()
        || it.outputs.is_empty()
        // It costs nothing, and merging two outputs would only make another.
        || it.op.is("Identity")
    {
        return None;
    }
    let mut key = Key(Vec::new());
    key.text(it.op.to_string().as_bytes());
    let given = it.inputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    key.list(&it.inputs[..given], |key, it| key.number(it.map_or(-1, |it| it.index() as i64)));
    // An operator may work differently if an optional output is wanted.
    key.list(&it.outputs, |key, it| key.number(i64::from(is_wanted(m, *it))));
    key.attrs(&it.attrs)?;
    Some(key.0)
}

fn is_wanted(m: &Model, output: ValueId) -> bool {
    !m.value(output).name.is_empty() || !m.value(output).uses.is_empty()
}

/// An encoding that no two different nodes share.
struct Key(Vec<u8>);

impl Key {
    fn number(&mut self, it: i64) {
        self.0.extend(it.to_le_bytes());
    }

    fn text(&mut self, it: &[u8]) {
        self.number(it.len() as i64);
        self.0.extend(it);
    }

    fn list<T>(&mut self, list: &[T], mut each: impl FnMut(&mut Key, &T)) {
        self.number(list.len() as i64);
        list.iter().for_each(|it| each(self, it));
    }

    fn attrs(&mut self, attrs: &Attrs) -> Option<()> {
        let mut list: Vec<_> = attrs.iter().collect();
        list.sort_by(|a, b| a.0.cmp(b.0));
        for (name, value) in list {
            self.text(name.as_bytes());
            self.attr(value)?;
        }
        Some(())
    }

    fn attr(&mut self, value: &Attr) -> Option<()> {
        let float = |key: &mut Key, it: &f32| key.0.extend(it.to_bits().to_le_bytes());
        match value {
            Attr::Float(it) => (self.0.push(b'f'), float(self, it)).1,
            Attr::Int(it) => (self.0.push(b'i'), self.number(*it)).1,
            Attr::String(it) => (self.0.push(b's'), self.text(it)).1,
            Attr::Type(it) => (self.0.push(b'y'), self.text(it)).1,
            Attr::Floats(it) => (self.0.push(b'F'), self.list(it, float)).1,
            Attr::Ints(it) => (self.0.push(b'I'), self.list(it, |key, it| key.number(*it))).1,
            Attr::Strings(it) => (self.0.push(b'S'), self.list(it, |key, it| key.text(it))).1,
            Attr::Tensor(it) => (self.0.push(b't'), self.tensor(it)?).1,
            _ => return None,
        }
        Some(())
    }

    fn tensor(&mut self, it: &Tensor) -> Option<()> {
        const SMALL: usize = 4 << 10;
        if it.nbytes() > SMALL {
            return None;
        }
        let bytes = it.bytes().ok()?;
        self.number(it.dtype.number().into());
        self.list(&it.shape, |key, it| key.number(*it as i64));
        self.text(&bytes);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    #[test]
    fn chains_become_one_and_outputs_keep_their_names() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let chain = |b: &mut Builder| {
            let y = b.node("Neg", &[x]);
            b.node_with("Softmax", &[y], Attrs::default().with("axis", 0i64))
        };
        let (p, q, r) = (chain(&mut b), chain(&mut b), chain(&mut b));
        let s = b.node("Add", &[q, r]);
        b.output(p, "p");
        b.output(q, "q");
        b.output(s, "s");
        let (changes, lines) = b.run("dedupe-nodes");
        assert_eq!(changes, 4, "{lines:?}");
        assert_eq!(b.ops(), ["Neg", "Softmax", "Add", "Identity"]);
    }

    #[test]
    fn attributes_and_inputs_tell_nodes_apart() {
        let mut b = Builder::new();
        let (x, z) = (b.input("x", "2"), b.input("z", "2"));
        let axis = |it: i64| Attrs::default().with("axis", it);
        let list = [
            b.node_with("Softmax", &[x], axis(0)),
            b.node_with("Softmax", &[x], axis(1)),
            b.node_with("Softmax", &[z], axis(0)),
            b.node_with("LogSoftmax", &[x], axis(0)),
            b.node("custom.Softmax", &[x]),
            b.node("custom.Softmax", &[x]),
            b.node("RandomNormalLike", &[x]),
            b.node("RandomNormalLike", &[x]),
            b.node("Sub", &[x, z]),
            b.node("Sub", &[z, x]),
        ];
        for (i, it) in list.into_iter().enumerate() {
            b.output(it, &format!("y{i}"));
        }
        assert_eq!(b.run("dedupe-nodes").0, 0);
    }

    #[test]
    fn a_body_uses_what_the_graph_around_it_computed_but_not_the_other_way_round() {
        let mut b = Builder::new();
        let x = b.input("x", "2");
        let outer = b.node("Neg", &[x]);
        let [then, other] = [(); 2].map(|()| {
            let body = b.model.add_graph();
            for (op, name) in [("Neg", "n"), ("Abs", "a")] {
                let y = b.model.add_value(name, None, onnxq_ir::Def::Input(body, None));
                let name = (onnxq_ir::Op::new(op), "".into());
                b.model.add_node(body, None, name, vec![Some(x)], Attrs::default(), vec![y]);
                b.model.add_output(body, y);
            }
            body
        });
        let cond = b.input("cond", "1");
        let attrs = Attrs::default()
            .with("then_branch", Attr::Graph(then))
            .with("else_branch", Attr::Graph(other));
        let y = b.node_with("If", &[cond], attrs);
        let late = b.node("Abs", &[x]);
        for (value, name) in [(outer, "outer"), (y, "y"), (late, "late")] {
            b.output(value, name);
        }
        let (changes, lines) = b.run("dedupe-nodes");
        assert_eq!(changes, 2, "{lines:?}");
        // The bodies must own what they return.
        assert_eq!(b.ops()[1..5], ["Abs", "Identity", "Abs", "Identity"]);
    }
}
