//! A report in the formats that people and pipelines read: one file each.
//!
//! Names, reasons and paths of a report are a stranger's. Each format escapes them for the program
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
mod sarif;
mod xml;

use super::Report;

pub use self::html::MAX_BYTES as MAX_PAGE_BYTES;

/// A format.
pub struct Emitter {
    pub name: &'static str,
    /// What its file is called in a folder of all formats.
    pub file: &'static str,
    pub about: &'static str,
    /// Whether a folder of all formats has it; the others are for one pipeline only.
    pub common: bool,
    pub emit: fn(&Report) -> String,
}

pub const EMITTERS: &[Emitter] = &[
    Emitter {
        name: "card",
        file: "model-card.md",
        about: "the head and a table for a model card on Hugging Face",
        common: true,
        emit: card::emit,
    },
    Emitter {
        name: "github",
        file: "annotations.txt",
        about: "annotations of GitHub Actions",
        common: false,
        emit: github::emit,
    },
    Emitter {
        name: "gitlab",
        file: "gl-code-quality-report.json",
        about: "code quality of GitLab",
        common: false,
        emit: gitlab::emit,
    },
    Emitter {
        name: "html",
        file: "index.html",
        about: "one page for people, without the network",
        common: true,
        emit: html::emit,
    },
    Emitter {
        name: "json",
        file: "report.json",
        about: "everything, for other programs and `--baseline`",
        common: true,
        emit: json::emit,
    },
    Emitter {
        name: "junit",
        file: "junit.xml",
        about: "a test case for each gate",
        common: true,
        emit: junit::emit,
    },
    Emitter {
        name: "markdown",
        file: "report.md",
        about: "tables for a pull request or a summary",
        common: true,
        emit: markdown::emit,
    },
    Emitter {
        name: "sarif",
        file: "report.sarif",
        about: "SARIF 2.1.0 for code scanning",
        common: true,
        emit: sarif::emit,
    },
];

pub fn emitter(name: &str) -> Option<&'static Emitter> {
    EMITTERS.iter().find(|it| it.name == name)
}

/// The name of the candidate's model file, without folders.
fn candidate(report: &Report) -> &str {
    file_name(&report.models.candidate)
}

fn file_name(model: &super::document::ModelFacts) -> &str {
    let listed = model.files.first().map(|it| &*it.name).filter(|it| !it.is_empty());
    listed.unwrap_or_else(|| model.path.rsplit(['/', '\\']).next().unwrap_or_default())
}
