//! A report in the formats that people and pipelines read: one file each.
//!
//! Names, reasons and paths of a report are untrusted. Each format escapes them for the program
//! that reads it; control, direction and invisible characters are shown as `\u{…}` everywhere but
//! in JSON.

mod card;
mod findings;
mod github;
mod gitlab;
mod headline;
mod html;
mod json;
mod junit;
mod markdown;
mod number;
mod page;
mod plot;
mod png;
mod sarif;
mod xml;

use std::{ffi::OsStr, path::Path};

use super::Report;

pub use self::{
    github::GITHUB,
    html::{HTML, MAX_BYTES as MAX_PAGE_BYTES},
    json::JSON,
    markdown::MARKDOWN,
};

/// A format.
#[derive(Debug)]
pub struct Emitter {
    /// What the command line calls it.
    pub name: &'static str,
    /// What its file is called in a folder of all formats.
    pub file: &'static str,
    /// What names of other files end in that have this format.
    pub endings: &'static [&'static str],
    /// For the help of the command line.
    pub about: &'static str,
    /// Whether a folder of all formats has it; the others are for one pipeline only.
    pub common: bool,
    /// Whether `--output-format` offers it: a page is nothing to print.
    pub printed: bool,
    pub emit: fn(&Report) -> String,
}

/// In alphabetical order. To add a format, add a file and a line here.
pub const EMITTERS: &[&Emitter] = &[
    &card::CARD,
    &github::GITHUB,
    &gitlab::GITLAB,
    &html::HTML,
    &json::JSON,
    &junit::JUNIT,
    &markdown::MARKDOWN,
    &sarif::SARIF,
];

/// The report as it stands in a folder of all formats, where the page can point at report.json.
pub fn in_folder(emitter: &Emitter, report: &Report) -> String {
    if emitter.name == HTML.name { html::beside_json(report) } else { (emitter.emit)(report) }
}

pub fn emitter(name: &str) -> Option<&'static Emitter> {
    EMITTERS.iter().find(|it| it.name == name).copied()
}

/// The format whose own file has this name, or else one that ends alike.
pub fn by_file(path: &Path) -> Option<&'static Emitter> {
    let own = EMITTERS.iter().find(|it| path.file_name() == Some(OsStr::new(it.file)));
    let ending = path.extension().and_then(OsStr::to_str);
    let alike = || EMITTERS.iter().find(|it| it.endings.iter().any(|it| ending == Some(it)));
    own.or_else(alike).copied()
}

/// The name of the candidate's model file, without folders.
fn candidate(report: &Report) -> &str {
    file_name(&report.models.candidate)
}

fn file_name(model: &super::document::ModelFacts) -> &str {
    let listed = model.files.first().map(|it| &*it.name).filter(|it| !it.is_empty());
    listed.unwrap_or_else(|| model.path.rsplit(['/', '\\']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_sorted_and_told_apart_by_their_files() {
        assert!(EMITTERS.is_sorted_by(|a, b| a.name < b.name));
        for it in EMITTERS {
            assert_eq!(by_file(Path::new(it.file)).unwrap().name, it.name);
        }
    }

    #[test]
    fn names_of_files_say_the_format() {
        let cases = [
            ("x/page.html", Some("html")),
            ("model-card.md", Some("card")),
            ("other.md", Some("markdown")),
            ("gl-code-quality-report.json", Some("gitlab")),
            ("a.json", Some("json")),
            ("model.onnx", None),
        ];
        for (path, format) in cases {
            assert_eq!(by_file(Path::new(path)).map(|it| it.name), format);
        }
    }
}
