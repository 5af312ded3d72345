//! Extracts a part of a model as a model: from some of its values, which become inputs, to others.

use super::{Def, Model, Name, User, ValueId};
use crate::tensor::Dim;

/// What an input of an extracted model is in the whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The input of that name.
    Input(Name),
    /// Value `.0` of those that the part was extracted from.
    Value(usize),
}

/// A part of a model, and what it takes.
pub struct Extracted {
    /// Its ids are those of the whole model.
    pub model: Model,
    /// For each input of `model` without a default.
    pub feeds: Vec<Feed>,
}

/// The part of `whole` that computes the values `to` if the values `from` are given, like ONNX's
/// `extract_model`. All of them are of the main graph.
///
/// A value may be in both: then it is computed anew from what is before it. Inputs that nothing
/// reads are left out.
pub fn extract(whole: &Model, from: &[ValueId], to: &[ValueId]) -> Extracted {
    let mut model = without_outputs(whole);
    let main = model.main;
    let begins: Vec<ValueId> = from.iter().map(|it| begin(&mut model, *it)).collect();
    to.iter().for_each(|it| model.add_output(main, *it));
    model.remove_all_dead();
    let mut inputs = std::mem::take(&mut model.graph_mut(main).inputs);
    inputs.retain(|it| !model.value(*it).uses.is_empty());
    let feed = |value: &ValueId| match begins.iter().position(|it| it == value) {
        Some(at) => Some(Feed::Value(at)),
        None => given(&model, *value).map(Feed::Input),
    };
    let feeds = inputs.iter().filter_map(feed).collect();
    model.graph_mut(main).inputs = inputs;
    Extracted { model, feeds }
}

/// The model without outputs: all of it is dead until some are added.
fn without_outputs(whole: &Model) -> Model {
    let mut model = whole.clone();
    let main = model.main;
    for value in std::mem::take(&mut model.graph_mut(main).outputs) {
        model.value_mut(value).uses.retain(|it| it.user != User::Output(main));
    }
    let annotations = std::mem::take(&mut model.graph_mut(main).annotations);
    for (_, value) in annotations.into_iter().flat_map(|it| it.params) {
        model.value_mut(value).uses.retain(|it| it.user != User::Annotation(main));
    }
    model
}

/// Makes a computed value an input. What is fed may come from another model, whose names of
/// dimensions may differ; sizes may not.
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

/// The name of an input that must be given: whoever omits one with a default gets that.
fn given(model: &Model, value: ValueId) -> Option<Name> {
    let it = model.value(value);
    matches!(it.def, Def::Input(_, None)).then(|| it.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    fn parse(text: &str) -> Model {
        let mut model = text::parse(text).unwrap();
        crate::infer::run(&mut model);
        model
    }

    fn chain() -> Model {
        parse(
            r#"
main (float[n,2] x, float[n,2] z) => (float[n,2] y) <float[2] w = {1, 2}> {
   a = Mul (x, w)
   b = Relu (a)
   c = Add (b, z)
   y = Add (c, a)
}"#,
        )
    }

    fn values<const N: usize>(model: &Model, names: [&str; N]) -> [ValueId; N] {
        names.map(|name| model.values().find(|it| &*it.1.name == name).unwrap().0)
    }

    fn ops(model: &Model) -> Vec<String> {
        model.nodes_of(model.main).map(|it| model.node(it).op.to_string()).collect()
    }

    fn input(name: &str) -> Feed {
        Feed::Input(name.into())
    }

    #[test]
    fn what_is_not_needed_is_gone_and_inputs_say_where_they_come_from() {
        let m = chain();
        let [a, b, y] = values(&m, ["a", "b", "y"]);
        let rest = extract(&m, &[a, b], &[y]);
        assert_eq!(ops(&rest.model), ["Add", "Add"]);
        assert_eq!(rest.feeds, [input("z"), Feed::Value(0), Feed::Value(1)]);
        rest.model.verify().unwrap();
        let first = extract(&m, &[], &[b]);
        assert_eq!((ops(&first.model).len(), first.feeds), (2, vec![input("x")]));
        first.model.verify().unwrap();
    }

    #[test]
    fn a_value_that_is_given_and_wanted_is_computed_anew() {
        let m = chain();
        let [a, b] = values(&m, ["a", "b"]);
        let both = extract(&m, &[a, b], &[a, b]);
        assert_eq!(ops(&both.model), ["Mul", "Relu"]);
        assert_eq!(both.feeds, [input("x"), Feed::Value(0)]);
        both.model.verify().unwrap();
    }

    #[test]
    fn given_values_keep_sizes_and_forget_names_of_dimensions() {
        let m = chain();
        let [a, y] = values(&m, ["a", "y"]);
        let rest = extract(&m, &[a], &[y]);
        let begin = *rest.model.graph(rest.model.main).inputs.last().unwrap();
        assert_eq!(**rest.model.shape(begin).unwrap(), [Dim::Unknown, Dim::Fixed(2)]);
    }

    #[test]
    fn captured_values_become_inputs_too() {
        let m = parse(
            r#"
main (float[2] x, bool[] p) => (float[2] y) {
   a = Neg (x)
   y = If (p) <then_branch = yes () => (float[2] u) { u = Neg (a) },
               else_branch = no () => (float[2] v) { v = Abs (a) }>
}"#,
        );
        let [a, y] = values(&m, ["a", "y"]);
        let rest = extract(&m, &[a], &[y]);
        assert_eq!(
            (ops(&rest.model), rest.feeds),
            (vec!["If".into()], vec![input("p"), Feed::Value(0)])
        );
        rest.model.verify().unwrap();
    }
}
