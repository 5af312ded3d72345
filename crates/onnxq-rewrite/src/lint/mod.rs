//! Forms that run slowly or not at all in ONNX Runtime on a CPU: what they cost, and their fixes.
//!
//! Factors were measured with ONNX Runtime 1.31.1 on a CPU with AVX512-VNNI, one thread.

mod checks;
pub mod executed;
mod model_index;

use serde::{Serialize, Serializer};

pub use self::{
    checks::CHECKS,
    model_index::{ModelIndex, is_quantized_type},
};
use crate as rewrite;
use crate::{PassError, Step};
use onnxq_ir::{
    Model, NodeId,
    ctx::Ctx,
    diag::{Code, Diagnostic, EXIT_GATE},
};

/// A form to look for. To add one, add a function in `checks/` and a row to [`CHECKS`].
pub struct Check {
    /// `L101`: what scripts filter by.
    pub code: &'static str,
    pub name: &'static str,
    /// One line for `explain`.
    pub help: &'static str,
    pub run: fn(&ModelIndex, NodeId) -> Option<Found>,
}

/// What a form costs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The model does not load, or computes nonsense.
    Broken,
    /// It runs, much slower than another form of the same.
    Slow,
    /// Worth knowing; may be meant so.
    Advice,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Broken => "broken",
            Severity::Slow => "slow",
            Severity::Advice => "advice",
        }
    }
}

/// How many times slower than the better form, and where that was measured.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Factor {
    pub low: f32,
    pub high: f32,
    pub measured: &'static str,
}

pub const fn factor(low: f32, high: f32, measured: &'static str) -> Option<Factor> {
    Some(Factor { low, high, measured })
}

/// What a check says of a node.
pub struct Found {
    pub severity: Severity,
    /// Without names, so that findings of a kind can be counted.
    pub what: String,
    pub factor: Option<Factor>,
    /// What to do, in words.
    pub hint: &'static str,
    /// The rewrite that does it, and the node where it begins.
    pub fix: Option<(&'static str, NodeId)>,
}

/// A slow or broken form in a model.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub check: &'static str,
    pub severity: Severity,
    pub node: String,
    pub op: String,
    /// The node's first output: names of nodes may be missing.
    pub output: String,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<Factor>,
    pub hint: &'static str,
    pub fix: Fix,
}

/// Whether `--fix` fixes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fix {
    /// By this rewrite, which changes no result.
    Exact(&'static str),
    /// By this rewrite, which changes results a little.
    Close(&'static str),
    /// There is a rewrite, but not for this node.
    Misses(String),
    ByHand,
}

impl Serialize for Fix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        match self {
            Fix::Exact(rewrite) => {
                map.serialize_entry("rewrite", rewrite)?;
                map.serialize_entry("exact", &true)?;
            }
            Fix::Close(rewrite) => {
                map.serialize_entry("rewrite", rewrite)?;
                map.serialize_entry("exact", &false)?;
            }
            Fix::Misses(reason) => map.serialize_entry("missed", reason)?,
            Fix::ByHand => {}
        }
        map.end()
    }
}

/// Rewrites that fix a form and leave what the model means as it is (but for the order of
/// additions). A kernel that it gets by that may round otherwise, as its attributes allow.
pub const EXACT: &[&str] = &[
    "signed-weights",
    "signed-weights-conv",
    "signed-weights-dequantize",
    "signed-weights-float",
    "signed-weights-fused",
    "signed-weights-qlinear",
    "integer-zero-points",
    "packed-gather",
    "explicit-zeros",
    "transpose-of-dequantized",
    "gemm-of-dequantized",
    "gather-of-dequantized",
    "per-channel-scales",
    "dynamic-bias",
    "unfuse-skip-layernorm",
    "sum-before-layernorm",
    "dedupe-nodes",
];

/// Rewrites that fix a form and change results a little: with an accuracy level of 4 the kernel
/// quantizes activations to int8, and each product is off by 0.5 to 0.8 %.
pub const CLOSE: &[&str] = &["accuracy-level"];

/// Every finding, in execution order.
pub fn run(model: &Model) -> Vec<Finding> {
    let model_index = ModelIndex::new(model);
    let mut list = Vec::new();
    for node in model_index.m.nodes() {
        // Functions are inlined before anything is fixed or run.
        if !model_index.m.in_main(model_index.m.node(node).graph) {
            continue;
        }
        for check in CHECKS {
            if let Some(found) = (check.run)(&model_index, node) {
                list.push(finding(&model_index.m, node, check, found));
            }
        }
    }
    list
}

fn finding(m: &Model, node: NodeId, check: &Check, found: Found) -> Finding {
    let it = m.node(node);
    Finding {
        code: check.code,
        check: check.name,
        severity: found.severity,
        node: m.node_label(node),
        op: it.op.to_string(),
        output: it.outputs.first().map_or("".into(), |it| m.value(*it).name.to_string()),
        what: found.what,
        factor: found.factor,
        hint: found.hint,
        fix: found.fix.map_or(Fix::ByHand, |(name, root)| fix_by(m, name, root)),
    }
}

/// Whether the rewrite applies here.
fn fix_by(m: &Model, name: &'static str, root: NodeId) -> Fix {
    match rewrite::find(name) {
        Some(Step::Rule(rule)) => match (rule.apply)(m, root) {
            Ok(_) if CLOSE.contains(&name) => Fix::Close(name),
            Ok(_) => Fix::Exact(name),
            Err(reason) => Fix::Misses(reason.to_string()),
        },
        _ => Fix::Exact(name),
    }
}

/// Applies the exact fixes of what is found, and with `close` those that change results a little.
/// Returns how often each did something.
pub fn fix(model: &mut Model, close: bool, ctx: &Ctx) -> Result<Vec<(String, usize)>, PassError> {
    /// One fix may make the form that another one takes.
    const ROUNDS: usize = 4;
    let mut done: Vec<(String, usize)> = Vec::new();
    rewrite::run(model, &["infer-types"], ctx)?;
    for _ in 0..ROUNDS {
        let findings = run(model);
        let applies = |name: &&&str| {
            findings.iter().any(|it| match it.fix {
                Fix::Exact(found) => found == **name,
                Fix::Close(found) => close && found == **name,
                _ => false,
            })
        };
        let names: Vec<&str> = EXACT.iter().chain(CLOSE).filter(applies).copied().collect();
        if names.is_empty() {
            break;
        }
        for (name, count) in rewrite::run(model, &names, ctx)? {
            match done.iter_mut().find(|it| it.0 == name) {
                Some(it) => it.1 += count,
                None => done.push((name, count)),
            }
        }
        // A weight that several nodes share was fixed once for each.
        rewrite::run(model, &["dedupe-constants", "remove-dead", "infer-types"], ctx)?;
    }
    Ok(done)
}

/// 1 if anything is slow or broken.
pub fn exit_code(findings: &[Finding]) -> u8 {
    if findings.iter().any(|it| it.severity < Severity::Advice) { EXIT_GATE } else { 0 }
}

/// Findings that were not there before: slow or broken forms that we made ourselves.
pub fn new<'a>(before: &[Finding], after: &'a [Finding]) -> Vec<&'a Finding> {
    let key = |it: &Finding| (it.code, it.op.clone(), it.output.clone());
    let known: std::collections::BTreeSet<_> = before.iter().map(key).collect();
    let is_new = |it: &&Finding| it.severity < Severity::Advice && !known.contains(&key(it));
    after.iter().filter(is_new).collect()
}

/// A model that we wrote has a form that we never mean to write.
#[derive(Debug, thiserror::Error)]
#[error(
    "the result has {count} slow or broken form(s) that onnxq made itself; the first: {code} at \
     `{}`: {what}",
    onnxq_ir::untrusted::Untrusted(node)
)]
pub struct OwnFinding {
    pub count: usize,
    pub code: &'static str,
    pub node: String,
    pub what: String,
}

impl Diagnostic for OwnFinding {
    fn code(&self) -> Code {
        Code::E503
    }

    fn hint(&self) -> Option<String> {
        Some("the file was written; `onnxq inspect --lint` shows all. Please report this".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_have_codes_in_order_and_mends_exist() {
        assert!(CHECKS.is_sorted_by(|a, b| a.code < b.code));
        let names: std::collections::BTreeSet<_> = CHECKS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), CHECKS.len());
        for name in EXACT.iter().chain(CLOSE) {
            assert!(rewrite::find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_was_there_before_is_not_ours() {
        let text = r#"<ir_version: 8, opset_import: ["" : 17]>
            main (float[2,64] x) => (float[2,32] y) <uint8[64,32] w> {
                q, s, z = DynamicQuantizeLinear (x)
                i = MatMulInteger (q, w, z)
                f = Cast <to = 1> (i)
                y = Mul (f, s)
            }"#;
        let findings = run(&onnxq_ir::text::parse(text).unwrap());
        assert_eq!(findings.iter().map(|it| it.code).collect::<Vec<_>>(), ["L101"]);
        assert_eq!(findings[0].fix, Fix::Exact("signed-weights"));
        assert_eq!(new(&findings, &findings).len(), 0);
        assert_eq!((new(&[], &findings).len(), exit_code(&findings)), (1, EXIT_GATE));
    }
}
