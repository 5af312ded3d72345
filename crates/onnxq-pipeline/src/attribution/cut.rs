//! Parts of a model as models: from some of its values, which become inputs, to others.

use std::collections::{BTreeMap, BTreeSet};

use onnxq_ir::{Def, Model, NodeId, ValueId, tensor::Dim};
use onnxq_run::calibrate::{reads, without_ends};

/// What feeds an input of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The input of the whole model of that name.
    Data(String),
    /// Value `.0` of the cut.
    Cut(usize),
}

pub struct Piece {
    pub model: Model,
    /// For each input of `model`.
    pub feeds: Vec<Feed>,
}

/// The part of `whole` that computes `wanted` if the values `cut` are given. A value may be in
/// both: then it is computed anew from what is before it.
pub fn piece(whole: &Model, cut: &[ValueId], wanted: &[ValueId]) -> Piece {
    let mut model = without_ends(whole);
    let main = model.main;
    let begins: Vec<ValueId> = cut.iter().map(|it| begin(&mut model, *it)).collect();
    wanted.iter().for_each(|it| model.add_output(main, *it));
    model.remove_all_dead();
    let mut feeds = Vec::new();
    let mut inputs = std::mem::take(&mut model.graph_mut(main).inputs);
    inputs.retain(|it| !model.value(*it).uses.is_empty());
    for value in &inputs {
        match (begins.iter().position(|it| it == value), &model.value(*value).def) {
            (Some(at), _) => feeds.push(Feed::Cut(at)),
            (None, Def::Input(_, None)) => {
                feeds.push(Feed::Data(model.value(*value).name.to_string()));
            }
            // Whoever omits it gets its default.
            (None, _) => {}
        }
    }
    model.graph_mut(main).inputs = inputs;
    Piece { model, feeds }
}

/// Which values of a cut the rest of a model reads, or hands on as outputs.
pub fn needed(model: &Model, cut: &[ValueId]) -> Vec<usize> {
    let at: BTreeMap<ValueId, usize> = cut.iter().enumerate().map(|(at, it)| (*it, at)).collect();
    let (known, wanted): (Vec<ValueId>, Vec<ValueId>) =
        model.graph(model.main).outputs.iter().partition(|it| at.contains_key(it));
    let mut list: BTreeSet<usize> = known.iter().map(|it| at[it]).collect();
    if !wanted.is_empty() {
        list.extend(piece(model, cut, &wanted).feeds.iter().filter_map(|it| match it {
            Feed::Cut(at) => Some(*at),
            Feed::Data(_) => None,
        }));
    }
    list.into_iter().collect()
}

/// Makes a computed value an input. Names of dimensions may differ between the models, sizes not.
fn begin(model: &mut Model, value: ValueId) -> ValueId {
    let mut ty = model.value(value).ty.clone();
    for dim in ty.iter_mut().filter_map(|it| it.shape.as_mut()).flatten() {
        if dim.fixed().is_none() {
            *dim = Dim::Unknown;
        }
    }
    let main = model.main;
    let input = model.add_input(main, "cut", ty);
    model.replace_all_uses(value, input);
    input
}

/// The nodes between a value and the nearest known values before it.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// In no particular order.
    pub nodes: BTreeSet<NodeId>,
    /// The known values that they read, by what `known` says of them, ascending.
    pub feeds: BTreeSet<usize>,
    pub constants: BTreeSet<ValueId>,
}

/// What computes `value`, a value of the main graph, from the `known` ones.
pub fn region(model: &Model, value: ValueId, known: &BTreeMap<ValueId, usize>) -> Region {
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
pub fn maker(model: &Model, value: ValueId) -> Option<NodeId> {
    match model.value(value).def {
        Def::Node(node) if model.node(node).graph == model.main => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::text;

    const CHAIN: &str = r#"
main (float[n,2] x, float[n,2] z) => (float[n,2] y) <float[2] w = {1, 2}> {
   a = Mul (x, w)
   b = Relu (a)
   c = Add (b, z)
   y = Add (c, a)
}"#;

    fn model() -> Model {
        let mut model = text::parse(CHAIN).unwrap();
        onnxq_ir::infer::run(&mut model);
        model
    }

    fn value(model: &Model, name: &str) -> ValueId {
        model.values().find(|it| &*it.1.name == name).unwrap().0
    }

    fn ops(model: &Model) -> Vec<String> {
        model.nodes_of(model.main).map(|it| model.node(it).op.to_string()).collect()
    }

    #[test]
    fn what_is_not_needed_is_gone_and_inputs_say_where_they_come_from() {
        let m = model();
        let [a, b, y] = ["a", "b", "y"].map(|it| value(&m, it));
        let rest = piece(&m, &[a, b], &[y]);
        assert_eq!(ops(&rest.model), ["Add", "Add"]);
        assert_eq!(rest.feeds, [Feed::Data("z".into()), Feed::Cut(0), Feed::Cut(1)]);
        rest.model.verify().unwrap();
        let first = piece(&m, &[], &[b]);
        assert_eq!((ops(&first.model).len(), &*first.feeds), (2, &[Feed::Data("x".into())][..]));
    }

    #[test]
    fn a_value_that_is_given_and_wanted_is_computed_anew() {
        let m = model();
        let [a, b] = ["a", "b"].map(|it| value(&m, it));
        let both = piece(&m, &[a, b], &[a, b]);
        assert_eq!(ops(&both.model), ["Mul", "Relu"]);
        assert_eq!(both.feeds, [Feed::Data("x".into()), Feed::Cut(0)]);
        both.model.verify().unwrap();
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
