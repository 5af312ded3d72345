//! A conversation in the terminal.

use std::io::{self, BufRead, Read, Write};

use super::{
    super::{Failure, Ui},
    Args, MOST_BYTES,
    interrupt::Interrupt,
    shown::{self, Shown},
};
use onnxq_run::answer::{Finish, Message, Model, Task};

/// Reads lines until the end, and answers each.
pub(super) fn run(args: &Args, model: &mut Model, ui: &Ui) -> Result<u8, Failure> {
    let interrupt = Interrupt::listen();
    let mut said: Vec<Message> = Vec::new();
    ui.note(hello(model));
    while let Some(line) = line(ui)? {
        // Whatever was typed, the next prompt is a new one.
        interrupt.end();
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/reset" => {
                said.clear();
                ui.note("forgotten");
            }
            text => turn((args, &interrupt), model, (text, &mut said), ui)?,
        }
        interrupt.end();
    }
    Ok(0)
}

fn hello(model: &Model) -> &'static str {
    match (model.facts().task, model.facts().chat) {
        (Task::Generate, true) => "/reset forgets what was said, /exit or Ctrl-D leaves",
        (Task::Generate, false) => "each line is continued by itself; /exit or Ctrl-D leaves",
        _ => "each line is a text; /exit or Ctrl-D leaves",
    }
}

/// One line, or nothing at the end.
fn line(ui: &Ui) -> Result<Option<String>, Failure> {
    if !ui.global.quiet {
        let _ = write!(io::stderr(), "> ");
    }
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(MOST_BYTES).read_until(b'\n', &mut bytes);
    read.map_err(|source| onnxq_run::answer::AnswerError::Io { file: "-".into(), source })?;
    Ok((!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

/// What the user says, and the answer. An error is shown, and the conversation goes on without it.
fn turn(
    (args, interrupt): (&Args, &Interrupt),
    model: &mut Model,
    (text, said): (&str, &mut Vec<Message>),
    ui: &Ui,
) -> Result<(), Failure> {
    if model.facts().task != Task::Generate {
        return match Shown::of_text(model, text) {
            Ok(result) => shown::print(&result, ui),
            Err(error) => shown_error(error.into(), ui),
        };
    }
    let prompt = args.prompt_of(text, said, model.facts().chat);
    let answer = shown::answer(model, &args.request(prompt), &interrupt.begin(), ui);
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return shown_error(failure, ui),
    };
    // An answer that was stopped was said as far as it went.
    if !answer.text.is_empty() || answer.finish != Finish::Cancelled {
        let message = |role: &str, content: String| Message { role: role.to_owned(), content };
        said.extend([message("user", text.to_owned()), message("assistant", answer.text)]);
    }
    Ok(())
}

fn shown_error(failure: Failure, ui: &Ui) -> Result<(), Failure> {
    if matches!(failure, Failure::Stdout(_)) {
        return Err(failure);
    }
    ui.fail(&failure);
    Ok(())
}
