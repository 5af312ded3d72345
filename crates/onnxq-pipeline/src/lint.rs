//! What is slow or broken in a file, and what ONNX Runtime makes of it.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::Error;
use onnxq_ir::{
    Model,
    ctx::Ctx,
    fs::ScratchFolder,
    onnx::{self, Attached, Files, OpenOptions},
    releases::Needed,
};
use onnxq_rewrite::lint::{
    self, Finding, Fix, Severity,
    executed::{Executed, executed},
};
use onnxq_run::engine::{EngineError, Runtime, SessionOptions};

/// What a model's quantized weights run as.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    Checked {
        onnxruntime: String,
        nodes: Vec<Executed>,
    },
    /// Why nobody was asked.
    NotChecked(String),
    /// What ONNX Runtime said.
    Refused {
        onnxruntime: String,
        message: String,
    },
}

impl Execution {
    /// Rows that are not what was declared.
    pub fn differing(&self) -> Vec<&Executed> {
        match self {
            Execution::Checked { nodes, .. } => {
                nodes.iter().filter(|it| it.differs.is_some()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Execution {
    /// In a few words.
    pub fn verdict(&self) -> &'static str {
        match self {
            Execution::Checked { .. } if self.differing().is_empty() => "executes as declared",
            Execution::Checked { .. } => "executes slowly or otherwise than declared",
            Execution::NotChecked(_) => "what executes is not checked",
            Execution::Refused { .. } => "ONNX Runtime refuses it",
        }
    }

    /// One line: kernels and how many weights each runs.
    pub fn summary(&self) -> String {
        let nodes = match self {
            Execution::Checked { nodes, .. } => nodes,
            Execution::NotChecked(reason) => {
                return format!("what executes: not checked ({reason})");
            }
            Execution::Refused { message, .. } => {
                return format!("ONNX Runtime refuses it: {message}");
            }
        };
        let mut kernels: BTreeMap<&str, usize> = BTreeMap::new();
        nodes.iter().for_each(|it| *kernels.entry(&it.executed).or_default() += 1);
        let parts: Vec<String> = kernels.iter().map(|(it, n)| format!("{n} × {it}")).collect();
        let verdict = match self.differing().len() {
            0 => "as declared".to_owned(),
            n => format!("{n} slowly or otherwise than declared"),
        };
        format!("executes {verdict}: {}", parts.join(" · "))
    }
}

/// Findings of a file.
#[derive(Clone, Debug, Serialize)]
pub struct LintReport {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub findings: Vec<Finding>,
    /// The version that was asked for missing kernels; `None` if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<String>,
    /// Why ONNX Runtime was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels_not_checked: Option<String>,
}

/// Looks for slow and broken forms. If there is an ONNX Runtime, and nothing is broken yet, it is
/// asked to load the model: a kernel that it lacks is a finding.
pub fn lint(model: &Model, files: &Files, runtime: &Runtime) -> LintReport {
    let mut findings = lint::run(model);
    let broken = findings.iter().any(|it| it.severity == Severity::Broken);
    let execution = match broken {
        true => Execution::NotChecked("something is broken already".into()),
        false => execution(model, files, runtime),
    };
    let (onnxruntime, kernels_not_checked) = match execution {
        Execution::Checked { onnxruntime, .. } => (Some(onnxruntime), None),
        Execution::NotChecked(reason) => (None, Some(reason)),
        Execution::Refused { onnxruntime, message } => {
            findings.push(refusal(&onnxruntime, &message));
            (Some(onnxruntime), None)
        }
    };
    LintReport {
        schema: "onnxq.lint/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        findings,
        onnxruntime,
        kernels_not_checked,
    }
}

/// Applies the fixes that lint knows; see [`lint::fix`].
pub fn fix(model: &mut Model, close: bool, ctx: &Ctx) -> Result<Vec<(String, usize)>, Error> {
    let done = lint::fix(model, close, ctx)?;
    model.verify()?;
    Ok(done)
}

/// Asks ONNX Runtime, if there is one, for the graph that it would execute. Nothing is installed
/// for that, and its files are gone when this returns.
pub fn execution(model: &Model, files: &Files, runtime: &Runtime) -> Execution {
    let located = match runtime.available() {
        Ok(it) => it,
        Err(error) => return Execution::NotChecked(briefly(&error)),
    };
    let needed = Needed::by(model);
    if !located.suffices(&needed) {
        let message = format!("it needs {needed}");
        return Execution::Refused { onnxruntime: located.version, message };
    }
    match optimized(model, files, runtime) {
        Ok(optimized) => {
            let nodes = executed(model, &optimized);
            Execution::Checked { onnxruntime: located.version, nodes }
        }
        Err(error) => match error.downcast_ref() {
            Some(EngineError::Refused { message, version, .. }) => {
                Execution::Refused { onnxruntime: version.clone(), message: message.clone() }
            }
            _ => Execution::NotChecked(error.to_string()),
        },
    }
}

/// One line: where the library was looked for matters to who needs it.
fn briefly(error: &EngineError) -> String {
    match error {
        EngineError::NotFound(it) if !it.explicit() => {
            "there is no ONNX Runtime; `onnxq runtime install` gets it".into()
        }
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

fn optimized(model: &Model, files: &Files, runtime: &Runtime) -> Result<Model, Error> {
    let folder = ScratchFolder::in_temp()
        .map_err(|source| onnx::SaveError::Io { path: std::env::temp_dir(), source })?;
    let path = folder.path().join("optimized.onnx");
    let attached = onnx::attach(model, files)?;
    let options = SessionOptions {
        optimized_model: Some(path.clone()),
        // Nothing will run, so nothing is packed for it.
        lean: true,
        ..SessionOptions::default()
    };
    let session = runtime.open_bytes(&attached.graph, Some(Attached::folder()), &options)?;
    drop(session);
    graph(&path)
}

/// The runtime may write operator sets and fields that this version does not know.
fn graph(path: &Path) -> Result<Model, Error> {
    let options =
        OpenOptions { allow_unknown_opset: true, drop_unknown: true, ..OpenOptions::default() };
    Ok(onnx::open(path, &options)?.model)
}

/// A model that ONNX Runtime does not load; most often for want of a kernel.
fn refusal(version: &str, message: &str) -> Finding {
    let quoted = |after: &str, end: char| {
        let rest = message.split_once(after)?.1;
        Some(rest.split(end).next().unwrap_or_default().to_owned())
    };
    let op = quoted("Could not find an implementation for ", ' ');
    let (what, hint) = match &op {
        Some(op) => (
            format!("ONNX Runtime {version} has no CPU kernel for {op} of these types"),
            "write it in another form, or convert the model (`onnxq convert --to`)",
        ),
        None => (format!("ONNX Runtime {version} refuses the model: {message}"), "fix the model"),
    };
    Finding {
        code: "L180",
        check: "no-kernel",
        severity: Severity::Broken,
        node: quoted("node with name '", '\'').unwrap_or_default(),
        op: op.map_or(String::new(), |it| it.split('(').next().unwrap_or_default().to_owned()),
        output: String::new(),
        what,
        factor: None,
        hint,
        fix: Fix::ByHand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kernel_is_named() {
        let it = refusal(
            "1.31.1",
            "Could not find an implementation for ConvInteger(10) node with name 'c1'",
        );
        assert_eq!((&*it.op, &*it.node), ("ConvInteger", "c1"));
        assert_eq!(
            it.what,
            "ONNX Runtime 1.31.1 has no CPU kernel for ConvInteger(10) of these types"
        );
        assert!(
            refusal("1.31.1", "something else").what.ends_with("refuses the model: something else")
        );
    }
}
