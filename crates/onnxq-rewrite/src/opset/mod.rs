//! Raises the standard operator set of a model, one version after the other.
//!
//! Three tables: what changed (the versions in [`ops`]), which changes mean nothing for a valid
//! node, and the rules for all others. A change that neither table knows refuses the node by name, and
//! so does a rule that cannot say the same in the new version; then nothing is converted.

mod before_7;
mod edit;
mod error;
mod inputs;
mod meaning;
mod runtime;
mod scan;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    edit::{Change, Edit, Rule},
    table::{FOR_RUNTIME, RULES, SAME},
};
pub use self::{
    error::{OpsetError, Refusal},
    runtime::NEWEST_THAT_RUNS,
};
use crate::{nodes_in_main, passes::inline_all_versions, trace};
pub use onnxq_ir::ops::NEWEST;
use onnxq_ir::{
    Model, NoMatch, NodeId, Op,
    ctx::Ctx,
    diag::{Code, Warning},
    infer, no_match,
    ops::{self, Traits},
};

/// The oldest operator set all of whose operators have rules. An operator of an older one is
/// converted if this one did not change it or has a rule.
pub const OLDEST: i64 = 6;

/// What was converted.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Converted {
    pub from: i64,
    pub to: i64,
    /// Nodes that had to be rewritten, by operator. All others mean the same in both.
    pub changed: BTreeMap<String, usize>,
    /// Calls of model-local functions that became nodes.
    pub inlined: usize,
    /// Operators that ONNX Runtime runs by parts from the new version on, with their nodes.
    pub expanded: BTreeMap<String, usize>,
}

/// Converts the standard operators of a model, subgraphs included, to version `target`.
///
/// Functions are inlined, whatever version their bodies have. Operators of other domains stay.
/// Names of graph inputs and outputs stay, and of nodes. On an error the model is as it was.
pub fn convert(model: &mut Model, target: i64, ctx: &Ctx) -> Result<Converted, OpsetError> {
    let from = model.opset("");
    if from == 0 && model.functions.is_empty() {
        // No standard operators, nothing to raise.
        return Ok(Converted::default());
    }
    check_versions(model, from, target)?;
    let mut work = model.clone();
    let mut run = Run::new(&mut work, from, target, ctx);
    let inlined = run.inline()?;
    // What rules must know of types, as it was before anything changed.
    infer::run(run.m);
    let first = run.versions.iter().copied().filter(|it| *it > 0).min().unwrap_or(from.max(0));
    for version in first + 1..=target {
        run.step(version);
    }
    run.check_functions();
    run.finish()?;
    let changed = run.changed;
    work.set_opset("", target);
    work.ir_version = work.ir_version.max(ir_version(target));
    *model = work;
    let expanded = runtime::expanded(model, from, target);
    Ok(Converted { from, to: target, changed, inlined, expanded })
}

/// Tells the user that a model keeps its operator set, and what it goes without.
pub(crate) fn tell_kept(ctx: &Ctx, before: i64, without: &str, reason: &OpsetError) {
    let why = match reason {
        OpsetError::Refused { count, first, .. } => {
            let more = if *count > 1 { format!(", and {} more", count - 1) } else { String::new() };
            format!("{first}{more}")
        }
        other => other.to_string(),
    };
    let text = format!("the model keeps opset {before}, so {without}: {why}");
    ctx.progress.warn(&Warning::new(Code::W406, text));
}

fn check_versions(model: &Model, from: i64, target: i64) -> Result<(), OpsetError> {
    match () {
        () if target < from => Err(OpsetError::Down { from, target }),
        () if target > NEWEST => Err(OpsetError::TooNew { target }),
        () if !model.kept.training_info.is_empty() && target > from => Err(OpsetError::Training),
        () => Ok(()),
    }
}

/// The oldest version of the file format that allows an operator set.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}

struct Run<'a, 'c> {
    m: &'a mut Model,
    from: i64,
    target: i64,
    ctx: &'a Ctx<'c>,
    /// The version that each node means, by [`NodeId::index`]: functions bring their own.
    versions: Vec<i64>,
    changed: BTreeMap<String, usize>,
    counted: BTreeSet<NodeId>,
    /// How many nodes there were before any rule made one.
    originals: usize,
    refusals: Vec<(String, String, NoMatch)>,
    refused: BTreeSet<NodeId>,
}

impl<'a, 'c> Run<'a, 'c> {
    fn new(m: &'a mut Model, from: i64, target: i64, ctx: &'a Ctx<'c>) -> Run<'a, 'c> {
        Run {
            m,
            from,
            target,
            ctx,
            versions: Vec::new(),
            changed: BTreeMap::new(),
            counted: BTreeSet::new(),
            originals: 0,
            refusals: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Brings all nodes into the main graph and notes the version of each.
    fn inline(&mut self) -> Result<usize, OpsetError> {
        let mut versions: BTreeMap<NodeId, i64> = BTreeMap::new();
        let ctx = Ctx { max_rewrites: usize::MAX, ..*self.ctx };
        let inlined = inline_all_versions(self.m, &ctx, &mut |nodes, version| {
            versions.extend(nodes.iter().map(|it| (*it, version)));
        })?;
        for function in std::mem::take(&mut self.m.functions) {
            let name = function.op.to_string();
            let reason = no_match!("its calls and its body do not fit, so it was not inlined");
            self.refusals.push((name.clone(), name, reason));
            self.m.functions.push(function);
        }
        for node in nodes_in_main(self.m) {
            let version = versions.get(&node).copied().unwrap_or(self.from);
            self.set_version(node, version);
        }
        self.originals = self.versions.len();
        Ok(inlined)
    }

    fn set_version(&mut self, node: NodeId, version: i64) {
        let size = self.versions.len().max(node.index() + 1);
        self.versions.resize(size, 0);
        self.versions[node.index()] = version;
    }

    fn version(&self, node: NodeId) -> i64 {
        self.versions.get(node.index()).copied().unwrap_or(0)
    }

    /// From `version - 1` to `version`.
    fn step(&mut self, version: i64) {
        for node in nodes_in_main(self.m) {
            // A rule may have removed it with what it replaced.
            if !self.m.is_live(node) || self.version(node) >= version {
                continue;
            }
            if !self.refused.contains(&node)
                && is_standard(&self.m.node(node).op)
                && let Err(reason) = self.convert(node, version)
            {
                self.refuse(node, reason);
            }
            if self.m.is_live(node) {
                self.set_version(node, version);
            }
        }
        for node in nodes_in_main(self.m) {
            if self.version(node) == 0 {
                self.set_version(node, version);
            }
        }
    }

    fn convert(&mut self, node: NodeId, version: i64) -> Result<(), NoMatch> {
        let op = self.m.node(node).op.clone();
        let versions = match ops::find("", &op.name) {
            Some(it) if it.has(Traits::RUNTIME) => return Ok(()),
            Some(it) => it.versions,
            None => return Err(no_match!("it is no operator of opset {NEWEST} or before")),
        };
        if versions[0] >= version && !is_early(&op.name) {
            let (first, has) = (versions[0], self.version(node));
            return Err(no_match!("opset {has} has no such operator, it came with {first}"));
        }
        let is_changed = versions[1..].contains(&version) && !is_same(&op.name, version);
        if !is_changed && rule(FOR_RUNTIME, &op, version).is_none() {
            return Ok(());
        }
        let label = self.m.node_label(node);
        if self.change(node, &op, version)? {
            let line = format!("{op} {version}: converted");
            trace(self.ctx, "opset", &label, &line);
            self.count(node, &op);
        }
        Ok(())
    }

    /// A node counts once, under its first name, and what rules made does not.
    fn count(&mut self, node: NodeId, op: &Op) {
        if node.index() < self.originals && self.counted.insert(node) {
            *self.changed.entry(op.to_string()).or_default() += 1;
        }
    }

    /// Whether the node had to change.
    fn change(&mut self, node: NodeId, op: &Op, version: i64) -> Result<bool, NoMatch> {
        let found = rule(RULES, op, version).or_else(|| rule(FOR_RUNTIME, op, version));
        let found = found.ok_or_else(|| match version {
            ..=OLDEST => no_match!("it changed in opset {version}, before {}", OLDEST + 1),
            _ => no_match!("no rule knows what changed in opset {version}"),
        })?;
        match found.change {
            Change::Edit(edit) => {
                let edit = edit(self.m, node, self.target)?;
                Ok(apply(self.m, node, edit))
            }
            Change::Surgery(run) => run(self.m, node).map(|()| true),
        }
    }

    fn refuse(&mut self, node: NodeId, reason: NoMatch) {
        let op = self.m.node(node).op.to_string();
        trace(self.ctx, "opset", &self.m.node_label(node), &reason.0);
        self.refusals.push((self.m.node_label(node), op, reason));
        self.refused.insert(node);
    }

    /// Nodes of functions that cannot be lowered to the target.
    fn check_functions(&mut self) {
        let target = self.target;
        for node in nodes_in_main(self.m) {
            let version = self.version(node);
            if version > target && is_standard(&self.m.node(node).op) {
                self.refuse(node, no_match!("its function has opset {version}, above {target}"));
            }
        }
    }

    fn finish(&mut self) -> Result<(), OpsetError> {
        match Refusal::chain(std::mem::take(&mut self.refusals)) {
            None => Ok(()),
            Some((count, first)) => Err(OpsetError::Refused { to: self.target, count, first }),
        }
    }
}

fn apply(m: &mut Model, node: NodeId, edit: Edit) -> bool {
    if !edit.changes {
        return false;
    }
    if let Some(op) = edit.op {
        m.node_mut(node).op = Op::new(op);
    }
    if let Some(attrs) = edit.attrs {
        m.node_mut(node).attrs = attrs;
    }
    edit.patch.apply(m);
    true
}

fn rule(list: &'static [Rule], op: &Op, version: i64) -> Option<&'static Rule> {
    list.iter().find(|it| *it.op == *op.name && it.version == version)
}

fn is_standard(op: &Op) -> bool {
    matches!(&*op.domain, "" | "ai.onnx")
}

/// Operators that ONNX Runtime had in the standard domain before the standard had them.
fn is_early(name: &str) -> bool {
    name == "LayerNormalization"
}

fn is_same(op: &str, version: i64) -> bool {
    let row = SAME.binary_search_by_key(&op, |it| it.0);
    row.is_ok_and(|it| SAME[it].1.contains(&version))
}
