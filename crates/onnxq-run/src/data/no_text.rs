//! Stands in for tokenizers and chat templates in builds without the feature `text`: there are none.

use std::path::Path;

use super::DataError;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub places: Vec<(usize, usize)>,
    pub words: Vec<Option<u32>>,
}

pub enum Vocabulary {}

impl Vocabulary {
    pub fn open(file: &Path) -> Result<Vocabulary, DataError> {
        Err(DataError::NoText { file: file.into() })
    }

    pub fn file(&self) -> &Path {
        match *self {}
    }

    pub fn encode(&self, _: &str, _: bool) -> Result<Vec<u32>, DataError> {
        match *self {}
    }

    pub fn around(&self) -> Result<(Vec<u32>, Vec<u32>), DataError> {
        match *self {}
    }

    pub fn begin(&self, _: &str) -> Result<Vec<u32>, DataError> {
        match *self {}
    }

    pub fn places(&self, _: &str) -> Result<Encoded, DataError> {
        match *self {}
    }

    pub fn decode(&self, _: &[u32]) -> String {
        match *self {}
    }

    pub fn text(&self, _: &[i64]) -> Option<String> {
        match *self {}
    }

    pub fn piece(&self, _: u32) -> String {
        match *self {}
    }

    pub fn id(&self, _: &str) -> Option<u32> {
        match *self {}
    }

    pub fn is_special(&self, _: u32) -> bool {
        match *self {}
    }

    pub fn is_byte(&self, _: u32) -> bool {
        match *self {}
    }
}

pub enum ChatTemplate {}

impl ChatTemplate {
    pub fn beside(_: &Path) -> Result<Option<ChatTemplate>, DataError> {
        Ok(None)
    }

    pub fn render(&self, _: &[(&str, &str)], _: bool) -> Result<String, String> {
        match *self {}
    }

    pub fn after_answer(&self) -> Option<String> {
        match *self {}
    }
}
