//! Mistakes on the command line, told like every other error.

use std::ffi::OsString;

use clap::{
    Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Color, Failure, Global, Ui};
use onnxq_ir::diag::{Code, Diagnostic};

/// What clap found wrong.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Usage {
    message: String,
    hint: String,
}

impl Diagnostic for Usage {
    fn code(&self) -> Code {
        Code::E700
    }

    fn hint(&self) -> Option<String> {
        Some(self.hint.clone()).filter(|hint| !hint.is_empty())
    }
}

/// Prints what clap has to say: help as it is, errors in our own form. Says how to exit.
pub(crate) fn print(error: &Error, args: &[OsString]) -> u8 {
    let global = global(args);
    let is_help = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        // Whoever names no command wants to know which there are.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => !global.json,
        _ => false,
    };
    if is_help {
        // Help asked for goes to stdout and succeeds; a closed pipe is no failure.
        let _ = error.print();
        return u8::try_from(error.exit_code()).unwrap_or(Code::E700.exit());
    }
    Ui::new(global).fail(&Failure::from(usage(error)))
}

/// The flags that say how errors look, which must be known although the rest is not.
fn global(args: &[OsString]) -> Global {
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let variable = std::env::var("ONNXQ_JSON").is_ok_and(|it| !is_off(&it));
    let when = |when: &str| {
        has(&format!("--color={when}"))
            || args.windows(2).any(|pair| pair[0] == "--color" && pair[1] == *when)
    };
    let color = match () {
        () if when("never") => Color::Never,
        () if when("always") => Color::Always,
        () => Color::Auto,
    };
    Global { json: has("--json") || variable, color, ..Global::default() }
}

fn is_off(value: &str) -> bool {
    matches!(&*value.to_ascii_lowercase(), "" | "0" | "f" | "false" | "n" | "no" | "off")
}

/// clap's text, taken apart: what is wrong, what helps, how the command is used.
fn usage(error: &Error) -> Usage {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (mut message, mut hints): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim).take_while(|line| !line.starts_with("For more")) {
        match line.split_once(' ') {
            Some(("tip:", tip)) => hints.push(tip.into()),
            Some(("Usage:", how)) => hints.push(format!("usage: {how}")),
            // Listed below, where there is no better answer.
            _ if line.is_empty()
                || line.starts_with("[possible values")
                || line.starts_with("[subcommands") => {}
            _ => message.push(line),
        }
    }
    if !text.contains("\n  tip: ") {
        hints.splice(0..0, possible(error));
    }
    let mut message = message.join(" ");
    if let Some((fact, near)) = message.clone().rsplit_once("; did you mean ") {
        message = fact.into();
        hints.insert(0, format!("did you mean {near}"));
    }
    if hints.is_empty() {
        hints.push("--help says what each flag takes".into());
    }
    Usage { message, hint: hints.join("\n") }
}

/// The words that a flag takes.
fn possible(error: &Error) -> Option<String> {
    let lists = [ContextKind::ValidValue, ContextKind::ValidSubcommand];
    let found = lists.into_iter().find_map(|kind| error.get(kind))?;
    let ContextValue::Strings(words) = found else { return None };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let list = onnxq_ir::human::listed(&words, "or");
    (!words.is_empty()).then(|| format!("it takes {list}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(args: &[&str]) -> (String, String) {
        let error = crate::command().try_get_matches_from(args).unwrap_err();
        let usage = usage(&error);
        (usage.message, usage.hint)
    }

    #[test]
    fn what_clap_says_becomes_a_message_and_a_hint() {
        let (message, hint) = told(&["onnxq", "check"]);
        assert_eq!(message, "the following required arguments were not provided: <MODEL>");
        assert_eq!(hint, "usage: onnxq check <MODEL>");
        let (message, hint) = told(&["onnxq", "check", "m.onnx", "--color", "blue"]);
        assert_eq!(message, "invalid value 'blue' for '--color <WHEN>'");
        assert_eq!(hint, "it takes always, auto or never");
        let (message, hint) = told(&["onnxq", "chekc"]);
        assert_eq!(message, "unrecognized subcommand 'chekc'");
        assert!(hint.starts_with("a similar subcommand exists: 'check'\nusage: "), "{hint}");
    }

    #[test]
    fn flags_that_shape_errors_are_found_in_a_wrong_command_line() {
        let global = |args: &[&str]| global(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(global(&["onnxq", "--json", "--wrong"]).json);
        assert!(global(&["onnxq", "--color", "always"]).color == Color::Always);
        assert!(global(&["onnxq", "--color=never"]).color == Color::Never);
        assert!(is_off("0") && is_off("False") && !is_off("1"));
    }
}
