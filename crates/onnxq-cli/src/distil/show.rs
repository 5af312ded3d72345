//! What a training did, for people.

use std::fmt::Write;

use super::super::{Table, decisions, show::needs};
use onnxq_ir::{
    human::{bytes, grouped, number},
    untrusted::escape,
};
use onnxq_pipeline::{distil::Distilled, facts};

pub(super) fn show(done: &Distilled) -> String {
    let mut out = String::from("\n");
    if let Some(chosen) = &done.layers {
        let mut table = Table::new(["without layer", chosen.measure.name()]).right(&[0, 1]);
        for removal in &chosen.removed {
            table.row([&removal.layer.to_string(), &number(removal.loss)]);
        }
        let _ = writeln!(out, "{table}");
    }
    if let Some(chosen) = &done.width {
        let _ =
            writeln!(out, "{} of the cut alone: {}\n", chosen.measure.name(), number(chosen.loss));
    }
    out += &decisions::show(&[facts::training(&done.learnt)]);
    let mut table = Table::new(["", "before", "after"]).right(&[1, 2]);
    table.row(["size", &bytes(done.before.bytes), &bytes(done.after.bytes)]);
    let nodes = [done.before.nodes, done.after.nodes].map(|it| grouped(it as u64));
    table.row(["nodes", &nodes[0], &nodes[1]]);
    let path = escape(&done.output.display().to_string());
    let _ = write!(out, "\n{table}\n{}ok  {path}\n", needs(&done.needs));
    out
}
