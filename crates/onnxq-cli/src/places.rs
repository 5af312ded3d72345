//! Paths on the command line: checked before any work, and what stands for those left out.

use std::path::{Path, PathBuf};

use super::{Failure, stream::is_stream};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::missing_hint,
    onnx::check_place,
};
use onnxq_quant::recipe::Recipe;

/// Where `quantize` writes.
#[derive(Debug, clap::Args)]
pub struct Destination {
    /// Where to write the result [default: MODEL.RECIPE.onnx beside the model, or .gguf]; large weights go
    /// into a file beside it. `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The same as --output
    #[arg(value_name = "OUTPUT", hide = true)]
    pub second: Option<PathBuf>,
}

impl Destination {
    /// The path to write to. A data file behind a lone `--validate` is not the output but its value.
    pub fn resolve(
        &mut self,
        validate: &mut Option<Option<PathBuf>>,
        model: &Path,
        recipe: &Recipe,
    ) -> Result<PathBuf, Failure> {
        if matches!(validate, Some(None)) && self.second.as_deref().is_some_and(is_data) {
            *validate = Some(self.second.take());
        }
        match (&self.output, &self.second) {
            (None, Some(second)) if is_data(second) => {
                Err(NoOutput { path: second.clone() }.into())
            }
            (Some(_), Some(second)) => Err(TwoOutputs { second: second.clone() }.into()),
            (Some(path), None) | (None, Some(path)) => fitting(path, recipe),
            (None, None) if is_stream(model) => Err(NoName.into()),
            (None, None) => Ok(beside(model, recipe)),
        }
    }
}

/// A path whose ending says what the recipe writes.
fn fitting(path: &Path, recipe: &Recipe) -> Result<PathBuf, Failure> {
    let is_gguf = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"));
    let is_onnx = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("onnx"));
    if recipe.is_gguf() && is_onnx || !recipe.is_gguf() && is_gguf {
        let (path, recipe, writes) = (path.into(), recipe.name.clone(), ending(recipe));
        return Err(OtherKind { path, recipe, writes }.into());
    }
    Ok(path.to_owned())
}

fn ending(recipe: &Recipe) -> &'static str {
    if recipe.is_gguf() { "gguf" } else { "onnx" }
}

/// `models/a.onnx` and `int4` → `models/a.int4.onnx`.
fn beside(model: &Path, recipe: &Recipe) -> PathBuf {
    let (recipe, ending) = (&recipe.name, ending(recipe));
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let recipe: String = recipe.chars().map(|it| if plain(it) { it } else { '-' }).collect();
    let stem = if model.is_dir() { model.file_name() } else { model.file_stem() };
    let stem = stem.map_or("model".into(), |it| it.to_string_lossy());
    model.with_file_name(format!("{stem}.{recipe}.{ending}"))
}

/// Whether a path is one of samples, not of a model.
fn is_data(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or("");
    !matches!(extension, "gguf" | "onnx" | "onnxtxt" | "ort" | "pb")
        && (path.exists() || !extension.is_empty())
}

#[derive(Debug, thiserror::Error)]
#[error("there are two outputs: -o, and {} behind the model", .second.display())]
struct TwoOutputs {
    second: PathBuf,
}

impl Diagnostic for TwoOutputs {
    fn code(&self) -> Code {
        Code::E905
    }

    fn hint(&self) -> Option<String> {
        let second = self.second.display();
        Some(match is_data(&self.second) {
            true => format!("samples are given as --data {second}"),
            false => "onnxq takes one model at a time: leave one of the two out".into(),
        })
    }
}

/// What would be replaced by a model is no model.
#[derive(Debug, thiserror::Error)]
#[error("{} is no name for a model", .path.display())]
struct NoOutput {
    path: PathBuf,
}

impl Diagnostic for NoOutput {
    fn code(&self) -> Code {
        Code::E905
    }

    fn hint(&self) -> Option<String> {
        let path = self.path.display();
        Some(match self.path.is_dir() {
            true => format!("name the file in it: {}", self.path.join("model.onnx").display()),
            false => format!(
                "samples to compare on are given as --validate --data {path}, samples to learn \
                 from as --calibration {path}; the output is -o FILE"
            ),
        })
    }
}

/// The name says another kind of file than the recipe writes.
#[derive(Debug, thiserror::Error)]
#[error("recipe {recipe} writes a file of {}, and {} is called otherwise", .writes.to_uppercase(), .path.display())]
struct OtherKind {
    path: PathBuf,
    recipe: String,
    writes: &'static str,
}

impl Diagnostic for OtherKind {
    fn code(&self) -> Code {
        Code::E905
    }

    fn hint(&self) -> Option<String> {
        let name = self.path.with_extension(self.writes);
        let list = "or take another recipe: `onnxq recipe list`";
        Some(format!("call it {}, {list}", name.display()))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a model from standard input has no name, which the output's name could follow")]
struct NoName;

impl Diagnostic for NoName {
    fn code(&self) -> Code {
        Code::E906
    }

    fn hint(&self) -> Option<String> {
        Some("name the output: -o FILE, or -o - for standard output".into())
    }
}

/// A path that a flag names and that leads to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: there is nothing at {}", .path.display())]
pub struct Absent {
    pub flag: &'static str,
    pub path: PathBuf,
}

impl Diagnostic for Absent {
    fn code(&self) -> Code {
        Code::E905
    }

    fn hint(&self) -> Option<String> {
        let near = missing_hint(&self.path);
        match self.flag {
            "--baseline" => {
                let first = "for a first release, leave --baseline out";
                Some(near.map_or(first.into(), |near| format!("{near}\n{first}")))
            }
            _ => near,
        }
    }
}

/// Fails for the first of these that leads to nothing.
pub fn check_there(paths: &[(&'static str, Option<&Path>)]) -> Result<(), Failure> {
    for (flag, path) in paths {
        if let Some(path) = path.filter(|it| !it.exists()) {
            return Err(Absent { flag, path: path.into() }.into());
        }
    }
    Ok(())
}

/// Fails if no file can be made at one of these paths, before the work that would be lost.
pub fn check_outputs<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Failure> {
    for path in paths {
        if is_stream(path) {
            return Err(NoStream.into());
        }
        check_place(path)?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("only models and reports can be written to standard output, which `-` stands for")]
struct NoStream;

impl Diagnostic for NoStream {
    fn code(&self) -> Code {
        Code::E906
    }

    fn hint(&self) -> Option<String> {
        Some("give the path of a file".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::recipe::load;

    #[test]
    fn an_output_is_named_after_the_model_and_the_recipe() {
        let named = |name: &str| Recipe { name: name.to_owned(), ..load("int4").unwrap() };
        let beside = |model: &str, recipe| beside(Path::new(model), &named(recipe));
        assert_eq!(beside("a/m.onnx", "int4"), Path::new("a/m.int4.onnx"));
        let gguf = load("gguf_q4_0").unwrap();
        assert_eq!(super::beside(Path::new("a/m.onnx"), &gguf), Path::new("a/m.gguf_q4_0.gguf"));
        let error = fitting(Path::new("m.onnx"), &gguf).unwrap_err();
        assert_eq!(error.code(), Code::E905);
        assert!(fitting(Path::new("m.gguf"), &load("int4").unwrap()).is_err());
        assert_eq!(beside("m.v2.onnx", "my own/1"), Path::new("m.v2.my-own-1.onnx"));
    }

    #[test]
    fn what_follows_the_model_is_the_output_or_the_data() {
        let resolve = |output: Option<&str>, second: Option<&str>, mut validate| {
            let [output, second] = [output, second].map(|it| it.map(PathBuf::from));
            let mut places = Destination { output, second };
            let path = places.resolve(&mut validate, Path::new("m.onnx"), &load("int4").unwrap());
            (path.map_err(|it| it.code()), validate)
        };
        let none = None::<Option<PathBuf>>;
        assert_eq!(resolve(None, Some("q.onnx"), none.clone()).0, Ok("q.onnx".into()));
        assert_eq!(resolve(Some("q.onnx"), Some("b.onnx"), none).0, Err(Code::E905));
        let (path, validate) = resolve(Some("q.onnx"), Some("eval.txt"), Some(None));
        assert_eq!((path, validate), (Ok("q.onnx".into()), Some(Some("eval.txt".into()))));
        let (path, _) = resolve(None, Some("eval.txt"), Some(None));
        assert_eq!(path, Ok("m.int4.onnx".into()));
    }
}
