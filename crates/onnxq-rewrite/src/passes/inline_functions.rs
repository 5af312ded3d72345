//! Calls of model-local functions become the nodes of their bodies.
//!
//! ```text
//! y = local.gelu <k = 2> (x)      →      the body of `gelu`, with its `@k` 2 and its input x
//! ```

mod calls;
mod copy;

use std::collections::BTreeSet;

use self::{calls::Calls, copy::Copier};
use crate::{Pass, PassError, nodes_in_main, trace};
use onnxq_ir::{Attrs, Function, Model, NoMatch, NodeId, User, ValueId, ctx::Ctx, no_match};

pub(super) const INLINE_FUNCTIONS: Pass = Pass {
    name: "inline-functions",
    help: "replace calls of model-local functions by the nodes of their bodies",
    limited: true,
    run,
};

/// More nodes than any real model has.
const MOST_NODES: usize = 1_000_000;

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    inline_calls(model, ctx, false, &mut |_, _| {})
}

/// Inlines whatever the version of the standard operators that a body uses. `made` gets the
/// nodes of each body and that version, 0 if it uses none: they mean what they meant there.
pub(crate) fn inline_all_versions(
    model: &mut Model,
    ctx: &Ctx,
    made: &mut dyn FnMut(&[NodeId], i64),
) -> Result<usize, PassError> {
    inline_calls(model, ctx, true, made)
}

fn inline_calls(
    model: &mut Model,
    ctx: &Ctx,
    any_version: bool,
    on_made: &mut dyn FnMut(&[NodeId], i64),
) -> Result<usize, PassError> {
    if model.functions.is_empty() {
        return Ok(0);
    }
    let calls = Calls::of(model);
    calls.check(model, MOST_NODES)?;
    let mut work = nodes_in_main(model);
    work.reverse();
    let (mut inlined, mut made) = (0, 0);
    while let Some(node) = work.pop() {
        if inlined == ctx.max_rewrites {
            break;
        }
        let Some(function) = calls.callee(model.node(node)) else { continue };
        let function = model.functions[function].clone();
        if let Err(reason) = can_inline(model, node, &function, any_version) {
            trace(ctx, INLINE_FUNCTIONS.name, &model.node_label(node), &reason.0);
            continue;
        }
        if ctx.trace.is_some() {
            trace(ctx, INLINE_FUNCTIONS.name, &model.node_label(node), "inlined");
        }
        let new = inline(model, node, &function, MOST_NODES - made)?;
        made += new.len();
        on_made(&new, standard_version(model, &function));
        work.extend(new.into_iter().rev());
        inlined += 1;
    }
    calls.drop_unused(model);
    Ok(inlined)
}

fn standard_version(m: &Model, function: &Function) -> i64 {
    let used = calls::opsets(m, function);
    used.iter().find(|(domain, _)| is_standard(domain)).map_or(0, |it| it.1)
}

fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn can_inline(
    m: &Model,
    call: NodeId,
    function: &Function,
    any_version: bool,
) -> Result<(), NoMatch> {
    let (it, body) = (m.node(call), m.graph(function.body));
    let count = |what, has: usize, takes: usize| {
        if has <= takes { Ok(()) } else { Err(no_match!("{has} {what}, the function has {takes}")) }
    };
    count("inputs", it.inputs.len(), body.inputs.len())?;
    count("outputs", it.outputs.len(), body.outputs.len())?;
    for (index, &input) in body.inputs.iter().enumerate() {
        let is_given = it.inputs.get(index).is_some_and(Option::is_some);
        let is_returned = m.value(input).uses.iter().any(|it| matches!(it.user, User::Output(_)));
        if !is_given && is_returned {
            return Err(no_match!("`{}` is left out but returned", m.value(input).name));
        }
    }
    for (domain, version) in calls::opsets(m, function) {
        let ours = m.opset(&domain);
        let matters = !(any_version && is_standard(&domain));
        if matters && ours != version && ours != 0 {
            let of = if domain.is_empty() { "" } else { " of " };
            return Err(no_match!("opset {version}{of}{domain} in a model of opset {ours}"));
        }
    }
    Ok(())
}

/// Replaces a call; returns the new nodes.
fn inline(
    model: &mut Model,
    call: NodeId,
    function: &Function,
    most: usize,
) -> Result<Vec<NodeId>, PassError> {
    for (domain, version) in calls::opsets(model, function) {
        if model.opset(&domain) == 0 {
            model.set_opset(&domain, version);
        }
    }
    let (graph, results) = (model.node(call).graph, model.graph(function.body).outputs.clone());
    let attrs = actual_attrs(&model.node(call).attrs, function);
    let mut copier = Copier::new(model, call, function, attrs, most);
    copier.nodes(function.body, graph, Some(call))?;
    let results: Vec<_> = results.into_iter().map(|it| copier.value(it)).collect();
    let made = copier.made;
    let mut fresh: BTreeSet<ValueId> =
        made.iter().flat_map(|it| model.node(*it).outputs.clone()).collect();
    for (old, new) in model.node(call).outputs.clone().into_iter().zip(results) {
        let new = new.expect("left out inputs are not returned");
        model.replace_all_uses(old, new);
        if fresh.remove(&new) {
            model.inherit(old, new);
        }
    }
    model.remove_dead(call);
    Ok(made)
}

/// What the references in a body stand for.
fn actual_attrs(given: &Attrs, function: &Function) -> Attrs {
    let mut attrs = function.defaults.clone();
    for (name, value) in given.iter() {
        attrs.set(name, value.clone());
    }
    attrs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;
    use onnxq_ir::{Attr, Def, GraphId, Op};

    /// A function whose body is filled in by `fill`, which gets its inputs and returns its output.
    fn function(
        b: &mut Builder,
        name: &str,
        inputs: usize,
        fill: impl FnOnce(&mut Model, GraphId, &[ValueId]) -> ValueId,
    ) {
        let m = &mut b.model;
        let body = m.add_graph();
        let inputs: Vec<_> =
            (0..inputs).map(|i| m.add_input(body, &format!("in{i}"), None)).collect();
        let output = fill(m, body, &inputs);
        m.add_output(body, output);
        m.functions.push(Function {
            op: Op::new(&format!("local.{name}")),
            body,
            opsets: vec![("".into(), 17), ("local".into(), 1)],
            attributes: Vec::new(),
            defaults: Attrs::default().with("alpha", 0.5),
            doc: String::new(),
            metadata: Vec::new(),
        });
    }

    fn node(m: &mut Model, graph: GraphId, op: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        let y = m.add_value("t", None, Def::Input(graph, None));
        let inputs = inputs.iter().map(|it| Some(*it)).collect();
        m.add_node(graph, None, (Op::new(op), "".into()), inputs, attrs, vec![y]);
        y
    }

    fn reference(name: &str) -> Attr {
        Attr::Ref { name: name.into(), kind: 1 }
    }

    fn plain(m: &mut Model, body: GraphId, op: &str, inputs: &[ValueId]) -> ValueId {
        node(m, body, op, inputs, Attrs::default())
    }

    /// `y = local.outer(x)` with `outer` calling `inner` twice.
    fn nested() -> Builder {
        let mut b = Builder::new();
        b.model.set_opset("local", 1);
        function(&mut b, "inner", 2, |m, body, inputs| {
            let attrs = Attrs::default().with("alpha", reference("alpha"));
            let attrs = attrs.with("missing", reference("missing"));
            let t = node(m, body, "Elu", &inputs[..1], attrs);
            plain(m, body, "Clip", &[t, inputs[1]])
        });
        function(&mut b, "outer", 1, |m, body, inputs| {
            let t = node(
                m,
                body,
                "local.inner",
                inputs,
                Attrs::default().with("alpha", reference("alpha")),
            );
            plain(m, body, "local.inner", &[t, t])
        });
        let x = b.input("x", "2");
        let y = b.node_with("local.outer", &[x], Attrs::default().with("alpha", 3.0));
        b.output(y, "y");
        b
    }

    #[test]
    fn nested_calls_with_attributes_and_missing_inputs() {
        let mut b = nested();
        let (changes, lines) = b.run("inline-functions");
        assert_eq!(changes, 3, "{lines:?}");
        assert_eq!(b.ops(), ["Elu", "Clip", "Elu", "Clip"]);
        let nodes = b.model.nodes();
        // The caller's value, then the default; a reference to nothing is no attribute.
        assert_eq!(b.model.float_attr(nodes[0], "alpha", 0.0), 3.0);
        assert_eq!(b.model.float_attr(nodes[2], "alpha", 0.0), 0.5);
        assert_eq!(b.model.node(nodes[0]).attrs.len(), 1);
        assert_eq!(b.model.node(nodes[1]).inputs[1], None);
        assert!(b.model.functions.is_empty());
        assert_eq!(b.model.opset("local"), 0);
    }

    #[test]
    fn bodies_of_control_flow_are_copied_for_each_call() {
        let mut b = Builder::new();
        b.model.set_opset("local", 1);
        function(&mut b, "choose", 2, |m, body, inputs| {
            let [then, other] = ["Neg", "Abs"].map(|op| {
                let branch = m.add_graph();
                let y = plain(m, branch, op, &inputs[1..]);
                m.add_output(branch, y);
                Attr::Graph(branch)
            });
            let attrs = Attrs::default().with("then_branch", then).with("else_branch", other);
            node(m, body, "If", &inputs[..1], attrs)
        });
        let (c, x) = (b.input("c", ""), b.input("x", "2"));
        let y = b.node("local.choose", &[c, x]);
        let y = b.node("local.choose", &[c, y]);
        b.output(y, "y");
        assert_eq!(b.run("inline-functions").0, 2);
        assert_eq!(b.ops(), ["Neg", "Abs", "If", "Neg", "Abs", "If"]);
        let first = b.model.nodes()[2];
        let branches: Vec<_> = b.model.node(first).attrs.graphs().collect();
        let neg = b.model.nodes_of(branches[0]).next().unwrap();
        assert_eq!(b.model.operand(neg, 0), Ok(x));
    }

    #[test]
    fn another_opset_stays_a_call() {
        let mut b = nested();
        b.model.functions[0].opsets[0].1 = 13;
        let (changes, lines) = b.run("inline-functions");
        assert_eq!(changes, 1);
        assert_eq!(b.ops()[..2], ["local.inner", "local.inner"]);
        assert!(lines[1].ends_with("opset 13 in a model of opset 17"), "{lines:?}");
        assert_eq!(b.model.functions.len(), 1);
    }

    #[test]
    fn cycles_and_explosions_are_refused() {
        let mut b = nested();
        function(&mut b, "endless", 1, |m, body, inputs| plain(m, body, "local.endless", inputs));
        let run =
            |b: &mut Builder| (INLINE_FUNCTIONS.run)(&mut b.model, &Ctx::silent()).unwrap_err();
        assert_eq!(run(&mut b).to_string(), "the function `local.endless` calls itself");

        let mut b = Builder::new();
        for i in 1..64 {
            function(&mut b, &i.to_string(), 1, |m, body, inputs| {
                let t = plain(m, body, &format!("local.{}", i - 1), inputs);
                plain(m, body, &format!("local.{}", i - 1), &[t])
            });
        }
        let x = b.input("x", "2");
        let y = b.node("local.63", &[x]);
        b.output(y, "y");
        assert_eq!(run(&mut b), PassError::TooManyNodes { limit: MOST_NODES });
    }
}
