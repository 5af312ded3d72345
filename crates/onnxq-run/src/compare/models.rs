//! Two models on the same batches: how their outputs differ and how long they take.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread,
};

use super::{
    accumulate::{Accumulator, Context},
    latency::times,
    role::{is_cache, role},
    sizes::Sizes,
    splits::Split,
};
use crate::{
    data::{Batch, DataError, converted, roles},
    engine::{EngineError, IoInfo, LeftOut, Session},
};
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic, Warning},
    tensor::{DType, Tensor, TensorError},
    untrusted::Untrusted,
};
use onnxq_report::{
    figures::{Comparison, OutputMetrics, Role},
    pictures::MAX_OUTPUTS,
};

#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Also measure how long a run takes.
    pub latency: bool,
    /// Timed runs of each model, after `warm_up` others.
    pub repeats: usize,
    pub warm_up: usize,
    /// Time more runs until the ratio is known well enough, because something will be decided by it.
    pub steady: bool,
    /// Also keep small pictures of the worst sample of outputs that are images.
    pub pictures: bool,
    /// Samples that the batches hold, for the progress bar.
    pub samples: usize,
    /// What outputs are joined of, as the reference's graph says.
    pub splits: BTreeMap<String, Vec<Split>>,
    /// The reference tells what decides sizes, and the candidate is pinned to it.
    pub sizes: Option<Arc<Sizes>>,
}

impl Default for CompareOptions {
    fn default() -> CompareOptions {
        let (latency, steady, pictures) = (false, false, false);
        let (splits, sizes) = (BTreeMap::new(), None);
        CompareOptions {
            latency,
            repeats: 15,
            warm_up: 3,
            steady,
            pictures,
            samples: 0,
            splits,
            sizes,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("cannot run the {model} model")]
    Engine { model: &'static str, source: EngineError },
    #[error("the {model} model has an input `{}`, which the data lacks", Untrusted(input))]
    Input { model: &'static str, input: String },
    #[error(
        "the {model} model takes {expected} for `{}`, which the data cannot become",
        Untrusted(input)
    )]
    InputType { model: &'static str, input: String, expected: DType },
    #[error("the candidate has no output `{}`", Untrusted(.0))]
    Output(String),
    #[error(
        "output `{}` is {candidate} in the candidate, {reference} in the reference",
        Untrusted(output)
    )]
    Shape { output: String, reference: String, candidate: String },
    #[error("nothing can be compared: no output of the models is a tensor{}", listed(.0))]
    NoTensors(Vec<LeftOut>),
    #[error("cannot read output `{}`", Untrusted(output))]
    Tensor { output: String, source: TensorError },
}

impl Diagnostic for CompareError {
    fn code(&self) -> Code {
        match self {
            CompareError::Data(it) => it.code(),
            CompareError::Engine { source, .. } => source.code(),
            CompareError::Input { .. } => Code::E607,
            CompareError::InputType { .. } => Code::E604,
            CompareError::Output(_)
            | CompareError::NoTensors(_)
            | CompareError::Shape { .. }
            | CompareError::Tensor { .. } => Code::E609,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CompareError::Data(it) => it.hint(),
            CompareError::Engine { source, .. } => source.hint(),
            CompareError::Shape { .. } => Some(
                "compare with the very file that was quantized; where sizes depend on numbers inside the \
                 body of an If, Loop or Scan, or nodes have other names in the candidate, models that \
                 end before that point can be compared"
                    .into(),
            ),
            _ => None,
        }
    }
}

fn listed(outputs: &[LeftOut]) -> String {
    let one = |it: &LeftOut| format!("`{}` is {}", Untrusted(&it.name), Untrusted(&it.ty));
    let list: Vec<String> = outputs.iter().map(one).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) }
}

/// Says which outputs are no tensors, if some are.
pub fn left_out(outputs: &[LeftOut]) -> Option<Warning> {
    let [_, ..] = outputs else { return None };
    let text = format!("outputs that are no tensors are left out{}", listed(outputs));
    Some(Warning::new(Code::W211, text))
}

/// Runs both models on every batch. While the next batch runs, another thread looks at the outputs
/// of the last; those of two batches at most are in memory.
pub fn compare(
    reference: &mut dyn Session,
    candidate: &mut dyn Session,
    batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
    options: &CompareOptions,
    ctx: &Ctx,
) -> Result<Comparison, CompareError> {
    let (mut samples, mut first) = (0, None);
    ctx.progress.start("compare", options.samples as u64);
    let mut run_all = |take: &mut dyn FnMut(Ran) -> bool| -> Result<(), CompareError> {
        for batch in &mut *batches {
            let batch = batch?;
            let context = context(&batch, reference.inputs());
            let mut expected = run(reference, "reference", &batch)?;
            let told = options.sizes.as_ref().map(|it| it.tell(&mut expected, &batch));
            if expected.is_empty() {
                let list = [reference.left_out(), candidate.left_out()];
                let list = list.into_iter().find(|it| !it.is_empty()).unwrap_or_default();
                return Err(CompareError::NoTensors(list.to_vec()));
            }
            let actual = run(candidate, "candidate", told.as_ref().unwrap_or(&batch))?;
            // What the candidate has no partner of was said.
            let is_there = |it: &str| actual.iter().any(|(name, _)| name == it);
            if let Some(sizes) = &options.sizes {
                expected.retain(|(it, _)| !sizes.is_judged(it) || is_there(it));
            }
            let count = context.batch;
            if !take(Ran { context, expected, actual }) {
                break; // Looking at it has failed.
            }
            samples += count;
            ctx.progress.step(count as u64);
            first.get_or_insert(batch);
        }
        Ok(())
    };
    // A thread of the pool that waits for others cannot do its share of what they wait for.
    let outputs = match rayon::current_thread_index() {
        Some(_) => tally_here(&mut run_all, options)?,
        None => tally_meanwhile(&mut run_all, options)?,
    };
    let latency = match first.filter(|_| options.latency) {
        Some(batch) => times(reference, candidate, &batch, options)?,
        None => Vec::new(),
    };
    ctx.progress.done(&format!("{samples} samples"));
    Ok(Comparison { samples, outputs, latency, ..Comparison::default() })
}

/// What both models made of a batch.
struct Ran {
    context: Context,
    expected: Vec<(String, Tensor)>,
    actual: Vec<(String, Tensor)>,
}

type RunAll<'a> = dyn FnMut(&mut dyn FnMut(Ran) -> bool) -> Result<(), CompareError> + 'a;
type Outputs = BTreeMap<String, OutputMetrics>;

/// Looks at each batch before the next one runs.
fn tally_here(run_all: &mut RunAll, options: &CompareOptions) -> Result<Outputs, CompareError> {
    let (mut tally, mut failed) = (Tally::new(options), None);
    run_all(&mut |ran| match tally.add(ran) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    })?;
    failed.map_or_else(|| Ok(tally.finish()), Err)
}

/// Looks at each batch while the next one runs.
fn tally_meanwhile(
    run_all: &mut RunAll,
    options: &CompareOptions,
) -> Result<Outputs, CompareError> {
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel::<Ran>(0);
        let tally = scope.spawn(move || {
            let mut tally = Tally::new(options);
            receiver.into_iter().try_for_each(|ran| tally.add(ran))?;
            Ok(tally.finish())
        });
        run_all(&mut |ran| sender.send(ran).is_ok())?;
        drop(sender);
        tally.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Tally<'a> {
    outputs: BTreeMap<String, Accumulator>,
    options: &'a CompareOptions,
}

impl Tally<'_> {
    fn new(options: &CompareOptions) -> Tally<'_> {
        Tally { outputs: BTreeMap::new(), options }
    }

    fn add(&mut self, ran: Ran) -> Result<(), CompareError> {
        let Ran { context, expected, actual } = ran;
        let actual: BTreeMap<String, Tensor> = actual.into_iter().collect();
        for (name, expected) in expected {
            let actual = actual.get(&name).ok_or_else(|| CompareError::Output(name.clone()))?;
            // What integers of a cache stand for only steps with it show: they are compared too.
            if is_cache(&name) && expected.dtype.is_float() != actual.dtype.is_float() {
                continue;
            }
            add(&mut self.outputs, (&name, self.options), &expected, actual, &context)?;
        }
        Ok(())
    }

    fn finish(self) -> Outputs {
        let mut all = Outputs::new();
        for (name, output) in self.outputs {
            let (whole, parts) = output.finish_with_parts(&name);
            all.extend(parts);
            all.insert(name, whole);
        }
        keep_pictures_of_the_worst(&mut all);
        all
    }
}

/// A page and a report have room for the pictures of a few outputs.
fn keep_pictures_of_the_worst(outputs: &mut Outputs) {
    let mut list: Vec<&mut OutputMetrics> =
        outputs.values_mut().filter(|it| it.pictures.is_some()).collect();
    // Where the original says nothing but 0, the ratio is none, and any error is too much.
    let noise = |it: &OutputMetrics| it.sqnr_db.unwrap_or(f64::NEG_INFINITY);
    list.sort_by(|a, b| noise(a).total_cmp(&noise(b)));
    list.into_iter().skip(MAX_OUTPUTS).for_each(|it| it.pictures = None);
}

/// Runs a model on what it takes of a batch.
fn run(
    session: &mut dyn Session,
    model: &'static str,
    batch: &Batch,
) -> Result<Vec<(String, Tensor)>, CompareError> {
    let inputs = inputs(session.inputs(), model, batch)?;
    run_on(session, model, &inputs)
}

pub(super) fn run_on(
    session: &mut dyn Session,
    model: &'static str,
    inputs: &[(String, Cow<Tensor>)],
) -> Result<Vec<(String, Tensor)>, CompareError> {
    let named: Vec<(&str, &Tensor)> =
        inputs.iter().map(|(name, it)| (name.as_str(), &**it)).collect();
    session.run(&named).map_err(|source| CompareError::Engine { model, source })
}

/// The inputs of a session, rounded if the candidate takes narrower floats than the data has. What only
/// this model takes, an empty cache or one of another type, is made by role.
pub fn inputs<'a>(
    wanted: &[IoInfo],
    model: &'static str,
    batch: &'a Batch,
) -> Result<Vec<(String, Cow<'a, Tensor>)>, CompareError> {
    let fit = |it: &IoInfo| {
        let name = || it.name.clone();
        let made = || roles::make(it, roles::extent(wanted, batch)?);
        let is_past = roles::role(&it.name) == Some(roles::Role::Past);
        // Nothing is lost of an empty cache that is made anew.
        let fits = |given: &Tensor| given.dtype == it.ty.dtype || given.nbytes() > 0;
        let given = batch.get(&it.name).filter(|given| !is_past || fits(given));
        let Some(given) = given else {
            let made = made().ok_or_else(|| CompareError::Input { model, input: name() })?;
            return Ok((name(), Cow::Owned(made)));
        };
        if given.dtype == it.ty.dtype {
            return Ok((name(), Cow::Borrowed(given)));
        }
        match converted(given, it.ty.dtype) {
            Ok((tensor, lost)) if lost.is_none() || given.dtype.is_float() => {
                Ok((name(), Cow::Owned(tensor)))
            }
            _ => Err(CompareError::InputType { model, input: name(), expected: it.ty.dtype }),
        }
    };
    wanted.iter().map(fit).collect()
}

fn context(batch: &Batch, inputs: &[IoInfo]) -> Context {
    let ids = batch.get("input_ids").filter(|it| it.shape.len() == 2);
    let ids = ids.and_then(|it| Some((it.to_i64().ok()?, [it.shape[0], it.shape[1]])));
    let mask = batch
        .get("attention_mask")
        .filter(|mask| ids.as_ref().is_some_and(|(_, shape)| mask.shape == *shape));
    let mask = mask.and_then(|it| Some(it.to_i64().ok()?.iter().map(|it| *it != 0).collect()));
    let first = inputs.first().and_then(|it| batch.get(&it.name));
    let leading = first.and_then(|it| it.shape.first().copied()).unwrap_or(1);
    let is_image = |it: &&Tensor| it.shape.len() == 4 && it.dtype.is_float();
    let image = first.filter(is_image).map(|it| (inputs[0].name.clone(), it.clone()));
    Context { batch: ids.as_ref().map_or(leading, |(_, shape)| shape[0]), ids, mask, image }
}

fn add(
    outputs: &mut BTreeMap<String, Accumulator>,
    (name, options): (&str, &CompareOptions),
    reference: &Tensor,
    candidate: &Tensor,
    context: &Context,
) -> Result<(), CompareError> {
    let same_kind = reference.dtype == candidate.dtype
        || reference.dtype.is_float() && candidate.dtype.is_float();
    if reference.shape != candidate.shape || !same_kind {
        let (reference, candidate) = (format!("{reference:?}"), format!("{candidate:?}"));
        return Err(CompareError::Shape { output: name.into(), reference, candidate });
    }
    let unreadable = |source| CompareError::Tensor { output: name.into(), source };
    if reference.dtype.is_float() {
        let expected = reference.f32s().map_err(unreadable)?;
        let actual = candidate.f32s().map_err(unreadable)?;
        let role = || {
            let splits = options.splits.get(name).map_or(&[][..], |it| it);
            let role = role(name, &reference.shape, &expected, context);
            let is_decided = options.sizes.as_ref().is_some_and(|it| it.is_decided(name));
            let role = if is_decided { role.of_any_rows() } else { role };
            Accumulator::with_parts(role, &reference.shape, splits).with_pictures(options.pictures)
        };
        let totals = outputs.entry(name.to_owned()).or_insert_with(role);
        totals.add(&reference.shape, &expected, &actual, context);
        return Ok(());
    }
    let (equal, elements) = match (reference.string_values(), candidate.string_values()) {
        (Some(a), Some(b)) => (a.iter().zip(b).filter(|(a, b)| a == b).count(), a.len()),
        _ => {
            let expected = reference.to_i64().map_err(unreadable)?;
            let actual = candidate.to_i64().map_err(unreadable)?;
            (expected.iter().zip(&actual).filter(|(a, b)| a == b).count(), expected.len())
        }
    };
    let totals = outputs.entry(name.to_owned()).or_insert_with(|| Accumulator::new(Role::Discrete));
    totals.add_discrete(context.batch, equal, elements);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use onnxq_ir::tensor::{Dim, TensorType};

    type Run = Box<dyn Fn(&BTreeMap<&str, &Tensor>) -> Vec<(String, Tensor)> + Send>;

    /// A model that is a closure.
    pub(crate) struct Fake {
        pub inputs: Vec<IoInfo>,
        pub run: Run,
    }

    impl Session for Fake {
        fn inputs(&self) -> &[IoInfo] {
            &self.inputs
        }

        fn outputs(&self) -> &[IoInfo] {
            &[]
        }

        fn run(
            &mut self,
            inputs: &[(&str, &Tensor)],
        ) -> Result<Vec<(String, Tensor)>, EngineError> {
            Ok((self.run)(&inputs.iter().copied().collect()))
        }
    }

    pub(crate) fn ids() -> Vec<IoInfo> {
        let dims = ["batch", "sequence"].map(|it| Dim::Symbol(it.into()));
        vec![IoInfo { name: "input_ids".into(), ty: TensorType::new(DType::I64, dims) }]
    }

    /// Predicts that each token is followed by itself, with some strength.
    pub(crate) fn echo(strength: f32) -> Fake {
        let run = move |inputs: &BTreeMap<&str, &Tensor>| {
            let ids = inputs["input_ids"];
            let row = |id: i64| (0..4).map(move |it| if it == id { strength } else { 0.0 });
            let logits = ids.to_i64().unwrap().into_iter().flat_map(row);
            let shape = [ids.shape[0], ids.shape[1], 4];
            vec![("logits".into(), Tensor::from_f32(&shape, logits)), ("ids".into(), ids.clone())]
        };
        Fake { inputs: ids(), run: Box::new(run) }
    }

    fn batches() -> Vec<Result<Batch, DataError>> {
        let batch =
            |ids: [i64; 6]| Batch::from([("input_ids".into(), Tensor::from_i64(&[2, 3], ids))]);
        vec![Ok(batch([0, 0, 1, 3, 3, 3])), Ok(batch([1, 2, 3, 0, 1, 1]))]
    }

    fn compared(candidate: Fake, options: &CompareOptions) -> Result<Comparison, CompareError> {
        let mut batches = batches().into_iter();
        compare(&mut echo(2.0), &mut { candidate }, &mut batches, options, &Ctx::silent())
    }

    #[test]
    fn a_model_equals_itself() {
        let got = compared(echo(2.0), &CompareOptions::default()).unwrap();
        let logits = &got.outputs["logits"];
        assert!(logits.exact && got.outputs["ids"].exact);
        assert_eq!((got.samples, logits.samples, logits.elements), (4, 4, 48));
        assert_eq!((logits.kl.unwrap().max, logits.top1), (Some(0.0), Some(1.0)));
        assert_eq!(logits.perplexity.unwrap().ratio, Some(1.0));
        assert_eq!(got.outputs["ids"].equal, Some(1.0));
    }

    #[test]
    fn weaker_logits_have_divergence_but_the_same_top() {
        let got = compared(echo(1.0), &CompareOptions::default()).unwrap();
        let logits = &got.outputs["logits"];
        assert!(logits.kl.unwrap().mean.unwrap() > 0.01);
        assert_eq!(logits.top1, Some(1.0));
        // Every logit is halved, so the error is half of the signal.
        assert!((logits.sqnr_db.unwrap() - 20.0 * 2f64.log10()).abs() < 1e-9);
        assert!(!logits.exact);
    }

    /// The pool's threads must not all wait for work that only they could do.
    #[test]
    fn models_are_compared_within_a_pool_of_any_size() {
        use rayon::prelude::*;
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let options = CompareOptions::default();
            let kl = |_| compared(echo(1.0), &options).unwrap().outputs["logits"].kl;
            let within: Vec<_> = pool.install(|| (0..8).into_par_iter().map(kl).collect());
            assert!(within.iter().all(|it| *it == kl(0)));
        }
    }

    #[test]
    fn outputs_must_match() {
        let renamed =
            |inputs: &BTreeMap<&str, &Tensor>| vec![("y".to_owned(), inputs["input_ids"].clone())];
        let fake = |run: Run| Fake { inputs: ids(), run };
        let error = compared(fake(Box::new(renamed)), &CompareOptions::default()).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (Code::E609, "the candidate has no output `logits`")
        );
        let flat = |_: &BTreeMap<&str, &Tensor>| vec![("logits".to_owned(), Tensor::scalar(1.0))];
        let error = compared(fake(Box::new(flat)), &CompareOptions::default()).unwrap_err();
        assert_eq!(error.code(), Code::E609);
    }

    #[test]
    fn inputs_must_be_in_the_data() {
        let mut other = echo(2.0);
        other.inputs[0].name = "tokens".into();
        assert_eq!(compared(other, &CompareOptions::default()).unwrap_err().code(), Code::E607);
        let mut narrow = echo(2.0);
        narrow.inputs[0].ty.dtype = DType::I32;
        assert_eq!(compared(narrow, &CompareOptions::default()).unwrap_err().code(), Code::E609);
    }
}
