//! Markdown as GitHub and GitLab draw it: the sections that a summary needs.

use super::{
    Emitter, candidate, file_name,
    headline::headlines,
    page::{Cell, Limits, Part, Section, Table, Tone, sections},
};
use crate::{Report, Verdict};
use onnxq_ir::untrusted::escape;

const LIMITS: Limits = Limits { rows: 20, chars: 4000 };

pub const MARKDOWN: Emitter = Emitter {
    name: "markdown",
    file: "report.md",
    endings: &["md"],
    about: "Tables for a pull request or a summary",
    common: true,
    printed: true,
    emit,
};

fn emit(report: &Report) -> String {
    let mark = match report.verdict {
        Verdict::NotJudged => "⚪",
        Verdict::Pass => "✅",
        Verdict::PassWithWarnings => "⚠️",
        Verdict::Fail => "❌",
    };
    let (verdict, reason) = (report.verdict_word(), text(&report.verdict_reason()));
    let (model, original) = (text(candidate(report)), text(file_name(&report.models.reference)));
    let mut out =
        format!("## {mark} {verdict}: {model}\n\nQuantized from {original}; {reason}.\n\n");
    out += &figures(report);
    sections(report, LIMITS).iter().filter(|it| it.brief).for_each(|it| out += &section(it));
    out.trim_end().to_owned() + "\n"
}

/// The headlines as a table, for model cards too.
pub(super) fn figures(report: &Report) -> String {
    let list = headlines(report);
    if list.is_empty() {
        return String::new();
    }
    let mut out = "| | original | quantized | ratio |\n| --- | ---: | ---: | ---: |\n".to_owned();
    for it in &list {
        let note = it.note.as_ref().map_or(String::new(), |it| format!(" ({it})"));
        let cell = |it: &Option<String>| text(it.as_deref().unwrap_or_default());
        let (label, before, ratio) =
            (text(&(it.label.clone() + &note)), cell(&it.before), cell(&it.ratio));
        out += &format!("| {label} | {before} | {} | {ratio} |\n", text(&it.after));
    }
    out + "\n"
}

fn section(it: &Section) -> String {
    let mut out = format!("### {}\n\n", text(it.title));
    if let Some(intro) = &it.intro {
        out += &format!("{}\n\n", text(intro));
    }
    for part in &it.parts {
        match part {
            Part::Table(it) => out += &table(it),
            Part::Note { text: note } => out += &format!("{}\n\n", text(note)),
            Part::Pictures { caption, .. } => out += &format!("On the page: {}\n\n", text(caption)),
            // Plots and long texts are for the page.
            Part::Plot { .. } | Part::Block { .. } | Part::Heading { .. } | Part::Details(_) => {}
        }
    }
    out
}

fn table(it: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = format!("{}\n\n", text(&it.caption));
    out += &row(it.columns.iter().map(|it| text(&it.label)).collect());
    out +=
        &row(it.columns.iter().map(|it| if it.number { "---:" } else { "---" }.into()).collect());
    it.rows.iter().for_each(|it| out += &row(it.iter().map(cell).collect()));
    let more = it.more.as_ref().map_or(String::new(), |it| format!("\n{}\n", text(it)));
    out + &more + "\n"
}

fn cell(it: &Cell) -> String {
    // A number is no name, and its sign no list.
    let words = if it.sort.is_some() { it.text.clone() } else { text(it.in_full()) };
    if it.tone == Tone::Bad { format!("**{words}**") } else { words }
}

/// Text that stays text: no markup, no link, no mention of anyone, no line of its own.
pub(super) fn text(raw: &str) -> String {
    let raw = escape(raw);
    let mut out = String::with_capacity(raw.len());
    for (at, it) in raw.char_indices() {
        match it {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("&#64;"),
            // What begins a line may begin a list, or a command to a pipeline that logs it.
            ':' | '-' | '+' | '=' if at == 0 => out += &format!("&#{};", u32::from(it)),
            // `http://` and `www.` become links by themselves.
            ':' if raw[at..].starts_with("://") => out.push_str("&#58;"),
            '.' if raw[..at].to_ascii_lowercase().ends_with("www") => out.push_str("&#46;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '$' => {
                out.push('\\');
                out.push(it);
            }
            it => out.push(it),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let cases = [
            ("a|b", r"a\|b"),
            ("`x`\n# y", r"\`x\`\\u{a}\# y"),
            ("<b>&[t](http://e) @me www.e", r"&lt;b&gt;&amp;\[t\](http&#58;//e) &#64;me www&#46;e"),
            ("::error::x", "&#58;:error::x"),
            ("- x-y", "&#45; x-y"),
            ("/model/layers.0/q_proj", r"/model/layers.0/q\_proj"),
        ];
        for (raw, safe) in cases {
            assert_eq!(text(raw), safe);
        }
    }
}
