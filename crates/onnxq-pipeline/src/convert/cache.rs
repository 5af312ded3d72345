//! `--add-kv-cache`, `--kv-cache int8`: caches of keys and values.

use std::path::PathBuf;

use super::{Step, halves::Halves};
use crate::{Error, open};
use onnxq_ir::{Model, ctx::Ctx, onnx::Files};
use onnxq_report::Comparison;
use onnxq_rewrite::cache::{self, CacheError, Cached, Scales};
use onnxq_run::{
    compare::{CompareOptions, compare},
    data::{self, Batch, Batches, DataOptions},
    engine::{IoInfo, Runtime, RuntimeOptions, Session, SessionOptions},
};

/// Samples that scales and ranges come from, and what runs the model.
#[derive(Clone, Debug)]
pub struct Calibration {
    pub data: PathBuf,
    pub tokenizer: Option<PathBuf>,
    pub preprocess: Option<String>,
    pub runtime: RuntimeOptions,
    pub threads: usize,
}

impl Calibration {
    /// The samples for a model with these inputs, one by one.
    pub(super) fn samples(&self, inputs: &[IoInfo]) -> Result<Batches, Error> {
        let options = DataOptions {
            tokenizer: self.tokenizer.clone(),
            preprocess: self.preprocess.clone(),
            samples: Some(SAMPLES),
            ..DataOptions::default()
        };
        let mut batches = data::open(&self.data, inputs, &options)?;
        batches.one_by_one();
        Ok(batches)
    }
}

/// Samples that are read; scales are largest values, which more samples hardly change.
const SAMPLES: usize = 160;
/// Every so many-th sample is kept from the scales, to measure the error on.
const HELD_OUT: usize = 5;

pub(super) fn add(m: &mut Model, ctx: &Ctx) -> Result<Step, Error> {
    let it = cache::add_kv_cache(m, ctx)?;
    let mut step = Step::new("add-kv-cache");
    step.changed = it.layers;
    step.lines.extend(it.prepared.then(was_prepared));
    step.lines.push(format!("{} layers take and return keys and values", it.layers));
    if it.positions > 0 {
        step.lines.push(format!("{} × Range: positions begin after the past", it.positions));
    }
    if let Some(name) = it.padding {
        step.lines.push(format!("`{name}` covers the past and the tokens"));
    }
    Ok(step)
}

pub(super) fn to_int8(
    m: &mut Model,
    files: &Files,
    job: &Calibration,
    ctx: &Ctx,
) -> Result<Step, Error> {
    let prepared = cache::prepare(m, ctx)?;
    let cached = cache::caches(m)?;
    // What cannot be converted is refused before anything runs.
    let any = vec![Scales { key: 1.0, value: 1.0 }; cached.layers.len()];
    cache::to_int8(&mut m.clone(), &any, ctx)?;
    let mut float = session(m, files, job, ctx)?;
    let samples = read(float.as_ref(), job)?;
    let scales = scales(float.as_mut(), &cached, &samples.seen, ctx)?;
    let mut int8 = m.clone();
    let layers = cache::to_int8(&mut int8, &scales, ctx)?;
    let candidate = session(&int8, files, job, ctx)?;
    let mut step = Step::new("kv-cache");
    step.changed = layers;
    step.lines.extend(prepared.then(was_prepared));
    step.lines.push(format!("{layers} layers keep keys and values in int8, a fourth of float32"));
    step.lines.push(format!("scales from {} samples", samples.seen.len()));
    if !samples.held_out.is_empty() {
        let halves = [float, candidate].map(|it| Halves::new(it, &cached));
        let it = error(halves, &cached, samples.held_out, ctx)?;
        step.lines.extend(lines(&it));
        step.comparison = Some(it);
    }
    let limit = "several tokens after a past need a batch of 1 (ONNX Runtime 1.31)";
    step.lines.push(limit.to_owned());
    *m = int8;
    Ok(step)
}

fn was_prepared() -> String {
    "the model was prepared, as for quantizing".to_owned()
}

pub(super) fn session(
    m: &Model,
    files: &Files,
    job: &Calibration,
    ctx: &Ctx,
) -> Result<Box<dyn Session>, Error> {
    let runtime = Runtime::new(job.runtime.clone(), ctx.progress);
    let options = SessionOptions { threads: job.threads, ..SessionOptions::default() };
    open::session(m, files, "the converted model", &options, &runtime)
}

/// Samples one by one.
struct Samples {
    seen: Vec<Batch>,
    held_out: Vec<Batch>,
}

fn read(session: &dyn Session, job: &Calibration) -> Result<Samples, Error> {
    let batches = job.samples(session.inputs())?;
    let mut samples = Samples { seen: Vec::new(), held_out: Vec::new() };
    for (at, batch) in batches.enumerate() {
        let list = match at % HELD_OUT + 1 {
            HELD_OUT => &mut samples.held_out,
            _ => &mut samples.seen,
        };
        list.push(batch?);
    }
    if samples.held_out.is_empty() {
        samples.held_out = samples.seen.clone();
    }
    Ok(samples)
}

/// The largest keys and values of each layer over all samples.
fn scales(
    session: &mut dyn Session,
    cached: &Cached,
    samples: &[Batch],
    ctx: &Ctx,
) -> Result<Vec<Scales>, Error> {
    let mut largest = vec![[0f32; 2]; cached.layers.len()];
    ctx.progress.start("calibrate", samples.len() as u64);
    for batch in samples {
        let inputs: Vec<_> = batch.iter().map(|(name, it)| (&**name, it)).collect();
        for (name, tensor) in session.run(&inputs)? {
            let place = |it: &cache::Cache| it.present.iter().position(|it| **it == *name);
            let found = cached.layers.iter().enumerate().find_map(|(i, it)| Some((i, place(it)?)));
            let Some((layer, at)) = found else { continue };
            for it in tensor.to_f32()? {
                if !it.is_finite() {
                    return Err(CacheError::NotFinite { name }.into());
                }
                largest[layer][at] = largest[layer][at].max(it.abs());
            }
        }
        ctx.progress.step(1);
    }
    ctx.progress.done(&format!("{} samples", samples.len()));
    Ok(largest.into_iter().map(Scales::of_largest).collect())
}

/// Compares what both say of the second halves of samples, after the first halves as the past.
fn error(
    [mut float, mut int8]: [Halves; 2],
    cached: &Cached,
    samples: Vec<Batch>,
    ctx: &Ctx,
) -> Result<Comparison, Error> {
    let options = CompareOptions { samples: samples.len(), ..CompareOptions::default() };
    // A past takes several tokens in a batch of one only, and one token has no half.
    let fits = |it: &Batch| {
        it.get("input_ids").is_none_or(|it| it.shape[..1] == [1] && it.shape.get(1) > Some(&1))
    };
    let mut batches = samples.into_iter().filter(fits).map(|it| Ok(Halves::batch(it, cached)));
    Ok(compare(&mut float, &mut int8, &mut batches, &options, ctx)?)
}

fn lines(it: &Comparison) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, metrics) in &it.outputs {
        let (Some(kl), Some(top1)) = (&metrics.kl, metrics.top1) else { continue };
        let (Some(mean), Some(max)) = (kl.mean, kl.max) else { continue };
        let (count, top1) = (it.samples, top1 * 100.0);
        lines.push(format!(
            "`{name}` after half of each of {count} held-out samples as the past: \
             KL mean {mean:.2e}, max {max:.2e}, top-1 the same for {top1:.2} %"
        ));
    }
    lines
}
