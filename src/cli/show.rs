//! Results as tables: what changed, what stayed and why, how close the outputs are.

use std::{collections::BTreeMap, fmt::Write};

use super::Table;
use crate::{
    pipeline::{Census, Outcome, Validation},
    quant::plan::PlanRow,
    report::{Latency, OutputMetrics, bytes},
    untrusted::escape,
};

/// The summary of `quantize` and `plan`.
pub fn outcome(it: &Outcome, validation: Option<&Validation>) -> String {
    let mut out = String::from("\n");
    out += &ops(&it.before, &it.after);
    out.push('\n');
    out += &sizes(it, validation);
    out.push('\n');
    out += &kept(&it.nodes);
    if let Some(validation) = validation {
        out.push('\n');
        out += &self::validation(validation);
    }
    out.push('\n');
    out += &last_line(it);
    out
}

/// The figures of `validate`.
pub fn validation(it: &Validation) -> String {
    let mut out = String::new();
    for (name, metrics) in &it.comparison.outputs {
        out += &metrics_table(name, metrics);
    }
    if !it.comparison.latency.is_empty() {
        out.push('\n');
        out += &latency(&it.comparison.latency);
    }
    for gate in &it.gates {
        let word = if gate.pass { "ok  " } else { "FAIL" };
        let measured = gate.measured.map_or("nothing measured".into(), number);
        let _ = writeln!(out, "{word} gate {} (measured {measured})", escape(&gate.gate));
        if let Some(reason) = &gate.reason {
            let _ = writeln!(out, "     {}", escape(reason));
        }
    }
    out
}

/// One line per node, for `plan`.
pub fn plan(rows: &[PlanRow]) -> String {
    let mut table = Table::new(["node", "op", "weight", "becomes"]);
    for row in rows {
        let shape = row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        let becomes = match (&row.format, &row.scheme) {
            (Some(format), Some(scheme)) => format!("{format}, {scheme}{}", activation(row)),
            _ => format!("float: {}", row.kept.as_deref().unwrap_or("")),
        };
        table.row([&row.node, &row.op, &shape, &becomes]);
    }
    table.to_string()
}

fn activation(row: &PlanRow) -> &'static str {
    use crate::quant::plan::Activation;
    match row.activation {
        Some(Activation::Row) => ", activations per row",
        Some(Activation::Tensor) => ", activations per tensor",
        None => "",
    }
}

/// Operators whose number changed.
fn ops(before: &Census, after: &Census) -> String {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    before.ops.iter().for_each(|(op, n)| counts.entry(op).or_default().0 = *n);
    after.ops.iter().for_each(|(op, n)| counts.entry(op).or_default().1 = *n);
    let mut table = Table::new(["operator", "before", "after"]).right(&[1, 2]);
    for (op, (old, new)) in counts.iter().filter(|(_, (old, new))| old != new) {
        table.row([op, &old.to_string(), &new.to_string()]);
    }
    table.row(["all nodes", &before.nodes.to_string(), &after.nodes.to_string()]);
    table.to_string()
}

fn sizes(it: &Outcome, validation: Option<&Validation>) -> String {
    let mut table = Table::new(["", "original", "quantized", "ratio"]).right(&[1, 2, 3]);
    let ratio = it.after.bytes as f64 / it.before.bytes.max(1) as f64;
    table.row(["size", &bytes(it.before.bytes), &bytes(it.after.bytes), &format!("×{ratio:.2}")]);
    for latency in validation.iter().flat_map(|it| &it.comparison.latency) {
        let ms = |it: Option<f64>| it.map_or("-".into(), |it| format!("{it:.2} ms"));
        let ratio = latency.ratio.map_or("-".into(), |it| format!("×{it:.2}"));
        let name = format!("run {}", latency.input);
        table.row([&name, &ms(latency.reference_ms), &ms(latency.candidate_ms), &ratio]);
    }
    table.to_string()
}

/// The nodes that stay in float, grouped by reason.
fn kept(rows: &[PlanRow]) -> String {
    let mut reasons: BTreeMap<(&str, &str), Vec<&PlanRow>> = BTreeMap::new();
    for row in rows {
        if let Some(reason) = &row.kept {
            reasons.entry((reason, &row.op)).or_default().push(row);
        }
    }
    if reasons.is_empty() {
        return "every weight is quantized\n".into();
    }
    let total: usize = reasons.values().map(Vec::len).sum();
    let mut out = format!("kept in float ({total} of {} nodes), and why:\n", rows.len());
    for ((reason, op), list) in reasons {
        let _ = writeln!(out, "  {:>4} × {}: {}", list.len(), escape(op), escape(reason));
        let names: Vec<String> = list.iter().take(3).map(|it| escape_name(&it.node)).collect();
        let more = if list.len() > 3 { ", …" } else { "" };
        let _ = writeln!(out, "         {}{more}", names.join(", "));
    }
    out
}

fn escape_name(name: &str) -> String {
    crate::untrusted::Untrusted(name).to_string()
}

fn last_line(it: &Outcome) -> String {
    if it.quantized_nodes == 0 {
        return "no-op: nothing was quantized, nothing was written (exit 6)\n".into();
    }
    let share = format!("{:.1} % of weight bytes", it.quantized_weights * 100.0);
    match &it.output {
        Some(path) => format!(
            "ok  {}  {} nodes, {share} quantized\n",
            escape(&path.display().to_string()),
            it.quantized_nodes
        ),
        None => format!(
            "dry run: would write {} bytes; {} nodes, {share} quantized\n",
            it.after.bytes, it.quantized_nodes
        ),
    }
}

fn metrics_table(name: &str, it: &OutputMetrics) -> String {
    let mut table = Table::new(["output", name]);
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([key, &value]);
        }
    };
    row("samples", Some(it.samples.to_string()));
    row("identical", it.exact.then(|| "yes".into()));
    let summary = |it: &crate::report::metrics::Summary| {
        let part = |name: &str, it: Option<f64>| it.map(|it| format!("{name} {}", number(it)));
        let parts = [
            part("mean", it.mean),
            part("median", it.median),
            part("p1", it.p1),
            part("p99", it.p99),
            part("min", it.min),
            part("max", it.max),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    };
    row("KL (nats)", it.kl.as_ref().map(summary));
    row("top-1 agreement", it.top1.map(|it| format!("{:.2} %", it * 100.0)));
    row(
        "perplexity",
        it.perplexity
            .as_ref()
            .and_then(|it| Some(format!("{} → {}", number(it.reference?), number(it.candidate?)))),
    );
    row("cosine", it.cosine.as_ref().map(summary));
    row("pooled cosine", it.pooled_cosine.as_ref().map(summary));
    row("SQNR", it.sqnr_db.map(|it| format!("{it:.2} dB")));
    row("max |Δ|", it.max_abs.map(number));
    row("equal", it.equal.map(|it| format!("{:.2} %", it * 100.0)));
    let nonfinite = (it.nonfinite.reference, it.nonfinite.candidate);
    row(
        "NaN or Inf",
        (nonfinite != (0, 0))
            .then(|| format!("{} in the original, {} in the quantized", nonfinite.0, nonfinite.1)),
    );
    table.to_string()
}

fn latency(list: &[Latency]) -> String {
    let mut table = Table::new(["run", "original", "quantized", "speedup"]).right(&[1, 2, 3]);
    for it in list {
        let ms = |it: Option<f64>| it.map_or("-".into(), |it| format!("{it:.2} ms"));
        let speedup = it.speedup.map_or("-".into(), |it| format!("×{it:.2}"));
        table.row([&it.input, &ms(it.reference_ms), &ms(it.candidate_ms), &speedup]);
    }
    table.to_string()
}

/// Four significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        it if !(1e-4..1e6).contains(&it) => format!("{value:.3e}"),
        it => {
            let digits = (3 - it.log10().floor() as i32).clamp(0, 8) as usize;
            format!("{value:.digits$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        assert_eq!(
            [0.0, 0.99612, 45.4321, 1234.5, 1.5e-7].map(number),
            ["0", "0.9961", "45.43", "1234", "1.500e-7"]
        );
    }
}
