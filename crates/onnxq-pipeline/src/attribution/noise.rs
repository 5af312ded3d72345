//! How far inner values are from the reference's: alone, and with all that went wrong before.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{
    Side,
    align::Pair,
    cut::{Region, region},
    stitched::Runner,
};
use crate::Error;
use onnxq_ir::{
    ValueId,
    tensor::{Tensor, TensorError},
};
use onnxq_report::Interval;
use onnxq_run::{
    calibrate::{Mask, mask},
    data::Batch,
};

/// What to measure on, and what that may take.
pub(super) struct Meter<'a> {
    pub batches: &'a [Batch],
    /// Bytes for values that are held at a time.
    pub memory: u64,
    pub threads: usize,
}

/// Of each pair: the power of its noise in proportion to its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Noise {
    /// If the candidate's nodes read what the reference computes.
    pub local: Vec<f64>,
    /// In the candidate as it is.
    pub accumulated: Vec<f64>,
    /// The pairs that the candidate's nodes of each pair read.
    pub feeds: Vec<BTreeSet<usize>>,
    /// The least and the largest number of each pair, in the reference and in the candidate.
    pub ranges: Vec<[Span; 2]>,
}

impl Meter<'_> {
    /// In passes: of consecutive values, only so many are held as memory allows.
    pub(super) fn measure(&self, sides: &[Side; 2], pairs: &[Pair]) -> Result<Noise, Error> {
        let known: BTreeMap<ValueId, usize> =
            pairs.iter().enumerate().map(|(at, it)| (it.candidate, at)).collect();
        let regions = pairs.iter().map(|it| region(&sides[1].model, it.candidate, &known));
        let feeds: Vec<BTreeSet<usize>> = regions.map(|it: Region| it.feeds).collect();
        let workers = self.threads.clamp(1, self.batches.len().max(1));
        let mut powers = Vec::new();
        for values in passes(pairs, &feeds, self.memory / workers as u64) {
            let pass = Pass::new(sides, pairs, &feeds, values);
            powers.extend(pass.run(self.batches, workers)?);
        }
        let ratio = |of: fn(&Power) -> f64| {
            powers.iter().map(|it| of(it) / it.signal.max(f64::MIN_POSITIVE)).map(limited).collect()
        };
        Ok(Noise {
            local: ratio(|it| it.local),
            accumulated: ratio(|it| it.accumulated),
            feeds,
            ranges: powers.iter().map(|it| it.spans).collect(),
        })
    }
}

/// Reports hold finite numbers only.
fn limited(ratio: f64) -> f64 {
    ratio.min(1e30)
}

/// Signal to noise in dB; `None` if there is no noise.
pub(super) fn sqnr_db(noise_to_signal: f64) -> Option<f64> {
    (noise_to_signal > 0.0).then(|| -10.0 * noise_to_signal.log10())
}

/// Consecutive values whose bytes, three times each and with what they are computed from, fit.
fn passes(pairs: &[Pair], feeds: &[BTreeSet<usize>], memory: u64) -> Vec<Range<usize>> {
    let bytes = |it: usize| (pairs[it].elements * size_of::<f32>()) as u64;
    let mut list: Vec<Range<usize>> = Vec::new();
    let (mut held, mut taken): (BTreeSet<usize>, u64) = Default::default();
    for (at, reads) in feeds.iter().enumerate() {
        let cost = |held: &BTreeSet<usize>| {
            let new = reads.iter().chain([&at]).filter(|it| !held.contains(it));
            2 * bytes(at) + new.map(|it| bytes(*it)).sum::<u64>()
        };
        match list.last_mut() {
            Some(pass) if taken + cost(&held) <= memory => {
                taken += cost(&held);
                pass.end = at + 1;
            }
            _ => {
                held.clear();
                taken = cost(&held);
                list.push(at..at + 1);
            }
        }
        held.extend(reads.iter().copied().chain([at]));
    }
    list
}

#[derive(Clone, Copy, Debug, Default)]
struct Power {
    signal: f64,
    local: f64,
    accumulated: f64,
    /// Of the reference and of the candidate.
    spans: [Span; 2],
}

/// The least and the largest of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Span(Option<(f32, f32)>);

impl Span {
    fn add(&mut self, value: f32) {
        if value.is_finite() {
            self.join(Span(Some((value, value))));
        }
    }

    fn join(&mut self, other: Span) {
        self.0 = match (self.0, other.0) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }

    /// As reports hold it.
    pub(super) fn interval(self) -> Option<Interval> {
        self.0.map(|(low, high)| Interval { low: low.into(), high: high.into() })
    }
}

/// Sums of squares of a value and of what is wrong with it, and between what both lie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    signal: f64,
    noise: f64,
    spans: [Span; 2],
}

struct Pass<'a> {
    sides: &'a [Side<'a>; 2],
    pairs: &'a [Pair],
    values: Range<usize>,
    /// The values of the reference that are needed: those of the pass and what they read.
    held: Vec<usize>,
}

/// The reference, the candidate and the candidate on the reference's values.
struct Sessions {
    reference: Runner,
    candidate: Runner,
    local: Runner,
}

impl<'a> Pass<'a> {
    fn new(
        sides: &'a [Side<'a>; 2],
        pairs: &'a [Pair],
        feeds: &[BTreeSet<usize>],
        values: Range<usize>,
    ) -> Pass<'a> {
        let held: BTreeSet<usize> =
            feeds[values.clone()].iter().flatten().copied().chain(values.clone()).collect();
        Pass { sides, pairs, values, held: held.into_iter().collect() }
    }

    /// Sums in the order of the samples, whichever worker had them.
    fn run(&self, batches: &[Batch], workers: usize) -> Result<Vec<Power>, Error> {
        let start = || self.open();
        let run = |it: &mut Sessions, at: usize| self.sample(it, &batches[at]);
        let samples = each(workers, batches.len(), start, run)?;
        let mut sums = vec![Power::default(); self.values.len()];
        for sample in samples {
            for (sum, it) in sums.iter_mut().zip(sample) {
                sum.signal += it.signal;
                sum.local += it.local;
                sum.accumulated += it.accumulated;
                sum.spans[0].join(it.spans[0]);
                sum.spans[1].join(it.spans[1]);
            }
        }
        Ok(sums)
    }

    fn open(&self) -> Result<Sessions, Error> {
        let [reference, candidate] = self.sides;
        let of = |it: &usize| self.pairs[*it].reference;
        let mine = |it: usize| self.pairs[it].candidate;
        let held: Vec<ValueId> = self.held.iter().map(of).collect();
        let cut: Vec<ValueId> = self.held.iter().map(|it| mine(*it)).collect();
        let wanted: Vec<ValueId> = self.values.clone().map(mine).collect();
        Ok(Sessions {
            reference: Runner::open(&reference.model, reference, &[], &held)?,
            candidate: Runner::open(&candidate.model, candidate, &[], &wanted)?,
            local: Runner::open(&candidate.model, candidate, &cut, &wanted)?,
        })
    }

    fn sample(&self, sessions: &mut Sessions, batch: &Batch) -> Result<Vec<Power>, Error> {
        let mask = mask(batch)?;
        let held = sessions.reference.run(batch, &[])?;
        let cut: Vec<Option<&Tensor>> = held.iter().map(Some).collect();
        let expected: Vec<&Tensor> = self
            .values
            .clone()
            .map(|at| &held[self.held.binary_search(&at).expect("values of the pass are held")])
            .collect();
        let noise = |actual: Vec<Tensor>| -> Result<Vec<Sums>, Error> {
            let pairs = expected.iter().zip(&actual);
            pairs.map(|(a, b)| Ok(powers(a, b, mask.as_ref())?)).collect()
        };
        let local = noise(sessions.local.run(batch, &cut)?)?;
        let accumulated = noise(sessions.candidate.run(batch, &[])?)?;
        let power = |(local, accumulated): (Sums, Sums)| Power {
            signal: local.signal,
            local: local.noise,
            accumulated: accumulated.noise,
            spans: accumulated.spans,
        };
        Ok(local.into_iter().zip(accumulated).map(power).collect())
    }
}

/// Everything but the tokens of padding.
fn powers(expected: &Tensor, actual: &Tensor, mask: Option<&Mask>) -> Result<Sums, TensorError> {
    /// The power of a number that is lost.
    const LOST: f64 = 1e60;
    if expected.shape != actual.shape {
        return Ok(Sums { noise: LOST, ..Sums::default() });
    }
    let numbers = |it: &Tensor| -> Result<Vec<f32>, TensorError> {
        let values = it.to_f32()?;
        let mask = mask.filter(|mask| mask.fits(&it.shape, 1));
        Ok(mask.map_or_else(|| values.clone(), |mask| mask.keep(&values, &it.shape, 1).0))
    };
    let (expected, actual) = (numbers(expected)?, numbers(actual)?);
    let mut sums = Sums::default();
    for (a, b) in expected.into_iter().zip(actual) {
        sums.spans[0].add(a);
        sums.spans[1].add(b);
        if a == b || !a.is_finite() && !b.is_finite() {
            sums.signal += if a.is_finite() { f64::from(a).powi(2) } else { 0.0 };
        } else if a.is_finite() && b.is_finite() {
            sums.signal += f64::from(a).powi(2);
            sums.noise += (f64::from(a) - f64::from(b)).powi(2);
        } else {
            sums.noise += LOST;
        }
    }
    Ok(sums)
}

/// Does `count` jobs on `workers` threads, each with something of its own to begin with.
pub(super) fn each<S, T: Send>(
    workers: usize,
    count: usize,
    start: impl Fn() -> Result<S, Error> + Sync,
    job: impl Fn(&mut S, usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<BTreeMap<usize, Result<T, Error>>> = Mutex::default();
    let keep = |at, it| drop(done.lock().unwrap_or_else(PoisonError::into_inner).insert(at, it));
    let work = || {
        let mut own = None;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count || stop.load(Ordering::Relaxed) {
                return;
            }
            let own = match &mut own {
                Some(it) => Ok(it),
                none => start().map(|it| none.insert(it)),
            };
            let result = own.and_then(|it| job(it, at));
            stop.fetch_or(result.is_err(), Ordering::Relaxed);
            keep(at, result);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..workers.min(count)).map(|_| scope.spawn(work)).collect();
        work();
        let panicked = |it| std::panic::resume_unwind(it);
        workers.into_iter().for_each(|it| it.join().unwrap_or_else(panicked));
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_fit_and_hold_each_value_once() {
        let pair =
            |at| Pair { reference: ValueId::at(at), candidate: ValueId::at(at), elements: 10 };
        let pairs: Vec<Pair> = (0..4).map(pair).collect();
        let feeds: Vec<BTreeSet<usize>> =
            [&[][..], &[0], &[0, 1], &[2]].map(|it| it.iter().copied().collect()).to_vec();
        let whole = passes(&pairs, &feeds, 1 << 20);
        assert_eq!((whole.len(), whole[0].clone()), (1, 0..4));
        assert_eq!(passes(&pairs, &feeds, 1), [0..1, 1..2, 2..3, 3..4]);
        // Three times a value, and the one that it reads.
        assert_eq!(passes(&pairs, &feeds, 240), [0..2, 2..3, 3..4]);
    }

    #[test]
    fn infinite_masks_are_no_noise_and_lost_numbers_are() {
        let tensor = |it: [f32; 2]| Tensor::from_f32(&[2], it);
        let power = |a, b| powers(&tensor(a), &tensor(b), None).unwrap();
        let low = f32::NEG_INFINITY;
        let sums = |a, b| [power(a, b).signal, power(a, b).noise];
        assert_eq!(sums([3.0, low], [3.0, low]), [9.0, 0.0]);
        assert_eq!(sums([3.0, 1.0], [3.0, 3.0]), [10.0, 4.0]);
        assert!(sums([3.0, 1.0], [3.0, f32::NAN])[1] > 1e50);
        let [expected, actual] = power([3.0, 1.0], [low, 2.0]).spans.map(|it| it.interval());
        assert_eq!(expected, Some(Interval { low: 1.0, high: 3.0 }));
        assert_eq!(actual, Some(Interval { low: 2.0, high: 2.0 }));
    }

    #[test]
    fn jobs_come_back_in_order_and_the_first_error_counts() {
        let ok = each(3, 10, || Ok(()), |(), at| Ok(at * at)).unwrap();
        assert_eq!(ok, (0..10).map(|it| it * it).collect::<Vec<_>>());
        let broken = |at: usize| TensorError::Io(at.to_string());
        let err =
            each(3, 9, || Ok(()), |(), at| if at > 3 { Err(broken(at).into()) } else { Ok(()) });
        assert!(err.unwrap_err().to_string().contains('4'));
    }
}
