//! How long a run takes: both models in turn, so that a busy machine slows both.

use std::time::{Duration, Instant};

use super::cache::{Cache, Text};
use crate::compare::models::{CompareError, CompareOptions, inputs};
use crate::{
    data::Batch,
    engine::{EngineError, IoInfo, Session},
};
use onnxq_ir::tensor::{Dim, Tensor};
use onnxq_report::{
    figures::{Interval, Latency, Phase},
    summary::{finite, median_interval},
};

/// Sequence lengths that are measured, if the model leaves the length open.
const SEQUENCES: [usize; 2] = [128, 16];

/// Times both models on inputs cut from the first sample of `batch`; with a cache, also a step of
/// one token. Sizes that the reference declares and does not take, because an exporter wrote one into its
/// constants, are left out; if all are, the whole batch is timed, which ran before.
pub fn times(
    reference: &mut dyn Session,
    candidate: &mut dyn Session,
    batch: &Batch,
    options: &CompareOptions,
) -> Result<Vec<Latency>, CompareError> {
    let mut list: Vec<Latency> = Vec::new();
    let mut whole = whole(batch, reference.inputs());
    for (label, input) in cuts(batch, reference.inputs()) {
        if list.iter().any(|it| it.input == label) {
            continue;
        }
        let is_whole = whole.as_ref().is_none_or(|it| it.0 == label);
        match measure_on(reference, candidate, (label, &input), options) {
            Err(CompareError::Engine { model: "reference", source: EngineError::Run(_) })
                if !is_whole => {}
            measured => list.push(measured?),
        }
    }
    if let Some((label, input)) = whole.take().filter(|_| list.is_empty()) {
        list.push(measure_on(reference, candidate, (label, &input), options)?);
    }
    list.extend(step(reference, candidate, batch, options)?);
    Ok(list)
}

/// The whole batch, labelled.
fn whole(batch: &Batch, inputs: &[IoInfo]) -> Option<(String, Batch)> {
    let ids = inputs.iter().find(|it| it.name == "input_ids");
    let first = ids.or(inputs.first()).and_then(|it| batch.get(&it.name))?;
    Some((label(&first.shape), batch.clone()))
}

fn measure_on(
    reference: &mut dyn Session,
    candidate: &mut dyn Session,
    (label, batch): (String, &Batch),
    options: &CompareOptions,
) -> Result<Latency, CompareError> {
    let is_text = reference.inputs().iter().any(|it| it.name == "input_ids");
    let phase = if is_text { Phase::Prefill } else { Phase::Run };
    let [of_reference, of_candidate] = [
        inputs(reference.inputs(), "reference", batch)?,
        inputs(candidate.inputs(), "candidate", batch)?,
    ];
    time(reference, candidate, &(of_reference, of_candidate), (label, phase), options)
}

/// One token after as many as lie in the sample, 128 at most.
fn step(
    reference: &mut dyn Session,
    candidate: &mut dyn Session,
    batch: &Batch,
    options: &CompareOptions,
) -> Result<Option<Latency>, CompareError> {
    let caches = [Cache::of(reference), Cache::of(candidate)];
    let [Some(of_reference), Some(of_candidate)] = caches else { return Ok(None) };
    let Some(text) = Text::of(batch, 0) else { return Ok(None) };
    let length = text.ids.len().saturating_sub(1).min(SEQUENCES[0]);
    if length == 0 {
        return Ok(None);
    }
    let input = |session: &mut dyn Session, model, cache: &Cache| {
        let mut past = cache.begin(session, model, batch)?;
        past.feed(session, &text.ids[..length])?;
        past.inputs(session, &text.ids[length..=length])
    };
    let both = (
        input(reference, "reference", &of_reference)?,
        input(candidate, "candidate", &of_candidate)?,
    );
    let label = (format!("1x1+{length}"), Phase::Decode);
    time(reference, candidate, &both, label, options).map(Some)
}

/// The first sample at each length, labelled.
fn cuts(batch: &Batch, inputs: &[IoInfo]) -> Vec<(String, Batch)> {
    let ids = inputs.iter().find(|it| it.name == "input_ids");
    let ids = ids.and_then(|it| Some((it, batch.get(&it.name).filter(|it| it.shape.len() == 2)?)));
    let Some((info, ids)) = ids else {
        let Some(first) = inputs.first().and_then(|it| batch.get(&it.name)) else {
            return Vec::new();
        };
        let size = first.shape.first().copied().unwrap_or(1);
        let cut = first_sample(batch, inputs, size);
        let shape = inputs.first().and_then(|it| cut.get(&it.name)).map(|it| &it.shape[..]);
        return vec![(label(shape.unwrap_or_default()), cut)];
    };
    let one = first_sample(batch, inputs, ids.shape[0]);
    let size = |axis: usize| info.ty.shape.as_ref().and_then(|it| it.get(axis)?.fixed());
    let lengths = match size(1) {
        Some(it) => vec![it],
        None => SEQUENCES.iter().map(|it| *it.min(&ids.shape[1])).collect(),
    };
    let cut = |length| {
        let batch = shorten(&one, inputs, ids.shape[1], length);
        (label(&batch["input_ids"].shape), batch)
    };
    lengths.into_iter().map(cut).collect()
}

fn label(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// Only the first of `size` samples, where the model leaves the batch open.
fn first_sample(batch: &Batch, inputs: &[IoInfo], size: usize) -> Batch {
    narrowed(batch, inputs, 0, size, 1)
}

fn shorten(batch: &Batch, inputs: &[IoInfo], size: usize, length: usize) -> Batch {
    narrowed(batch, inputs, 1, size, length)
}

/// Every tensor whose `axis` is open and has `size` entries keeps the first `len` of them.
fn narrowed(batch: &Batch, inputs: &[IoInfo], axis: usize, size: usize, len: usize) -> Batch {
    let is_open = |name: &str| {
        let info = inputs.iter().find(|it| it.name == name);
        let dim = info.and_then(|it| it.ty.shape.as_ref()?.get(axis));
        !matches!(dim, Some(Dim::Fixed(_)))
    };
    let cut = |(name, tensor): (&String, &Tensor)| {
        let cuts = len < size && tensor.shape.get(axis) == Some(&size) && is_open(name);
        let tensor =
            if cuts { head(tensor, axis, len) } else { None }.unwrap_or_else(|| tensor.clone());
        (name.clone(), tensor)
    };
    batch.iter().map(cut).collect()
}

/// The first `len` entries along an axis.
fn head(tensor: &Tensor, axis: usize, len: usize) -> Option<Tensor> {
    let bytes = tensor.bytes().ok()?;
    let inner = tensor.shape[axis + 1..].iter().product::<usize>() * tensor.dtype.bits() / 8;
    let (line, kept) = (tensor.shape[axis] * inner, len * inner);
    let mut shape = tensor.shape.clone();
    shape[axis] = len;
    let data: Vec<u8> = match line {
        0 => Vec::new(),
        _ => bytes.chunks_exact(line).flat_map(|it| &it[..kept]).copied().collect(),
    };
    Some(Tensor::new(tensor.dtype, shape, data))
}

type Inputs<'a> = Vec<(String, std::borrow::Cow<'a, Tensor>)>;

fn time(
    reference: &mut dyn Session,
    candidate: &mut dyn Session,
    inputs: &(Inputs, Inputs),
    (input, phase): (String, Phase),
    options: &CompareOptions,
) -> Result<Latency, CompareError> {
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let begin = Instant::now();
    for turn in 0.. {
        let reference = once(reference, "reference", &inputs.0)?;
        let candidate = once(candidate, "candidate", &inputs.1)?;
        if turn >= options.warm_up {
            a.push(reference * 1e3);
            b.push(candidate * 1e3);
            ratios.push(candidate / reference);
        }
        let is_known = || !options.steady || begin.elapsed() > PATIENCE || is_narrow(&ratios);
        if ratios.len() >= options.repeats && is_known() {
            break;
        }
    }
    let mut inverse: Vec<f64> = ratios.iter().map(|it| it.recip()).collect();
    let (reference_runs_ms, candidate_runs_ms) = (a.clone(), b.clone());
    Ok(Latency {
        input,
        phase,
        reference_ms: median(&mut a),
        candidate_ms: median(&mut b),
        ratio: median(&mut ratios),
        ratio_spread: spread(&mut ratios),
        ratio_interval: median_interval(&ratios),
        speedup: median(&mut inverse),
        repeats: ratios.len(),
        reference_runs_ms,
        candidate_runs_ms,
    })
}

/// How long more runs may go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the ratio is known within 5 %.
fn is_narrow(ratios: &[f64]) -> bool {
    median_interval(ratios).is_some_and(|range| range.high <= 1.05 * range.low)
}

/// The 10th and the 90th percentile.
fn spread(values: &mut [f64]) -> Option<Interval> {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        finite(*values.get(((values.len().max(1) - 1) as f64 * share).round() as usize)?)
    };
    Some(Interval { low: at(0.1)?, high: at(0.9)? })
}

/// Seconds of one run; only the run is timed.
fn once(
    session: &mut dyn Session,
    model: &'static str,
    inputs: &[(String, std::borrow::Cow<Tensor>)],
) -> Result<f64, CompareError> {
    let named: Vec<(&str, &Tensor)> =
        inputs.iter().map(|(name, it)| (name.as_str(), &**it)).collect();
    let time = session.time(&named).map_err(|source| CompareError::Engine { model, source })?;
    Ok(time.as_secs_f64())
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    finite(if values.len() % 2 == 1 { upper } else { (values[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::{
        super::models::tests::{echo, ids},
        *,
    };
    use onnxq_ir::tensor::{DType, TensorType};

    fn batch(rows: usize, columns: usize) -> Batch {
        let tensor =
            || Tensor::from_i64(&[rows, columns], (0..).take(rows * columns).map(|it| it % 4));
        Batch::from([("input_ids".into(), tensor()), ("attention_mask".into(), tensor())])
    }

    #[test]
    fn inputs_are_cut_from_the_first_sample() {
        let labels = |it: &Batch| cuts(it, &ids()).into_iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(labels(&batch(4, 200)), ["1x128", "1x16"]);
        assert_eq!(labels(&batch(1, 64)), ["1x64", "1x16"]);
        let list = cuts(&batch(2, 20), &ids());
        assert_eq!(list[1].1["attention_mask"].shape, [1, 16]);
        assert_eq!(list[0].1["input_ids"].to_i64().unwrap()[..5], [0, 1, 2, 3, 0]);
    }

    #[test]
    fn fixed_sizes_stay() {
        let dims = [2usize, 20];
        let fixed = [IoInfo { name: "input_ids".into(), ty: TensorType::new(DType::I64, dims) }];
        let labels: Vec<String> = cuts(&batch(2, 20), &fixed).into_iter().map(|it| it.0).collect();
        assert_eq!(labels, ["2x20"]);
        let image = [IoInfo {
            name: "attention_mask".into(),
            ty: TensorType { dtype: DType::I64, shape: None },
        }];
        assert_eq!(cuts(&batch(2, 20), &image)[0].0, "1x20");
    }

    #[test]
    fn each_length_is_measured_once() {
        let options = CompareOptions { latency: true, ..CompareOptions::default() };
        let got = times(&mut echo(1.0), &mut echo(2.0), &batch(2, 12), &options).unwrap();
        assert_eq!((got.len(), got[0].input.as_str(), got[0].repeats), (1, "1x12", 15));
        let (ratio, speedup) = (got[0].ratio.unwrap(), got[0].speedup.unwrap());
        assert!((ratio * speedup - 1.0).abs() < 1e-9);
    }

    /// A model that takes no other shape than the one it was exported with.
    struct Baked<S>(S, [usize; 2]);

    impl<S: Session> Session for Baked<S> {
        fn inputs(&self) -> &[IoInfo] {
            self.0.inputs()
        }

        fn outputs(&self) -> &[IoInfo] {
            self.0.outputs()
        }

        fn run(
            &mut self,
            inputs: &[(&str, &Tensor)],
        ) -> Result<Vec<(String, Tensor)>, EngineError> {
            if inputs[0].1.shape != self.1 {
                return Err(EngineError::Run("cannot be reshaped".into()));
            }
            self.0.run(inputs)
        }
    }

    #[test]
    fn sizes_that_an_export_does_not_take_are_left_out() {
        let options = CompareOptions { latency: true, repeats: 3, ..CompareOptions::default() };
        let taken = |shape: [usize; 2], rows, columns| {
            let (mut a, mut b) = (Baked(echo(1.0), shape), Baked(echo(2.0), shape));
            let got = times(&mut a, &mut b, &batch(rows, columns), &options);
            got.map(|it| it.into_iter().map(|it| it.input).collect::<Vec<_>>())
        };
        // A length, or a batch too, is in the constants.
        assert_eq!(taken([1, 32], 4, 32).unwrap(), ["1x32"]);
        assert_eq!(taken([4, 200], 4, 200).unwrap(), ["4x200"]);
        assert!(taken([4, 99], 4, 200).is_err());
        // What only the candidate refuses is its fault.
        let mut baked = Baked(echo(2.0), [1, 32]);
        assert!(times(&mut echo(1.0), &mut baked, &batch(4, 32), &options).is_err());
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }
}
