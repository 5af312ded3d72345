//! One page for people: everything in one file, nothing from the network, nothing that a name in
//! the report could run.

use base64::prelude::{BASE64_STANDARD, Engine};
use minijinja::{
    Environment, Value, context, escape_formatter, syntax::SyntaxConfig, value::Serde,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Emitter, candidate, file_name,
    headline::{Headline, headlines},
    number::plural,
    page::{Details, Image, Limits, Part, Plot, Section, Table, name, sections},
    xml,
};
use crate::{Report, Verdict};
use onnxq_ir::untrusted::escape;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What a page may weigh: mail and artifact viewers take that.
pub const MAX_BYTES: usize = 2 << 20;

/// Rows of each table, until the page is small enough.
const ROWS: [usize; 4] = [400, 100, 20, 4];

pub const HTML: Emitter = Emitter {
    name: "html",
    file: "index.html",
    endings: &["html", "htm"],
    about: "One page for people, without the network",
    common: true,
    printed: false,
    emit,
};

fn emit(report: &Report) -> String {
    fitting(report, false)
}

/// The page as it stands in a folder with report.json.
pub(super) fn beside_json(report: &Report) -> String {
    fitting(report, true)
}

fn fitting(report: &Report, beside: bool) -> String {
    let mut page = String::new();
    for rows in ROWS {
        let limits = Limits { rows, chars: 160 * rows };
        page = render(report, limits, beside);
        if page.len() <= MAX_BYTES {
            break;
        }
    }
    page
}

fn render(report: &Report, limits: Limits, beside: bool) -> String {
    let sections = sections(report, limits);
    let page = context! {
        policy => policy(),
        style => Value::from_safe_string(STYLE.to_owned()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        title => name(candidate(report)),
        original => name(file_name(&report.models.reference)),
        verdict => Value::from(Serde(verdict(report))),
        headlines => Value::from(Serde(headlines(report).iter().map(Card::of).collect::<Vec<_>>())),
        sections => sections.iter().map(section).collect::<Vec<Value>>(),
        version => name(&report.environment.onnxq),
        commit => report.environment.onnxq_commit.as_deref().map(name),
        beside => beside,
    };
    let environment = environment();
    let template = environment.get_template("page.html").expect("it was just added");
    template.render(page).expect("the template fits what it is given")
}

/// Every text is escaped twice: what could move or hide other text, then what HTML would read.
fn environment() -> Environment<'static> {
    let mut it = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    it.set_syntax(syntax.expect("the usual delimiters"));
    it.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(escape(text))),
        _ => escape_formatter(out, state, value),
    });
    it.add_template("page.html", PAGE).expect("the template is ours");
    it
}

/// Lines that stay lines, as markup.
fn lines(text: &str) -> Value {
    Value::from_safe_string(text.lines().map(xml::text).collect::<Vec<_>>().join("\n"))
}

/// Only this style and this script, and nothing from anywhere.
fn policy() -> String {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; \
         base-uri 'none'; form-action 'none'",
        digest(STYLE),
        digest(SCRIPT)
    )
}

fn digest(text: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(text))
}

#[derive(Serialize)]
struct Banner {
    class: &'static str,
    text: &'static str,
    /// What was asked, and what was missed.
    gates: String,
    /// How many warnings there are; a link.
    warnings: Option<String>,
}

fn verdict(report: &Report) -> Banner {
    let class = match report.verdict {
        Verdict::NotJudged => "unjudged",
        Verdict::Pass => "good",
        Verdict::PassWithWarnings => "warn",
        Verdict::Fail => "bad",
    };
    let (text, gates) = (report.verdict_word(), report.verdict_reason());
    let count = report.warnings.len();
    let warnings = (count > 0).then(|| plural(count, "warning"));
    Banner { class, text, gates, warnings }
}

#[derive(Serialize)]
struct Card {
    label: String,
    before: Option<String>,
    after: String,
    ratio: Option<String>,
    note: Option<String>,
}

impl Card {
    fn of(it: &Headline) -> Card {
        let shown = |it: &Option<String>| it.as_deref().map(name);
        Card {
            label: name(&it.label),
            before: shown(&it.before),
            after: name(&it.after),
            ratio: shown(&it.ratio),
            note: shown(&it.note),
        }
    }
}

fn section(it: &Section) -> Value {
    let mut views: Vec<Value> = Vec::new();
    for (at, one) in it.parts.iter().enumerate() {
        views.push(part(it, at, one));
    }
    context! { id => it.id, title => it.title, intro => &it.intro, views => views }
}

/// A picture is finished markup.
fn part(section: &Section, at: usize, it: &Part) -> Value {
    match it {
        Part::Plot { caption, svg } => {
            let svg = Value::from_safe_string(svg.clone());
            context! { kind => "plot", caption => caption, svg => svg }
        }
        Part::Pictures { caption, images } => {
            let images: Vec<Value> = images.iter().map(image).collect();
            context! { kind => "pictures", caption => caption, images => images }
        }
        Part::Table(table) => {
            let id = table_id(section, at, table);
            context! { kind => "table", id => id, table => Value::from(Serde(table)) }
        }
        Part::Heading { text } => context! { kind => "heading", text => *text },
        Part::Details(it) => details(it),
        Part::Note { text } => context! { kind => "note", text => text },
        Part::Block { id, title, text } => {
            context! { kind => "block", id => *id, title => title, text => lines(text) }
        }
    }
}

/// Its source is finished markup.
fn image(one: &Image) -> Value {
    context! {
        src => Value::from_safe_string(one.src.clone()), alt => &one.alt, label => &one.label,
        width => one.width, height => one.height
    }
}

fn details(one: &Details) -> Value {
    let flag = one.flag.as_deref().map(lines);
    let facts = Value::from(Serde(&one.facts));
    let plot = |it: &Plot| {
        context! { caption => &it.caption, svg => Value::from_safe_string(it.svg.clone()) }
    };
    let plots: Vec<Value> = one.plots.iter().map(plot).collect();
    context! {
        kind => "details", id => &one.id, title => &one.title, facts => facts,
        plots => plots, help => &one.help, flag => flag
    }
}

/// `outputs-output`, `outputs-output-2`: links that sort a table outlive changes of the page.
fn table_id(section: &Section, at: usize, table: &Table) -> String {
    let is_same = |it: &&Part| matches!(it, Part::Table(it) if it.id == table.id);
    let id = format!("{}-{}", section.id, table.id);
    match section.parts[..at].iter().filter(is_same).count() {
        0 => id,
        before => format!("{id}-{}", before + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A colour that is not defined, or only by its fallback, is the same on light and dark pages.
    #[test]
    fn every_colour_is_defined() {
        for part in STYLE.split("var(").skip(1) {
            let (name, _) = part.split_once(')').unwrap();
            assert!(STYLE.contains(&format!("{name}: #")), "{name}");
        }
    }

    #[test]
    fn what_the_policy_allows_is_what_is_there() {
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("</"));
        assert!(!STYLE.contains("url(") && !STYLE.contains("</") && !STYLE.contains("@import"));
        assert!(!PAGE.contains("style=") && !PAGE.contains("onclick") && !PAGE.contains("|safe"));
    }
}
