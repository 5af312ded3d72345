//! `onnxq run`: one model answers, in a conversation, once, or line by line.

mod asked;
mod chat;
mod interrupt;
mod jsonl;
mod shown;

use std::{
    io::{self, IsTerminal, Read},
    path::PathBuf,
};

use clap::builder::TypedValueParser;

use self::shown::Shown;
use super::{
    Failure, Ui,
    places::check_there,
    shared::{at_least_one, words},
};
use onnxq_run::{
    answer::{AnswerError, Generate, Message, Model, Place, Prompt, Sampling, Task},
    engine::Stop,
};

/// Bytes of a prompt that is read from a file or a stream.
const MOST_BYTES: u64 = 16 << 20;

/// Let a model answer: chat in the terminal, one prompt, or a batch of lines of JSON
///
/// Models that classify or embed texts print labels or vectors. In a conversation, /reset forgets what was
/// said, /exit leaves, and Ctrl-C ends an answer. --threads says how many cores a model uses [default: all].
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: an .onnx file with its tokenizer beside it, or a folder as `onnxq import` writes it
    pub model: PathBuf,
    /// What to answer [default: standard input, or a conversation if that is a terminal]
    pub prompt: Option<String>,
    /// Answer each line of a file, or of standard input (`-`): an object with `prompt`, `messages` or
    /// `text`, and `max_tokens`, `temperature` and so on. One line of JSON is printed for each
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub jsonl: Option<PathBuf>,
    /// What the model shall be, before anything is said
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// The prompt is text that goes on, not a message: no chat template
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    pub generate: GenerateArgs,
    /// Tokens of prompt and answer together [default: what the model was made for]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub context: Option<usize>,
    /// The tokenizer.json [default: that beside the model]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// A file with a label in each line, for a model that classifies [default: those of config.json]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// What the model does with texts [default: what its outputs and config.json say]
    #[arg(long, value_name = "TASK", value_parser = task())]
    pub task: Option<Task>,
}

/// How an answer is made. What is not given is what generation_config.json says, or greedy.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Tokens of an answer [default: as many as the context has room for]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// 0 takes the most likely token; more makes less likely ones come [default: as the model says, or 0]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Only the K most likely tokens; 0 for all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Only the most likely tokens that have this probability together
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Only tokens with this share of the most likely one's probability
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Above 1 makes tokens less likely that are in the text already
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// Equal seeds give equal answers
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The answer ends before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

const TASKS: &[(&str, &str, Task)] = &[
    ("classify", "Labels of a text, or of its words", Task::Classify),
    ("embed", "One vector for a text", Task::Embed),
    ("generate", "Go on with a text", Task::Generate),
];

fn task() -> impl TypedValueParser<Value = Task> {
    let meaning = |word: String| TASKS.iter().find(|it| it.0 == word).map(|it| it.2);
    words(TASKS.iter().map(|it| (it.0, it.1)))
        .map(move |word| meaning(word).expect("the words come from the table"))
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let jsonl = self.jsonl.as_deref().filter(|it| !super::stream::is_stream(it));
        check_there(&[
            ("--jsonl", jsonl),
            ("--tokenizer", self.tokenizer.as_deref()),
            ("--labels", self.labels.as_deref()),
        ])?;
        let mut model = Model::load(&self.place(ui), &ui.global.runtime(ui))?;
        self.check(model.facts())?;
        model.facts().notes.iter().for_each(|it| ui.note(&format!("note: {it}")));
        if let Some(file) = &self.jsonl {
            return jsonl::run(&self, &mut model, file, ui);
        }
        match &self.prompt {
            Some(prompt) => self.once(&mut model, prompt, ui),
            None if io::stdin().is_terminal() => chat::run(&self, &mut model, ui),
            None => self.once(&mut model, &stdin()?, ui),
        }
    }

    fn place(&self, ui: &Ui) -> Place {
        Place {
            model: self.model.clone(),
            tokenizer: self.tokenizer.clone(),
            labels: self.labels.clone(),
            task: self.task,
            context: self.context,
            threads: ui.global.threads.map_or(0, usize::from),
        }
    }

    /// One text in, one result out.
    fn once(&self, model: &mut Model, text: &str, ui: &Ui) -> Result<u8, Failure> {
        match model.facts().task {
            Task::Generate => {
                let prompt = self.prompt_of(text, &[], model.facts().chat);
                shown::answer(model, &self.request(prompt), &Stop::default(), ui)?;
            }
            _ => shown::print(&Shown::of_text(model, text)?, ui)?,
        }
        Ok(0)
    }

    /// What the user says, after what was said before.
    fn prompt_of(&self, text: &str, said: &[Message], chat: bool) -> Prompt {
        if self.raw || !chat {
            return Prompt::Text(text.to_owned());
        }
        let message =
            |role: &str, text: &str| Message { role: role.to_owned(), content: text.to_owned() };
        let system = self.system.iter().map(|it| message("system", it));
        let list = system.chain(said.iter().cloned()).chain([message("user", text)]);
        Prompt::Chat(list.collect())
    }

    /// A request by the flags.
    fn request(&self, prompt: Prompt) -> Generate {
        let flags = &self.generate;
        Generate {
            prompt,
            sampling: Sampling {
                temperature: flags.temperature,
                top_k: flags.top_k,
                top_p: flags.top_p,
                min_p: flags.min_p,
                repetition_penalty: flags.repetition_penalty,
                seed: flags.seed,
            },
            max_tokens: flags.max_tokens,
            stop: flags.stop.clone(),
            logprobs: None,
            echo: false,
        }
    }
}

/// All of standard input, without the end of its last line.
fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let failed = |source| AnswerError::Io { file: "-".into(), source };
    io::stdin().lock().take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST_BYTES {
        let fact = format!("standard input has more than {MOST_BYTES} bytes");
        return Err(AnswerError::Request(fact).into());
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.is_empty() {
        true => Err(AnswerError::Request("standard input holds no prompt".into()).into()),
        false => Ok(text.to_owned()),
    }
}
