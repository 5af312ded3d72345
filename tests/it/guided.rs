//! Statistics in which tokens count by what they mean for the outputs of a node.

use std::{path::Path, sync::Arc};

use crate::common::{Setup, fixture, runtime, setup};
use onnxq_ir::{
    Model, NodeId,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    tensor::Tensor,
};
use onnxq_numerics::{
    moments::Moments,
    stats::{InputStats, Needs},
};
use onnxq_quant::window::{Guided, Operand};
use onnxq_run::{
    calibrate::{
        self, CollectOptions, Collector, Guide, Identity, Learnt, Recorder, Replacement, Run,
        Stats, StatsFile, Want, can_observe, mask, model_sha256,
    },
    data::{self, DataOptions},
};

const SAMPLES: usize = 4;
const TOKENS: usize = 24;

/// MatMuls by a constant, and what they read.
fn sites(model: &Model) -> Vec<(NodeId, Operand)> {
    let site = |node: NodeId| {
        let it = model.node(node);
        let is_site = it.op.is("MatMul") && model.constant(it.inputs[1].unwrap()).is_ok();
        let operand = Operand::from(it.inputs[0].unwrap());
        (is_site && can_observe(model, &operand).is_ok()).then_some((node, operand))
    };
    model.nodes_of(model.main).filter_map(site).collect()
}

fn guided(model: &Model, groups: usize) -> Vec<Want> {
    let want = |(node, operand)| {
        let guided = Some(Guided { node, groups });
        Want { operand, needs: Needs::Hessian, guided }
    };
    sites(model).into_iter().map(want).collect()
}

fn text(model: &Model) -> data::Batches {
    let options = DataOptions {
        tokenizer: Some(fixture("tokenizer.json")),
        samples: Some(SAMPLES),
        sequence: TOKENS,
        ..DataOptions::default()
    };
    data::open(&fixture("calibration.txt"), &calibrate::model_inputs(model), &options).unwrap()
}

fn run(setup: &Setup, batches: data::Batches, options: CollectOptions) -> Run<'_> {
    let Setup { model, files } = setup;
    Run { model, files, batches, options, runtime: runtime() }
}

/// What a guide knows, given the weight of a row of a sample for a group of a node, by its place.
fn guide(
    wants: &[Want],
    rows: usize,
    weight: impl Fn(usize, usize, usize, usize) -> f32,
) -> Arc<Guide> {
    let nodes: Vec<Guided> = wants.iter().filter_map(|it| it.guided).collect();
    let recorder = Recorder::new(nodes.clone()).unwrap();
    // In no order.
    for sample in (0..SAMPLES).rev() {
        let of = |(at, it): (usize, &Guided)| -> Vec<f32> {
            let all = (0..it.groups).flat_map(|group| (0..rows).map(move |row| (group, row)));
            all.map(|(group, row)| weight(at, sample, group, row)).collect()
        };
        let weights: Vec<Vec<f32>> = nodes.iter().enumerate().map(of).collect();
        recorder.add(sample, &weights, None).unwrap();
    }
    Arc::new(recorder.finish())
}

/// From 2⁻⁵ to 2⁵, and every seventh row counts nothing.
fn uneven(node: usize, sample: usize, group: usize, row: usize) -> f32 {
    let at = node * 31 + sample * 17 + group * 5 + row * 3;
    if at.is_multiple_of(7) { 0.0 } else { (5.0 * (at as f32 * 0.37).sin()).exp2() }
}

fn all(mut collector: Collector, guide: Option<&Arc<Guide>>) -> (Vec<Learnt>, usize) {
    if let Some(guide) = guide {
        collector.guide(guide.clone());
    }
    let (mut list, mut passes) = (Vec::new(), 0);
    while let Some(learnt) = collector.next(&[], &Ctx::silent()).unwrap() {
        list.extend(learnt);
        passes += 1;
    }
    (list, passes)
}

fn collect(
    setup: &Setup,
    wants: &[Want],
    guide: Option<&Arc<Guide>>,
    options: CollectOptions,
) -> (Vec<Learnt>, usize) {
    let run = run(setup, text(&setup.model), options);
    all(Collector::new(run, wants.to_vec(), None).unwrap(), guide)
}

fn options(threads: usize) -> CollectOptions {
    CollectOptions { threads, ..CollectOptions::default() }
}

#[test]
fn what_counts_all_tokens_the_same_changes_nothing() {
    let float = setup("model.onnx");
    let plain = sites(&float.model).into_iter().map(|it| Want::of(it.1, Needs::Hessian));
    let plain = collect(&float, &plain.collect::<Vec<_>>(), None, options(2)).0;
    let wants = guided(&float.model, 2);
    let guide = guide(&wants, TOKENS, |node, _, _, _| if node % 3 == 0 { 0.0 } else { 0.3 });
    for guide in [None, Some(&guide)] {
        let found = collect(&float, &wants, guide, options(2)).0;
        assert_eq!(found.len(), wants.len());
        for learnt in found {
            let expected = plain.iter().find(|it| it.operand == learnt.operand).unwrap();
            assert_eq!(learnt.stats, [&expected.stats[..], &expected.stats[..]].concat());
        }
    }
}

#[test]
fn neither_scale_nor_threads_nor_passes_change_a_bit() {
    let float = setup("model.onnx");
    let wants = guided(&float.model, 3);
    let own = guide(&wants, TOKENS, uneven);
    let (expected, passes) = collect(&float, &wants, Some(&own), options(1));
    assert_eq!(passes, 1);
    // Groups and nodes that read one value count its tokens differently, all but those of no weight.
    let stats: Vec<&InputStats> = expected.iter().flat_map(|it| &it.stats).collect();
    assert!((1..stats.len()).all(|at| stats[at] != stats[at - 1]));
    assert!(stats.iter().all(|it| (70..90).contains(&it.rows)), "{}", stats[0].rows);
    assert_eq!(collect(&float, &wants, Some(&own), options(3)).0, expected, "by threads");
    let scaled = guide(&wants, TOKENS, |a, b, c, d| uneven(a, b, c, d) * 2f32.powi(-60));
    assert_eq!(collect(&float, &wants, Some(&scaled), options(2)).0, expected, "scaled");
    let largest = stats.iter().map(|it| it.k()).max().unwrap();
    let memory = 4 * Moments::bytes(largest, Needs::Hessian) as u64;
    let (small, passes) =
        collect(&float, &wants, Some(&own), CollectOptions { memory, ..options(2) });
    assert!(passes > 1);
    assert_eq!(small, expected, "in {passes} passes");
    let sequential = CollectOptions { sequential: true, ..options(2) };
    assert_eq!(collect(&float, &wants, Some(&own), sequential), (expected, wants.len()));
}

/// Drift is weighed as all else, and equal weights are none.
#[test]
fn drift_counts_tokens_the_same_way() {
    let float = setup("model.onnx");
    let second = |wants: Vec<Want>, guide: Option<Arc<Guide>>| {
        let sequential = CollectOptions { sequential: true, ..options(2) };
        let run = run(&float, text(&float.model), sequential);
        let mut collector = Collector::new(run, wants, None).unwrap();
        guide.into_iter().for_each(|it| collector.guide(it));
        let first = collector.next(&[], &Ctx::silent()).unwrap().unwrap();
        let readers = sites(&float.model).into_iter().filter(|it| it.1 == first[0].operand);
        let replaced: Vec<Replacement> = readers
            .map(|(node, _)| {
                let weight =
                    float.model.constant(float.model.node(node).inputs[1].unwrap()).unwrap();
                let doubled = weight.to_f32().unwrap().into_iter().map(|it| it * 2.0);
                Replacement { node, index: 1, tensor: Tensor::from_f32(&weight.shape, doubled) }
            })
            .collect();
        let mut last = collector.next(&replaced, &Ctx::silent()).unwrap().unwrap();
        while last[0].operand == first[0].operand {
            last = collector.next(&[], &Ctx::silent()).unwrap().unwrap();
        }
        last.remove(0).stats
    };
    let plain = sites(&float.model).into_iter().map(|it| Want::of(it.1, Needs::Hessian));
    let plain = second(plain.collect(), None);
    let wants = guided(&float.model, 2);
    let ones = second(wants.clone(), Some(guide(&wants, TOKENS, |_, _, _, _| 2.0)));
    assert!(plain[0].drift.is_some() && ones[0] == plain[0] && ones[1] == plain[0]);
    let own = second(wants.clone(), Some(guide(&wants, TOKENS, uneven)));
    assert!(own[0].drift.is_some() && own[0].drift != own[1].drift);
}

/// Whatever stands where nothing but padding is.
#[test]
fn weights_of_padding_are_left_out() {
    let float = setup("model.onnx");
    let folder = tempfile::tempdir().unwrap();
    for name in ["input_ids", "attention_mask"] {
        let from = fixture(&format!("calibration_{name}.npy"));
        std::fs::copy(from, folder.path().join(format!("{name}.npy"))).unwrap();
    }
    let inputs = calibrate::model_inputs(&float.model);
    let data = DataOptions { samples: Some(8), ..DataOptions::default() };
    let open = || data::open(folder.path(), &inputs, &data).unwrap();
    let wants = guided(&float.model, 2);
    let collect = |padding: f32| {
        let nodes: Vec<Guided> = wants.iter().filter_map(|it| it.guided).collect();
        let recorder = Recorder::new(nodes.clone()).unwrap();
        let mut batches = open();
        batches.one_by_one();
        for (sample, batch) in batches.enumerate() {
            let batch = batch.unwrap();
            let flags = batch["attention_mask"].to_i64().unwrap();
            let weight = |(at, it): (usize, &i64)| match it {
                0 => padding,
                _ => uneven(0, sample, 0, at),
            };
            let rows: Vec<f32> = flags.iter().enumerate().map(weight).collect();
            let list = vec![rows.repeat(2); nodes.len()];
            recorder.add(sample, &list, mask(&batch).unwrap().as_ref()).unwrap();
        }
        let run = run(&float, open(), options(2));
        let collector = Collector::new(run, wants.clone(), None).unwrap();
        all(collector, Some(&Arc::new(recorder.finish()))).0
    };
    assert_eq!(collect(0.0), collect(1e6));
}

#[test]
fn weights_that_do_not_fit_are_an_error() {
    let float = setup("model.onnx");
    let wants = guided(&float.model, 2);
    let nodes = || wants.iter().filter_map(|it| it.guided).collect::<Vec<_>>();
    for bad in [vec![-1.0; 4], vec![f32::NAN; 4], vec![1.0; 5]] {
        let recorder = Recorder::new(nodes()).unwrap();
        let error = recorder.add(0, &vec![bad; wants.len()], None).unwrap_err();
        assert_eq!(error.code(), Code::E614);
    }
    let recorder = Recorder::new(nodes()).unwrap();
    assert!(recorder.add(0, &[vec![1.0; 4]], None).is_err());
    let short = guide(&wants, TOKENS - 1, uneven);
    let mut collector =
        Collector::new(run(&float, text(&float.model), options(1)), wants, None).unwrap();
    collector.guide(short);
    assert_eq!(collector.next(&[], &Ctx::silent()).unwrap_err().code(), Code::E614);
}

fn identity(setup: &Setup, guide: &str) -> Identity {
    let data = vec![text(&setup.model).sha256().to_owned()];
    let (model, samples) = (model_sha256(&setup.files), SAMPLES as u64);
    Identity { model, data, samples, guide: guide.into(), ..Identity::default() }
}

#[test]
fn a_file_knows_each_group_and_what_guided_it() {
    let float = setup("model.onnx");
    let wants = guided(&float.model, 2);
    let own = guide(&wants, TOKENS, uneven);
    let expected = collect(&float, &wants, Some(&own), options(2)).0;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let collector = |path: &Path| {
        let store = StatsFile::begin(path, identity(&float, "own/1"), true).unwrap();
        let sequential = CollectOptions { sequential: true, ..options(2) };
        Collector::new(run(&float, text(&float.model), sequential), wants.clone(), Some(store))
            .unwrap()
    };
    let mut first = collector(&path);
    first.guide(own.clone());
    for _ in 0..3 {
        first.next(&[], &Ctx::silent()).unwrap();
    }
    drop(first);
    let second = collector(&path);
    assert!(second.needs_guide());
    assert_eq!(all(second, Some(&own)).0, expected);
    let stats = Stats::read(&path).unwrap();
    for (want, learnt) in expected.iter().map(|it| {
        (Want { operand: it.operand.clone(), needs: Needs::Hessian, guided: it.guided }, it)
    }) {
        for (name, own) in want.names(&float.model).iter().zip(&learnt.stats) {
            assert_eq!(stats.get(name).unwrap().as_ref(), Some(own), "{name}");
        }
    }
    assert!(stats.identity.check(&identity(&float, "own/1"), &path).is_ok());
    assert!(stats.identity.check(&identity(&float, ""), &path).is_ok());
    let error = stats.identity.check(&identity(&float, "other/1"), &path).unwrap_err();
    assert_eq!(error.code(), Code::E611);
    assert!(error.hint().is_some());
}
