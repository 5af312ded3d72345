//! `Einsum`: sums of products, as an equation of labels says.

use std::collections::BTreeMap;

use super::{
    EvalError,
    call::Call,
    index::{self, Walk, elements, same_dtype},
    table::Outputs,
    values::{real_tensor, reals},
};

pub(super) fn einsum(call: &Call) -> Outputs {
    let equation: String = call.text("equation", "")?.split_whitespace().collect();
    let inputs = call.inputs_from(0)?;
    let dtype = same_dtype(&inputs)?;
    let (left, right) = sides(&equation).map_err(|what| call.unsupported(what))?;
    let sizes = label_sizes(call, &left)?;
    let kept: Vec<char> = right.chars().collect();
    let known = |it: &char| sizes.contains_key(it);
    if !kept.iter().all(known) || (1..kept.len()).any(|it| kept[..it].contains(&kept[it])) {
        return Err(call.shape_error("the equation's right side does not follow"));
    }
    let summed: Vec<char> = sizes.keys().copied().filter(|it| !kept.contains(it)).collect();
    let labels = [kept.clone(), summed].concat();
    let dims: Vec<usize> = labels.iter().map(|it| sizes[it]).collect();
    let total = elements(&dims)?;
    // Every operand is walked over all labels; those it lacks do not move it.
    let mut products = vec![1.0; total];
    for (input, term) in inputs.iter().zip(&left) {
        let strides = index::strides(&input.shape);
        let step = |label: &char| {
            let own = term.chars().zip(&strides).filter(|(it, _)| it == label);
            own.map(|(_, stride)| *stride).sum()
        };
        let values = reals(input)?;
        let walk = Walk::new(&dims, labels.iter().map(step).collect(), 0);
        products.iter_mut().zip(walk).for_each(|(product, at)| *product *= values[at]);
    }
    let shape = &dims[..kept.len()];
    let count = dims[kept.len()..].iter().product::<usize>();
    let sums = (0..elements(shape)?).map(|it| products[it * count..(it + 1) * count].iter().sum());
    Ok(vec![real_tensor(dtype, shape, sums)?])
}

/// The terms and the result of an equation; without an arrow the result has the labels that
/// occur once, in alphabetical order.
fn sides(equation: &str) -> Result<(Vec<&str>, String), &'static str> {
    if equation.contains('.') {
        return Err("with an ellipsis");
    }
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right.to_owned())),
        None => (equation, None),
    };
    let once = || {
        let mut letters: Vec<char> = left.chars().filter(|it| *it != ',').collect();
        letters.sort_unstable();
        let once = |it: &&char| letters.iter().filter(|other| other == it).count() == 1;
        letters.iter().filter(once).collect()
    };
    Ok((left.split(',').collect(), right.unwrap_or_else(once)))
}

fn label_sizes(call: &Call, terms: &[&str]) -> Result<BTreeMap<char, usize>, EvalError> {
    let mut sizes = BTreeMap::new();
    if terms.len() != call.inputs.len() {
        return Err(call.shape_error("the equation has another number of terms"));
    }
    for (i, term) in terms.iter().enumerate() {
        let shape = &call.input(i)?.shape;
        if term.chars().count() != shape.len() {
            return Err(call.shape_error("a term of the equation differs in rank"));
        }
        for (label, &size) in term.chars().zip(shape) {
            if *sizes.entry(label).or_insert(size) != size {
                return Err(call.shape_error("a label of the equation has two sizes"));
            }
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn labels_are_kept_or_summed() {
        let x = f32s(&[2, 2], &[1., 2., 3., 4.]);
        for (equation, inputs, expected) in [
            ("ij,jk->ik", vec![&x, &x], vec![7., 10., 15., 22.]),
            ("ij->ji", vec![&x], vec![1., 3., 2., 4.]),
            ("ii", vec![&x], vec![5.]),
            ("ij, ij -> i", vec![&x, &x], vec![5., 25.]),
        ] {
            let attrs = Attrs::default().with("equation", equation);
            close(&eval("Einsum", &inputs, attrs).unwrap(), &expected);
        }
        let attrs = Attrs::default().with("equation", "ij,jk->il");
        assert!(eval("Einsum", &[&x, &x], attrs).is_err());
    }
}
