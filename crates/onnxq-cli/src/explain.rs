//! `onnxq explain`: what an error code means and what to do; what a gate can limit; what the words
//! of recipes mean.

use serde_json::json;

use super::{
    Failure, Ui,
    topics::{self, Topic},
};

/// Say what an error code means and what to do, or what a metric or a word of recipes is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The code of an error, a warning or a check (E205, W201, L101), a metric (kl, kl.mean), or a
    /// recipe, format, solver, transform or observer; without one, all are listed
    #[arg(value_parser = topics::find)]
    pub code: Option<&'static str>,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let mut topics = topics::all();
        if let Some(name) = self.code {
            topics.retain(|it| it.name == name);
        }
        if ui.global.json {
            let row = |it: &Topic| json!({"kind": it.kind, "code": it.name, "exit": it.exit, "text": it.text});
            ui.print_json(&topics.iter().map(row).collect::<Vec<_>>())?;
            return Ok(0);
        }
        let mut heading = "";
        for topic in &topics {
            if self.code.is_none() && topic.kind != heading {
                let space = if heading.is_empty() { "" } else { "\n" };
                heading = topic.kind;
                ui.print(&format!("{space}== {heading}s\n"))?;
            }
            ui.print(&shown(topic))?;
        }
        Ok(0)
    }
}

fn shown(topic: &Topic) -> String {
    let title = match topic.exit {
        Some(exit) if topic.kind == "code" => format!("{} (exit code {exit})", topic.name),
        Some(exit) => format!("{} {} (exit code {exit} if missed)", topic.kind, topic.name),
        None => format!("{} {}", topic.kind, topic.name),
    };
    format!("{title}\n  {}\n", topic.text)
}
