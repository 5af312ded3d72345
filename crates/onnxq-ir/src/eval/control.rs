//! Control flow: `If` and `Loop`, whose bodies see the values around them.

use super::{
    EvalError, LIMIT,
    call::Call,
    index::elements,
    shape::join,
    table::Outputs,
    values::{bool_tensor, one_bool, one_int},
};
use crate::tensor::Tensor;

/// So that a loop without an end comes to one.
const MAX_TRIPS: i64 = 1 << 16;

pub(super) fn branch(call: &Call) -> Outputs {
    let condition = one_bool(call.input(0)?)?;
    let body = call.graph(if condition { "then_branch" } else { "else_branch" })?;
    call.scope.body(body, Vec::new())
}

/// The body takes the trip number, the condition and the state, and gives a condition, the
/// state and what is to be stacked over all trips.
pub(super) fn repeat(call: &Call) -> Outputs {
    let body = call.graph("body")?;
    let trips = call.optional(0).map_or(Ok(i64::MAX), one_int)?;
    let mut goes_on = call.optional(1).map_or(Ok(true), one_bool)?;
    let mut state: Vec<Tensor> =
        (2..call.inputs.len()).map(|it| call.input(it).cloned()).collect::<Result<_, _>>()?;
    let outputs = call.scope.model.graph(body).outputs.len();
    let stacks = outputs.checked_sub(1 + state.len());
    let mut stacks = vec![Vec::new(); stacks.ok_or_else(|| call.shape_error("body outputs"))?];
    let (mut trip, mut total) = (0, 0);
    while goes_on && trip < trips {
        if trip == MAX_TRIPS || total > LIMIT {
            return Err(EvalError::TooLarge { shape: vec![trip as usize, total] });
        }
        let mut inputs = vec![Tensor::from_i64(&[], [trip]), bool_tensor(&[], [true])];
        inputs.append(&mut state);
        let mut results = call.scope.body(body, inputs)?.into_iter();
        goes_on = results.next().map_or(Ok(true), |it| one_bool(&it))?;
        state = results.by_ref().take(outputs - 1 - stacks.len()).collect();
        for (stack, it) in stacks.iter_mut().zip(results) {
            total += elements(&it.shape)?;
            stack.push(it);
        }
        trip += 1;
    }
    let stacked = stacks.iter().map(|it| stack(call, it)).collect::<Result<Vec<_>, _>>()?;
    state.extend(stacked);
    Ok(state)
}

/// Tensors of one shape along a new first axis.
fn stack(call: &Call, parts: &[Tensor]) -> Result<Tensor, EvalError> {
    if parts.is_empty() {
        return Err(call.unsupported("that stacks the results of no trips"));
    }
    let row = |it: &Tensor| {
        let shape = [&[1], &it.shape[..]].concat();
        elements(&shape).map(|_| it.reshaped(shape))
    };
    let rows = parts.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    join(&rows.iter().collect::<Vec<_>>(), 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{
        eval::{EvalError, run, testing::*},
        ir::{Attr, Attrs, Def, Function, GraphId, Model, Op, ValueId},
        tensor::Tensor,
    };

    fn add(
        model: &mut Model,
        graph: GraphId,
        op: &str,
        inputs: &[ValueId],
        attrs: Attrs,
    ) -> ValueId {
        let output = model.add_value(op, None, Def::Input(graph, None));
        let inputs = inputs.iter().map(|it| Some(*it)).collect();
        model.add_node(graph, None, (Op::new(op), "".into()), inputs, attrs, vec![output]);
        output
    }

    fn with_input(name: &str, value: Tensor) -> BTreeMap<String, Tensor> {
        BTreeMap::from([(name.to_owned(), value)])
    }

    #[test]
    fn branches_see_the_values_around_them() {
        let mut model = Model::empty();
        model.set_opset("", 17);
        let main = model.main;
        let c = model.add_input(main, "c", None);
        let x = model.add_constant(main, "x", f32s(&[1], &[3.0]));
        let double = add(&mut model, main, "Add", &[x, x], Attrs::default());
        let mut attrs = Attrs::default();
        for (name, op) in [("then_branch", "Neg"), ("else_branch", "Identity")] {
            let body = model.add_graph();
            let output = add(&mut model, body, op, &[double], Attrs::default());
            model.add_output(body, output);
            attrs.set(name, Attr::Graph(body));
        }
        let y = add(&mut model, main, "If", &[c], attrs);
        model.add_output(main, y);
        for (condition, expected) in [(1, -6.0), (0, 6.0)] {
            let inputs = with_input("c", raw(crate::tensor::DType::Bool, &[], &[condition]));
            close(&run(&model, &inputs).unwrap()["If"], &[expected]);
        }
        assert!(matches!(run(&model, &BTreeMap::new()), Err(EvalError::Node { .. })));
    }

    #[test]
    fn loops_carry_state_and_stack_results() {
        let mut model = Model::empty();
        model.set_opset("", 17);
        let main = model.main;
        let body = model.add_graph();
        model.add_input(body, "trip", None);
        let go = model.add_input(body, "go", None);
        let sum = model.add_input(body, "sum", None);
        let one = model.add_constant(main, "one", f32s(&[1], &[1.0]));
        let next = add(&mut model, body, "Add", &[sum, one], Attrs::default());
        let go = add(&mut model, body, "Identity", &[go], Attrs::default());
        for it in [go, next, next] {
            model.add_output(body, it);
        }
        let trips = model.add_input(main, "trips", None);
        let go = model.add_constant(main, "go", raw(crate::tensor::DType::Bool, &[], &[1]));
        let outputs = ["last", "all"].map(|it| model.add_value(it, None, Def::Input(main, None)));
        let inputs = [trips, go, one].map(Some).to_vec();
        let mut attrs = Attrs::default();
        attrs.set("body", Attr::Graph(body));
        model.add_node(main, None, (Op::new("Loop"), "".into()), inputs, attrs, outputs.to_vec());
        outputs.iter().for_each(|it| model.add_output(main, *it));
        let results = run(&model, &with_input("trips", i64s(&[], &[3]))).unwrap();
        close(&results["last"], &[4.0]);
        assert_eq!(results["all"].shape, [3, 1]);
        close(&results["all"], &[2.0, 3.0, 4.0]);
        let endless = run(&model, &with_input("trips", i64s(&[], &[i64::MAX])));
        let Err(EvalError::Node { source, .. }) = endless else { panic!("{endless:?}") };
        assert!(matches!(*source, EvalError::TooLarge { .. }));
    }

    #[test]
    fn functions_take_attributes_of_their_call_or_defaults() {
        let mut model = Model::empty();
        model.set_opset("", 17);
        let main = model.main;
        let body = model.add_graph();
        let inner = model.add_input(body, "inner", None);
        let mut attrs = Attrs::default();
        attrs.set("alpha", Attr::Ref { name: "slope".into(), kind: 1 });
        let result = add(&mut model, body, "LeakyRelu", &[inner], attrs);
        model.add_output(body, result);
        model.functions.push(Function {
            op: Op::new("local.Leak"),
            body,
            opsets: vec![("".into(), 17)],
            attributes: vec![],
            defaults: Attrs::default().with("slope", 0.5f32),
            doc: String::new(),
            metadata: vec![],
        });
        let x = model.add_input(main, "x", None);
        let plain = add(&mut model, main, "local.Leak", &[x], Attrs::default());
        let steep = Attrs::default().with("slope", 2.0f32);
        let steep = add(&mut model, main, "local.Leak", &[x], steep);
        let sum = add(&mut model, main, "Sum", &[plain, steep], Attrs::default());
        model.add_output(main, sum);
        let results = run(&model, &with_input("x", f32s(&[1], &[-1.0]))).unwrap();
        close(&results["Sum"], &[-2.5]);
    }
}
