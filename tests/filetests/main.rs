//! Runs `tests/filetests/**/*.onnxtxt`: a model, a command and its output in one file.
//!
//! `# RUN: pass fold-batchnorm % --trace` is the command, `%` the file; the model follows, and
//! after the line `# ----` what the command prints: standard output, then standard error.
//! What passes leave must compute the same: `# TOLERANCE: 1e-4` allows more than rounding.
//! They must leave the same graph whatever valid order the nodes of the model are in.
//! `convert --opset N` is checked in the same way. `# NO-EVAL: …` says what our evaluator does not
//! know; tests/it/opset.rs and tests/it/unfused.rs run those models in ONNX Runtime.
//! `# FAIL: …` in its place is a command that must fail. `BLESS=1` writes the output into the
//! files instead of comparing.

mod numeric;
#[path = "../it/common/random.rs"]
mod random;
#[path = "../it/common/shuffle.rs"]
mod shuffle;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use libtest_mimic::{Arguments, Failed, Trial};

const SEPARATOR: &str = "# ----\n";
/// Relative, of what a pass may change in a model's outputs unless the file says otherwise.
const DEFAULT_TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let trials = files.into_iter().map(|file| {
        let name = file.strip_prefix(&root).expect("found in it").display().to_string();
        Trial::test(name.replace('\\', "/"), move || check(&file))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|it| it == "onnxtxt") {
            files.push(path);
        }
    }
}

fn check(file: &Path) -> Result<(), Failed> {
    // A checkout may have other line ends; the output has these.
    let text = fs::read_to_string(file)?.replace("\r\n", "\n");
    let (input, expected) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
    let command = Directive::of(input)?;
    let actual = command.run(file, input)?;
    if let Some(names) = command.passes() {
        let tolerance = numeric::tolerance(input).unwrap_or(DEFAULT_TOLERANCE);
        numeric::numeric_check(input, &names, tolerance)?;
        numeric::shuffled_check(input, &names)?;
    }
    if let Some(target) = command.opset() {
        let tolerance = numeric::tolerance(input).unwrap_or(DEFAULT_TOLERANCE);
        numeric::opset_check(input, target, tolerance)?;
    }
    if env::var_os("BLESS").is_some_and(|it| it == "1") {
        let input = input.trim_end();
        fs::write(file, format!("{input}\n{SEPARATOR}{actual}"))?;
        return Ok(());
    }
    if actual == expected { Ok(()) } else { Err(difference(expected, &actual).into()) }
}

/// What the first lines of a file ask for.
struct Directive {
    arguments: String,
    must_fail: bool,
}

impl Directive {
    fn of(input: &str) -> Result<Directive, Failed> {
        let of = |key| input.lines().find_map(|it| it.strip_prefix(key)).map(str::trim);
        match (of("# RUN:"), of("# FAIL:")) {
            (Some(it), None) => Ok(Directive { arguments: it.to_owned(), must_fail: false }),
            (None, Some(it)) => Ok(Directive { arguments: it.to_owned(), must_fail: true }),
            _ => Err("the file needs one line `# RUN: …` or `# FAIL: …`".into()),
        }
    }

    /// The rewrites of a `pass` command, whose numbers are checked too.
    fn passes(&self) -> Option<Vec<&str>> {
        let mut words = self.arguments.split_whitespace();
        let is_pass = words.next() == Some("pass") && !self.must_fail;
        is_pass.then(|| words.take_while(|it| *it != "%").collect())
    }

    /// The operator set of a `convert --opset N` command, whose numbers are checked too.
    fn opset(&self) -> Option<i64> {
        let target = self.arguments.strip_prefix("convert --opset ")?;
        target.split_whitespace().next()?.parse().ok().filter(|_| !self.must_fail)
    }

    /// What the command prints. It runs in a folder of its own, so no path gets into the output.
    fn run(&self, file: &Path, input: &str) -> Result<String, Failed> {
        let folder = tempfile::tempdir()?;
        let name = file.file_name().and_then(|it| it.to_str()).ok_or("the name is not UTF-8")?;
        fs::write(folder.path().join(name), input)?;
        // Recipes of the tests beside it.
        for entry in fs::read_dir(file.parent().ok_or("it is in no folder")?)? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "yaml") {
                fs::copy(&path, folder.path().join(path.file_name().unwrap_or_default()))?;
            }
        }
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_onnxq"))
            .args(self.arguments.split_whitespace().map(|it| it.replace('%', name)))
            .current_dir(folder.path())
            .env("NO_COLOR", "1")
            .env_remove("RUST_BACKTRACE")
            .output()?;
        let output = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
        // 70 and panics are bugs, not refusals.
        let as_expected = match status.code() {
            Some(0) => !self.must_fail,
            Some(70 | 101) | None => false,
            Some(_) => self.must_fail,
        };
        if as_expected { Ok(output) } else { Err(format!("{status}\n{output}").into()) }
    }
}

/// The lines from the first that differs, of both.
fn difference(expected: &str, actual: &str) -> String {
    let same = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
    let rest = |text: &str, mark: char| -> String {
        text.lines().skip(same).map(|it| format!("{mark} {it}\n")).collect()
    };
    format!(
        "the output differs from line {} on (BLESS=1 accepts it):\n{}{}",
        same + 1,
        rest(expected, '-'),
        rest(actual, '+')
    )
}
