//! Rewriting a model: rules at single nodes and passes over the whole, run by their names.

pub mod cache;
mod fixpoint;
pub mod half;
#[cfg(test)]
mod laws;
pub mod lint;
pub mod opset;
mod passes;
pub mod prune;
mod rules;
#[cfg(test)]
mod testing;

use std::{collections::BTreeMap, sync::PoisonError};

pub use self::{fixpoint::fixpoint, passes::PASSES, rules::RULES};
use onnxq_ir::{
    Model, Name, NoMatch, NodeId, Patch,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    suggest::suggest,
    untrusted::{Untrusted, escape},
};

/// A local rewrite, tried at every node whose operator is `root`.
///
/// It reads the model and returns edits, never to a worse graph.
pub struct Rule {
    /// What the user types, and the name of the file.
    pub name: &'static str,
    /// One line for a list of rules.
    pub help: &'static str,
    /// An operator by its printed name.
    pub root: &'static str,
    pub apply: fn(&Model, NodeId) -> Result<Patch, NoMatch>,
}

/// A rewrite of the whole model.
pub struct Pass {
    /// What the user types, and the name of the file.
    pub name: &'static str,
    /// One line for a list of passes.
    pub help: &'static str,
    /// Its changes are rewrites, which [`Ctx::max_rewrites`] limits.
    pub limited: bool,
    /// Returns how much changed.
    pub run: fn(&mut Model, &Ctx) -> Result<usize, PassError>,
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub enum Step {
    Rule(&'static Rule),
    Pass(&'static Pass),
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PassError {
    #[error("no rule or pass is called `{}`", Untrusted(name))]
    Unknown { name: String, similar: Option<&'static str> },
    #[error("the function `{}` calls itself", Untrusted(function))]
    Cycle { function: String },
    #[error("inlining makes more than {limit} nodes")]
    TooManyNodes { limit: usize },
}

impl Diagnostic for PassError {
    fn code(&self) -> Code {
        match self {
            PassError::Unknown { .. } => Code::E703,
            PassError::Cycle { .. } => Code::E105,
            PassError::TooManyNodes { .. } => Code::E106,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PassError::Unknown { similar: Some(it), .. } => Some(format!("did you mean `{it}`?")),
            _ => None,
        }
    }
}

/// What merges equal parts and drops what nothing needs, once other rewrites have added nodes; and
/// what ONNX Runtime needs of quantized nodes.
pub const CLEAN_UP: &[&str] =
    &["computed-scales", "dedupe-constants", "dedupe-nodes", "own-constants", "remove-dead"];

/// What every float model goes through before it is quantized.
pub const STANDARD: &[&str] = &[
    "inline-functions",
    "constant-to-initializer",
    "identity-of-constant",
    "remove-identity",
    "hoist-loop-state",
    "remove-dropout",
    // Twins whose views differ would no longer be seen to be the same.
    "dedupe-constants",
    // Before folding, which would copy what a view gets for nothing.
    "transpose-of-constant",
    "infer-types",
    // What ONNX Runtime fused when it saved the model hides what the other rules look for.
    "unfuse-bias-fast-gelu",
    "unfuse-bias-gelu",
    "unfuse-conv-activation",
    "unfuse-gemm-activation",
    "unfuse-matmul",
    "unfuse-skip-layernorm",
    "infer-types",
    "fold-constants",
    "remove-cast",
    // A folded Reshape fixes shapes that fold in turn.
    "infer-types",
    "fold-constants",
    "transpose-of-constant",
    // What inference knows needs no nodes that compute it.
    "expand-to-constant",
    "reshape-to-constant",
    "remove-expand",
    "remove-slice",
    "gather-of-gather",
    "gather-of-shape",
    "slice-of-shape",
    "fold-constants",
    // The normalisation may follow a bias, and be followed by a scale.
    "fold-affine",
    "fold-affine-transposed",
    "fold-batchnorm",
    "fold-affine",
    "fold-affine-transposed",
    "gemm-to-matmul",
    "einsum-to-matmul",
    "unflatten-matmul",
    // Before the Reshapes and Transposes that it leaves are merged.
    "unmerge-heads",
    "merge-reshape",
    "transpose-of-concat",
    "merge-transpose",
    // Before nodes: equal operands must be the same value for nodes to be equal.
    "dedupe-constants",
    "dedupe-nodes",
    // Quantization would hide these patterns from ONNX Runtime, and it knows fewer of them.
    "raise-opset",
    "infer-types",
    "fuse-layernorm",
    "fuse-rmsnorm",
    "fuse-gelu",
    "fuse-silu",
    "fuse-hardswish",
    "fuse-hardswish-div",
    // After these, whose constants it would fold away.
    "fold-affine-inputs",
    "gate-of-residual",
    "fuse-rotary",
    "infer-types",
    "fuse-attention",
    "infer-types",
    "simplify-mask",
    "merge-reshape",
    "merge-transpose",
    "dedupe-constants",
    "dedupe-nodes",
    "sum-before-layernorm",
    "remove-dead",
    "tie-constants",
    "infer-types",
];

/// Runs rules, each until it no longer applies, and passes, in the given order.
///
/// All names are checked before anything changes. Returns how much each step changed.
pub fn run(
    model: &mut Model,
    names: &[impl AsRef<str>],
    ctx: &Ctx,
) -> Result<Vec<(String, usize)>, PassError> {
    let steps: Vec<Step> =
        names.iter().map(|it| step(it.as_ref())).collect::<Result<_, PassError>>()?;
    let mut left = ctx.max_rewrites;
    let mut done = Vec::new();
    for it in steps {
        let ctx = Ctx { progress: ctx.progress, trace: ctx.trace, max_rewrites: left };
        let changes = it.run(model, &ctx)?;
        if it.is_limited() {
            left = left.saturating_sub(changes);
        }
        done.push((it.name().to_owned(), changes));
    }
    Ok(done)
}

pub fn find(name: &str) -> Option<Step> {
    steps().find(|it| it.name() == name)
}

/// Every rule and then every pass, each in alphabetical order.
pub fn steps() -> impl Iterator<Item = Step> {
    RULES.iter().map(|it| Step::Rule(it)).chain(PASSES.iter().map(|it| Step::Pass(it)))
}

impl Step {
    pub fn name(&self) -> &'static str {
        match self {
            Step::Rule(it) => it.name,
            Step::Pass(it) => it.name,
        }
    }

    pub fn help(&self) -> &'static str {
        match self {
            Step::Rule(it) => it.help,
            Step::Pass(it) => it.help,
        }
    }

    fn is_limited(&self) -> bool {
        match self {
            Step::Rule(_) => true,
            Step::Pass(it) => it.limited,
        }
    }

    fn run(&self, model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
        let interface = cfg!(debug_assertions).then(|| interface(model));
        let changes = match self {
            Step::Rule(it) => fixpoint(model, &[it], ctx),
            Step::Pass(it) => (it.run)(model, ctx)?,
        };
        if let Some(before) = interface {
            verify(model, self.name());
            assert!(before == self::interface(model), "{} changed the interface", self.name());
        }
        Ok(changes)
    }
}

fn step(name: &str) -> Result<Step, PassError> {
    find(name).ok_or_else(|| PassError::Unknown { name: name.to_owned(), similar: similar(name) })
}

/// The step whose name differs by a few letters.
fn similar(name: &str) -> Option<&'static str> {
    suggest(&name.replace('_', "-"), steps().map(|it| it.name()))
}

/// A broken invariant is our bug, found where it was made.
fn verify(model: &Model, step: &str) {
    if let Err(broken) = model.verify() {
        panic!("after {step}: {broken}");
    }
}

/// What callers see of a model; no rewrite may change it.
fn interface(model: &Model) -> [Vec<Name>; 2] {
    let graph = model.graph(model.main);
    [&graph.inputs, &graph.outputs]
        .map(|list| list.iter().map(|it| model.value(*it).name.clone()).collect())
}

/// Nodes that rewrites look at, in execution order.
///
/// Not those of functions: their attributes may stand for those of a caller, and they cannot own
/// initializers. `inline-functions` brings them here.
fn nodes_in_main(model: &Model) -> Vec<NodeId> {
    let mut main = BTreeMap::new();
    let mut nodes = model.nodes();
    nodes.retain(|it| {
        let graph = model.node(*it).graph;
        *main.entry(graph).or_insert_with(|| model.in_main(graph))
    });
    nodes
}

/// Adds a line to the trace, if there is one: what `step` says of the thing called `label`.
fn trace(ctx: &Ctx, step: &str, label: &str, what: &str) {
    if let Some(lines) = ctx.trace {
        let line = format!("{step}: `{}`: {}", Untrusted(label), escape(what));
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_alphabetical_order() {
        assert!(RULES.is_sorted_by(|a, b| a.name < b.name));
        assert!(PASSES.is_sorted_by(|a, b| a.name < b.name));
        assert!(steps().all(|it| !it.help().is_empty()));
    }

    #[test]
    fn the_standard_steps_exist() {
        run(&mut Model::empty(), STANDARD, &Ctx::silent()).unwrap();
        run(&mut Model::empty(), CLEAN_UP, &Ctx::silent()).unwrap();
    }

    #[test]
    fn an_unknown_name_is_an_error_with_a_suggestion() {
        let err = run(&mut Model::empty(), &["fold_batchnrom"], &Ctx::silent()).unwrap_err();
        assert_eq!(err.to_string(), "no rule or pass is called `fold_batchnrom`");
        assert_eq!(err.hint().unwrap(), "did you mean `fold-batchnorm`?");
        assert_eq!(similar("quantize"), None);
    }
}
