//! What a model is served for: one row for each preset.

use serde::{Deserialize, Serialize};

use onnxq_run::answer::{Message, Task};

/// What requests to a model are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// What the model says of itself.
    #[default]
    Auto,
    Chat,
    Classify,
    Embed,
    /// A chat model that makes a text shorter.
    Summarize,
}

struct Row {
    preset: Preset,
    name: &'static str,
    task: Option<Task>,
    /// Said before a text, and behind it.
    around: Option<[&'static str; 2]>,
    max_tokens: Option<usize>,
}

/// Small models follow an instruction best that stands right before what they shall say.
const SUMMARY: [&str; 2] = [
    "Summarize the text between the lines of dashes in at most three sentences, in its own \
     language.\n-----\n",
    "\n-----\nSummary in at most three sentences:",
];

const ROWS: [Row; 5] = [
    Row { preset: Preset::Auto, name: "auto", task: None, around: None, max_tokens: None },
    Row {
        preset: Preset::Chat,
        name: "chat",
        task: Some(Task::Generate),
        around: None,
        max_tokens: None,
    },
    Row {
        preset: Preset::Classify,
        name: "classify",
        task: Some(Task::Classify),
        around: None,
        max_tokens: None,
    },
    Row {
        preset: Preset::Embed,
        name: "embed",
        task: Some(Task::Embed),
        around: None,
        max_tokens: None,
    },
    Row {
        preset: Preset::Summarize,
        name: "summarize",
        task: Some(Task::Generate),
        around: Some(SUMMARY),
        max_tokens: Some(160),
    },
];

impl Preset {
    fn row(self) -> &'static Row {
        ROWS.iter().find(|it| it.preset == self).expect("every preset has a row")
    }

    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// `None`: what the model says of itself.
    pub fn task(self) -> Option<Task> {
        self.row().task
    }

    /// Of an answer, unless somebody says.
    pub(crate) fn max_tokens(self) -> Option<usize> {
        self.row().max_tokens
    }

    /// What the model is told instead of these messages.
    pub(crate) fn messages(self, mut messages: Vec<Message>) -> Vec<Message> {
        let Some([before, behind]) = self.row().around else { return messages };
        let last = messages.iter().rposition(|it| it.role == "user");
        let Some(last) = last else { return messages };
        let mut text = messages.swap_remove(last);
        text.content = format!("{before}{}{behind}", text.content);
        messages.retain(|it| it.role == "system");
        messages.push(text);
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_row_and_its_name_in_yaml() {
        for row in &ROWS {
            let read: Preset = serde_json::from_str(&format!("\"{}\"", row.name)).unwrap();
            assert_eq!(read, row.preset);
        }
    }

    #[test]
    fn a_summary_is_of_the_last_text() {
        let say = |role: &str, content: &str| Message {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let given = vec![
            say("system", "Be kind."),
            say("user", "old"),
            say("assistant", "x"),
            say("user", "The text."),
        ];
        assert_eq!(Preset::Chat.messages(given.clone()), given);
        let told = Preset::Summarize.messages(given);
        let roles: Vec<_> = told.iter().map(|it| &*it.role).collect();
        assert_eq!(roles, ["system", "user"]);
        assert!(told[1].content.contains("\n-----\nThe text.\n-----\n"));
    }
}
