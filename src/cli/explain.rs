//! `onnxq explain`: what an error code means and what to do.

use serde_json::json;

use super::{Failure, Ui};
use crate::{
    codes::{self, CODES, Code},
    suggest::suggest,
};

/// Say what an error code means and what to do
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The code of an error, as E205; without one, all of them are listed
    #[arg(value_parser = parse)]
    pub code: Option<Known>,
}

/// A code that the table has.
#[derive(Clone, Copy)]
pub struct Known(pub &'static Code);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.code)
    }
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let codes: Vec<&Code> = match self.code {
            Some(Known(code)) => vec![code],
            None => CODES.iter().collect(),
        };
        if ui.global.json {
            let rows =
                codes.iter().map(|it| json!({"code": it.code, "exit": it.exit, "text": it.text}));
            ui.print_json(&rows.collect::<Vec<_>>())?;
            return Ok(0);
        }
        for it in codes {
            ui.print(&format!("{} (exit code {})\n  {}\n", it.code, it.exit, it.text))?;
        }
        Ok(0)
    }
}

fn parse(text: &str) -> Result<Known, String> {
    codes::code(text).map(Known).ok_or_else(|| {
        match suggest(text, CODES.iter().map(|it| it.code)) {
            Some(near) => format!("there is no such code; did you mean {near}?"),
            None => "there is no such code; `onnxq explain` lists them".to_owned(),
        }
    })
}
