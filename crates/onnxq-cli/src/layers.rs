//! Where the error enters, as tables: layers by what they cost, suggestions, a bisection.

use super::Table;
use onnxq_ir::{
    human::{number, of_samples},
    untrusted::{Untrusted, escape},
};
use onnxq_report::document::{Attribution, Bisection, LayerError};

/// Rows that are shown; all are in the JSON.
const ROWS: usize = 20;

/// The layers whose error matters most, and what would help.
pub(crate) fn attribution(it: &Attribution) -> String {
    let name = measure(&it.measure);
    let loss = number(it.loss);
    let mut out = format!("{name} {loss} on {}\n", of_samples(it.samples, it.data_samples));
    let mut rows: Vec<&LayerError> = it.layers.iter().filter(|it| is_worth(it)).collect();
    rows.sort_by_key(|it| it.rank);
    let exact = it.layers.len() - rows.len();
    if !rows.is_empty() {
        out += &format!("\n{}", table(&rows[..rows.len().min(ROWS)], name));
    }
    let more = rows.len().saturating_sub(ROWS);
    let mut notes = vec![format!("{} layers", it.layers.len())];
    notes.extend((exact > 0).then(|| format!("{exact} exact")));
    notes.extend((more > 0).then(|| format!("{more} more in --json")));
    let unmatched = it.unmatched;
    notes.extend((unmatched > 0).then(|| format!("{unmatched} values in one model only")));
    out += &format!("{}\n", notes.join(" · "));
    if !it.suggestions.is_empty() {
        out += "\nwhat would help:\n";
        out.extend(it.suggestions.iter().map(|it| format!("  {}\n", escape(&it.text))));
        let flags = it.flags.as_ref().or(it.suggestions[0].flag.as_ref());
        out.extend(flags.map(|it| format!("to do so, add to the command:\n  {}\n", escape(it))));
    }
    out
}

fn is_worth(it: &LayerError) -> bool {
    it.local_sqnr_db.is_some() || it.accumulated_sqnr_db.is_some()
}

fn table(rows: &[&LayerError], name: &str) -> Table {
    let without = format!("{name} without");
    let header = ["rank", "node", "op", "local dB", "accumulated dB", &without];
    let mut table = Table::new(header).right(&[0, 3, 4, 5]);
    let db = |it: Option<f64>| it.map_or("exact".into(), |it| format!("{it:.1}"));
    for it in rows {
        let without = it.loss_without.map_or("-".into(), number);
        let (local, accumulated) = (db(it.local_sqnr_db), db(it.accumulated_sqnr_db));
        let node = Untrusted(&it.node).to_string();
        table.row([&it.rank.to_string(), &node, &it.op, &local, &accumulated, &without]);
    }
    table
}

/// The node that was found, and how.
pub(crate) fn bisection(it: &Bisection) -> String {
    // A ratio to no noise at all has no number.
    let figure = |it: Option<f64>, keeps: bool| {
        it.map_or(if keeps { "exact".into() } else { "-".into() }, number)
    };
    let runs = if it.runs == 1 { "1 run".into() } else { format!("{} runs", it.runs) };
    let on = of_samples(it.samples, it.data_samples);
    let limit = escape(&it.limit);
    let Some(node) = &it.node else {
        return format!(
            "nothing breaks {limit}: measured {} on {on} ({runs})\n",
            figure(it.after, true)
        );
    };
    let mut table = Table::new(["up to", "measured", ""]).right(&[1]);
    let mut probes: Vec<_> = it.probes.iter().collect();
    probes.sort_by_key(|it| it.up_to);
    for probe in probes {
        let value = match (&probe.value, probe.up_to) {
            (Some(value), _) => Untrusted(value).to_string(),
            (None, 0) => "the reference alone".into(),
            (None, _) => "the candidate alone".into(),
        };
        let verdict = if probe.keeps { "ok" } else { "broken" };
        table.row([&value, &figure(probe.measured, probe.keeps), verdict]);
    }
    let op = escape(it.op.as_deref().unwrap_or(""));
    format!(
        "{limit} is broken from here on: {} ({op})\n{} → {} with it, found in {runs} on {on}\n\n{table}",
        Untrusted(node),
        figure(it.before, true),
        figure(it.after, false),
    )
}

fn measure(name: &str) -> &str {
    match name {
        "kl" => "KL",
        _ => "noise to signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_report::document::Probe;

    #[test]
    fn untrusted_names_stay_text() {
        let node = "a\x1b[2J".to_owned();
        let probe =
            Probe { up_to: 1, value: Some(node.clone()), measured: Some(0.5), keeps: false };
        let found = Bisection {
            limit: "kl.mean<=0.1".into(),
            node: Some(node.clone()),
            runs: 3,
            probes: vec![probe],
            ..Bisection::default()
        };
        let layer = LayerError { node, local_sqnr_db: Some(3.0), ..LayerError::default() };
        let layers = Attribution { layers: vec![layer], ..Attribution::default() };
        let text = bisection(&found) + &attribution(&layers);
        assert!(!text.contains('\x1b') && text.contains("a\\u{1b}[2J"), "{text}");
    }
}
