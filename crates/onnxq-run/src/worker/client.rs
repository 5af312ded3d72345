//! Starts a worker, hands it a request and waits for its answer.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use super::{Answer, COMMAND, Refusal, Request};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    untrusted::escape,
};

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("a process of its own could not be run: {0}")]
    Io(#[from] io::Error),
    #[error("the process took longer than {} minutes", .0.as_secs() / 60)]
    Timeout(Duration),
    #[error("the process failed ({status}): {}", escape(stderr.trim()))]
    Failed { status: ExitStatus, stderr: String },
    #[error("the process said something else: {}", escape(.0.trim()))]
    Garbled(String),
    #[error("the process failed ({}): {}", escape(&.0.code), escape(&.0.message))]
    Refused(Refusal),
}

impl Diagnostic for WorkerError {
    fn code(&self) -> Code {
        match self {
            WorkerError::Refused(it) => it.code.parse().unwrap_or(Code::E803),
            WorkerError::Io(_) => Code::E902,
            WorkerError::Timeout(_) | WorkerError::Failed { .. } | WorkerError::Garbled(_) => {
                Code::E803
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            WorkerError::Refused(it) => it.hint.clone(),
            _ => None,
        }
    }
}

/// Of what a worker says, bytes that are read.
const LONGEST: u64 = 64 << 10;

/// Asks a worker that is a process of the program at `program`.
pub fn ask(program: &Path, request: &Request, timeout: Duration) -> Result<Answer, WorkerError> {
    let mut command = Command::new(program);
    command.args([COMMAND, "--quiet", "--color", "never", "--offline"]);
    let request = serde_json::to_vec(request).map_err(io::Error::from)?;
    match run(command, &request, timeout)? {
        Answer::Refused(it) => Err(WorkerError::Refused(it)),
        answer => Ok(answer),
    }
}

fn run(mut command: Command, request: &[u8], timeout: Duration) -> Result<Answer, WorkerError> {
    // Files, because nobody serves pipes while this waits.
    let (stdin, stdout, stderr) = (file(request)?, file(&[])?, file(&[])?);
    command.stdin(stdin).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let status = wait(command.spawn()?, timeout)?;
    if !status.success() {
        return Err(WorkerError::Failed { status, stderr: text(stderr)? });
    }
    let said = text(stdout)?;
    serde_json::from_str(&said).map_err(|_| WorkerError::Garbled(said))
}

/// A file without a name that holds these bytes, at its beginning.
fn file(bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::Write::write_all(&mut file, bytes)?;
    file.rewind()?;
    Ok(file)
}

fn wait(mut child: Child, timeout: Duration) -> Result<ExitStatus, WorkerError> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() >= timeout {
            child.kill()?;
            child.wait()?;
            return Err(WorkerError::Timeout(timeout));
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use onnxq_report::Footprint;

    fn sh(script: &str, timeout: Duration) -> Result<Answer, WorkerError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, b"{}", timeout)
    }

    #[test]
    fn children_that_fail_hang_or_talk_nonsense_are_told_apart() {
        let long = Duration::from_secs(60);
        let good = sh(r#"echo '{"answer": "footprint", "load_ms": 1.5, "peak_bytes": 9}'"#, long);
        let Answer::Footprint(good) = good.unwrap() else { panic!("no footprint") };
        let expected =
            Footprint { load_ms: Some(1.5), peak_bytes: Some(9), ..Footprint::default() };
        assert_eq!(good, expected);
        let echo = sh(r#"test "$(cat)" = '{}' && echo '{"answer": "footprint"}'"#, long);
        assert_eq!(echo.unwrap(), Answer::Footprint(Footprint::default()));
        let failed = sh("printf 'error\\033[31m: no' >&2; exit 3", long).unwrap_err();
        let text = failed.to_string();
        assert!(text.contains("exit status: 3") && text.contains("error\\u{1b}[31m: no"), "{text}");
        assert!(matches!(sh("echo hello", long), Err(WorkerError::Garbled(_))));
        let start = Instant::now();
        let slow = sh("sleep 60", Duration::from_millis(50));
        assert!(matches!(slow, Err(WorkerError::Timeout(_))) && start.elapsed() < long);
        let none = run(Command::new("/nonexistent"), &[], long).unwrap_err();
        assert!(matches!(none, WorkerError::Io(_)));
    }

    #[test]
    fn a_refusal_keeps_its_code_and_hint() {
        let hint = Some("try again".to_owned());
        let refusal = Refusal { code: "E603".into(), message: "no".into(), hint: hint.clone() };
        let error = WorkerError::Refused(refusal);
        assert_eq!((error.code(), error.hint()), (Code::E603, hint));
        assert_eq!(error.to_string(), "the process failed (E603): no");
    }
}
