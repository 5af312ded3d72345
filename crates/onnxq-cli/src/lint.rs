//! `onnxq inspect --lint` and `--executed`: findings and kernels as text.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use super::{
    Failure, Table, Ui,
    shared::{AcceptArgs, external_data},
    show::comment,
    stream::Output,
};
use onnxq_ir::{
    ctx::{Ctx, Progress},
    onnx::{ExternalData, Loaded, OpenOptions, SaveOptions},
    untrusted::{Untrusted, escape},
};
use onnxq_pipeline::{self as pipeline, Execution, LintReport};
use onnxq_rewrite::lint::{self, Factor, Finding, Fix, Severity, executed::Executed};

/// What to do about findings.
#[derive(Debug, clap::Args)]
pub struct FixArgs {
    /// Apply the fixes that leave what the model means as it is
    #[arg(long, requires = "lint")]
    pub fix: bool,
    /// With --fix: also set accuracy_level 4, which changes each product by less than 1 %
    #[arg(long, requires = "fix")]
    pub inexact: bool,
    /// Where --fix writes the fixed model; `-` is standard output [default: its text to stdout]
    #[arg(short, long, value_name = "FILE", requires = "fix")]
    pub output: Option<PathBuf>,
    /// Whether weights of the fixed model go into a file of their own
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = external_data())]
    pub external_data: ExternalData,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub accept: AcceptArgs,
}

impl FixArgs {
    /// Findings, and what is left of them after `--fix`. The code is 1 if anything is slow or
    /// broken.
    pub fn run(&self, loaded: Loaded, open: &OpenOptions, ui: &Ui) -> Result<u8, Failure> {
        let runtime = ui.global.runtime(ui);
        if !self.fix {
            let report = pipeline::lint(&loaded.model, &loaded.files, &runtime);
            return print(ui, &report, &[]);
        }
        let (mut model, files) = (loaded.model, loaded.files);
        let fixed = pipeline::fix(&mut model, self.inexact, &ui.ctx())?;
        let Some(output) = &self.output else {
            let findings = lint::run(&model);
            let text = human(&findings, ui.global.verbose > 0);
            ui.print(&comment(&(fixes(&fixed) + &text)))?;
            ui.print(&onnxq_ir::text::print(&model))?;
            return Ok(lint::exit_code(&findings));
        };
        let output = Output::at(output, ui)?;
        let save =
            SaveOptions { external: self.external_data, force: self.force, ..Default::default() };
        let (save, named) = (output.save(save)?, output.progress(ui));
        let ctx = Ctx { progress: &named, ..ui.ctx() };
        let place = self.accept.destination(output.path(), save, ui);
        let written = place.deliver((&model, &files), open, &ctx);
        let written = written.map_err(|error| output.explained(error.into()))?.written;
        written.warnings.iter().for_each(|it| ui.warn(it));
        let report = pipeline::lint(&written.model, &written.files, &runtime);
        output.deliver()?;
        print(ui, &report, &fixed)
    }
}

fn print(ui: &Ui, report: &LintReport, fixed: &[(String, usize)]) -> Result<u8, Failure> {
    let code = lint::exit_code(&report.findings);
    if ui.global.json {
        let fixed: BTreeMap<&str, usize> = fixed.iter().map(|it| (&*it.0, it.1)).collect();
        ui.print_json(&serde_json::json!({"lint": report, "fixed": fixed}))?;
        return Ok(code);
    }
    ui.print(&(fixes(fixed) + &human(&report.findings, ui.global.verbose > 0)))?;
    if let Some(reason) = &report.kernels_not_checked {
        ui.note(&format!("note: whether ONNX Runtime has all kernels was not checked: {reason}"));
    }
    Ok(code)
}

fn fixes(fixed: &[(String, usize)]) -> String {
    fixed.iter().map(|(name, count)| format!("fixed   {name}: {count}\n")).collect()
}

/// Findings of a kind together, the worst first.
fn human(findings: &[Finding], all: bool) -> String {
    type Key<'a> = (Severity, &'static str, &'a str, &'a str, &'static str);
    let mut kinds: BTreeMap<Key, Vec<&Finding>> = BTreeMap::new();
    for it in findings {
        let key = (it.severity, it.code, &*it.op, &*it.what, fixable(&it.fix));
        kinds.entry(key).or_default().push(it);
    }
    let mut out = String::new();
    for ((severity, code, op, what, fix), list) in kinds {
        let first = list[0];
        let head = format!("{:<7} {code} {}", severity.name(), first.check);
        let count = format!("{} × {}", list.len(), escape(op));
        let _ = writeln!(out, "{head}: {count}: {}", escape(what));
        if let Some(it) = &first.factor {
            let _ = writeln!(out, "        {}", slower(it));
        }
        let _ = writeln!(out, "        hint: {}{fix}", first.hint);
        if let Fix::Misses(reason) = &first.fix {
            let _ = writeln!(out, "        no exact fix: {}", escape(reason));
        }
        for line in nodes(&list, all) {
            let _ = writeln!(out, "        at {line}");
        }
    }
    out + &summary(findings)
}

fn nodes(list: &[&Finding], all: bool) -> Vec<String> {
    let label = |it: &&Finding| Untrusted(&it.node).to_string();
    match list.len() {
        1 => vec![label(&list[0])],
        _ if all => list.iter().map(label).collect(),
        count => vec![format!("{} and {} more", label(&list[0]), count - 1)],
    }
}

fn slower(it: &Factor) -> String {
    let range = match it.low == it.high {
        true => format!("{}", it.low),
        false => format!("{}–{}", it.low, it.high),
    };
    format!("{range} times slower ({})", it.measured)
}

fn fixable(fix: &Fix) -> &'static str {
    match fix {
        Fix::Exact(_) => " [--fix]",
        Fix::Close(_) => " [--fix --inexact]",
        Fix::Misses(_) | Fix::ByHand => "",
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
    let (broken, slow) = (count(Severity::Broken), count(Severity::Slow));
    let advice = count(Severity::Advice);
    if broken + slow == 0 {
        return match advice {
            0 => "ok: nothing is slow or broken\n".into(),
            _ => format!("ok: nothing is slow or broken; {advice} × advice\n"),
        };
    }
    format!("{broken} × broken, {slow} × slow, {advice} × advice\n")
}

/// What ONNX Runtime makes of each quantized weight.
pub fn execution(it: &Execution, all: bool) -> String {
    let nodes = match it {
        Execution::Checked { nodes, .. } => nodes,
        _ => return format!("{}\n", escape(&it.summary())),
    };
    let mut table = Table::new(["node", "declared", "executed", ""]);
    let mut kinds: BTreeMap<(&str, &str, Option<&str>), Vec<&Executed>> = BTreeMap::new();
    for it in nodes {
        let key = (&*it.declared, &*it.executed, it.differs.as_deref());
        kinds.entry(key).or_default().push(it);
    }
    for ((declared, executed, differs), list) in kinds {
        let differs = differs.map_or(String::new(), |it| format!("! {it}"));
        let shown = if all { list.len() } else { 1 };
        for it in &list[..shown] {
            let more = match list.len() - shown {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            let node = format!("{}{more}", Untrusted(&it.node));
            table.row([&node, declared, executed, &differs]);
        }
    }
    format!("{table}{}\n", escape(&it.summary()))
}
