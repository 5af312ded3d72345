//! `fuzz TARGET`: feeds a target with inputs for some seconds; exits with 1 if it breaks.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for people")]

use std::{alloc::System, fs, path::PathBuf, process::ExitCode};

use cap::Cap;
use clap::Parser;
use onnxq_fuzz::{
    engine::{self, Options},
    state::State,
    supervise::supervise,
    targets::{TARGETS, Target, target},
};

/// No input of a few kilobytes may need more. An allocation beyond it ends the worker.
const MOST_BYTES: usize = 512 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Feed a reader of untrusted bytes with mutated inputs
#[derive(Parser)]
struct Args {
    /// The target; without one, they are listed
    target: Option<String>,
    /// How long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Inputs to start from; new ones are kept there
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Where inputs are kept that break the target
    #[arg(long, value_name = "DIR")]
    findings: Option<PathBuf>,
    /// Run these inputs once instead
    #[arg(long, value_name = "FILE", num_args = 1..)]
    replay: Vec<PathBuf>,
    /// Of a worker: the file that says what is under way
    #[arg(long, hide = true)]
    state: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(name) = &args.target else {
        TARGETS.iter().for_each(|it| println!("{:8} {}", it.name, it.about));
        return ExitCode::SUCCESS;
    };
    let Some(target) = target(name) else {
        eprintln!("there is no target `{name}`");
        return ExitCode::from(2);
    };
    let result = match &args.replay[..] {
        [] => fuzz(target, &args),
        files => replay(target, files),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(3)
        }
    }
}

fn fuzz(target: &Target, args: &Args) -> std::io::Result<bool> {
    let findings = args.findings.clone();
    let findings = findings.unwrap_or_else(|| PathBuf::from("fuzz/findings").join(target.name));
    let (seconds, seed, corpus) = (args.seconds, args.seed, args.corpus.clone());
    let options = Options { seconds, seed, corpus, findings };
    let Some(state) = &args.state else {
        let (deaths, lost) = supervise(target.name, &options)?;
        if deaths > 0 {
            println!("{}: {lost} more inputs in {deaths} workers that ended", target.name);
        }
        let clean = fs::read_dir(&options.findings).map_or(true, |mut it| it.next().is_none());
        return Ok(clean);
    };
    cap_memory();
    let it = engine::run(target, &options, &mut State::create(state)?)?;
    println!(
        "{}: {} inputs, {} accepted, {} kept, {} words, {} of {} edges, {} kinds of findings, \
         slowest {:.2} s, at most {} MiB",
        target.name,
        it.inputs,
        it.accepted,
        it.kept,
        it.words,
        it.reached,
        it.edges,
        it.findings,
        it.slowest,
        ALLOCATOR.max_allocated() >> 20,
    );
    Ok(it.findings == 0)
}

fn replay(target: &Target, files: &[PathBuf]) -> std::io::Result<bool> {
    cap_memory();
    engine::watch_panics();
    let mut clean = true;
    for path in files {
        let (outcome, seconds) = engine::check(target, &fs::read(path)?);
        match outcome {
            Ok(outcome) => println!("{}: {outcome:?} in {seconds:.2} s", path.display()),
            Err(finding) => {
                println!("{}: {}: {}", path.display(), finding.kind, finding.what);
                clean = false;
            }
        }
    }
    println!("at most {} MiB", ALLOCATOR.max_allocated() >> 20);
    Ok(clean)
}

fn cap_memory() {
    ALLOCATOR.set_limit(MOST_BYTES).expect("little is allocated yet");
}
