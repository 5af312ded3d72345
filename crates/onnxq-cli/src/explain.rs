//! `onnxq explain`: what an error code means and what to do; what a gate can limit.

use std::borrow::Cow;

use serde_json::json;

use super::{Failure, Ui};
use onnxq_ir::{
    diag::{Code, EXIT_GATE},
    suggest::suggest,
};
use onnxq_quant::recipe::metrics::{Better, METRICS, Metric};
use onnxq_rewrite::lint::CHECKS;

/// Say what an error code means and what to do, or what a metric of gates is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The code of an error, a warning or a check, as E205, W201 or L101, or a metric of gates, as
    /// kl; without one, all of them are listed
    #[arg(value_parser = parse)]
    pub code: Option<Known>,
}

/// A code that the table has, or that of a check of `inspect --lint`.
#[derive(Clone, Copy)]
pub struct Known(pub &'static str);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// What is known of a code.
struct Row {
    code: &'static str,
    exit: u8,
    text: Cow<'static, str>,
}

/// Errors, and then checks and metrics, which are no errors but end with the code of a gate.
fn rows() -> impl Iterator<Item = Row> {
    let errors =
        Code::ALL.iter().map(|it| Row { code: it.name(), exit: it.exit(), text: it.text().into() });
    let checks = CHECKS.iter().map(|it| (it.code, it.help.into()));
    let metrics = METRICS.iter().map(|it| (it.name, metric(it).into()));
    let gates = checks.chain(metrics);
    errors.chain(gates.map(|(code, text)| Row { code, exit: EXIT_GATE, text }))
}

/// What a gate can limit, and by which statistics.
fn metric(it: &Metric) -> String {
    let better = if it.better == Better::Lower { "lower" } else { "higher" };
    let statistics = match it.statistics {
        [] => String::new(),
        list => format!("; as {}.{}", it.name, list.join(", .")),
    };
    format!("A gate can limit it: {}; {better} is better{statistics}.", it.help)
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let rows = rows().filter(|row| self.code.is_none_or(|it| it.0 == row.code));
        if ui.global.json {
            let rows = rows.map(|it| json!({"code": it.code, "exit": it.exit, "text": it.text}));
            ui.print_json(&rows.collect::<Vec<_>>())?;
            return Ok(0);
        }
        for it in rows {
            ui.print(&format!("{} (exit code {})\n  {}\n", it.code, it.exit, it.text))?;
        }
        Ok(0)
    }
}

fn parse(text: &str) -> Result<Known, String> {
    let found = rows().find(|it| it.code.eq_ignore_ascii_case(text));
    found.map(|it| Known(it.code)).ok_or_else(|| match suggest(text, rows().map(|it| it.code)) {
        Some(near) => format!("there is no such code; did you mean {near}?"),
        None => "there is no such code; `onnxq explain` lists them".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_known_in_upper_and_lower_case() {
        for code in Code::ALL {
            assert_eq!(parse(code.name()).unwrap().0, code.name());
            assert_eq!(parse(&code.name().to_lowercase()).unwrap().0, code.name());
        }
        assert_eq!(parse("E20").unwrap_err(), "there is no such code; did you mean E120?");
    }
}
