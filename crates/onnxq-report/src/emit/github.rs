//! Workflow commands of GitHub Actions: annotations.

use super::{
    Emitter, candidate,
    findings::{Finding, Level, findings},
    number::count,
};
use crate::Report;
use onnxq_ir::untrusted::escape;

/// GitHub shows ten of a kind for each step.
const MAX: usize = 10;

pub const GITHUB: Emitter = Emitter {
    name: "github",
    file: "annotations.txt",
    endings: &[],
    about: "Annotations of GitHub Actions",
    common: false,
    printed: true,
    emit,
};

/// At most [`MAX`] lines, the worst first.
fn emit(report: &Report) -> String {
    let all = findings(report);
    let shown = if all.len() > MAX { MAX - 1 } else { all.len() };
    let mut out: String = all[..shown].iter().map(|it| line(report, it)).collect();
    if let Some(first) = all.get(shown) {
        let more = count(all.len() - shown);
        out += &command(first.level, "onnxq", &format!("… and {more} more, see the summary"));
    }
    out
}

fn line(report: &Report, it: &Finding) -> String {
    let at = it.at.map_or(String::new(), |at| format!("{at}: "));
    let title = format!("onnxq {} of {}", it.rule, candidate(report));
    command(it.level, &title, &(at + &it.message))
}

fn command(level: Level, title: &str, message: &str) -> String {
    let level = match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "notice",
    };
    format!("::{level} title={}::{}\n", property(title), data(message))
}

fn data(text: &str) -> String {
    // An older kind of command may begin anywhere in a line.
    let text = escape(text).replace("##[", "## [");
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Warning;

    fn report(warnings: usize) -> Report {
        let warning = |it| Warning { code: format!("W{it}"), at: None, message: format!("m{it}") };
        Report { warnings: (0..warnings).map(warning).collect(), ..Report::default() }
    }

    #[test]
    fn there_are_ten_at_most() {
        let lines = |it| emit(&report(it)).lines().count();
        assert_eq!([0, 1, 10, 11, 99].map(lines), [0, 1, 10, 10, 10]);
        let last = emit(&report(47)).lines().last().unwrap().to_owned();
        assert_eq!(last, "::warning title=onnxq::… and 38 more, see the summary");
    }

    #[test]
    fn properties_end_where_they_should() {
        assert_eq!(property("a:b,c%\n"), r"a%3Ab%2Cc%25\u{a}");
        assert_eq!(data("x ##[add-mask]y"), "x ## [add-mask]y");
    }
}
