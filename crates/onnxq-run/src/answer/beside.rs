//! What training asks of the files beside a model.

use std::path::PathBuf;

use super::{AnswerError, Place, assets::Assets};
use crate::data::Vocabulary;
use onnxq_formats::gguf;

/// Where the tokenizer of a model is, and what the files say that matters for training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// `tokenizer.json`, which is there, or a GGUF file.
    pub tokenizer: PathBuf,
    /// `tokenizer_config.json`, whether it is there or not, or a GGUF file: where the chat template is.
    pub tokenizer_config: PathBuf,
    /// The names of a classifier's classes, in order; empty if no file states them.
    pub labels: Vec<String>,
    /// Tokens that the model reads at once, if a file says.
    pub context: Option<usize>,
    ends: Vec<u32>,
    end_token: Option<String>,
}

impl Beside {
    /// # Errors
    /// E624 if the model or its tokenizer is not found, and what reading says.
    pub fn find(place: &Place) -> Result<Beside, AnswerError> {
        let assets = match gguf::is_gguf(&place.model) {
            true => Assets::in_gguf(place)?,
            false => Assets::find(place)?,
        };
        let tokenizer = assets.tokenizer()?.to_owned();
        let token = &assets.tokenizer_fields["eos_token"];
        let token = token.as_str().or(token["content"].as_str()).map(str::to_owned);
        let names = &assets.config["id2label"];
        let stated = (0..).map_while(|at: usize| names[at.to_string()].as_str());
        Ok(Beside {
            labels: assets.labels.clone().unwrap_or_else(|| stated.map(str::to_owned).collect()),
            context: assets.context(),
            ends: assets.ends(),
            end_token: token,
            tokenizer,
            tokenizer_config: assets.tokenizer_config,
        })
    }

    /// The token that ends a text: as the tokenizer says, or else the first that ends an answer.
    pub fn end(&self, vocabulary: &Vocabulary) -> Option<u32> {
        let stated = self.end_token.as_ref().and_then(|it| vocabulary.id(it));
        stated.or_else(|| self.ends.first().copied())
    }
}

#[cfg(all(test, feature = "text"))]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use onnxq_ir::diag::{Code, Diagnostic};

    /// A model folder with the tokenizer of a small language model.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slm-fixture");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::write(folder.path().join("model.onnx"), "").unwrap();
        let tokenizer = folder.path().join("tokenizer.json");
        fs::copy(fixtures.join("tokenizer.json"), tokenizer).unwrap();
        folder
    }

    fn found(files: &[(&str, &str)]) -> (Beside, Option<u32>) {
        let folder = folder(files);
        let place = Place { model: folder.path().to_owned(), ..Place::default() };
        let beside = Beside::find(&place).unwrap();
        let vocabulary = Vocabulary::open(&beside.tokenizer).unwrap();
        let end = beside.end(&vocabulary);
        (beside, end)
    }

    #[test]
    fn files_say_how_texts_end_and_what_classes_are_called() {
        let config = (
            "config.json",
            r#"{"eos_token_id": [7, 3], "id2label": {"0": "no", "1": "yes"},
            "max_position_embeddings": 256}"#,
        );
        let (beside, end) = found(&[config]);
        assert_eq!((beside.labels, beside.context), (vec!["no".into(), "yes".into()], Some(256)));
        // The least of several that end an answer, unless the tokenizer names the one that ends texts.
        assert_eq!(end, Some(3));
        let tokenizer = ("tokenizer_config.json", r#"{"eos_token": {"content": "a"}}"#);
        let (_, named) = found(&[config, tokenizer]);
        assert!(named.is_some() && named != end);
        let (bare, end) = found(&[]);
        assert!(bare.labels.is_empty() && bare.context.is_none() && end.is_none());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), "").unwrap();
        let place = Place { model: folder.path().to_owned(), ..Place::default() };
        assert_eq!(Beside::find(&place).unwrap_err().code(), Code::E624);
    }
}
