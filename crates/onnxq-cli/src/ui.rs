//! What the user sees: results on stdout; progress, warnings and errors on stderr.

use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::{Color, Failure, Global, table, term};
use onnxq_ir::{
    ctx::Progress,
    diag::{EXIT_NOTHING, Warning},
    untrusted::escape,
};
use onnxq_run::{engine::Host, worker::Pool};

/// Columns of what a step did, if the terminal is wide enough or there is none.
const SUMMARY: usize = 66;
/// Redraws of a progress bar per second.
const HERTZ: u8 = 10;

/// The terminal, and the flags that say how to use it.
pub struct Ui {
    pub global: Global,
    /// Of stderr.
    color: bool,
    /// Of stdout.
    color_out: bool,
    /// Standard output belongs to a model.
    given: AtomicBool,
    task: Mutex<Option<Task>>,
    /// Processes that models run in; `None` if they run in this one.
    pool: Option<Pool>,
}

/// A long step under way.
struct Task {
    name: String,
    began: Instant,
    /// Only on a terminal.
    bar: Option<ProgressBar>,
}

#[derive(Clone, Copy)]
pub enum Style {
    Bold,
    Dim,
    Good,
    Bad,
    Warn,
}

impl Ui {
    pub fn new(global: Global) -> Ui {
        let color_out = chosen(global.color, io::stdout().is_terminal());
        let (color, given) = (use_color(global.color), AtomicBool::new(false));
        let pool = global.pool();
        Ui { color, color_out, given, task: Mutex::new(None), pool, global }
    }

    /// The processes that models run in, if that is not this one.
    pub fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Where models run, if that is not this process.
    pub fn host(&self) -> Option<Arc<dyn Host>> {
        Some(Arc::new(self.pool.clone()?))
    }

    /// Leaves standard output to a model: all that is printed goes to standard error from now on.
    pub fn give_stdout(&self) {
        self.given.store(true, Ordering::Relaxed);
    }

    /// Prints a piece of the result. Escape what comes from a model before.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        if self.given.load(Ordering::Relaxed) {
            return io::stderr().write_all(text.as_bytes()).map_err(Failure::Stdout);
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Stdout)
    }

    /// Prints a result for people: as wide as the terminal, with verdicts in colour; of a quiet run
    /// the last line only.
    pub fn show(&self, text: &str) -> Result<(), Failure> {
        let last = text.trim_end().lines().next_back().map(|line| format!("{line}\n"));
        let text = if self.global.quiet { last.unwrap_or_default() } else { text.to_owned() };
        let text = term::width().map_or(text.clone(), |width| term::wrapped(&text, width));
        let given = self.given.load(Ordering::Relaxed);
        let color = if given { self.color } else { self.color_out };
        self.print(&if color { term::painted(&text) } else { text })
    }

    /// Prints the result as JSON.
    pub fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(value).map_err(|it| Failure::Stdout(it.into()))?;
        self.print(&(json + "\n"))
    }

    /// A line beside the result, on stderr. Its text is escaped.
    pub fn note(&self, line: &str) {
        if !self.global.quiet {
            self.line(&escape(line));
        }
    }

    /// Text in a style, if colours are on, for stderr.
    fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "1;32",
            Style::Bad => "1;31",
            Style::Warn => "1;33",
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Reports a failure and says with which code to exit.
    pub fn fail(&self, failure: &Failure) -> u8 {
        if failure.is_broken_pipe() {
            return 0;
        }
        if self.global.json {
            self.fail_json(failure)
        } else {
            self.fail_text(failure)
        }
        failure.exit()
    }

    /// Reports a panic, whose message the hook has printed.
    pub fn bug(&self) {
        let head = self.paint(Style::Bad, "error:");
        self.line(&format!("{head} this is a bug of onnxq"));
        self.line("");
        self.line("hint: report the message above; RUST_BACKTRACE=1 adds where it happened");
    }

    /// Removes what is left of progress.
    pub fn finish(&self) {
        if let Some(Task { bar: Some(bar), .. }) = self.task().take() {
            bar.finish_and_clear();
        }
    }

    fn fail_text(&self, failure: &Failure) {
        let (word, style) = match failure.code() {
            code if code.exit() == EXIT_NOTHING => ("note", Style::Warn),
            _ => ("error", Style::Bad),
        };
        let head = self.paint(style, &format!("{word}[{}]:", failure.code()));
        self.line(&format!("{head} {}", escape(&failure.message())));
        for cause in failure.causes() {
            self.line(&format!("  {} {}", self.paint(Style::Bad, "caused by:"), escape(&cause)));
        }
        if let Some(hint) = failure.hint() {
            self.line("");
            self.line(&format!("{} {}", self.paint(Style::Good, "hint:"), block(&hint)));
        }
    }

    fn fail_json(&self, failure: &Failure) {
        let json = json!({
            "code": failure.code(),
            "message": failure.message(),
            "causes": failure.causes(),
            "hint": failure.hint(),
            "exit": failure.exit(),
        });
        self.line(&json.to_string());
    }

    /// Prints above a bar. Nobody can be told if stderr is closed.
    fn line(&self, text: &str) {
        let print = || drop(writeln!(io::stderr(), "{text}"));
        match &*self.task() {
            Some(Task { bar: Some(bar), .. }) => bar.suspend(print),
            _ => print(),
        }
    }

    /// A panic elsewhere leaves the task usable.
    fn task(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On a terminal a bar; elsewhere one line for each task that ended.
impl Progress for Ui {
    fn start(&self, task: &str, total: u64) {
        self.finish();
        let visible = !self.global.quiet && io::stderr().is_terminal() && !is_dumb();
        let bar = visible.then(|| bar(task, total));
        *self.task() = Some(Task { name: task.to_owned(), began: Instant::now(), bar });
    }

    fn step(&self, n: u64) {
        if let Some(Task { bar: Some(bar), .. }) = &*self.task() {
            bar.inc(n);
        }
    }

    fn tell(&self, text: &str) {
        if let Some(Task { bar: Some(bar), .. }) = &*self.task() {
            bar.set_message(escape(text));
        }
    }

    fn done(&self, summary: &str) {
        let Some(task) = self.task().take() else { return };
        if let Some(bar) = &task.bar {
            bar.finish_and_clear();
        }
        if !self.global.quiet {
            let time = format!("{:>8}", seconds(task.began.elapsed()));
            // Two columns and the spaces beside them take 22.
            let room = term::message_width().map(|it| it.saturating_sub(22));
            let summary = escape(summary);
            let summary = room.map_or(summary.clone(), |it| table::shortened(&summary, it).into());
            let width = room.map_or(SUMMARY, |it| it.min(SUMMARY));
            let line = format!("  {:<10} {summary:<width$} ", escape(&task.name));
            self.line(&(line + &self.paint(Style::Dim, &time)));
        }
    }

    fn warn(&self, warning: &Warning) {
        let head = self.paint(Style::Warn, "warning:");
        self.line(&format!("{head} {}", escape(&warning.to_string())));
    }
}

/// Whether to colour what goes to stderr: the flag, then the conventions, then the terminal.
pub(super) fn use_color(choice: Color) -> bool {
    chosen(choice, io::stderr().is_terminal())
}

fn chosen(choice: Color, is_terminal: bool) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => auto_color(|it| env::var(it).ok(), is_terminal),
    }
}

fn auto_color(var: impl Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
    let is_set = |name| var(name).is_some_and(|it| !it.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    if is_set("CLICOLOR_FORCE") && var("CLICOLOR_FORCE").as_deref() != Some("0") {
        return true;
    }
    is_terminal && var("TERM").as_deref() != Some("dumb")
}

fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|it| it == "dumb")
}

fn bar(task: &str, total: u64) -> ProgressBar {
    let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
    let template = if total == 0 {
        "  {prefix:<10} {spinner} {elapsed} so far"
    } else {
        "  {prefix:<10} {bar:30} {percent:>3} % done, {elapsed} so far  {msg}"
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(HERTZ));
    bar.set_style(ProgressStyle::with_template(template).expect("the template is constant"));
    bar.with_prefix(escape(task))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Text of several lines, escaped. All but the first are indented, so that none can pass for a line
/// of its own.
fn block(text: &str) -> String {
    let mut lines = text.lines().map(escape);
    let mut block = lines.next().unwrap_or_default().to_string();
    for line in lines {
        let indent = if line.starts_with("  ") { "" } else { "  " };
        block.push_str(&format!("\n{indent}{line}"));
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_are_indented_and_escaped() {
        assert_eq!(block("looked in\n  here\nok\u{1b}[1m"), "looked in\n  here\n  ok\\u{1b}[1m");
    }

    #[test]
    fn colours_follow_the_conventions() {
        let color = |pairs: &[(&str, &str)], is_terminal| {
            let find = |name: &str| pairs.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
            auto_color(find, is_terminal)
        };
        assert!(color(&[], true));
        assert!(!color(&[], false));
        assert!(!color(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(color(&[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")], false));
        assert!(!color(&[("CLICOLOR_FORCE", "0")], false));
        assert!(!color(&[("TERM", "dumb")], true));
    }

    #[test]
    fn a_step_without_a_task_does_nothing() {
        let ui = Ui::new(Global { quiet: true, ..Global::default() });
        ui.step(1);
        ui.done("");
        ui.start("read", 0);
        ui.step(1);
        ui.done("all of it");
        assert!(ui.task().is_none());
    }
}
