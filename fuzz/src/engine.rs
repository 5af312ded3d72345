//! Runs a target on mutated inputs; those that reach something new become seeds themselves.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    corpus,
    coverage::Coverage,
    mutate::mutate,
    state::State,
    targets::{Outcome, Target},
};

/// Seconds of processors that no input may take.
pub const SLOW: f64 = 2.0;

/// Where the last panic was, and what it said.
static PANIC: Mutex<Option<(String, String)>> = Mutex::new(None);

pub struct Options {
    pub seconds: u64,
    pub seed: u64,
    /// Inputs to start from, and where new ones are kept.
    pub corpus: Option<PathBuf>,
    /// Where inputs are kept that break an invariant.
    pub findings: PathBuf,
}

/// What a run came to.
#[derive(Default, Debug)]
pub struct Summary {
    pub inputs: u64,
    pub accepted: u64,
    /// Inputs that were kept because they reached something new, seeds included.
    pub kept: usize,
    pub words: usize,
    pub edges: usize,
    pub reached: usize,
    pub findings: usize,
    pub slowest: f64,
}

/// A finding: its kind is what it has in common with others, `what` is for people.
pub struct Finding {
    pub kind: String,
    pub what: String,
}

/// Runs one input and checks what must hold of any.
pub fn check(target: &Target, input: &[u8]) -> (Result<Outcome, Finding>, f64) {
    let before = processor_seconds();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let seconds = processor_seconds() - before;
    let outcome = match outcome {
        Ok(_) if seconds > SLOW => {
            let what = format!("took {seconds:.1} s");
            Err(Finding { kind: "slow".into(), what })
        }
        Ok(outcome) => Ok(outcome),
        Err(_) => {
            let unknown = || ("somewhere".to_owned(), String::new());
            let last = PANIC.lock().unwrap_or_else(|it| it.into_inner()).take();
            let (place, message) = last.unwrap_or_else(unknown);
            Err(Finding { kind: format!("panic at {place}"), what: message })
        }
    };
    (outcome, seconds)
}

/// Remembers panics instead of printing them.
pub fn watch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let message = info.payload_as_str().unwrap_or_default().to_owned();
        let mut last = PANIC.lock().unwrap_or_else(|it| it.into_inner());
        *last = Some((place, message));
    }));
}

/// Runs until the time is over. `state` tells the supervisor what is under way.
pub fn run(target: &Target, options: &Options, state: &mut State) -> io::Result<Summary> {
    watch_panics();
    let mut run = Run {
        target,
        options,
        rng: Rng::with_seed(options.seed),
        corpus: Vec::new(),
        words: HashSet::new(),
        coverage: Coverage::new(),
        known: HashMap::new(),
        summary: Summary::default(),
    };
    let mut seeds = (target.seeds)();
    seeds.extend(options.corpus.iter().flat_map(|it| corpus::read(it)));
    assert!(!seeds.is_empty(), "there are no inputs to start from");
    for seed in seeds {
        run.one(seed.clone(), state, false)?;
        run.corpus.push(seed);
    }
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        let input = run.next();
        run.one(input, state, true)?;
    }
    let mut summary = run.summary;
    summary.kept = run.corpus.len();
    summary.words = run.words.len();
    summary.edges = run.coverage.edges();
    summary.reached = run.coverage.reached();
    summary.findings = run.known.len();
    Ok(summary)
}

struct Run<'a> {
    target: &'a Target,
    options: &'a Options,
    rng: Rng,
    corpus: Vec<Vec<u8>>,
    words: HashSet<Outcome>,
    coverage: Coverage,
    /// How often each kind of finding was met.
    known: HashMap<String, usize>,
    summary: Summary,
}

impl Run<'_> {
    /// A mutation of some input, of a recent one more often than of others.
    fn next(&mut self) -> Vec<u8> {
        let count = self.corpus.len();
        let recent = count.saturating_sub(count / 4 + 1);
        let from = if self.rng.u8(..3) == 0 { recent } else { 0 };
        let mut input = self.corpus[self.rng.usize(from..count)].clone();
        let other = &self.corpus[self.rng.usize(..count)];
        for _ in 0..1 << self.rng.u32(..3) {
            mutate(self.target.grammar, &mut input, other, self.target.words, &mut self.rng);
        }
        input.truncate(corpus::LONGEST);
        input
    }

    fn one(&mut self, input: Vec<u8>, state: &mut State, keep: bool) -> io::Result<()> {
        state.begin(self.summary.inputs, &input)?;
        let (outcome, seconds) = check(self.target, &input);
        self.summary.inputs += 1;
        self.summary.slowest = self.summary.slowest.max(seconds);
        let mut news = self.coverage.take();
        match outcome {
            Ok(outcome) => {
                self.summary.accepted += u64::from(outcome.is_ok());
                news |= self.words.insert(outcome);
            }
            Err(finding) => {
                self.found(&finding, &input)?;
                return Ok(());
            }
        }
        if news && keep {
            if let Some(folder) = &self.options.corpus {
                store(folder, &input)?;
            }
            self.corpus.push(input);
        }
        Ok(())
    }

    fn found(&mut self, finding: &Finding, input: &[u8]) -> io::Result<()> {
        let count = self.known.entry(finding.kind.clone()).or_default();
        *count += 1;
        if *count == 1 {
            let path = store(&self.options.findings, input)?;
            eprintln!("{}: {}\n  {}", finding.kind, finding.what, path.display());
        }
        Ok(())
    }
}

/// Keeps an input under the digest of its bytes.
pub fn store(folder: &std::path::Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    // FNV-1a: a name, not a proof.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, it| {
        (hash ^ u64::from(*it)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{hash:016x}"));
    fs::write(&path, input)?;
    Ok(path)
}

fn processor_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}
