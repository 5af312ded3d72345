//! Places where computed numbers decide a size: the inputs that do, and what they depend on.

use std::collections::BTreeSet;

use crate::calibrate::reads;
use onnxq_ir::{Model, NodeId, ValueId, ops::Traits};

/// An input of a node of the main graph whose numbers decide how large a result is, and which another
/// model rounds otherwise.
#[derive(Clone, Debug)]
pub(super) struct Decider {
    pub node: NodeId,
    pub input: usize,
    pub value: ValueId,
    /// The float values that it was made of: itself, or the nearest ones before it.
    pub floats: Vec<ValueId>,
}

/// The deciders of a model in the order of execution, and the outputs of it that depend on them.
pub(super) struct Decisions {
    pub deciders: Vec<Decider>,
    pub decided: Vec<ValueId>,
    /// Once all is decided, these are the same in both models.
    pub settled: Vec<ValueId>,
}

/// What is known of the values of a main graph when each decider is fixed. A set of numbers that two
/// models compute alike, as integers are and floats that were only moved, is in none of them.
#[derive(Default)]
struct Flow {
    /// Numbers that depend on the model's inputs, and not on shapes alone.
    fed: BTreeSet<ValueId>,
    /// Numbers that differ between models, because they are rounded.
    rounded: BTreeSet<ValueId>,
    /// What depends on a decider.
    decided: BTreeSet<ValueId>,
}

/// `m` has inferred types. Depends on the graph only.
pub(super) fn decisions(m: &Model) -> Decisions {
    let inputs = m.graph(m.main).inputs.iter().copied();
    let mut flow = Flow { fed: inputs.collect(), ..Flow::default() };
    let mut deciders = Vec::new();
    for node in m.nodes_of(m.main) {
        let own: Vec<usize> = deciding(m, node, &flow.rounded).collect();
        flow.step(m, node, &own);
        for input in own {
            let value = m.node(node).inputs[input].expect("a decider is an input that is given");
            let floats = floats(m, value, &flow.rounded);
            deciders.push(Decider { node, input, value, floats });
        }
    }
    let outputs = m.graph(m.main).outputs.iter().copied();
    let decided: Vec<ValueId> = outputs.filter(|it| flow.decided.contains(it)).collect();
    let settled = decided.iter().copied().filter(|it| !flow.rounded.contains(it)).collect();
    Decisions { deciders, decided, settled }
}

/// The inputs of a node that decide a size by numbers that are rounded.
fn deciding<'a>(
    m: &'a Model,
    node: NodeId,
    rounded: &'a BTreeSet<ValueId>,
) -> impl Iterator<Item = usize> + 'a {
    let node = m.node(node);
    let sizes = node.op.info().map_or(&[][..], |it| it.sizes);
    let is_rounded = |at: &usize| {
        node.inputs.get(*at).copied().flatten().is_some_and(|it| rounded.contains(&it))
    };
    sizes.iter().copied().filter(is_rounded)
}

impl Flow {
    fn step(&mut self, m: &Model, node: NodeId, deciding: &[usize]) {
        let (reads, op) = (free(m, node, deciding), &m.node(node).op);
        let any = |set: &BTreeSet<ValueId>| reads.iter().any(|it| set.contains(it));
        let is_decided = !deciding.is_empty() || any(&self.decided);
        let outputs = m.node(node).outputs.iter().copied();
        if is_decided {
            self.decided.extend(outputs.clone());
        }
        // Of shapes there are no numbers that could be rounded.
        if op.is("Shape") || op.is("Size") {
            return;
        }
        let (is_rounded, is_fed) = (any(&self.rounded), any(&self.fed) || is_decided);
        let rounds = |it: &ValueId| is_rounded || is_fed && may_be_float(m, *it) && !moves(m, node);
        self.rounded.extend(outputs.clone().filter(rounds));
        if is_fed {
            self.fed.extend(outputs);
        }
    }
}

/// What a node and its bodies read, but for what decides.
fn free(m: &Model, node: NodeId, deciding: &[usize]) -> BTreeSet<ValueId> {
    let mut list = reads(m, node);
    let inputs = &m.node(node).inputs;
    let is_read_beside = |it: ValueId| {
        inputs.iter().enumerate().any(|(at, other)| *other == Some(it) && !deciding.contains(&at))
    };
    for value in deciding.iter().filter_map(|it| inputs[*it]) {
        if !is_read_beside(value) {
            list.remove(&value);
        }
    }
    list
}

/// Whether a node gives the numbers of its input back, in whatever order and type. A row of a table is
/// a weight, which may be quantized.
fn moves(m: &Model, node: NodeId) -> bool {
    const MOVE: Traits = Traits::LAYOUT.union(Traits::CAST).union(Traits::COPY);
    let weights = m.node(node).op.info().map_or(&[][..], |it| it.weights);
    let is_constant = |at: &usize| m.operand(node, *at).is_ok_and(|it| m.constant(it).is_ok());
    m.node(node).op.has(MOVE) && !weights.iter().any(is_constant)
}

fn may_be_float(m: &Model, value: ValueId) -> bool {
    m.dtype(value).is_none_or(|it| it.is_float())
}

/// The nearest float values that `value` was made of, in a fixed order.
fn floats(m: &Model, value: ValueId, rounded: &BTreeSet<ValueId>) -> Vec<ValueId> {
    let (mut list, mut seen, mut work) = (Vec::new(), BTreeSet::new(), vec![value]);
    while let Some(value) = work.pop() {
        if !seen.insert(value) {
            continue;
        }
        if m.dtype(value).is_some_and(|it| it.is_float()) {
            list.push(value);
        } else {
            work.extend(operands(m, value).into_iter().flatten().filter(|it| rounded.contains(it)));
        }
    }
    list
}

/// The inputs of the node of the main graph that makes a value.
pub(super) fn operands(m: &Model, value: ValueId) -> Vec<Option<ValueId>> {
    maker(m, value).map_or_else(Vec::new, |it| m.node(it).inputs.clone())
}

/// The node of the main graph that makes a value.
pub(super) fn maker(m: &Model, value: ValueId) -> Option<NodeId> {
    match m.value(value).def {
        onnxq_ir::Def::Node(node) if m.node(node).graph == m.main => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Model {
        let text = format!(r#"<ir_version: 8, opset_import: ["" : 17]> main {body}"#);
        let mut m = onnxq_ir::text::parse(&text).unwrap();
        onnxq_ir::infer::run(&mut m);
        m
    }

    /// Each decider with its input and what it was made of, and the outputs that are settled.
    fn told(body: &str) -> (Vec<String>, Vec<String>) {
        let m = parse(body);
        let all = decisions(&m);
        let name = |it: &ValueId| m.value(*it).name.to_string();
        let one = |it: &Decider| {
            let floats: Vec<String> = it.floats.iter().map(name).collect();
            format!("{} {} of {}", m.node(it.node).op, name(&it.value), floats.join("+"))
        };
        (all.deciders.iter().map(one).collect(), all.settled.iter().map(name).collect())
    }

    const W: &str = "float[4,4] w = {...}, float zero = {0}";

    #[test]
    fn computed_numbers_decide_and_what_follows_is_settled() {
        let (deciders, settled) = told(&format!(
            "(float[n,4] x) => (int64[2,m] at, float[k,4] rows) <{W}, int64[1] axis = {{0}}> {{
                y = MatMul (x, w)
                positive = Greater (y, zero)
                at = NonZero (positive)
                which = Cast <to = 9> (y)
                flat = ReduceMax <keepdims = 0> (y)
                keep = Not (positive)
                rows = Compress <axis = 0> (y, keep)
            }}"
        ));
        assert_eq!(deciders, ["NonZero positive of y", "Compress keep of y"]);
        assert_eq!(settled, ["at"]);
    }

    #[test]
    fn data_shapes_and_integers_decide_alike_in_both_models() {
        let (deciders, settled) = told(&format!(
            "(float[n,4] x, int64[n] ids) => (float[n,4] y, int64[2,m] at, int64[1,m] ones, int64[1,m] tokens) <{W}, int64 none = {{0}}> {{
                y = MatMul (x, w)
                turned = Transpose (x)
                positive = Greater (turned, zero)
                at = NonZero (positive)
                shape = Shape (y)
                all = ConstantOfShape (shape)
                ones = NonZero (all)
                real = Equal (ids, none)
                tokens = NonZero (real)
            }}"
        ));
        assert_eq!((deciders.len(), settled.len()), (0, 0), "{deciders:?} {settled:?}");
    }

    #[test]
    fn rows_of_a_table_are_rounded() {
        let (deciders, _) = told(&format!(
            "(int64[n] ids) => (int64[2,m] at) <{W}> {{
                row = Gather (w, ids)
                positive = Greater (row, zero)
                at = NonZero (positive)
            }}"
        ));
        assert_eq!(deciders, ["NonZero positive of row"]);
    }

    #[test]
    fn lengths_that_are_computed_decide() {
        let (deciders, settled) = told(&format!(
            "(float[n,4] x) => (float[k,4] y, int64[k] at) <{W}, int64 none = {{0}}, int64 one = {{1}}, int64[1] four = {{4}}> {{
                durations = MatMul (x, w)
                sum = ReduceSum <keepdims = 0> (durations)
                length = Cast <to = 7> (sum)
                at = Range (none, length, one)
                positions = Cast <to = 1> (at)
                column = Unsqueeze (positions, one)
                y = Mul (column, durations)
            }}"
        ));
        assert_eq!(deciders, ["Range length of sum"]);
        assert_eq!(settled, ["at"]);
    }
}
