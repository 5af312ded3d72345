//! How long a model takes to load and how much memory it needs: alone, in a process of its own.
//!
//! In the process that compares, two models and the data of both share memory and caches; the
//! child has one model, and its peak is the model's.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Seek},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::Error;
use onnxq_ir::{
    diag::Code,
    onnx::{self, ExternalPolicy, OpenOptions},
    tensor::Tensor,
    untrusted::escape,
};
use onnxq_report::{Footprint, document::Warning};
use onnxq_run::{
    calibrate,
    data::{self, DataOptions},
    engine::{self, Located, RuntimeOptions, SessionOptions},
};

/// A model, and what it is run on.
pub struct FootprintJob<'a> {
    pub model: &'a Path,
    /// Of all its files.
    pub bytes: u64,
    pub data: &'a Path,
    pub options: DataOptions,
    pub open: OpenOptions,
    pub threads: usize,
    /// The library that the comparison runs in.
    pub library: &'a Located,
}

/// Why a footprint is not known.
#[derive(Debug, thiserror::Error)]
pub enum FootprintError {
    #[error("a process of its own could not be run: {0}")]
    Io(#[from] io::Error),
    #[error("the process took longer than {} minutes", .0.as_secs() / 60)]
    Timeout(Duration),
    #[error("the process failed ({status}): {}", escape(stderr.trim()))]
    Failed { status: ExitStatus, stderr: String },
    #[error("the process said something else: {}", escape(.0.trim()))]
    Garbled(String),
}

impl FootprintError {
    /// It makes no comparison fail.
    pub fn warning(&self, model: &Path) -> Warning {
        let message = format!("load time and memory are not measured: {self}");
        Warning::new(Code::W202, model, message)
    }
}

/// The subcommand of the child.
pub const COMMAND: &str = "footprint";
/// The time to load varies; of smaller models it is measured several times.
const LARGE: u64 = 1 << 30;
const RUNS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(600);
/// Of what a child says, bytes that are read.
const LONGEST: u64 = 4096;

/// Measures a model in processes of the program at `exe`; of several, the one with the median
/// time to load.
pub fn footprint(exe: &Path, job: &FootprintJob) -> Result<Footprint, FootprintError> {
    let runs = if job.bytes > LARGE { 1 } else { RUNS };
    let list = (0..runs).map(|_| run(exe, &arguments(job), TIMEOUT));
    let mut list = list.collect::<Result<Vec<_>, _>>()?;
    let load = |it: &Footprint| it.load_ms.unwrap_or(0.0);
    list.sort_by(|a, b| load(a).total_cmp(&load(b)));
    Ok(list[runs / 2])
}

fn run(exe: &Path, args: &[OsString], timeout: Duration) -> Result<Footprint, FootprintError> {
    // Files, because nobody reads pipes while this waits.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = Command::new(exe);
    command.args(args).stdin(Stdio::null());
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    // Only what is said here counts.
    let ours = |it: &OsStr| it.to_str().is_some_and(|it| it.starts_with("ONNXQ_"));
    for (name, _) in std::env::vars_os().filter(|it| ours(&it.0)) {
        command.env_remove(name);
    }
    let status = wait(command.spawn()?, timeout)?;
    if !status.success() {
        return Err(FootprintError::Failed { status, stderr: text(stderr)? });
    }
    let said = text(stdout)?;
    serde_json::from_str(&said).map_err(|_| FootprintError::Garbled(said))
}

fn wait(mut child: Child, timeout: Duration) -> Result<ExitStatus, FootprintError> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() >= timeout {
            child.kill()?;
            child.wait()?;
            return Err(FootprintError::Timeout(timeout));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The command line of the child: the flags of `validate` that matter.
fn arguments(job: &FootprintJob) -> Vec<OsString> {
    let mut list: Vec<OsString> =
        [COMMAND, "--quiet", "--color", "never", "--offline"].map(OsString::from).to_vec();
    let mut flag = |name: &str, value: &OsStr| {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value);
        list.push(word);
    };
    flag("threads", OsStr::new(&job.threads.max(1).to_string()));
    flag("data", job.data.as_os_str());
    // The system's loader knows where a bare name leads.
    if job.library.path.components().count() > 1 {
        flag("ort-lib", job.library.path.as_os_str());
    }
    if let Some(it) = &job.options.tokenizer {
        flag("tokenizer", it.as_os_str());
    }
    if let Some(it) = &job.options.preprocess {
        flag("preprocess", OsStr::new(it));
    }
    let policy = match job.open.external {
        ExternalPolicy::Contained => "contained",
        ExternalPolicy::None => "none",
        ExternalPolicy::Strict => "strict",
    };
    flag("external-policy", OsStr::new(policy));
    let switches = [
        ("--allow-unknown-opset", job.open.allow_unknown_opset),
        ("--drop-unknown", job.open.drop_unknown),
    ];
    list.extend(switches.iter().filter(|it| it.1).map(|it| it.0.into()));
    list.extend(["--".into(), job.model.as_os_str().to_owned()]);
    list
}

/// What the child does: loads the model, runs one sample, looks at itself.
pub fn measure(
    model: &Path,
    data: &Path,
    options: &DataOptions,
    open: &OpenOptions,
    threads: usize,
    runtime: &RuntimeOptions,
) -> Result<Footprint, Error> {
    // Our own reader first, as always, and everything of it goes before memory is looked at.
    let inputs = calibrate::model_inputs(&onnx::open(model, open)?.model);
    let mut batches = data::open(data, &inputs, options)?;
    batches.one_by_one();
    let sample = batches.next().transpose()?.unwrap_or_default();
    drop(batches);
    engine::start(&engine::ensure(runtime)?)?;
    let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let base_bytes = resident("VmRSS:");
    let session = SessionOptions { threads, ..SessionOptions::default() };
    let start = Instant::now();
    let mut session = engine::open(model, &session, runtime)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let inputs: Vec<(&str, &Tensor)> = sample.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs)?;
    // Without the reset the peak may be that of our reader.
    let peak_bytes = resident("VmHWM:").filter(|_| reset);
    Ok(Footprint { load_ms: Some(load_ms), peak_bytes, base_bytes })
}

/// A line of what the kernel says of this process, in bytes.
fn resident(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|it| it * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<Footprint, FootprintError> {
        run(Path::new("/bin/sh"), &["-c".into(), script.into()], timeout)
    }

    #[test]
    fn children_that_fail_hang_or_talk_nonsense_are_told_apart() {
        let long = Duration::from_secs(60);
        let good = sh(r#"echo '{"load_ms": 1.5, "peak_bytes": 9}'"#, long).unwrap();
        assert_eq!((good.load_ms, good.peak_bytes, good.base_bytes), (Some(1.5), Some(9), None));
        let failed = sh("printf 'error\\033[31m: no' >&2; exit 3", long).unwrap_err();
        let text = failed.to_string();
        assert!(text.contains("exit status: 3") && text.contains("error\\u{1b}[31m: no"), "{text}");
        assert!(matches!(sh("echo hello", long), Err(FootprintError::Garbled(_))));
        let start = Instant::now();
        let slow = sh("sleep 60", Duration::from_millis(50));
        assert!(matches!(slow, Err(FootprintError::Timeout(_))) && start.elapsed() < long);
        let none = run(Path::new("/nonexistent"), &[], long).unwrap_err();
        let warning = none.warning(Path::new("m.onnx"));
        assert_eq!((&*warning.code, warning.at.as_deref()), ("W202", Some("m.onnx")));
    }
}
