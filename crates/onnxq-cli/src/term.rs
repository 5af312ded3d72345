//! Results as a terminal shows them: lines that fit its width, verdicts in colour.

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

/// Narrower terminals are treated as if they had this many columns.
const NARROWEST: usize = 40;

/// Columns of the terminal that results go to, if it is one.
pub(crate) fn width() -> Option<usize> {
    of(terminal_size_of(std::io::stdout()))
}

/// The same of messages and progress.
pub(crate) fn message_width() -> Option<usize> {
    of(terminal_size_of(std::io::stderr()))
}

fn of(size: Option<(Width, terminal_size::Height)>) -> Option<usize> {
    size.map(|(Width(columns), _)| usize::from(columns).max(NARROWEST))
}

/// Breaks lines that are too long between words; what follows is indented.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        match line.trim_end().width() <= width {
            true => out.push_str(line),
            false => wrap(line.trim_end(), width, &mut out),
        }
    }
    out
}

fn wrap(line: &str, width: usize, out: &mut String) {
    let indent = line.len() - line.trim_start().len() + 2;
    let (mut used, mut first) = (0, true);
    for word in line.split_inclusive(' ') {
        if !first && used + word.trim_end().width() > width {
            out.truncate(out.trim_end().len());
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            used = indent;
        }
        out.push_str(word);
        used += word.width();
        first = first && word.trim().is_empty();
    }
    out.push('\n');
}

/// Words of verdicts, and their colours. They stand alone between spaces or at the ends of a line.
const VERDICTS: &[(&str, &str)] = &[
    ("FAILED", "1;31"),
    ("FAILED:", "1;31"),
    ("FAIL", "1;31"),
    ("FAIL:", "1;31"),
    ("broken", "1;31"),
    ("slow", "1;33"),
    ("warning", "1;33"),
    ("PASS", "1;32"),
    ("PASS:", "1;32"),
    ("ok", "1;32"),
];

/// The first and the last word of each line in colour, where they are verdicts, also a verdict
/// before its reason.
pub(crate) fn painted(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let last = words.len().saturating_sub(1);
    let painted = words.iter().enumerate().map(|(at, word)| {
        let bare = word.trim_end();
        let may_stand = at == 0 || at == last || bare.ends_with(':');
        match VERDICTS.iter().find(|row| row.0 == bare && may_stand) {
            Some((_, code)) => format!("\x1b[{code}m{bare}\x1b[0m{}", &word[bare.len()..]),
            None => (*word).to_owned(),
        }
    });
    painted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_only() {
        let text = "short\n  a line that is longer than that\n";
        assert_eq!(wrapped(text, 20), "short\n  a line that is\n    longer than that\n");
        assert_eq!(wrapped("unbreakable_name_of_a_node\n", 10), "unbreakable_name_of_a_node\n");
    }

    #[test]
    fn verdicts_have_colours() {
        assert_eq!(painted("kl<=1  0.5  ok\n"), "kl<=1  0.5  \x1b[1;32mok\x1b[0m\n");
        assert!(painted("FAIL: 1 of 2\n").starts_with("\x1b[1;31mFAIL:\x1b[0m 1"));
        assert_eq!(painted("it is ok to stay\n"), "it is ok to stay\n");
    }
}
