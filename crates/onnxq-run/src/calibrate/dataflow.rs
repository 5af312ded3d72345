//! Which values a model must keep where its execution is cut in two.

use std::collections::{BTreeMap, BTreeSet};

use onnxq_ir::{Def, GraphId, Model, NoMatch, NodeId, User, ValueId, no_match, tensor::DType};
use onnxq_quant::{plan::SitePlan, window::Operand};

/// The main graph as a row of nodes: when each value is made and last read.
pub(super) struct Dataflow {
    made: BTreeMap<ValueId, usize>,
    first_read: BTreeMap<ValueId, usize>,
    last_read: BTreeMap<ValueId, usize>,
    /// Values that a cut stores.
    stored: BTreeSet<ValueId>,
}

impl Dataflow {
    /// `planned` are the inputs of layers whose weights may be replaced.
    pub(super) fn new(model: &Model, planned: &BTreeSet<ValueId>) -> Dataflow {
        let mut dataflow = Dataflow {
            made: BTreeMap::new(),
            first_read: BTreeMap::new(),
            last_read: BTreeMap::new(),
            stored: BTreeSet::new(),
        };
        // Values that depend on a layer whose weight may change; values that depend on the data.
        let mut changing = BTreeSet::new();
        let mut fed: BTreeSet<ValueId> = model.graph(model.main).inputs.iter().copied().collect();
        for (at, node) in model.nodes_of(model.main).enumerate() {
            let reads = reads(model, node);
            for &value in &reads {
                dataflow.first_read.entry(value).or_insert(at);
                dataflow.last_read.insert(value, at);
            }
            let changes = reads.iter().any(|it| planned.contains(it) || changing.contains(it));
            let is_fed = reads.iter().any(|it| fed.contains(it));
            for &value in &model.node(node).outputs {
                dataflow.made.insert(value, at);
                if changes {
                    changing.insert(value);
                }
                if is_fed {
                    fed.insert(value);
                }
                if is_storable(model, value, changes, is_fed) {
                    dataflow.stored.insert(value);
                }
            }
        }
        dataflow
    }

    /// Where the first node that reads `value` stands.
    pub(super) fn first_read(&self, value: ValueId) -> Option<usize> {
        self.first_read.get(&value).copied()
    }

    /// Where the node that makes `value` stands; `None`: an input.
    pub(super) fn made(&self, value: ValueId) -> Option<usize> {
        self.made.get(&value).copied()
    }

    /// What the nodes from `at` on need of what the nodes before computed.
    ///
    /// All else they need is computed again from the model's inputs.
    pub(super) fn live(&self, at: usize) -> Vec<ValueId> {
        let read_later = |it: &ValueId| self.last_read.get(it).is_some_and(|it| *it >= at);
        let made_before = |it: &ValueId| self.made[it] < at;
        self.stored.iter().copied().filter(|it| made_before(it) && read_later(it)).collect()
    }
}

/// Masks and shapes are cheap to make again; floats may have cost a whole encoder.
fn is_storable(model: &Model, value: ValueId, changes: bool, is_fed: bool) -> bool {
    let Some(dtype) = model.dtype(value) else { return false };
    dtype != DType::String && (changes || is_fed && dtype.is_float())
}

/// The values of the main graph that a node reads, those that its bodies capture included.
pub fn reads(model: &Model, node: NodeId) -> BTreeSet<ValueId> {
    let mut list: BTreeSet<ValueId> = model.node(node).inputs.iter().flatten().copied().collect();
    let mut graphs: Vec<GraphId> = model.node(node).attrs.graphs().collect();
    while let Some(graph) = graphs.pop() {
        list.extend(model.graph(graph).outputs.iter().copied());
        for inner in model.nodes_of(graph) {
            list.extend(model.node(inner).inputs.iter().flatten().copied());
            graphs.extend(model.node(inner).attrs.graphs());
        }
    }
    list
}

/// Whether the rows of an operand can be observed while the model runs.
pub fn can_observe(model: &Model, operand: &Operand) -> Result<(), NoMatch> {
    let value = operand.value;
    can_tap(model, value)?;
    if model.rank(value).is_some_and(|it| it < 2) {
        return Err(no_match!("`{}` has no rows", model.value(value).name));
    }
    width(model, operand).map(drop)
}

/// What the weight of a site is multiplied with, if its rows can be observed; `None`: nothing.
pub fn observable(model: &Model, site: &SitePlan) -> Result<Option<Operand>, NoMatch> {
    let Some(operand) = site.operand(model)? else { return Ok(None) };
    can_observe(model, &operand)?;
    Ok(Some(operand))
}

/// Whether a value, of whatever rank, can be tapped while the model runs.
pub fn can_tap(model: &Model, value: ValueId) -> Result<(), NoMatch> {
    let it = model.value(value);
    let outside = || no_match!("`{}` lies inside a subgraph, which cannot be observed", it.name);
    match &it.def {
        Def::Node(node) if model.node(*node).graph != model.main => return Err(outside()),
        Def::Input(graph, _) if *graph != model.main => return Err(outside()),
        Def::Const(_) | Def::Sparse(_) => {
            return Err(no_match!("`{}` is a constant, not data", it.name));
        }
        _ => {}
    }
    let dtype = model.dtype(value);
    if !dtype.is_some_and(|it| matches!(it, DType::F32 | DType::F16 | DType::BF16)) {
        return Err(no_match!("`{}` is not known to be float", it.name));
    }
    Ok(())
}

/// The length of a row: that of a patch, or the last axis, or what the first MatMul that reads it
/// takes.
pub fn width(model: &Model, operand: &Operand) -> Result<usize, NoMatch> {
    if let Some(patches) = &operand.patches {
        return Ok(patches.width());
    }
    let value = operand.value;
    let stated = model.shape(value).ok().and_then(|it| it.last()?.fixed());
    let taken = || model.value(value).uses.iter().find_map(|it| weight_rows(model, it.user));
    let unknown = || no_match!("the width of `{}` is not known", model.value(value).name);
    stated.or_else(taken).ok_or_else(unknown)
}

fn weight_rows(model: &Model, user: User) -> Option<usize> {
    let User::Node(node) = user else { return None };
    if !model.node(node).op.is("MatMul") {
        return None;
    }
    let shape = &model.constant(model.operand(node, 1).ok()?).ok()?.shape;
    shape.len().checked_sub(2).map(|it| shape[it])
}
