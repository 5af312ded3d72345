//! How far the outputs of quantized weights are off: the solvers' own proof.

use std::collections::BTreeMap;

use super::Table;
use onnxq_ir::untrusted::Untrusted;
use onnxq_quant::{plan::PlanRow, weight::Measure};

/// One line per solver and measure; empty if all weights were rounded to nearest.
pub fn table(rows: &[PlanRow]) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&PlanRow>> = BTreeMap::new();
    for row in rows {
        if let (Some(solver), Some(error)) = (row.solver, &row.error) {
            groups.entry((solver, measure(error.measure))).or_default().push(row);
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    let header = ["solver", "weights", "error of", "median", "to rtn's", "worst", "at"];
    let mut table = Table::new(header).right(&[1, 3, 4, 5]);
    for ((solver, measure), mut list) in groups {
        let error = |it: &PlanRow| it.error.map_or(0.0, |it| it.solved);
        let ratio = |it: &PlanRow| it.error.map_or(1.0, |it| it.ratio);
        list.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let median = median(list.iter().map(|it| error(it)).collect());
        let worst = list[list.len() - 1];
        table.row([
            solver,
            &list.len().to_string(),
            measure,
            &format!("{:.2} %", 100.0 * median.sqrt()),
            &format!("×{:.2}", ratio(list[list.len() / 2])),
            &format!("×{:.2}", ratio(worst)),
            &Untrusted(&worst.node).to_string(),
        ]);
    }
    // Errors are roots of mean squares; ratios are of squares, as losses are.
    format!("{table}median: rms error in percent of the rms value; to rtn's: ratio of squares\n")
}

fn measure(it: Measure) -> &'static str {
    match it {
        Measure::Hessian => "output",
        Measure::Diagonal => "output, as if uncorrelated",
        Measure::Weight => "weight",
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::weight::WeightError;

    #[test]
    fn solvers_are_summed_up_with_their_worst() {
        let m = onnxq_ir::text::parse(
            "main (float[n,2] x) => (float[n,2] y) <float[2,2] w> { y = MatMul (x, w) }",
        )
        .unwrap();
        let row = |node: &str, solved: f64| PlanRow {
            node: node.into(),
            solver: Some("gptq"),
            error: Some(WeightError {
                measure: Measure::Hessian,
                rtn: 0.04,
                solved,
                ratio: solved / 0.04,
            }),
            ..PlanRow::of(&m, m.nodes()[0])
        };
        let text = table(&[row("a", 0.01), row("b", 0.02), row("c", 0.0004)]);
        insta::assert_snapshot!(text, @r"
        solver  weights  error of   median  to rtn's  worst  at
        gptq          3  output    10.00 %     ×0.25  ×0.50  b
        median: rms error in percent of the rms value; to rtn's: ratio of squares
        ");
        assert_eq!(table(&[PlanRow::of(&m, m.nodes()[0])]), "");
    }
}
