//! Made-up reports: everything that one can hold, with names that mean no harm, or any harm.

use std::collections::BTreeMap;

use onnxq_report::{
    BaselineFacts, BaselineRow, CacheKl, Comparison, Decode, Footprint, Footprints, GateResult,
    Histogram, Interval, Isolation, Kernels, Latency, NonFinite, OutputMetrics, Perplexity, Phase,
    PositionBin, Report, Role, SampleError, Size, TokenError,
    document::{
        Attribution, Environment, FileFacts, Kept, LayerError, ModelFacts, Models, Overlap,
        PrecisionRow, Provenance, RecipeFacts, SCHEMA, Samples, Spread, Suggestion, Warning,
        WeightKind,
    },
    pictures::{InputPicture, Picture, Pictures},
    summary::Summary,
};

/// What untrusted names may hold: an end of a script, terminal commands, a direction, a line that a
/// pipeline obeys, and the marks of every format we write.
pub(crate) const HOSTILE: &str = "</script><script>alert(1)</script>\u{1b}]8;;http://evil.example\u{7}\
    \u{1b}[2J\u{202e}gpj\n::error::pwn\r\n##[error]x\"'><img src=x onerror=alert(2)>|`x`\
    [t](javascript:alert(3)) ]]>&amp;\u{0}\u{ffff}: #{{ 7*7 }}{% x %}---\n- y";

/// Nothing but what every report has.
pub(crate) fn minimal() -> Report {
    Report { schema: SCHEMA.into(), ..Report::default() }
}

/// Everything, with ordinary names.
pub(crate) fn full() -> Report {
    named(&|it| it.to_owned(), 60)
}

/// Everything, with the same name everywhere that a name can be.
pub(crate) fn hostile() -> Report {
    named(&|_| HOSTILE.to_owned(), 12)
}

type Name<'a> = &'a dyn Fn(&str) -> String;

/// A report of `nodes` nodes.
pub(crate) fn named(name: Name, nodes: usize) -> Report {
    let mut report = Report {
        schema: SCHEMA.into(),
        models: models(name, nodes),
        gates: gates(name),
        baseline: Some(baseline(name)),
        figures: figures(name),
        attribution: Some(attribution(name, nodes)),
        precision: (0..nodes).map(|it| precision(name, it)).collect(),
        kept: kept(name),
        environment: environment(name),
        provenance: provenance(name),
        warnings: warnings(name),
        ..Report::default()
    };
    report.judge();
    report
}

fn node(name: Name, at: usize) -> String {
    const PARTS: [&str; 7] =
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    name(&format!("/model/layers.{}/{}/MatMul", at / 7, PARTS[at % 7]))
}

/// Between 0 and 1, without a pattern.
fn noise(at: usize) -> f64 {
    (at as f64 * 12.9898).sin().mul_add(43758.5453, 0.0).rem_euclid(1.0)
}

fn file(name: &str, bytes: u64) -> FileFacts {
    FileFacts { name: name.into(), bytes, sha256: "41d0c3fe".repeat(8) }
}

fn models(name: Name, nodes: usize) -> Models {
    let kind = |kind: &str, tensors, bytes| WeightKind { kind: name(kind), tensors, bytes };
    let reference = ModelFacts {
        path: format!("models--acme--slm-dev/snapshots/0/{}", name("model.onnx")),
        files: vec![file(&name("model.onnx"), 26_214_400)],
        bytes: 26_214_400,
        opset: 23,
        nodes: nodes * 6,
        ops: [("MatMul", nodes), ("Add", nodes * 2), ("RMSNormalization", nodes / 3)]
            .map(|(op, count)| (name(op), count))
            .into(),
        weights: vec![kind("float", 64, 26_000_000)],
        bits_per_weight: Some(32.0),
        metadata: BTreeMap::new(),
    };
    let candidate = ModelFacts {
        path: name("out/model_q4.onnx"),
        files: vec![file(&name("model_q4.onnx"), 5_242_880)],
        bytes: 5_242_880,
        ops: [("MatMulNBits", nodes), ("Add", nodes * 2), ("RMSNormalization", nodes / 3)]
            .map(|(op, count)| (name(op), count))
            .into(),
        weights: vec![
            kind("int4", 56, 3_100_000),
            kind("int8", 4, 1_100_000),
            kind("scales and zero points", 60, 400_000),
            kind("float", 20, 500_000),
        ],
        bits_per_weight: Some(4.81),
        metadata: [("onnxq.recipe".into(), name("int4"))].into(),
        ..reference.clone()
    };
    Models { reference, candidate }
}

fn gates(name: Name) -> Vec<GateResult> {
    let gate = |gate: &str, measured: f64, limit: f64, margin: f64, passing: f64| GateResult {
        gate: name(gate),
        output: Some(name("logits")),
        measured: Some(measured),
        limit,
        margin: Some(margin),
        passing_limit: Some(passing),
        pass: margin >= 0.0,
        reason: None,
    };
    let mut list = vec![
        gate("size_ratio<=0.25", 0.2, 0.25, 0.05, 0.2),
        gate("kl.mean<=0.03", 0.041_234, 0.03, -0.011_234, 0.0413),
        gate("top1>=0.95", 0.962, 0.95, 0.012, 0.962),
    ];
    list.push(GateResult {
        gate: name("hidden:cosine>=0.99"),
        limit: 0.99,
        reason: Some(name("nothing of that name has this metric")),
        ..GateResult::default()
    });
    list
}

fn baseline(name: Name) -> BaselineFacts {
    let row = |figure: &str, then, now, pass, better| BaselineRow {
        figure: name(figure),
        then: Some(then),
        now: Some(now),
        limit: then * 1.02,
        better,
        pass,
    };
    BaselineFacts {
        path: name("release-0.2/report.json"),
        onnxq: name("0.2.0"),
        candidate_sha256: name(&"9c1f77aa".repeat(8)),
        rows: vec![
            row("logits:kl.mean", 0.031, 0.041_234, false, false),
            row("size_ratio", 0.21, 0.2, true, true),
            row("logits:top1", 0.962, 0.962, true, false),
        ],
    }
}

fn summary(scale: f64) -> Summary {
    let at = |factor: f64| Some(scale * factor);
    Summary {
        mean: at(1.0),
        median: at(0.6),
        min: at(0.01),
        p1: at(0.02),
        p90: at(2.5),
        p95: at(3.4),
        p99: at(6.0),
        p999: at(11.0),
        max: at(23.0),
    }
}

fn perplexity() -> Perplexity {
    Perplexity {
        reference: Some(14.21),
        candidate: Some(14.86),
        ratio: Some(1.0457),
        difference: Some(0.65),
        ratio_interval: Some(Interval { low: 1.031, high: 1.062 }),
        difference_interval: Some(Interval { low: 0.44, high: 0.88 }),
    }
}

fn logits(name: Name) -> OutputMetrics {
    let edges: Vec<f64> = (0..=32).map(|it| 10f64.powf(-6.0 + f64::from(it) * 0.25)).collect();
    let counts = (0..32).map(|it| (900.0 * (-f64::from(it - 17).powi(2) / 30.0).exp()) as u64);
    let bin = |at: usize| PositionBin {
        from: at * 16,
        to: at * 16 + 16,
        tokens: 512,
        kl: Some(0.03 + 0.02 * noise(at)),
        top1: Some(0.96),
        sqnr_db: Some(24.0),
    };
    OutputMetrics {
        role: Role::Logits,
        samples: 64,
        elements: 64 * 128 * 4096,
        cosine: Some(Summary { min: Some(0.9961), mean: Some(0.9989), ..summary(0.99) }),
        sqnr_db: Some(24.31),
        max_abs: Some(3.21),
        mean_abs: Some(0.231),
        kl: Some(summary(0.041_234)),
        kl_interval: Some(Interval { low: 0.0391, high: 0.0435 }),
        top1: Some(0.962),
        top5: Some(0.998),
        perplexity: Some(perplexity()),
        kl_histogram: Some(Histogram { edges, counts: counts.collect() }),
        by_position: (0..8).map(bin).collect(),
        worst_tokens: (0..6).map(|it| token(name, it)).collect(),
        ..OutputMetrics::default()
    }
}

fn token(name: Name, at: usize) -> TokenError {
    TokenError {
        sample: at * 7,
        position: at * 13 + 5,
        kl: 1.4 / (at + 1) as f64,
        reference: 262,
        reference_probability: 0.61,
        candidate: 257,
        candidate_probability: 0.34,
        next: Some(262),
        context_ids: vec![3, 1, 4],
        context: Some(name("The ship left the harbour at dawn\nand nobody on the quay looked at")),
        reference_text: Some(name(" the")),
        candidate_text: Some(name(" a")),
        next_text: Some(name(" the")),
    }
}

/// An output that is an image, of which one channel is shown.
fn maps(name: Name) -> OutputMetrics {
    let picture = |channels: usize, high: f64| {
        let values: Vec<f64> = (0..20 * 32 * channels).map(|it| high * noise(it)).collect();
        Picture::new([20, 32, channels], &values, (0.0, high))
    };
    let [reference, candidate, difference] = [0.9, 0.9, 0.2].map(|high| picture(1, high));
    let input = Some(InputPicture { name: name("pixels"), picture: picture(3, 2.6) });
    let (sample, height, width, channels, channel) = (3, 640, 1024, 4, Some(1));
    let pictures = Pictures {
        sample,
        height,
        width,
        channels,
        channel,
        reference: Picture { non_finite: 2, ..reference },
        candidate,
        difference,
        input,
    };
    let worst = SampleError {
        sample,
        file: Some(name("receipt.png")),
        sqnr_db: Some(21.0),
        ..SampleError::default()
    };
    OutputMetrics {
        role: Role::Image,
        samples: 64,
        elements: 64 * 640 * 1024 * 4,
        sqnr_db: Some(26.0),
        psnr_db: Some(31.0),
        iou: Some(0.97),
        worst_samples: vec![worst],
        pictures: Some(pictures),
        ..OutputMetrics::default()
    }
}

fn figures(name: Name) -> Comparison {
    let cache = |at: usize| OutputMetrics {
        role: Role::Cache,
        samples: 64,
        elements: 1 << 20,
        sqnr_db: Some(30.0 + at as f64),
        max_abs: Some(0.2),
        mean_abs: Some(0.01),
        ..OutputMetrics::default()
    };
    let embedding = OutputMetrics {
        role: Role::Embedding,
        pooled_cosine: Some(summary(0.99)),
        rank_correlation: Some(0.998),
        worst_samples: vec![SampleError {
            sample: 3,
            file: Some(name("cat.png")),
            text: Some(name("A cat on\na wall")),
            cosine: Some(0.98),
            sqnr_db: Some(17.0),
        }],
        nonfinite: NonFinite { reference: 1, candidate: 3, rows: 2, broken_rows: 1 },
        ..OutputMetrics::default()
    };
    let mut outputs: BTreeMap<String, OutputMetrics> =
        (0..6).map(|it| (name(&format!("present.{it}.key")), cache(it))).collect();
    outputs.insert(name("sentence_embedding"), embedding);
    outputs.insert(name("logits"), logits(name));
    outputs.insert(name("maps") + "0", maps(name));
    Comparison {
        samples: 64,
        size: Some(Size::new(26_214_400, 5_242_880)),
        outputs,
        latency: vec![
            latency(name("1x128"), Phase::Prefill, 41.2),
            latency(name("1x1+128"), Phase::Decode, 3.4),
        ],
        decode: Some(decode()),
        isolation: Some(Isolation {
            samples: 16,
            measure: name("kl"),
            weights_only: Some(0.0362),
            deployed: Some(0.0412),
            unoptimized: None,
            note: Some(name("the session without optimizations ran out of memory")),
        }),
        footprint: Some(Footprints {
            reference: footprint(180.0, 140 << 20),
            candidate: footprint(90.0, 96 << 20),
        }),
        kernels: Some(Kernels {
            samples: 412,
            avx512_vnni: 251,
            verdict: name("AVX-512 VNNI executed (61 % of 412 samples)"),
            ..Kernels::default()
        }),
    }
}

fn footprint(load_ms: f64, peak: u64) -> Footprint {
    Footprint { load_ms: Some(load_ms), peak_bytes: Some(peak), base_bytes: Some(31 << 20) }
}

fn latency(input: String, phase: Phase, ms: f64) -> Latency {
    let runs =
        |ms: f64, seed: usize| (0..25).map(move |it| ms * (0.96 + 0.1 * noise(it + seed).powi(3)));
    Latency {
        input,
        phase,
        reference_ms: Some(ms),
        candidate_ms: Some(ms * 0.44),
        ratio: Some(0.4402),
        ratio_spread: Some(Interval { low: 0.431, high: 0.452 }),
        ratio_interval: Some(Interval { low: 0.436, high: 0.445 }),
        speedup: Some(2.2717),
        repeats: 25,
        reference_runs_ms: runs(ms, 0).collect(),
        candidate_runs_ms: runs(ms * 0.44, 99).collect(),
    }
}

fn decode() -> Decode {
    let step = |at: usize| PositionBin {
        from: at * 8,
        to: at * 8 + 8,
        tokens: 128,
        kl: Some(0.03 + 0.002 * at as f64),
        top1: Some(0.96),
        sqnr_db: None,
    };
    Decode {
        samples: 16,
        prompt: 32,
        steps: 64,
        kl: Some(summary(0.044)),
        top1: Some(0.958),
        perplexity: Some(perplexity()),
        by_step: (0..8).map(step).collect(),
        common_prefix: Some(summary(12.0)),
        cache_kl: Some(CacheKl { reference: Some(1e-9), candidate: Some(3e-4) }),
    }
}

fn spread(name: String, unit: &str, at: usize) -> Spread {
    let edges: Vec<f64> = (0..=60).map(|bar| f64::from(bar) / 20.0 - 1.5).collect();
    let count = |middle: f64| (2e5 * (-9.0 * middle * middle).exp()) as u64;
    let counts = edges[..60].iter().map(|low| count(low + 0.025)).collect();
    let holds = (!at.is_multiple_of(3)).then_some(Interval { low: -1.06, high: 0.94 });
    Spread {
        name,
        unit: unit.into(),
        scale_per: Some("block of 32".into()).filter(|_| unit == "grid"),
        histogram: Histogram { edges, counts },
        outside: holds.map(|_| 0.0123),
        holds,
        dynamic: at.is_multiple_of(3),
        stored: at.is_multiple_of(4),
    }
}

fn attribution(name: Name, nodes: usize) -> Attribution {
    let layer = |at: usize| LayerError {
        node: node(name, at),
        op: name("MatMulNBits"),
        value: node(name, at) + "_output_0",
        quantized: !at.is_multiple_of(5),
        local_sqnr_db: (!at.is_multiple_of(5))
            .then(|| if at == 27 { 9.0 } else { 27.0 + 12.0 * noise(at) }),
        accumulated_sqnr_db: Some(if at < 27 {
            32.0 - 0.2 * at as f64
        } else {
            19.0 - 0.1 * at as f64
        }),
        loss_without: Some(0.041 - 0.001 * noise(at)),
        rank: (at + nodes - 27 % nodes) % nodes + 1,
        inputs: at.checked_sub(1).into_iter().collect(),
        reference_range: Some(Interval { low: -3.5, high: 4.25 }),
        candidate_range: Some(Interval { low: -3.25, high: 4.5 }),
        weight_spread: Some(spread(name("model.layers.3.weight"), "grid", at)),
        input_spread: Some(spread(node(name, at), "value", at)),
    };
    let suggestion = |at: usize, gain: f64| Suggestion {
        node: node(name, at),
        keep_in: name("8 bits"),
        bytes: 314_572,
        loss_before: 0.0412,
        loss_after: 0.0412 - gain,
        text: name("keep /model/layers.3/down_proj in 8 bits: +0.3 MiB, KL 0.0412 → 0.0302"),
        names: vec![node(name, at)],
        flag: Some(name("--exclude /model/layers.3/down_proj")),
    };
    Attribution {
        data_samples: 0,
        samples: 8,
        measure: name("kl"),
        loss: 0.0412,
        layers: (0..nodes).map(layer).collect(),
        suggestions: vec![suggestion(27, 0.011), suggestion(13, 0.004)],
        flags: Some(name("--exclude /model/layers.3/down_proj")),
        unmatched: 3,
    }
}

fn precision(name: Name, at: usize) -> PrecisionRow {
    let precision = match at {
        27 | 13 | 41 => "int8",
        it if it % 20 == 0 => "float",
        _ => "int4",
    };
    PrecisionRow {
        node: node(name, at),
        op: name("MatMulNBits"),
        precision: name(precision),
        bytes: 50_000 + 10_000 * (at as u64 % 7),
        computes: Some(name(if at.is_multiple_of(6) { "float" } else { precision })),
        declared: Some(name("int4 in blocks of 32")),
        executed: Some(name("SQNBitGemm, CompInt8")),
        differs: (at == 13).then(|| name("runs in float: the block size has no kernel here")),
    }
}

fn kept(name: Name) -> Vec<Kept> {
    vec![
        Kept {
            reason: name("smaller than 1 Mi elements"),
            op: name("Gather"),
            nodes: (0..5).map(|it| node(name, it)).collect(),
            others: 0,
            bytes: 262_144,
        },
        Kept {
            reason: name("both operands are activations"),
            op: name("MatMul"),
            nodes: vec![node(name, 1)],
            others: 0,
            bytes: 0,
        },
    ]
}

fn environment(name: Name) -> Environment {
    Environment {
        onnxq: name("0.3.0"),
        onnxq_commit: Some(name("0123abcd")),
        onnxruntime: name("1.31.1"),
        onnxruntime_path: name("/opt/onnxruntime/lib/libonnxruntime.so.1.31.1"),
        onnxruntime_sha256: Some("77b2a1d0".repeat(8)),
        os: name("linux"),
        arch: name("x86_64"),
        cpu: name("Intel Xeon Platinum 8481C"),
        cpu_features: [(name("avx512_vnni"), true), (name("amx_int8"), false)].into(),
        threads: 1,
        int8_sums: Some(name("exact (VNNI, proved)")),
    }
}

fn provenance(name: Name) -> Provenance {
    let samples = |path: &str, count| Samples {
        path: Some(name(path)),
        samples: Some(count),
        sha256: "0a1b2c3d".repeat(8),
        files: vec![file(&name(path), 123_456)],
    };
    Provenance {
        command: ["onnxq", "quantize", "model.onnx", "-r", "int4", "--gate", "kl.mean<=0.03"]
            .map(name)
            .to_vec(),
        recipe: Some(RecipeFacts {
            name: name("int4"),
            sha256: "c0ffee00".repeat(8),
            yaml: Some(name(
                "onnxq: 1\nname: int4\ntarget: avx512_vnni\nquantize:\n- match: {op: MatMul}\n  \
                 weight: {bits: 4, block: 32}\n",
            )),
        }),
        evaluation: samples("eval.txt", 64),
        calibration: Some(samples("train.txt", 128)),
        overlap: Some(Overlap { checked: 64, shared: 2 }),
    }
}

fn warnings(name: Name) -> Vec<Warning> {
    vec![
        Warning {
            code: "W201".into(),
            at: Some(name("eval.txt")),
            message: name("2 of 64 evaluation samples were calibrated on"),
        },
        Warning { code: name("W511"), at: None, message: name("the sampler saw few runs") },
    ]
}
