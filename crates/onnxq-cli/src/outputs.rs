//! Where a report goes: stdout, files, a folder of all formats, what a pipeline reads.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::builder::TypedValueParser;

use super::{
    Failure, Ui,
    shared::{find, words},
};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::replace,
    human::listed,
    untrusted::Untrusted,
};
use onnxq_report::{
    Report, Verdict,
    emit::{EMITTERS, Emitter, GITHUB, HTML, JSON, MARKDOWN, emitter, in_folder},
};

/// What becomes of the report. Files that exist are replaced.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Report")]
pub struct OutputArgs {
    #[arg(long, value_name = "DIR", help = folder_help())]
    pub report: Option<PathBuf>,
    #[arg(long, value_name = "FORMAT=FILE", value_parser = emit, help = emit_help())]
    pub emit: Vec<Emit>,
    /// What to print: `auto` is `github` under GitHub Actions [default: human, or json with --json]
    #[arg(long, value_name = "FORMAT", value_parser = output_format())]
    pub output_format: Option<OutputFormat>,
}

/// One format and its file.
#[derive(Clone, Debug)]
pub struct Emit {
    pub format: &'static Emitter,
    pub file: PathBuf,
}

/// What is printed.
#[derive(Clone, Copy, Debug, Default)]
pub enum OutputFormat {
    /// What suits the place where the program runs.
    Auto,
    /// What people read on a terminal.
    #[default]
    Human,
    Emitted(&'static Emitter),
}

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("`{}` could not be written", Untrusted(&path.to_string_lossy()))]
    Write { path: PathBuf, source: io::Error },
    #[error("`{}` is what the report is about", Untrusted(&path.to_string_lossy()))]
    Input { path: PathBuf },
}

impl Diagnostic for OutputError {
    fn code(&self) -> Code {
        match self {
            OutputError::Write { .. } => Code::E901,
            OutputError::Input { .. } => Code::E904,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            OutputError::Write { .. } => None,
            OutputError::Input { .. } => Some("choose another name for the report".into()),
        }
    }
}

fn folder_help() -> String {
    let files: Vec<&str> = EMITTERS.iter().filter(|it| it.common).map(|it| it.file).collect();
    format!("Write the report into this folder: {}", listed(&files, "and"))
}

fn emit_help() -> String {
    let shown = [HTML.name, "junit"];
    let others = EMITTERS.iter().map(|it| it.name).filter(|it| !shown.contains(it));
    let others = listed(&others.collect::<Vec<_>>(), "and");
    format!("Write the report in one format: html=page.html, junit=gates.xml; also {others}")
}

fn output_format() -> impl TypedValueParser<Value = OutputFormat> {
    let mut names: Vec<&str> = EMITTERS.iter().filter(|it| it.printed).map(|it| it.name).collect();
    names.extend(["auto", "human"]);
    names.sort_unstable();
    words(names.into_iter().map(|it| (it, ""))).map(|word| match &*word {
        "auto" => OutputFormat::Auto,
        "human" => OutputFormat::Human,
        word => OutputFormat::Emitted(find(EMITTERS, |it| it.name == word)),
    })
}

fn emit(text: &str) -> Result<Emit, String> {
    let known = || EMITTERS.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
    let Some((format, file)) = text.split_once('=') else {
        return Err("write FORMAT=FILE, as junit=gates.xml".into());
    };
    let Some(emitter) = emitter(format) else {
        return Err(format!("no such format; known are {}", known()));
    };
    if file.is_empty() {
        return Err("the name of the file is missing".into());
    }
    Ok(Emit { format: emitter, file: file.into() })
}

impl OutputArgs {
    /// Whether anything is wanted of a report.
    pub fn is_asked(&self) -> bool {
        self.report.is_some() || !self.emit.is_empty() || self.output_format.is_some()
    }

    /// The files that are named one by one, but for those in the folder that is made.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let made = self.report.as_deref();
        let files = self.emit.iter().map(|emit| emit.file.as_path());
        files.filter(move |file| !made.is_some_and(|folder| file.starts_with(folder)))
    }

    /// Writes all files, then prints the result. `human` is what people read on a terminal.
    pub fn deliver(
        &self,
        report: &Report,
        human: impl FnOnce() -> String,
        ui: &Ui,
    ) -> Result<(), Failure> {
        if let Some(folder) = &self.report {
            write_folder(report, folder)?;
        }
        for it in &self.emit {
            write(report, &it.file, it.format)?;
        }
        let Some(emitter) = self.emitter(ui.global.json, |it| env::var_os(it)) else {
            return ui.show(&human());
        };
        if emitter.name == GITHUB.name {
            github_files(report, |it| env::var_os(it))?;
        }
        ui.print(&(emitter.emit)(report))
    }

    /// The flag decides; then `--json`. `auto` looks where it runs. `None` is for people.
    fn emitter(
        &self,
        json: bool,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Option<&'static Emitter> {
        match self.output_format {
            Some(OutputFormat::Emitted(emitter)) => Some(emitter),
            Some(OutputFormat::Human) => None,
            Some(OutputFormat::Auto) if var("GITHUB_ACTIONS").is_some_and(|it| it == "true") => {
                Some(&GITHUB)
            }
            Some(OutputFormat::Auto) | None => json.then_some(&JSON),
        }
    }
}

/// Every common format under its own name. The folder is made if need be.
pub fn write_folder(report: &Report, folder: &Path) -> Result<(), OutputError> {
    make_folder(folder)?;
    let mut common = EMITTERS.iter().filter(|it| it.common);
    common.try_for_each(|it| write_text(report, &folder.join(it.file), &in_folder(it, report)))
}

/// The folder of a report, with what leads to it.
pub fn make_folder(folder: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write { path: folder.into(), source };
    fs::create_dir_all(folder).map_err(failed)
}

/// One file, whole or not at all.
pub fn write(report: &Report, path: &Path, emitter: &Emitter) -> Result<(), OutputError> {
    write_text(report, path, &(emitter.emit)(report))
}

fn write_text(report: &Report, path: &Path, text: &str) -> Result<(), OutputError> {
    spare_inputs(report, path)?;
    let written = replace(path, text.as_bytes());
    written.map_err(|source| OutputError::Write { path: path.into(), source })
}

/// A report that would replace one of its own inputs is refused.
fn spare_inputs(report: &Report, path: &Path) -> Result<(), OutputError> {
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    let (models, provenance) = (&report.models, &report.provenance);
    let data = [Some(&provenance.evaluation), provenance.calibration.as_ref()];
    let data = data.into_iter().flatten().filter_map(|it| it.path.as_deref());
    let models = [&models.reference, &models.candidate].into_iter().flat_map(|it| {
        let folder = Path::new(&it.path).parent().unwrap_or(Path::new(""));
        let files = it.files.iter().map(|it| folder.join(&it.name));
        files.chain([PathBuf::from(&it.path)])
    });
    let mut inputs = models.chain(data.map(PathBuf::from));
    match inputs.any(|it| it.canonicalize().is_ok_and(|it| it == real)) {
        true => Err(OutputError::Input { path: path.into() }),
        false => Ok(()),
    }
}

/// The summary and the verdict, where GitHub Actions asks for them.
fn github_files(
    report: &Report,
    var: impl Fn(&str) -> Option<OsString>,
) -> Result<(), OutputError> {
    let file = |name: &str| var(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(path) = file("GITHUB_STEP_SUMMARY") {
        append_summary(&path, &(MARKDOWN.emit)(report))?;
    }
    if let Some(path) = file("GITHUB_OUTPUT") {
        append(&path, &format!("onnxq_verdict={}\n", word(report.verdict)))?;
    }
    Ok(())
}

/// As it stands in report.json.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NotJudged => "not_judged",
        Verdict::Pass => "pass",
        Verdict::PassWithWarnings => "pass_with_warnings",
        Verdict::Fail => "fail",
    }
}

/// GitHub refuses a summary beyond 1 MiB, with all that is in it.
fn append_summary(path: &Path, text: &str) -> Result<(), OutputError> {
    const MAX: u64 = 1 << 20;
    const CUT: &str = "\n… cut here; the limit of GitHub is 1 MiB\n";
    let there = fs::metadata(path).map_or(0, |it| it.len());
    let room = usize::try_from(MAX.saturating_sub(there)).unwrap_or(0);
    if text.len() <= room {
        return append(path, text);
    }
    let Some(room) = room.checked_sub(CUT.len()) else { return Ok(()) };
    let lines = text.split_inclusive('\n').scan(0, |sum, it| {
        *sum += it.len();
        (*sum <= room).then_some(it)
    });
    append(path, &(lines.collect::<String>() + CUT))
}

fn append(path: &Path, text: &str) -> Result<(), OutputError> {
    let open = || OpenOptions::new().append(true).create(true).open(path);
    let written = open().and_then(|mut file: File| file.write_all(text.as_bytes()));
    written.map_err(|source| OutputError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_decides_what_is_printed() {
        let format = |flag, json, actions: &str| {
            let args = OutputArgs { output_format: flag, ..OutputArgs::default() };
            args.emitter(json, |_| Some(actions.into())).map(|it| it.name)
        };
        assert_eq!(format(None, false, "true"), None);
        assert_eq!(format(None, true, "true"), Some("json"));
        assert_eq!(format(Some(OutputFormat::Human), true, "true"), None);
        assert_eq!(format(Some(OutputFormat::Auto), false, "true"), Some("github"));
        assert_eq!(format(Some(OutputFormat::Auto), true, ""), Some("json"));
        let junit = OutputFormat::Emitted(emitter("junit").unwrap());
        assert_eq!(format(Some(junit), true, ""), Some("junit"));
    }

    #[test]
    fn lists_in_help_are_sentences() {
        assert_eq!(
            emit_help(),
            "Write the report in one format: html=page.html, junit=gates.xml; \
             also card, github, gitlab, json, markdown and sarif"
        );
    }

    #[test]
    fn a_format_and_a_file_are_both_needed() {
        let page = emit("html=a=b.html").unwrap();
        assert_eq!((page.format.name, page.file), ("html", PathBuf::from("a=b.html")));
        for text in ["html", "pdf=x", "html=", "=x"] {
            assert!(emit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let args = OutputArgs {
            report: Some(path("all/of/it")),
            emit: vec![Emit { format: emitter("junit").unwrap(), file: path("gates.xml") }],
            ..OutputArgs::default()
        };
        let ui = Ui::new(crate::Global::default());
        fs::write(path("gates.xml"), "old").unwrap();
        for _ in 0..2 {
            args.deliver(&Report::default(), String::new, &ui).unwrap();
        }
        assert!(fs::read_to_string(path("gates.xml")).unwrap().starts_with("<?xml"));
        let count = |folder| fs::read_dir(folder).unwrap().count();
        let common = EMITTERS.iter().filter(|it| it.common).count();
        assert_eq!((count(path("all/of/it")), count(path(""))), (common, 2));
        let emit = vec![Emit { format: emitter("junit").unwrap(), file: path("all") }];
        let failed = OutputArgs { emit, ..OutputArgs::default() };
        let failure = failed.deliver(&Report::default(), String::new, &ui).unwrap_err();
        assert_eq!((failure.code(), count(path(""))), (Code::E901, 2));
    }

    #[test]
    fn github_gets_a_summary_and_the_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("GITHUB_OUTPUT"), "before=1\n").unwrap();
        github_files(&Report::default(), |it| Some(path(it).into())).unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!(read("GITHUB_OUTPUT"), "before=1\nonnxq_verdict=not_judged\n");
        assert!(read("GITHUB_STEP_SUMMARY").starts_with("## ⚪ NOT JUDGED"));
        github_files(&Report::default(), |_| None).unwrap();
    }

    #[test]
    fn a_summary_keeps_the_limit_of_github() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary");
        let text = "a line of text\n".repeat(50_000);
        for _ in 0..4 {
            append_summary(&path, &text).unwrap();
        }
        let summary = fs::read_to_string(&path).unwrap();
        assert!(summary.len() <= 1 << 20 && summary.len() > (1 << 20) - 200);
        assert_eq!(summary.matches("cut here").count(), 1);
    }
}
