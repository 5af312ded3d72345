//! The program from outside: what it prints and writes, and how it exits.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// What a run printed, and its exit code.
pub(crate) struct Run {
    pub out: String,
    pub error: String,
    pub code: i32,
}

impl Run {
    /// What a run with `--json` printed; it must have succeeded.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}{}", self.out, self.error);
        serde_json::from_str(&self.out).unwrap()
    }
}

pub(crate) fn run(args: &[&str]) -> Run {
    run_with(args, &[])
}

pub(crate) fn run_with(args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = Command::cargo_bin("onnxq").unwrap();
    command.args(args).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    ran(command.envs(variables.iter().copied()))
}

/// A run that is given this on its standard input.
pub(crate) fn run_on(args: &[&str], input: &str) -> Run {
    let mut command = Command::cargo_bin("onnxq").unwrap();
    command.args(args).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    ran(command.write_stdin(input))
}

fn ran(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run {
        out: text(output.stdout),
        error: text(output.stderr),
        code: output.status.code().unwrap(),
    }
}

/// A folder for outputs, and paths as arguments.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
