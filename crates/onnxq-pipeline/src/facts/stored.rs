//! What became of the integers of a quantized checkpoint, by their type.

use std::collections::BTreeMap;

use onnxq_quant::{as_stored, plan::PlanRow};
use onnxq_report::document::Decision;

/// One line for each type and what became of it; nothing of a model that had floats only.
pub(super) fn stored(rows: &[PlanRow]) -> Option<Decision> {
    let mut groups: BTreeMap<(&str, &str), Vec<&PlanRow>> = BTreeMap::new();
    for row in rows {
        if let (Some(kind), Some(scheme)) = (&row.stored, &row.scheme) {
            groups.entry((kind, scheme)).or_default().push(row);
        }
    }
    if groups.is_empty() {
        return None;
    }
    let header = ["type in the file", "becomes", "integers"];
    let mut decision = Decision::new("checkpoint").words(&header).numbers(&["weights", "error"]);
    for ((kind, scheme), list) in groups {
        let is_kept = list.iter().all(|it| it.solver == Some(as_stored::NAME));
        let integers = if is_kept { "kept" } else { "rounded anew" };
        let error = if is_kept { "0".to_owned() } else { rms(&list) };
        let cells = [kind, scheme, integers, &list.len().to_string(), &error];
        decision.row(cells.map(str::to_owned).to_vec());
    }
    let note =
        "error: rms of all that is rounded anew, in percent of the rms of what the file holds";
    decision.after.push(note.to_owned());
    Some(decision)
}

/// Of all weights together, each as large as it is.
fn rms(list: &[&PlanRow]) -> String {
    let size = |it: &PlanRow| it.shape.iter().product::<usize>() as f64;
    let known = || list.iter().filter_map(|it| Some((size(it), it.error?.solved)));
    let total: f64 = known().map(|it| it.0).sum();
    if total == 0.0 {
        return "unknown".to_owned();
    }
    let mean = known().map(|(size, error)| size * error).sum::<f64>() / total;
    format!("{:.2} %", 100.0 * mean.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::weight::{Measure, WeightError};

    #[test]
    fn types_are_summed_up_with_what_became_of_them() {
        let m = onnxq_ir::text::parse(
            "main (float[n,2] x) => (float[n,2] y) <float[2,2] w> { y = MatMul (x, w) }",
        )
        .unwrap();
        let row = |kind: &str, solver, solved: Option<f64>| PlanRow {
            stored: Some(kind.to_owned()),
            scheme: Some("int4 block 32".to_owned()),
            solver: Some(solver),
            error: solved.map(|solved| WeightError {
                measure: Measure::Weight,
                rtn: solved,
                solved,
                ratio: 1.0,
            }),
            ..PlanRow::of(&m, m.nodes()[0])
        };
        let rows = [
            row("Q4_1", "mse", Some(0.0001)),
            row("Q4_0", as_stored::NAME, None),
            row("Q4_1", "mse", Some(0.0007)),
        ];
        let made = stored(&rows).unwrap().rows;
        let kept = ["Q4_0", "int4 block 32", "kept", "1", "0"];
        let anew = ["Q4_1", "int4 block 32", "rounded anew", "2", "2.00 %"];
        assert_eq!(made, [kept, anew].map(|it| it.map(str::to_owned).to_vec()));
        assert_eq!(stored(&[PlanRow::of(&m, m.nodes()[0])]), None);
    }
}
