//! What lies between values of a model: what the rest of it needs, and what computes one of them.

use std::collections::{BTreeMap, BTreeSet};

use onnxq_ir::{Def, Feed, Model, NodeId, ValueId, extract};
use onnxq_run::calibrate::reads;

/// Which values of a cut the rest of a model reads, or hands on as outputs.
pub(super) fn needed(model: &Model, cut: &[ValueId]) -> Vec<usize> {
    let at: BTreeMap<ValueId, usize> = cut.iter().enumerate().map(|(at, it)| (*it, at)).collect();
    let (known, wanted): (Vec<ValueId>, Vec<ValueId>) =
        model.graph(model.main).outputs.iter().partition(|it| at.contains_key(it));
    let mut list: BTreeSet<usize> = known.iter().map(|it| at[it]).collect();
    if !wanted.is_empty() {
        list.extend(extract(model, cut, &wanted).feeds.iter().filter_map(|it| match it {
            Feed::Value(at) => Some(*at),
            Feed::Input(_) => None,
        }));
    }
    list.into_iter().collect()
}

/// The nodes between a value and the nearest known values before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Region {
    /// In no particular order.
    pub nodes: BTreeSet<NodeId>,
    /// The known values that they read, by what `known` says of them, ascending.
    pub feeds: BTreeSet<usize>,
    pub constants: BTreeSet<ValueId>,
}

/// What computes `value`, a value of the main graph, from the `known` ones.
pub(super) fn region(model: &Model, value: ValueId, known: &BTreeMap<ValueId, usize>) -> Region {
    let mut it = Region::default();
    let mut work: Vec<NodeId> = maker(model, value).into_iter().collect();
    while let Some(node) = work.pop() {
        if !it.nodes.insert(node) {
            continue;
        }
        for read in reads(model, node) {
            if let Some(at) = known.get(&read) {
                it.feeds.insert(*at);
            } else if model.constant(read).is_ok() {
                it.constants.insert(read);
            } else {
                work.extend(maker(model, read));
            }
        }
    }
    it
}

/// The node of the main graph that computes a value.
pub(super) fn maker(model: &Model, value: ValueId) -> Option<NodeId> {
    match model.value(value).def {
        Def::Node(node) if model.node(node).graph == model.main => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::text;

    const REGION: &str = r#"
main (float[n,2] x, float[n,2] z) => (float[n,2] y) <float[2] w = {1, 2}> {
   a = Mul (x, w)
   b = Relu (a)
   c = Add (b, z)
   y = Add (c, a)
}"#;

    fn model() -> Model {
        let mut model = text::parse(REGION).unwrap();
        onnxq_ir::infer::run(&mut model);
        model
    }

    fn value(model: &Model, name: &str) -> ValueId {
        model.values().find(|it| &*it.1.name == name).unwrap().0
    }

    #[test]
    fn what_is_behind_other_values_is_not_needed() {
        let m = model();
        let [a, b, y] = ["a", "b", "y"].map(|it| value(&m, it));
        assert_eq!(needed(&m, &[a]), [0]);
        assert_eq!(needed(&m, &[a, b]), [0, 1]);
        assert_eq!(needed(&m, &[a, b, y]), [2]);
    }

    #[test]
    fn a_region_reaches_back_to_known_values() {
        let m = model();
        let [a, y] = ["a", "y"].map(|it| value(&m, it));
        let it = region(&m, y, &BTreeMap::from([(a, 7)]));
        assert_eq!((it.nodes.len(), it.feeds.len(), it.constants.len()), (3, 1, 0));
        let it = region(&m, a, &BTreeMap::from([(a, 7)]));
        assert_eq!((it.nodes.len(), it.feeds.len(), it.constants.len()), (1, 0, 1));
    }
}
