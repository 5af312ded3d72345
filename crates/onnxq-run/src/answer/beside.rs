//! What training asks of the files beside a model.

use std::path::PathBuf;

use super::{AnswerError, Place, assets::Assets};
use crate::data::Vocabulary;

/// Where the tokenizer of a model is, and what the files say that matters for training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// `tokenizer.json`, which is there.
    pub tokenizer: PathBuf,
    /// `tokenizer_config.json`, whether it is there or not: where the chat template is.
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
        let assets = Assets::find(place)?;
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
