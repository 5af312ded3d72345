//! Every figure that a gate can limit: once where it passes, once where it fails, by exit code.

use std::fs;

use crate::common::outside::{Place, run};
use onnxq_quant::recipe::{
    Gate,
    metrics::{Better, METRICS},
};
use onnxq_report::{
    CacheKl, Decode, Footprint, Footprints, Interval, Isolation, Kernels, Latency, OutputMetrics,
    Perplexity, Report, Size, document::SCHEMA, summary::Summary,
};

fn perplexity() -> Perplexity {
    Perplexity {
        reference: Some(10.0),
        candidate: Some(10.2),
        ratio: Some(1.02),
        difference: Some(0.2),
        ratio_interval: Some(Interval { low: 1.01, high: 1.03 }),
        difference_interval: Some(Interval { low: 0.1, high: 0.3 }),
    }
}

/// A report in which every figure was measured.
fn report() -> Report {
    let values: Vec<f32> = (1..=1000).map(|it| it as f32 * 1e-4).collect();
    let summary = Summary::of(&values);
    let logits = OutputMetrics {
        cosine: summary,
        pooled_cosine: summary,
        rank_correlation: Some(0.98),
        sqnr_db: Some(25.5),
        psnr_db: Some(31.0),
        iou: Some(0.95),
        max_abs: Some(2.5),
        mean_abs: Some(0.3),
        kl: summary,
        kl_interval: Some(Interval { low: 0.04, high: 0.06 }),
        top1: Some(0.91),
        top5: Some(0.99),
        perplexity: Some(perplexity()),
        ..OutputMetrics::default()
    };
    let runs = Latency {
        input: "1x128".into(),
        reference_ms: Some(3.0),
        candidate_ms: Some(2.0),
        ratio: Some(0.66),
        ratio_spread: Some(Interval { low: 0.6, high: 0.7 }),
        speedup: Some(1.5),
        candidate_runs_ms: vec![1.9, 2.0, 2.2],
        ..Latency::default()
    };
    let mut report = Report { schema: SCHEMA.into(), ..Report::default() };
    let it = &mut report.figures;
    let tokens = OutputMetrics { equal: Some(0.75), ..OutputMetrics::default() };
    it.outputs = [("logits".to_owned(), logits), ("tokens".to_owned(), tokens)].into();
    it.latency = vec![runs];
    it.size = Some(Size::new(1000, 250));
    it.decode = Some(Decode {
        kl: summary,
        top1: Some(0.9),
        perplexity: Some(perplexity()),
        common_prefix: summary,
        cache_kl: Some(CacheKl { reference: Some(0.0), candidate: Some(0.001) }),
        ..Decode::default()
    });
    it.isolation = Some(Isolation {
        weights_only: Some(0.01),
        deployed: Some(0.02),
        unoptimized: Some(0.021),
        ..Isolation::default()
    });
    let of = |load: f64, peak: u64| Footprint {
        load_ms: Some(load),
        peak_bytes: Some(peak),
        base_bytes: Some(1),
    };
    it.footprint = Some(Footprints { reference: of(10.0, 4000), candidate: of(5.0, 1000) });
    it.kernels = Some(Kernels { samples: 100, avx512_vnni: 40, ..Kernels::default() });
    report
}

#[test]
fn every_statistic_passes_and_fails_by_exit_code() {
    let (place, report) = (Place::new(), report());
    let path = place.write("report.json", serde_json::to_string(&report).unwrap());
    let mut count = 0;
    for metric in METRICS {
        let statistics = metric.statistics.iter().map(|it| format!("{}.{it}", metric.name));
        for subject in statistics.chain([metric.name.to_owned()]) {
            let (keeps, breaks) = match metric.better {
                Better::Lower => ("<=", "<"),
                Better::Higher => (">=", ">"),
            };
            let probe: Gate = format!("{subject}{keeps}0").parse().unwrap();
            let measured = onnxq_report::gate::check(&probe, &report.figures).measured;
            let measured = measured.unwrap_or_else(|| panic!("{subject} is not measured"));
            for (operator, code) in [(keeps, 0), (breaks, 1)] {
                let gate = format!("{subject}{operator}{measured}");
                let args = ["report", &path, "--format", "markdown", "--gate", &gate];
                let it = run(&args);
                assert_eq!(it.code, code, "{gate}: {}{}", it.out, it.error);
            }
            count += 1;
        }
    }
    assert!(count > 70, "{count} statistics");
}

#[test]
fn a_missed_gate_says_what_would_pass() {
    let place = Place::new();
    let path = place.write("report.json", serde_json::to_string(&report()).unwrap());
    let it = run(&["report", &path, "--json", "--gate", "top1>=0.95"]);
    assert_eq!(it.code, 1);
    let json: Report = serde_json::from_str(&it.out).unwrap();
    let gate = &json.gates[0];
    assert_eq!((gate.measured, gate.limit, gate.passing_limit), (Some(0.91), 0.95, Some(0.91)));
    assert!((gate.margin.unwrap() + 0.04).abs() < 1e-12 && !gate.pass);
    // What the report says of itself stays: rendering a failure is none.
    let failed = place.write("failed.json", &it.out);
    assert_eq!(run(&["report", &failed, "--format", "markdown"]).code, 0);
    assert_eq!(run(&["report", &failed, "--format", "markdown", "--gate", "top1>=0"]).code, 1);
}

#[test]
fn a_report_is_held_against_an_older_one() {
    let place = Place::new();
    let old = place.write("old.json", serde_json::to_string(&report()).unwrap());
    let mut worse = report();
    worse.figures.outputs.get_mut("logits").unwrap().top1 = Some(0.7);
    let new = place.write("new.json", serde_json::to_string(&worse).unwrap());
    let against =
        |new: &str, old: &str| run(&["report", new, "--format", "junit", "--baseline", old]).code;
    assert_eq!((against(&old, &old), against(&new, &old), against(&old, &new)), (0, 1, 0));
    assert_eq!(fs::read(&old).unwrap().len(), serde_json::to_string(&report()).unwrap().len());
}

#[test]
fn gates_of_a_run_pass_and_fail() {
    let fixture =
        |name: &str| format!("{}/fixtures/slm-fixture/{name}", env!("CARGO_MANIFEST_DIR"));
    let (model, data) = (fixture("model_with_past.onnx"), fixture("eval_ids.npy"));
    let validate = |gate: &str| {
        let args = ["validate", &model, &model, "--data", &data, "--samples", "1", "--no-latency"];
        run(&[&args[..], &["--gate", gate]].concat())
    };
    for (gate, code) in
        [("logits:kl.max<=0", 0), ("decode_top1>1", 1), ("load_ms<=1e9", 0), ("nothing:kl<=1", 2)]
    {
        let it = validate(gate);
        assert_eq!(it.code, code, "{gate}: {}{}", it.out, it.error);
    }
}
