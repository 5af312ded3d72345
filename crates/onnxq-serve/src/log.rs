//! One line for each thing that happened, for whoever runs the server. Lengths and times, never
//! what was said.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use onnxq_ir::untrusted::escape;
use onnxq_run::answer::{ModelFacts, Usage};

/// Where lines go.
#[derive(Clone)]
pub struct Log {
    write: Option<Write>,
    /// Also what went well.
    is_full: bool,
}

type Write = Arc<dyn Fn(&str) + Send + Sync>;

/// What is known of a request once it is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub method: &'static str,
    pub path: &'static str,
    pub model: Option<String>,
    pub status: u16,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub waited: Duration,
    pub usage: Option<Usage>,
    pub took: Duration,
}

impl Log {
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Log {
        Log { write: Some(Arc::new(write)), is_full: true }
    }

    /// Only what somebody should look at.
    pub fn warnings(write: impl Fn(&str) + Send + Sync + 'static) -> Log {
        Log { write: Some(Arc::new(write)), is_full: false }
    }

    pub fn silent() -> Log {
        Log { write: None, is_full: false }
    }

    pub(crate) fn request(&self, told: &Line) {
        let mut line = format!("event=request method={} path={}", told.method, told.path);
        if let Some(model) = &told.model {
            let _ = write!(line, " model={model}");
        }
        let (took, waited) = (told.took.as_millis(), told.waited.as_millis());
        let _ = write!(line, " status={} ms={took} waited_ms={waited}", told.status);
        if let Some(usage) = &told.usage {
            let (read, written) = (usage.prompt_tokens, usage.completion_tokens);
            let _ = write!(line, " prompt_tokens={read} completion_tokens={written}");
        }
        if let Some(code) = &told.code {
            let _ = write!(line, " code={code}");
        }
        if let Some(detail) = &told.detail {
            let _ = write!(line, " detail={detail:?}");
        }
        self.write(&line, false);
    }

    pub(crate) fn loaded(&self, model: &str, took: Duration, facts: &ModelFacts) {
        let (took, context) = (took.as_millis(), facts.context);
        self.write(&format!("event=loaded model={model} ms={took} context={context}"), false);
        for note in &facts.notes {
            self.warn(model, note);
        }
    }

    pub(crate) fn warn(&self, model: &str, what: &str) {
        let of = if model.is_empty() { String::new() } else { format!(" model={model}") };
        self.write(&format!("event=warning{of} what={what:?}"), true);
    }

    fn write(&self, line: &str, is_warning: bool) {
        let Some(write) = self.write.as_ref().filter(|_| self.is_full || is_warning) else {
            return;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write(&escape(&format!("at={}.{:03} {line}", now.as_secs(), now.subsec_millis())));
    }
}
