//! A model without some of its layers: the residual stream goes past them.

use std::collections::BTreeSet;

use super::{Layer, PruneError, layers, owned::paired};
use onnxq_ir::{Model, Name, Use, User, ValueId};

/// What was removed with the layers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// In ascending order, by their numbers in the whole model.
    pub layers: Vec<usize>,
    /// Of the model: the pasts of those layers.
    pub inputs: Vec<Name>,
    /// Of the model: the caches of those layers.
    pub outputs: Vec<Name>,
    /// Inputs and outputs of later layers, whose numbers are dense again: what each was called, and
    /// what it is called now.
    pub renamed: Vec<(Name, Name)>,
}

/// Removes layers, which are numbered from 0, or leaves the model as it is.
///
/// Other inputs, outputs, names and dynamic axes stay. A cache loses the inputs and outputs of those
/// layers, and those of later layers take the names in their order.
///
/// # Errors
/// E412 if the layers are not recognised, all are to go, or something else needs one.
pub fn remove_layers(model: &mut Model, which: &[usize]) -> Result<Removed, PruneError> {
    let which: BTreeSet<usize> = which.iter().copied().collect();
    if which.is_empty() {
        return Ok(Removed::default());
    }
    let all = layers(model)?;
    let count = all.len();
    if let Some(&layer) = which.last().filter(|it| **it >= count) {
        return Err(PruneError::NoLayer { layer, count });
    }
    if which.len() == count {
        return Err(PruneError::All { count });
    }
    let mut m = model.clone();
    let removed = without(&mut m, &all, &which)?;
    *model = m;
    Ok(removed)
}

/// The model without the outputs that belong to one layer each: what its caches become.
pub fn without_caches(model: &Model, layers: &[Layer]) -> Model {
    let mut m = model.clone();
    let caches: Vec<ValueId> = layers.iter().flat_map(|it| it.outputs.iter().copied()).collect();
    drop_outputs(&mut m, &caches);
    m.remove_all_dead();
    m
}

fn without(m: &mut Model, all: &[Layer], which: &BTreeSet<usize>) -> Result<Removed, PruneError> {
    for &at in which {
        let is_last = at + 1 == all.len();
        if m.is_output(all[at].output) && !is_last {
            let name = m.value(all[at].output).name.clone();
            let reason = format!("what comes out of it is the output `{name}` of the model");
            return Err(PruneError::Needed { layer: at, reason });
        }
    }
    let names = names_by_layer(m, all);
    let owned = |list: fn(&Layer) -> &Vec<ValueId>| -> Vec<ValueId> {
        which.iter().flat_map(|at| list(&all[*at]).iter().copied()).collect()
    };
    let (inputs, outputs) = (owned(|it| &it.inputs), owned(|it| &it.outputs));
    drop_outputs(m, &outputs);
    for &at in which.iter().rev() {
        m.replace_all_uses(all[at].output, all[at].input);
    }
    ask_other_caches(m, all, which);
    m.remove_all_dead();
    gone(m, all, which)?;
    drop_inputs(m, &inputs);
    let kept: Vec<usize> = (0..all.len()).filter(|it| !which.contains(it)).collect();
    let called = |list: Vec<ValueId>| list.iter().map(|it| m.value(*it).name.clone()).collect();
    let (inputs, outputs) = (called(inputs), called(outputs));
    let renamed = renumber(m, &names, &kept);
    Ok(Removed { layers: which.iter().copied().collect(), inputs, outputs, renamed })
}

fn drop_outputs(m: &mut Model, gone: &[ValueId]) {
    let main = m.main;
    let old = std::mem::take(&mut m.graph_mut(main).outputs);
    for it in &old {
        m.value_mut(*it).uses.retain(|it| it.user != User::Output(main));
    }
    for it in old.into_iter().filter(|it| !gone.contains(it)) {
        m.add_output(main, it);
    }
}

fn drop_inputs(m: &mut Model, gone: &[ValueId]) {
    let main = m.main;
    let mut inputs = std::mem::take(&mut m.graph_mut(main).inputs);
    inputs.retain(|it| !gone.contains(it));
    m.graph_mut(main).inputs = inputs;
}

/// Exporters ask the past of one layer how long it is, for all of them: another one knows, too.
fn ask_other_caches(m: &mut Model, all: &[Layer], which: &BTreeSet<usize>) {
    let Some(stays) = (0..all.len()).find(|it| !which.contains(it)) else { return };
    for &at in which {
        let Some(pairs) = paired(m, &all[at].inputs, &all[stays].inputs) else { continue };
        for (gone, other) in pairs {
            if m.value(gone).ty != m.value(other).ty {
                continue;
            }
            for Use { user, index } in m.value(gone).uses.clone() {
                if let User::Node(node) = user
                    && m.node(node).op.is("Shape")
                {
                    m.set_input(node, index, Some(other));
                }
            }
        }
    }
}

/// Nothing of the layers is left.
fn gone(m: &Model, all: &[Layer], which: &BTreeSet<usize>) -> Result<(), PruneError> {
    for &layer in which {
        let needed = |reason: String| Err(PruneError::Needed { layer, reason });
        if let Some(node) = all[layer].nodes.iter().find(|it| m.is_live(**it)) {
            return needed(format!("`{}` is needed outside of it", m.node_label(*node)));
        }
        if let Some(input) = all[layer].inputs.iter().find(|it| !m.value(**it).uses.is_empty()) {
            return needed(format!("its input `{}` is needed outside of it", m.value(*input).name));
        }
    }
    Ok(())
}

/// Of each layer: its inputs and outputs in the order of the first layer's, and their names. `None`
/// where names do not tell them from each other, so that there are no numbers to mend.
struct Named(Option<Vec<Vec<(ValueId, Name)>>>);

fn names_by_layer(m: &Model, all: &[Layer]) -> Named {
    let of = |it: &Layer| {
        let inputs = paired(m, &all[0].inputs, &it.inputs)?;
        let outputs = paired(m, &all[0].outputs, &it.outputs)?;
        let values = inputs.into_iter().chain(outputs).map(|it| it.1);
        Some(values.map(|it| (it, m.value(it).name.clone())).collect())
    };
    Named(all.iter().map(of).collect())
}

/// Layers that stay take the names of the first layers.
fn renumber(m: &mut Model, names: &Named, kept: &[usize]) -> Vec<(Name, Name)> {
    let Some(names) = &names.0 else { return Vec::new() };
    let mut renamed = Vec::new();
    for (new, old) in kept.iter().enumerate() {
        for ((value, was), (_, is)) in names[*old].iter().zip(&names[new]) {
            if was != is {
                m.value_mut(*value).name = is.clone();
                renamed.push((was.clone(), is.clone()));
            }
        }
    }
    renamed
}
