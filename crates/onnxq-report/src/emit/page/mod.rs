//! A report as sections of tables, plots and texts, which the page and Markdown draw.

mod about;
mod decisions;
mod gates;
mod glossary;
mod layer;
mod layers;
mod nodes;
mod outputs;
mod pictures;
mod speed;
mod spread;
mod table;

pub(super) use self::table::{Cell, Table, Tone, tail};
use crate::Report;
use onnxq_ir::untrusted::{Untrusted, escape};
use serde::Serialize;

/// How much is shown of lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows of a table.
    pub rows: usize,
    /// Characters of a text in full.
    pub chars: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    /// For links to it: fixed text of the program, safe in HTML.
    pub id: &'static str,
    pub title: &'static str,
    /// Whether a summary has it too.
    pub brief: bool,
    pub intro: Option<String>,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Table(Table),
    /// A picture: finished SVG.
    Plot {
        caption: String,
        svg: String,
    },
    /// Pictures beside each other.
    Pictures {
        caption: String,
        images: Vec<Image>,
    },
    Note {
        text: String,
    },
    /// Above parts that belong together.
    Heading {
        text: &'static str,
    },
    /// What is folded away until someone asks.
    Details(Details),
    /// Lines to copy.
    Block {
        id: &'static str,
        title: String,
        text: String,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    /// Letters, digits and `-`.
    pub id: String,
    pub title: String,
    pub facts: Vec<Fact>,
    pub plots: Vec<Plot>,
    /// What would help, if anything is known.
    pub help: Option<String>,
    /// A flag to copy.
    pub flag: Option<String>,
}

/// A picture of pixels.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// `data:image/png;base64,…`, which holds no character that HTML reads.
    pub src: String,
    pub alt: String,
    pub label: String,
    /// In pixels.
    pub height: usize,
    pub width: usize,
}

/// A picture of details: finished SVG.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub caption: String,
    pub svg: String,
}

/// One line of details: texts, of which some lead elsewhere on the page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fact {
    pub label: &'static str,
    pub links: Vec<Link>,
    /// What the text is short for.
    pub full: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Link {
    pub text: String,
    pub id: Option<String>,
}

/// In the order of the page. `None` if the report knows nothing of it.
const SECTIONS: &[fn(&Report, Limits) -> Option<Section>] = &[
    gates::gates,
    gates::warnings,
    gates::baseline,
    outputs::outputs,
    pictures::section,
    outputs::worst,
    outputs::decode,
    outputs::isolation,
    layers::section,
    nodes::precision,
    nodes::kept,
    decisions::decisions,
    nodes::operators,
    nodes::weights,
    speed::section,
    about::data,
    about::environment,
    about::provenance,
    about::card,
    glossary::section,
];

pub(super) fn sections(report: &Report, limits: Limits) -> Vec<Section> {
    SECTIONS.iter().filter_map(|it| it(report, limits)).collect()
}

impl Section {
    fn new(id: &'static str, title: &'static str) -> Section {
        Section { id, title, ..Section::default() }
    }

    fn brief(self) -> Section {
        Section { brief: true, ..self }
    }

    fn intro(self, text: impl Into<String>) -> Section {
        Section { intro: Some(sentence(&text.into())), ..self }
    }

    fn table(mut self, table: Table) -> Section {
        if !table.rows.is_empty() {
            self.parts.push(Part::Table(table));
        }
        self
    }

    fn plot(mut self, caption: impl Into<String>, svg: Option<String>) -> Section {
        let caption = caption.into();
        self.parts.extend(svg.map(|svg| Part::Plot { caption, svg }));
        self
    }

    fn note(mut self, text: Option<String>) -> Section {
        self.parts.extend(text.map(|it| Part::Note { text: sentence(&it) }));
        self
    }

    fn details(mut self, heading: &'static str, list: Vec<Details>) -> Section {
        if !list.is_empty() {
            self.parts.push(Part::Heading { text: heading });
            self.parts.extend(list.into_iter().map(Part::Details));
        }
        self
    }

    fn block(mut self, id: &'static str, title: &str, text: &str, limits: Limits) -> Section {
        if text.is_empty() {
            return self;
        }
        let text = block(text, limits.chars);
        self.parts.push(Part::Block { id, title: sentence(title), text });
        self
    }

    /// `None` if nothing is in it.
    fn filled(self) -> Option<Section> {
        (!self.parts.is_empty()).then_some(self)
    }
}

/// An untrusted name: safe to show, and short.
pub(super) fn name(raw: &str) -> String {
    Untrusted(raw).to_string()
}

/// Prose in which names may occur: safe to show, and not endless.
pub(super) fn sentence(raw: &str) -> String {
    const MAX: usize = 600;
    let mut out: String = raw.chars().take(MAX).collect();
    if out.len() < raw.len() {
        out.push('…');
    }
    escape(&out)
}

/// Text of a model's data: white space as people see it.
pub(super) fn excerpt(raw: &str) -> String {
    name(&visible(raw))
}

/// Ends of lines and tabs as signs.
fn visible(raw: &str) -> String {
    raw.replace("\r\n", "⏎").replace('\n', "⏎").replace('\t', "⇥")
}

/// Lines that stay lines, each safe to show.
fn block(raw: &str, chars: usize) -> String {
    let cut: String = raw.chars().take(chars).collect();
    let mut out: String = cut.lines().map(|it| line(it) + "\n").collect();
    if cut.len() < raw.len() {
        out += "… cut here; report.json has it in full\n";
    }
    out
}

/// A page may be printed in the log of a pipeline, which obeys lines that begin with `::`.
fn line(raw: &str) -> String {
    let safe = escape(raw);
    if safe.trim_start().starts_with("::") { safe.replacen(':', r"\u{3a}", 1) } else { safe }
}
