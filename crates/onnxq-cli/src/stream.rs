//! `-` on the command line: a model from standard input, a result to standard output.
//!
//! Both go through a file that nobody else sees: readers map a model, and a result is whole or not
//! there at all.

use std::{
    env,
    fs::{self, File},
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use super::{Failure, Ui};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{mark_in_use, remove_leftovers},
    onnx::{self, ExternalData, ExternalProblem, LoadError, OpenOptions, SaveError, SaveOptions},
    untrusted::Untrusted,
};
use onnxq_pipeline::Shown;

/// Stands for a stream where a path is expected.
const DASH: &str = "-";
/// Folders of streams begin with this, and the files in them with the other.
const PREFIX: &str = "onnxq-stream-";
const NAME: &str = "std";
/// What protobuf can hold in one message, and so in one file.
const MAX: u64 = 2 << 30;

/// Whether a path stands for standard input or output.
pub(crate) fn is_stream(path: &Path) -> bool {
    path == Path::new(DASH)
}

/// What came from standard input, for as long as this lives.
#[derive(Default)]
pub(crate) struct Received(Option<Held>);

struct Held {
    path: PathBuf,
    // Removed with what is in it. The file is locked for as long as it is open.
    _folder: TempDir,
    _file: File,
}

impl Received {
    /// A path as the user gave it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        match &self.0 {
            Some(held) if held.path == path => Path::new(DASH),
            _ => path,
        }
    }
}

/// Puts the path of a file with all of standard input in place of the one `-` among these models.
pub(crate) fn receive<'a>(
    models: impl IntoIterator<Item = &'a mut PathBuf>,
) -> Result<Received, Failure> {
    let mut streams = models.into_iter().filter(|path| is_stream(path));
    let Some(path) = streams.next() else { return Ok(Received::default()) };
    if streams.next().is_some() {
        return Err(StreamError::Twice.into());
    }
    unless(io::stdin().is_terminal(), StreamError::Typed)?;
    let held = hold(&mut io::stdin().lock())?;
    path.clone_from(&held.path);
    Ok(Received(Some(held)))
}

/// Fails by `error` if the stream is a terminal.
fn unless(is_terminal: bool, error: StreamError) -> Result<(), StreamError> {
    if is_terminal { Err(error) } else { Ok(()) }
}

/// Copies a stream into a file.
fn hold(from: &mut impl Read) -> Result<Held, Failure> {
    let folder = folder()?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StreamError::Io { path, source }
    };
    let bare = folder.path().join(format!("{NAME}in.onnx"));
    let mut file = File::create_new(&bare).map_err(failed(&bare))?;
    mark_in_use(&file);
    let count = io::copy(&mut from.take(MAX), &mut file).map_err(failed(Path::new(DASH)))?;
    if count == MAX {
        return Err(StreamError::TooLong.into());
    }
    let bytes = onnx::map_file(&bare).map_err(failed(&bare))?;
    let path = if is_text(&bytes) { bare.with_extension("onnxtxt") } else { bare.clone() };
    fs::rename(&bare, &path).map_err(failed(&path))?;
    // A file that is no model is explained where it is opened; what lies beside it is not there.
    let options = OpenOptions { allow_unknown_opset: true, drop_unknown: true, ..<_>::default() };
    match onnx::open_bytes(bytes, Path::new(DASH), &options) {
        Err(LoadError::External { tensor, problem: ExternalProblem::Refused }) => {
            Err(StreamError::DataBeside { tensor }.into())
        }
        _ => Ok(Held { path, _folder: folder, _file: file }),
    }
}

/// Whether a file is ONNX text, which this program prints with comments before it.
fn is_text(bytes: &[u8]) -> bool {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    lines.next().is_some_and(|line| line == b"<" || line.starts_with(b"<ir_version"))
}

/// A new folder for the file of a stream. Those that killed runs left behind are removed.
fn folder() -> Result<TempDir, Failure> {
    let all = env::temp_dir();
    sweep(&all);
    let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&all);
    made.map_err(|source| StreamError::Io { path: all, source }.into())
}

fn sweep(all: &Path) {
    // As long as files are safe from others.
    const AGE: Duration = Duration::from_secs(600);
    let Ok(entries) = fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let modified = entry.metadata().ok().filter(|_| is_ours).and_then(|it| it.modified().ok());
        if modified.is_some_and(|it| it.elapsed().is_ok_and(|age| age > AGE)) {
            remove_leftovers(&entry.path(), NAME);
            // A folder that is in use is not empty.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where a result goes: to a path, or through a hidden file to standard output.
pub(crate) struct Output {
    path: PathBuf,
    folder: Option<TempDir>,
}

impl Output {
    /// The place that the user names. If that is standard output, everything for people goes to
    /// standard error from now on.
    pub(crate) fn at(path: &Path, ui: &Ui) -> Result<Output, Failure> {
        if !is_stream(path) {
            return Ok(Output { path: path.into(), folder: None });
        }
        unless(io::stdout().is_terminal(), StreamError::Shown)?;
        ui.give_stdout();
        let folder = folder()?;
        Ok(Output { path: folder.path().join(format!("{NAME}out.onnx")), folder: Some(folder) })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.folder.is_some()
    }

    /// The place as the user gave it.
    pub(crate) fn shown(&self) -> &Path {
        if self.is_stream() { Path::new(DASH) } else { &self.path }
    }

    /// Progress that names it so.
    pub(crate) fn progress<'a>(&self, ui: &'a Ui) -> Shown<'a> {
        Shown::new(ui, &self.path, self.shown())
    }

    /// How to write there: a stream has no room for a second file.
    pub(crate) fn save(&self, save: SaveOptions) -> Result<SaveOptions, Failure> {
        match save.external {
            _ if !self.is_stream() => Ok(save),
            ExternalData::Always | ExternalData::Shards(_) => Err(StreamError::NoRoom.into()),
            ExternalData::Auto | ExternalData::Never => {
                Ok(SaveOptions { external: ExternalData::Never, ..save })
            }
        }
    }

    /// What stopped the writing: a model that one file cannot hold has no way out here.
    pub(crate) fn explained(&self, failure: Failure) -> Failure {
        match failure.downcast_ref() {
            Some(SaveError::TooLarge { .. }) if self.is_stream() => StreamError::NoRoom.into(),
            _ => failure,
        }
    }

    /// Copies what was written to standard output, if it goes there and anything was.
    pub(crate) fn deliver(self) -> Result<(), Failure> {
        if !self.is_stream() || !self.path.exists() {
            return Ok(());
        }
        let open = |source| StreamError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(open)?;
        io::copy(&mut file, &mut io::stdout().lock()).map_err(Failure::Stdout)?;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(
        "`{}` has its data in another file, which standard input cannot bring",
        Untrusted(tensor)
    )]
    DataBeside { tensor: String },
    #[error("{} could not be read or written", Untrusted(&path.to_string_lossy()))]
    Io { path: PathBuf, source: io::Error },
    #[error("the model needs a data file beside it, and standard output is one file")]
    NoRoom,
    #[error("standard output is a terminal, which shows no models")]
    Shown,
    #[error("standard input holds more than 2 GiB, the most that one file of a model can have")]
    TooLong,
    #[error("`-` stands for standard input, which holds one model only")]
    Twice,
    #[error("standard input is a terminal, and `-` reads a file from it")]
    Typed,
}

impl Diagnostic for StreamError {
    fn code(&self) -> Code {
        match self {
            StreamError::Io { .. } => Code::E901,
            _ => Code::E906,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            StreamError::Io { .. } => return None,
            StreamError::DataBeside { .. } | StreamError::TooLong => {
                "give the path of the .onnx file, with its data files beside it"
            }
            StreamError::NoRoom => "write to a file: -o FILE",
            StreamError::Shown => "write to a file: -o FILE; or send it on: -o - | COMMAND",
            StreamError::Twice => "give the path of one of them",
            StreamError::Typed => "send a file to it: COMMAND - < FILE",
        };
        Some(hint.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_held_for_as_long_as_it_is_used() {
        let held = hold(&mut &b"no model"[..]).map_err(|it| it.message()).unwrap();
        let path = held.path.clone();
        assert_eq!(fs::read(&path).unwrap(), b"no model");
        let received = Received(Some(held));
        assert_eq!(received.shown(&path), Path::new("-"));
        drop(received);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }

    #[test]
    fn a_terminal_is_no_place_for_a_model() {
        assert!(unless(false, StreamError::Shown).is_ok());
        let shown = unless(true, StreamError::Shown).unwrap_err();
        assert_eq!(shown.code().exit(), onnxq_ir::diag::EXIT_USAGE);
        assert!(shown.hint().unwrap().contains("-o FILE"));
    }

    #[test]
    fn a_model_beyond_one_file_is_named() {
        let folder = Some(tempfile::tempdir().unwrap());
        let output = Output { path: "x".into(), folder };
        let too_large = SaveError::TooLarge { bytes: 3 << 30 };
        assert_eq!(output.explained(too_large.into()).code(), Code::E906);
        let exists = SaveError::Exists { path: "x".into() };
        assert_eq!(output.explained(exists.into()).code(), Code::E903);
    }

    #[test]
    fn text_is_known_by_its_beginning() {
        for text in ["<ir_version: 8>", "# pass: 3\n\n<\n  ir_version: 8\n>", "<\n ir_version: 8"] {
            assert!(is_text(text.as_bytes()), "{text}");
        }
        for other in ["<!doctype html>", "<html>", "", "\x08\x08<ir_version"] {
            assert!(!is_text(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_killed_runs_left_is_removed() {
        let all = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        let put = |name: &str, age: bool| {
            let folder = all.path().join(name);
            fs::create_dir(&folder).unwrap();
            let file = File::create(folder.join("stdin.onnx")).unwrap();
            if age {
                file.set_modified(old).unwrap();
                File::open(&folder).unwrap().set_modified(old).unwrap();
            }
            folder
        };
        let (left, new, other) =
            (put("onnxq-stream-a", true), put("onnxq-stream-b", false), put("other", true));
        sweep(all.path());
        assert_eq!([left, new, other].map(|it| it.exists()), [!cfg!(unix), true, true]);
    }
}
