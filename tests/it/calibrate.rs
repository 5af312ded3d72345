//! Statistics of a model's inputs do not depend on how the work is divided.

use std::path::Path;

use crate::common::{Setup, fixture, runtime, setup};
use onnxq_ir::{
    Def, Model, NodeId, ValueId,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx,
    tensor::Tensor,
};
use onnxq_numerics::{
    moments::Moments,
    stats::{Hessian, InputStats, Needs},
};
use onnxq_quant::window::Operand;
use onnxq_run::{
    calibrate::{
        self, CollectOptions, Collector, Identity, Learnt, Replacement, Run, Stats, StatsFile,
        Want, can_observe, describe, merge, model_sha256,
    },
    data::{self, DataOptions},
    engine::SessionOptions,
};

/// MatMuls by a constant.
fn sites(model: &Model) -> Vec<NodeId> {
    let has_weight = |it: &NodeId| {
        let node = model.node(*it);
        node.op.is("MatMul") && model.constant(node.inputs[1].unwrap()).is_ok()
    };
    model.nodes_of(model.main).filter(has_weight).collect()
}

fn wants(model: &Model, needs: Needs) -> Vec<Want> {
    let input = |it: NodeId| model.node(it).inputs[0].unwrap();
    let mut values: Vec<ValueId> = sites(model).into_iter().map(input).collect();
    values.retain(|it| can_observe(model, &(*it).into()).is_ok());
    values.sort();
    values.dedup();
    values.into_iter().map(|it| Want::of(it, needs)).collect()
}

fn batches(model: &Model, samples: usize) -> data::Batches {
    let options = DataOptions {
        tokenizer: Some(fixture("tokenizer.json")),
        samples: Some(samples),
        sequence: 32,
        ..DataOptions::default()
    };
    let inputs = calibrate::model_inputs(model);
    data::open(&fixture("calibration.txt"), &inputs, &options).unwrap()
}

fn run(it: &Setup, batches: data::Batches, options: CollectOptions) -> Run<'_> {
    let runtime = runtime();
    Run { model: &it.model, files: &it.files, batches, options, runtime }
}

fn collector<'a>(it: &'a Setup, options: CollectOptions) -> Collector<'a> {
    let (wants, batches) = (wants(&it.model, Needs::Hessian), batches(&it.model, 5));
    Collector::new(run(it, batches, options), wants, None).unwrap()
}

/// The statistics of the next pass, if there is one; nothing guides.
fn next(collector: &mut Collector, replaced: &[Replacement]) -> Option<Vec<(Operand, InputStats)>> {
    let one = |it: Learnt| (it.operand, it.stats.into_iter().next().unwrap());
    let list = collector.next(replaced, &Ctx::silent()).unwrap()?;
    Some(list.into_iter().map(one).collect())
}

/// All statistics, and how many passes they took.
fn collect(it: &Setup, options: CollectOptions) -> (Vec<(Operand, InputStats)>, usize) {
    let mut collector = collector(it, options);
    let (mut list, mut passes) = (Vec::new(), 0);
    while let Some(stats) = next(&mut collector, &[]) {
        list.extend(stats);
        passes += 1;
    }
    (list, passes)
}

fn options(threads: usize) -> CollectOptions {
    CollectOptions { threads, ..CollectOptions::default() }
}

#[test]
fn statistics_are_the_same_however_the_work_is_divided() {
    for name in ["model.onnx", "model_dynamo.onnx", "model_with_past.onnx"] {
        let it = setup(name);
        let (expected, passes) = collect(&it, options(1));
        assert!(passes == 1 && expected.len() >= 4, "{name}: {passes} of {}", expected.len());
        assert!(expected.iter().all(|it| it.1.rows == 5 * 32));
        assert_eq!(collect(&it, options(3)).0, expected, "{name} by threads");
        let largest = expected.iter().map(|it| it.1.k()).max().unwrap();
        let memory = 2 * Moments::bytes(largest, Needs::Hessian) as u64;
        let (small, passes) = collect(&it, CollectOptions { memory, ..options(2) });
        assert!(passes > 1, "{name}");
        assert_eq!(small, expected, "{name} in {passes} passes");
        let (single, passes) = collect(&it, CollectOptions { sequential: true, ..options(2) });
        assert_eq!((single, passes), (expected.clone(), expected.len()), "{name} one by one");
    }
}

/// The same by hand: the values as outputs of the whole model.
#[test]
fn statistics_are_those_of_the_tapped_values() {
    let it = setup("model.onnx");
    let (found, _) = collect(&it, options(2));
    let mut tapped = it.model.clone();
    let main = tapped.main;
    found.iter().for_each(|(value, _)| tapped.add_output(main, value.value));
    let bytes = onnx::to_bytes(&tapped).unwrap();
    let plain = SessionOptions { optimize: false, ..SessionOptions::default() };
    let mut session = runtime().open_bytes(&bytes, None, &plain).unwrap();
    let mut data = batches(&it.model, 5);
    data.one_by_one();
    let mut moments: Vec<Moments> =
        found.iter().map(|it| Moments::new(it.1.k(), Needs::Hessian)).collect();
    for batch in data {
        let batch = batch.unwrap();
        let given: Vec<(&str, &Tensor)> = batch.iter().map(|(name, it)| (&**name, it)).collect();
        let outputs = session.run(&given).unwrap();
        let first = outputs.len() - found.len();
        for (moments, (_, tensor)) in moments.iter_mut().zip(&outputs[first..]) {
            let k = *tensor.shape.last().unwrap();
            let values = tensor.to_f32().unwrap();
            let rows = ndarray::ArrayView2::from_shape((values.len() / k, k), &values).unwrap();
            moments.add(rows).unwrap();
        }
    }
    for ((_, found), moments) in found.iter().zip(moments) {
        let expected = moments.finish();
        assert_eq!(expected.rows, found.rows);
        // Not packing weights is another order of the same sums.
        for (a, b) in expected.mean_square.iter().zip(&found.mean_square) {
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1e-6), "{a} {b}");
        }
    }
}

/// Replacing the weights of one layer changes what later layers see, and nothing before.
#[test]
fn later_layers_see_replaced_weights() {
    let it = setup("model.onnx");
    let sequential = CollectOptions { sequential: true, ..options(2) };
    let (expected, _) = collect(&it, sequential.clone());
    let mut collector = collector(&it, sequential);
    let mut found = next(&mut collector, &[]).unwrap();
    let first = &expected[0].0;
    let node = sites(&it.model)
        .into_iter()
        .find(|node| it.model.node(*node).inputs[0] == Some(first.value));
    let node = node.unwrap();
    let weight = it.model.constant(it.model.node(node).inputs[1].unwrap()).unwrap();
    let halved: Vec<f32> = weight.to_f32().unwrap().iter().map(|it| it * 0.5).collect();
    let tensor = Tensor::from_f32(&weight.shape, halved);
    let mut replaced = vec![Replacement { node, index: 1, tensor }];
    while let Some(stats) = next(&mut collector, &replaced) {
        found.extend(stats);
        replaced.clear();
    }
    assert_eq!(found[0], expected[0]);
    assert!(found[1..].iter().zip(&expected[1..]).all(|(a, b)| a.0 == b.0 && a.1 != b.1));
}

/// Layers that read what others, now doubled, put out, get other inputs than in the float model.
#[test]
fn drift_is_that_from_the_float_model() {
    let it = setup("model.onnx");
    let sequential = CollectOptions { sequential: true, ..options(2) };
    let mut found = Vec::new();
    for threads in [1, 2] {
        let mut collector = collector(&it, CollectOptions { threads, ..sequential.clone() });
        let first = next(&mut collector, &[]).unwrap();
        assert!(first[0].1.drift.is_none());
        let reads = |node: &NodeId| it.model.node(*node).inputs[0] == Some(first[0].0.value);
        let replaced = sites(&it.model).into_iter().filter(reads).map(|node| {
            let weight = it.model.constant(it.model.node(node).inputs[1].unwrap()).unwrap();
            let doubled = weight.to_f32().unwrap().into_iter().map(|it| it * 2.0);
            let tensor = Tensor::from_f32(&weight.shape, doubled);
            Replacement { node, index: 1, tensor }
        });
        let replaced: Vec<Replacement> = replaced.collect();
        let second = next(&mut collector, &replaced).unwrap();
        let drift = second[0].1.drift.clone().unwrap();
        assert_eq!(drift.dim(), (second[0].1.k(), second[0].1.k()));
        assert!(drift.iter().any(|it| *it != 0.0));
        found.push(drift);
    }
    assert_eq!(found[0], found[1]);
}

#[test]
fn padding_does_not_count() {
    let it = setup("model.onnx");
    let folder = tempfile::tempdir().unwrap();
    let inputs = calibrate::model_inputs(&it.model);
    for name in ["input_ids", "attention_mask"] {
        let from = fixture(&format!("calibration_{name}.npy"));
        std::fs::copy(from, folder.path().join(format!("{name}.npy"))).unwrap();
    }
    let data = DataOptions { samples: Some(8), ..DataOptions::default() };
    let mut tokens = 0;
    for batch in data::open(folder.path(), &inputs, &data).unwrap() {
        tokens += batch.unwrap()["attention_mask"].to_i64().unwrap().iter().sum::<i64>();
    }
    let batches = data::open(folder.path(), &inputs, &data).unwrap();
    let wants = wants(&it.model, Needs::Diagonal);
    let mut collector = Collector::new(run(&it, batches, options(2)), wants, None).unwrap();
    let stats = next(&mut collector, &[]).unwrap();
    assert!(stats.iter().all(|it| it.1.rows == tokens as u64 && it.1.hessian.is_none()));
}

#[test]
fn a_budget_below_one_input_is_an_error() {
    let it = setup("model.onnx");
    let mut collector = collector(&it, CollectOptions { memory: 1000, ..options(1) });
    let error = collector.next(&[], &Ctx::silent()).unwrap_err();
    assert_eq!(error.code(), Code::E612);
    assert!(error.hint().unwrap().contains("--memory"));
}

#[test]
fn constants_and_inner_values_cannot_be_observed() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (bool cond, float[3,4] x) => (float[3,4] y) <float[4,4] w> {
            y = If (cond) <
                then_branch = yes () => (float[3,4] a) { b = Abs (x) a = MatMul (b, w) },
                else_branch = no () => (float[3,4] c) { c = MatMul (x, w) }
            >
        }"#;
    let m = onnxq_ir::text::parse(text).unwrap();
    let value = |name: &str| m.values().find(|it| &*it.1.name == name).unwrap().0;
    assert!(can_observe(&m, &value("x").into()).is_ok());
    assert!(can_observe(&m, &value("b").into()).unwrap_err().to_string().contains("subgraph"));
    assert!(matches!(m.value(value("w")).def, Def::Const(_)));
    assert!(can_observe(&m, &value("w").into()).is_err());
}

fn identity(it: &Setup, samples: u64) -> Identity {
    let data = vec![batches(&it.model, 5).sha256().to_owned()];
    Identity { model: model_sha256(&it.files), data, samples, ..Identity::default() }
}

fn stored<'a>(it: &'a Setup, path: &Path, options: CollectOptions) -> Collector<'a> {
    let (wants, batches) = (wants(&it.model, Needs::Hessian), batches(&it.model, 5));
    let store = StatsFile::begin(path, identity(it, 5), true).unwrap();
    Collector::new(run(it, batches, options), wants, Some(store)).unwrap()
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let it = setup("model.onnx");
    let (expected, _) = collect(&it, options(2));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stats.safetensors");
    let part = folder.path().join("stats.safetensors.part");
    let sequential = CollectOptions { sequential: true, ..options(2) };
    let mut first = stored(&it, &path, sequential.clone());
    for _ in 0..3 {
        first.next(&[], &Ctx::silent()).unwrap();
    }
    drop(first);
    // Killed in the middle of a record.
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, &bytes[..bytes.len() - 5]).unwrap();
    let store = StatsFile::begin(&path, identity(&it, 5), true).unwrap();
    let known = expected
        .iter()
        .filter(|(value, _)| store.has(&it.model.value(value.value).name, Needs::Hessian));
    assert_eq!(known.count(), 2);
    drop(store);

    let mut second = stored(&it, &path, sequential);
    let mut found = Vec::new();
    while let Some(stats) = next(&mut second, &[]) {
        found.extend(stats);
    }
    assert_eq!(found, expected);
    assert!(!part.exists());
    let stats = Stats::read(&path).unwrap();
    assert_eq!(stats.identity, identity(&it, 5));
    for (value, expected) in &expected {
        let name = &it.model.value(value.value).name;
        assert_eq!(stats.get(name).unwrap().as_ref(), Some(expected), "{name}");
    }
    assert!(stats.get("nothing").unwrap().is_none());
}

/// A log that nobody asked for does not stand in the way of another run.
#[test]
fn what_a_killed_run_of_something_else_left_is_begun_anew() {
    let made = setup("model.onnx");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx.stats");
    drop(StatsFile::begin(&path, identity(&made, 5), false).unwrap());
    let other = identity(&made, 4);
    assert!(StatsFile::begin(&path, other.clone(), true).is_err());
    drop(StatsFile::begin(&path, other.clone(), false).unwrap());
    // It is the other run's now.
    assert!(StatsFile::begin(&path, other, true).is_ok());
}

#[test]
fn a_complete_log_needs_no_run() {
    let it = setup("model.onnx");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let list = wants(&it.model, Needs::Diagonal);
    let mut store = StatsFile::begin(&path, identity(&it, 5), false).unwrap();
    for want in &list {
        let k = calibrate::width(&it.model, &want.operand).unwrap();
        let (mean_square, max_abs) = (vec![0.5; k], vec![2.0; k]);
        let stats = InputStats { rows: 7, mean_square, max_abs, hessian: None, drift: None };
        store.append(&want.operand.name(&it.model), &stats).unwrap();
    }
    let run = run(&it, batches(&it.model, 5), options(1));
    let mut collector = Collector::new(run, list, Some(store)).unwrap();
    let stats = next(&mut collector, &[]).unwrap();
    assert!(stats.iter().all(|it| it.1.rows == 7));
    assert!(collector.next(&[], &Ctx::silent()).unwrap().is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nobody wanted a file");
}

#[test]
fn statistics_of_something_else_are_refused() {
    let it = setup("model.onnx");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let own = identity(&it, 5);
    drop(StatsFile::begin(&path, own.clone(), true).unwrap());
    let others = [
        Identity { model: "x".into(), ..own.clone() },
        Identity { data: vec!["x".into()], ..own.clone() },
        Identity { samples: 6, ..own.clone() },
        Identity { prefix: "x".into(), ..own.clone() },
    ];
    let mut messages = Vec::new();
    for other in others {
        let error = StatsFile::begin(&path, other, true).err().unwrap();
        assert_eq!(error.code(), Code::E611);
        assert!(error.hint().is_some());
        messages.push(error.to_string());
    }
    messages.dedup();
    assert_eq!(messages.len(), 4, "{messages:?}");
    for bytes in [&b""[..], b"garbage", &[255; 64]] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Stats::read(&path).err().unwrap().code(), Code::E613);
    }
}

#[test]
fn merged_statistics_are_weighted_by_rows() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, data: &str, model: &str, stats: InputStats| {
        let path = folder.path().join(name);
        let identity = Identity {
            model: model.into(),
            data: vec![data.into()],
            samples: 2,
            ..Identity::default()
        };
        let mut store = StatsFile::begin(&path, identity, true).unwrap();
        store.append("x", &stats).unwrap();
        store.finish().unwrap();
        path
    };
    let stats = |rows: u64, square: [f32; 2], max: [f32; 2], lower: [f32; 3]| InputStats {
        rows,
        mean_square: square.to_vec(),
        max_abs: max.to_vec(),
        hessian: Some(Hessian { k: 2, lower: lower.to_vec() }),
        drift: None,
    };
    let a = file("a", "d2", "m", stats(1, [4.0, 0.0], [2.0, 0.0], [4.0, 0.0, 0.0]));
    let b = file("b", "d1", "m", stats(3, [8.0, 0.0], [3.0, 0.0], [8.0, 4.0, 0.0]));
    let output = folder.path().join("c");
    merge(&[a.clone(), b], &output).unwrap();
    let merged = Stats::read(&output).unwrap();
    assert_eq!((merged.identity.data.join(" "), merged.identity.samples), ("d1 d2".into(), 4));
    let expected = stats(4, [7.0, 0.0], [3.0, 0.0], [7.0, 3.0, 0.0]);
    assert_eq!(merged.get("x").unwrap(), Some(expected));
    let row = &describe(&merged).unwrap()[0];
    assert_eq!((row.k, row.rows, row.dead, row.hessian), (2, 4, 1, true));
    assert_eq!((row.top_share, row.max_abs, row.mean_square), (1.0, 3.0, [0.0, 7.0, 7.0]));
    let other = file("o", "d1", "other", stats(1, [0.0; 2], [0.0; 2], [0.0; 3]));
    assert_eq!(merge(&[a, other], &output).unwrap_err().code(), Code::E611);
}
