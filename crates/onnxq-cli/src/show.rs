//! Results as tables: what changed, what stayed and why, how close the outputs are.

use std::{collections::BTreeMap, fmt::Write};

use super::{Table, decisions, proof};
use onnxq_ir::{
    diag::Code,
    human::{bytes, grouped},
    releases::Needed,
    untrusted::{Untrusted, escape},
};
use onnxq_pipeline::{Outcome, facts};
use onnxq_quant::plan::PlanRow;
use onnxq_report::{Latency, Report};

/// The summary of `quantize`.
pub fn outcome(it: &Outcome, validation: Option<&Report>) -> String {
    if it.quantized_nodes == 0 {
        let judged = |report| proof::judged(report) + &proof::verdict(report);
        let judged = validation.map(judged).unwrap_or_default();
        return format!("\n{}{judged}\n{}", kept(&it.nodes), last_line(it, None));
    }
    let mut out = format!("\n{}\n", ops(it));
    match validation {
        Some(report) => out += &proof::measured(report),
        None => out += &sizes(it.before.bytes, it.after.bytes, &[]),
    }
    out += &decisions::show(&facts::decisions(it));
    let executes = it.execution.as_ref().map_or(String::new(), |it| {
        let hint = if it.differing().is_empty() { "" } else { "; see `inspect --executed`" };
        format!("{}{hint}\n", escape(&it.summary()))
    });
    let kept = notes(&it.nodes) + &kept(&it.nodes);
    out + "\n"
        + &kept
        + &executes
        + &int8(it)
        + &it.needs.as_ref().map(needs).unwrap_or_default()
        + &types(it)
        + &validation.map(proof::judged).unwrap_or_default()
        + &validation.filter(|report| report.passes()).map_or("\n".to_owned(), proof::verdict)
        + &last_line(it, validation)
}

/// A line, if not every ONNX Runtime will do.
pub fn needs(needed: &Needed) -> String {
    match needed.because.is_empty() {
        true => String::new(),
        false => format!("needs {needed}\n"),
    }
}

/// The types of a GGUF file's tensors.
fn types(outcome: &Outcome) -> String {
    let list: Vec<String> =
        outcome.types.iter().map(|(name, count)| format!("{count} × {name}")).collect();
    match list.is_empty() {
        true => String::new(),
        false => format!("tensors for llama.cpp: {}\n", list.join(", ")),
    }
}

/// On which CPUs the int8 layers are exact, and what was done about the others.
fn int8(it: &Outcome) -> String {
    let Some(int8) = &it.int8 else { return String::new() };
    let measured = int8.measured.map_or(String::new(), |it| {
        let (eight, all) = (it.eight, it.eight + it.seven);
        format!("{eight} of {all} int8 weights keep 8 bits: simulated, saturation costs less than a bit\n")
    });
    format!("{}\n{measured}", int8.text)
}

/// What follows the rows of `plan`, which say already what stays in float.
pub fn planned(it: &Outcome) -> String {
    if it.quantized_nodes == 0 {
        return format!("\n{}", last_line(it, None));
    }
    format!("\n{}\n{}", sizes(it.before.bytes, it.after.bytes, &[]), last_line(it, None))
}

/// Text as comments of the ONNX text syntax.
pub fn comment(text: &str) -> String {
    text.lines().map(|it| format!("# {it}\n")).collect()
}

/// One line per node, for `plan`.
pub fn plan(rows: &[PlanRow]) -> String {
    let mut table = Table::new(["node", "op", "weight", "becomes"]);
    for row in rows {
        let shape = row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        let becomes = match (&row.format, &row.scheme) {
            (Some(format), Some(scheme)) => {
                let note = row.note.as_ref().map_or(String::new(), |it| format!(" ({it})"));
                format!("{format}, {scheme}{}{note}", activation(row))
            }
            _ if row.is_of_region() => {
                "quantized values, where its neighbours have them".to_owned()
            }
            _ => format!("float: {}", row.kept.as_deref().unwrap_or("")),
        };
        table.row([&row.node, &row.op, &shape, &becomes]);
    }
    table.to_string()
}

fn activation(row: &PlanRow) -> &'static str {
    use onnxq_quant::plan::Activation;
    match row.activation {
        Some(Activation::DynamicPerToken) => ", activations per row",
        Some(Activation::DynamicPerTensor) => ", activations per tensor",
        Some(Activation::Static) => ", static activations",
        None => "",
    }
}

/// How often operators occur: those with weights and new ones; the others in one line.
fn ops(it: &Outcome) -> String {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    it.before.ops.iter().for_each(|(op, n)| counts.entry(op).or_default().0 = *n);
    it.after.ops.iter().for_each(|(op, n)| counts.entry(op).or_default().1 = *n);
    let has_weights = |op: &str| it.nodes.iter().any(|it| it.op == op);
    let mut table = Table::new(["operator", "before", "after"]).right(&[1, 2]);
    let mut row = |name: &str, (before, after): (usize, usize)| {
        table.row([name, &grouped(before as u64), &grouped(after as u64)]);
    };
    let mut others = (0, 0);
    for (op, (before, after)) in counts {
        if has_weights(op) || before == 0 {
            row(op, (before, after));
        } else {
            others = (others.0 + before, others.1 + after);
        }
    }
    row("others", others);
    row("all nodes", (it.before.nodes, it.after.nodes));
    table.to_string()
}

pub(super) fn sizes(before: u64, after: u64, latency: &[Latency]) -> String {
    let mut table = Table::new(["", "original", "quantized", "ratio"]).right(&[1, 2, 3]);
    // A model of text has no size to compare with.
    let (original, ratio) = match before {
        0 => ("-".to_owned(), "-".to_owned()),
        _ => (bytes(before), format!("×{:.2}", after as f64 / before as f64)),
    };
    table.row(["size", &original, &bytes(after), &ratio]);
    for it in latency {
        let ms = |it: Option<f64>| it.map_or("-".into(), |it| format!("{it:.2} ms"));
        let ratio = it.ratio.map_or("-".into(), |it| format!("×{it:.2}"));
        let name = format!("time of {}", it.input);
        table.row([&name, &ms(it.reference_ms), &ms(it.candidate_ms), &ratio]);
    }
    let words: String = latency.iter().filter_map(speed).collect();
    format!("{table}{words}")
}

/// `1x128: 1.41 times as fast (1.38 to 1.46), median of 15 pairs of runs`.
fn speed(run: &Latency) -> Option<String> {
    let ratio = run.ratio?;
    let (how, of): (&str, fn(f64) -> f64) = match ratio <= 1.0 {
        true => ("fast", f64::recip),
        false => ("slow", |ratio| ratio),
    };
    let range = run.ratio_interval.map_or(String::new(), |range| {
        let (a, b) = (of(range.low), of(range.high));
        format!(" ({:.2} to {:.2})", a.min(b), a.max(b))
    });
    let (times, count) = (of(ratio), run.repeats);
    Some(format!(
        "{}: {times:.2} times as {how}{range}, median of {count} pairs of runs\n",
        run.input
    ))
}

/// What quantized nodes lack of what the recipe asks for, grouped by reason.
fn notes(rows: &[PlanRow]) -> String {
    let mut notes = Reasons::new();
    for row in rows {
        if let Some(note) = &row.note {
            notes.entry((note, &row.op)).or_default().push(&row.node);
        }
    }
    if notes.is_empty() {
        return String::new();
    }
    format!("{}\n", grouped_by_reason("quantized, but:\n".into(), notes))
}

/// The nodes that stay in float, grouped by reason.
fn kept(rows: &[PlanRow]) -> String {
    let mut reasons = Reasons::new();
    for row in rows {
        if let Some(reason) = &row.kept {
            reasons.entry((reason, &row.op)).or_default().push(&row.node);
        }
    }
    if rows.is_empty() {
        return "no node has weights\n".into();
    }
    if reasons.is_empty() {
        return "every weight is quantized\n".into();
    }
    let total: usize = reasons.values().map(Vec::len).sum();
    let with_weights = rows.iter().filter(|it| !it.is_of_region()).count();
    let title = format!("kept in float ({total} of {with_weights} nodes with weights), and why:\n");
    grouped_by_reason(title, reasons)
}

/// Names of nodes, by reason and operator.
pub(super) type Reasons<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

pub(super) fn grouped_by_reason(title: String, reasons: Reasons) -> String {
    let mut out = title;
    for ((reason, op), list) in reasons {
        let _ = writeln!(out, "  {:>4} × {}: {}", list.len(), escape(op), escape(reason));
        let more = match list.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let _ = writeln!(out, "         {}{more}", Untrusted(list[0]));
    }
    out
}

fn last_line(it: &Outcome, validation: Option<&Report>) -> String {
    let path = it.output.as_ref().map(|it| escape(&it.display().to_string()));
    if it.quantized_nodes == 0 {
        return match path {
            Some(path) => format!("ok  {path}  nothing was quantized\n"),
            None => {
                format!(
                    "no-op [{}]: there is nothing to quantize, so nothing is written\n",
                    Code::N001
                )
            }
        };
    }
    let share = format!("{:.1} % of weight bytes", it.quantized_weights * 100.0);
    let s = if it.quantized_nodes == 1 { "" } else { "s" };
    let what = format!("{} node{s}, {share} quantized", grouped(it.quantized_nodes as u64));
    let failed = validation.filter(|report| !report.passes());
    match (path, failed) {
        (Some(path), Some(report)) => {
            let reason = escape(&report.verdict_reason());
            format!("FAIL: {reason}; what was written lies at {path}\n")
        }
        (None, Some(report)) => {
            format!("FAIL: {}; nothing was written\n", escape(&report.verdict_reason()))
        }
        (path, None) => written(it, path.as_deref(), &what),
    }
}

/// What was written, or would be.
fn written(it: &Outcome, path: Option<&str>, what: &str) -> String {
    match path {
        Some(path) => format!("ok  {path}  {what}\n"),
        None if it.estimate => {
            let size = bytes(it.after.bytes);
            format!("dry run: about {size} would be written, exact once data was seen; {what}\n")
        }
        None => format!("dry run: {} bytes would be written; {what}\n", grouped(it.after.bytes)),
    }
}
