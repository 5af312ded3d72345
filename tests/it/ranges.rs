//! Ranges of a model's values do not depend on how the work is divided.

use std::collections::BTreeMap;

use crate::common::{Setup, arrays::npy, fixture, runtime, setup};
use onnxq_ir::{
    Model, ValueId,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx,
    tensor::Tensor,
};
use onnxq_numerics::observe::{ObserverSpec, RangeStats};
use onnxq_rewrite as rewrite;
use onnxq_run::{
    calibrate::{self, CollectOptions, Run, can_tap, ranges},
    data::{self, Batches, DataOptions},
};

/// What nodes of the main graph compute, whatever its rank.
fn values(model: &Model) -> Vec<ValueId> {
    let nodes = model.nodes_of(model.main);
    let all = nodes.flat_map(|it| model.node(it).outputs.clone());
    // The masks of some exporters are infinite.
    let finite = |it: &ValueId| model.rank(*it).is_some_and(|rank| rank == 3);
    all.filter(|it| can_tap(model, *it).is_ok()).filter(finite).collect()
}

fn batches(it: &Setup, batch: usize) -> Batches {
    let options = DataOptions {
        tokenizer: Some(fixture("tokenizer.json")),
        samples: Some(9),
        sequence: 32,
        batch,
        ..DataOptions::default()
    };
    let inputs = calibrate::model_inputs(&it.model);
    data::open(&fixture("calibration.txt"), &inputs, &options).unwrap()
}

fn run(it: &Setup, batches: Batches, options: CollectOptions) -> Run<'_> {
    let runtime = runtime();
    Run { model: &it.model, files: &it.files, batches, options, runtime }
}

fn of(it: &Setup, batches: Batches, options: CollectOptions) -> BTreeMap<ValueId, RangeStats> {
    ranges(run(it, batches, options), &values(&it.model), &Ctx::silent()).unwrap()
}

fn options(threads: usize) -> CollectOptions {
    CollectOptions { threads, ..CollectOptions::default() }
}

#[test]
fn ranges_are_the_same_however_the_work_is_divided() {
    for name in ["model.onnx", "model_dynamo.onnx", "model_with_past.onnx"] {
        let it = setup(name);
        let expected = of(&it, batches(&it, 1), options(1));
        assert!(expected.len() > 20, "{name}: {}", expected.len());
        assert!(expected.values().all(|it| it.samples == 9 && it.histogram.count() > 0));
        assert!(of(&it, batches(&it, 8), options(2)) == expected, "{name} by threads");
        let small = CollectOptions { memory: 3 << 20, ..options(2) };
        assert!(of(&it, batches(&it, 4), small) == expected, "{name} in passes");
    }
}

/// Arrays of the fixture with their rows in another order.
fn arrays(order: &[usize], padded: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["input_ids", "attention_mask"] {
        let bytes = std::fs::read(fixture(&format!("calibration_{name}.npy"))).unwrap();
        let start = bytes.iter().position(|it| *it == b'\n').unwrap() + 1;
        let rows = rows_of(&bytes[..start]);
        let each = (bytes.len() - start) / rows;
        let mut out = bytes[..start].to_vec();
        (0..rows).for_each(|at| {
            let from = start + order.get(at).copied().unwrap_or(at) * each;
            out.extend(&bytes[from..from + each]);
            // The last two tokens are padding.
            if name == "attention_mask" {
                let end = out.len();
                out[end - 16..].fill(0);
            }
        });
        if padded || name == "input_ids" {
            std::fs::write(folder.path().join(format!("{name}.npy")), out).unwrap();
        }
    }
    folder
}

fn rows_of(header: &[u8]) -> usize {
    let text = String::from_utf8_lossy(header);
    let shape = text.split("'shape': (").nth(1).unwrap();
    shape.split(',').next().unwrap().trim().parse().unwrap()
}

fn open(it: &Setup, folder: &tempfile::TempDir, samples: usize) -> Batches {
    let options = DataOptions { samples: Some(samples), ..DataOptions::default() };
    data::open(folder.path(), &calibrate::model_inputs(&it.model), &options).unwrap()
}

#[test]
fn the_order_of_samples_changes_nothing() {
    let it = setup("model.onnx");
    let (forwards, backwards) = (arrays(&[], true), arrays(&[7, 6, 5, 4, 3, 2, 1, 0], true));
    let expected = of(&it, open(&it, &forwards, 8), options(2));
    assert!(of(&it, open(&it, &backwards, 8), options(1)) == expected);
    for name in ["min_max", "average", "percentile", "entropy", "mse"] {
        let spec: ObserverSpec = serde_json::from_str(&format!("\"{name}\"")).unwrap();
        let stats = expected.values().next().unwrap();
        assert!(spec.range(stats, 256, false).hi > 0.0);
    }
}

#[test]
fn padding_does_not_count() {
    let it = setup("model.onnx");
    let folder = arrays(&[], true);
    let mut tokens = 0;
    for batch in open(&it, &folder, 8) {
        tokens += batch.unwrap()["attention_mask"].to_i64().unwrap().iter().sum::<i64>() as u64;
    }
    let stats = of(&it, open(&it, &folder, 8), options(2));
    let all = arrays(&[], false);
    let whole = of(&it, open(&it, &all, 8), options(2));
    for (value, stats) in stats {
        let dims = it.model.shape(value).unwrap();
        let Some(width) = dims.last().and_then(|it| it.fixed()) else { continue };
        assert_eq!(stats.histogram.count(), tokens * width as u64);
        assert!(whole[&value].histogram.count() > stats.histogram.count());
    }
}

/// Images have no rows and no tokens.
#[test]
fn values_of_any_rank_are_observed() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[n,2,3,3] x) => (float[n,2,3,3] y) {
            a = Relu (x)
            y = Neg (a)
        }"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnxtxt");
    std::fs::write(&path, text).unwrap();
    let loaded = onnx::open(&path, &Default::default()).unwrap();
    let mut it = Setup { model: loaded.model, files: loaded.files };
    rewrite::run(&mut it.model, &["infer-types".to_owned()], &Ctx::silent()).unwrap();
    let numbers: Vec<f32> =
        (0..3 * 18).map(|it| (it % 18) as f32 - 5.0 * (it / 18) as f32).collect();
    std::fs::write(folder.path().join("x.npy"), npy(&Tensor::from_f32(&[3, 2, 3, 3], numbers)))
        .unwrap();
    let data = data::open(
        &folder.path().join("x.npy"),
        &calibrate::model_inputs(&it.model),
        &DataOptions::default(),
    );
    let names = ["x", "a", "y"];
    let find = |name: &str| it.model.values().find(|it| &*it.1.name == name).unwrap().0;
    let values = names.map(find);
    let run = run(&it, data.unwrap(), options(2));
    let stats = ranges(run, &values, &Ctx::silent()).unwrap();
    let [x, a, y] = values.map(|it| &stats[&it]);
    assert_eq!((x.whole().lo, x.whole().hi, x.samples), (-10.0, 17.0, 3));
    assert_eq!((a.whole().lo, a.whole().hi), (0.0, 17.0));
    assert_eq!((y.whole().lo, y.whole().hi), (-17.0, 0.0));
    // Samples end at 17, 12 and 7.
    assert_eq!(a.mean().hi, 12.0);
}

#[test]
fn what_cannot_be_observed_is_named() {
    let it = setup("model.onnx");
    let input = it.model.graph(it.model.main).inputs[0];
    let found = |values: &[ValueId], options: CollectOptions| {
        ranges(run(&it, batches(&it, 1), options), values, &Ctx::silent()).unwrap_err()
    };
    let error = found(&[input], options(1));
    assert_eq!(error.code(), Code::E803);
    assert!(error.to_string().contains("input_ids"), "{error}");
    let small = CollectOptions { memory: 1000, ..options(1) };
    assert_eq!(found(&values(&it.model)[..1], small).code(), Code::E612);
}
