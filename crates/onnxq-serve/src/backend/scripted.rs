//! A script instead of models: prompts say what happens.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Backend, Fault, Handle, Memory, Slot, Why};
use crate::config::ModelConfig;
use onnxq_ir::diag::Code;
use onnxq_run::answer::{
    Event, Finish, Generate, Label, Labelled, ModelFacts, Prompt, Task, Timing, TokenLogprob,
    Usage, Vectors,
};

/// What the scripted models do, and what happened to them.
#[derive(Default)]
pub(crate) struct Stage {
    /// How long loading takes, in milliseconds.
    pub load_ms: AtomicU64,
    /// Bytes of a loaded model.
    pub bytes: AtomicU64,
    pub bytes_per_token: AtomicU64,
    /// Why loading fails, while it does.
    pub broken: Mutex<Option<Fault>>,
    pub loads: AtomicUsize,
    pub answers: AtomicUsize,
    pub tokens: AtomicUsize,
    /// Slots that are there now, busy now, and the most bytes that there ever were.
    pub alive: AtomicUsize,
    pub busy: AtomicUsize,
    pub now: AtomicU64,
    pub peak: AtomicU64,
    pub handles: Mutex<Vec<Arc<ScriptedHandle>>>,
}

pub(crate) struct Scripted(pub Arc<Stage>);

#[derive(Default)]
pub(crate) struct ScriptedHandle {
    is_cancelled: AtomicBool,
    is_killed: AtomicBool,
    bytes: u64,
}

impl Handle for ScriptedHandle {
    fn cancel(&self) {
        self.is_cancelled.store(true, SeqCst);
    }

    fn kill(&self) {
        self.is_killed.store(true, SeqCst);
    }

    fn memory(&self) -> Option<Memory> {
        let is_there = !self.is_killed.load(SeqCst);
        is_there.then_some(Memory { anonymous: self.bytes, resident: self.bytes })
    }
}

struct ScriptedSlot {
    stage: Arc<Stage>,
    handle: Arc<ScriptedHandle>,
}

impl Drop for ScriptedSlot {
    fn drop(&mut self) {
        self.stage.alive.fetch_sub(1, SeqCst);
        self.stage.now.fetch_sub(self.handle.bytes, SeqCst);
    }
}

impl Backend for Scripted {
    fn start(
        &self,
        model: &ModelConfig,
        started: &mut dyn FnMut(Arc<dyn Handle>),
    ) -> Result<(Box<dyn Slot>, ModelFacts), Fault> {
        let stage = self.0.clone();
        stage.loads.fetch_add(1, SeqCst);
        let bytes = stage.bytes.load(SeqCst);
        let handle = Arc::new(ScriptedHandle { bytes, ..ScriptedHandle::default() });
        stage.handles.lock().unwrap().push(handle.clone());
        started(handle.clone());
        stage.alive.fetch_add(1, SeqCst);
        let now = stage.now.fetch_add(bytes, SeqCst) + bytes;
        stage.peak.fetch_max(now, SeqCst);
        let slot = ScriptedSlot { stage: stage.clone(), handle };
        slot.pause(Duration::from_millis(stage.load_ms.load(SeqCst)), false)?;
        if let Some(fault) = stage.broken.lock().unwrap().clone() {
            return Err(fault);
        }
        let facts = ModelFacts {
            task: model.preset.task().unwrap_or(Task::Generate),
            context: 100,
            bytes_per_token: stage.bytes_per_token.load(SeqCst),
            chat: true,
            samples: false,
            notes: Vec::new(),
        };
        Ok((Box::new(slot), facts))
    }
}

impl ScriptedSlot {
    /// Whether it was cancelled meanwhile.
    fn pause(&self, time: Duration, is_deaf: bool) -> Result<bool, Fault> {
        let end = Instant::now() + time;
        loop {
            if self.handle.is_killed.load(SeqCst) {
                return Err(Fault::new(Why::Crashed, Some(Code::E803), "killed: /secret/path"));
            }
            if self.handle.is_cancelled.load(SeqCst) && !is_deaf {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            sleep(left.min(Duration::from_millis(1)));
        }
    }
}

/// `n=5 ms=1`: five tokens, each after a millisecond. `prefill=50`: before the first. `crash=2`,
/// `hang=2`, `memory=2`: instead of the second. `refuse=1`: at once.
fn script(prompt: &Prompt) -> impl Fn(&str) -> Option<u64> {
    let text = match prompt {
        Prompt::Chat(messages) => {
            messages.iter().map(|it| &*it.content).collect::<Vec<_>>().join(" ")
        }
        Prompt::Text(text) => text.clone(),
        Prompt::Ids(ids) => format!("n={}", ids.len()),
    };
    move |key| {
        let mut words = text.split_whitespace().filter_map(|it| it.split_once('='));
        words.find(|it| it.0 == key)?.1.parse().ok()
    }
}

impl Slot for ScriptedSlot {
    fn generate(
        &mut self,
        request: &Generate,
        limit: Duration,
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Fault> {
        let until = Instant::now() + limit;
        let script = script(&request.prompt);
        let ms = |key: &str, default| Duration::from_millis(script(key).unwrap_or(default));
        self.handle.is_cancelled.store(false, SeqCst);
        self.stage.busy.fetch_add(1, SeqCst);
        let result = (|| {
            if script("refuse").is_some() {
                return Err(Fault::new(Why::Refused, Some(Code::E905), "/secret/path"));
            }
            let mut finish = Finish::Length;
            let mut count = 0;
            if self.pause(ms("prefill", 0), false)? {
                finish = Finish::Cancelled;
            }
            let most = request.max_tokens.unwrap_or(100) as u64;
            while finish != Finish::Cancelled && count < script("n").unwrap_or(5).min(most) {
                count += 1;
                let at = |key| script(key) == Some(count);
                if at("crash") {
                    return Err(Fault::new(Why::Crashed, Some(Code::E803), "/secret/path"));
                }
                if at("memory") {
                    return Err(Fault::new(Why::Memory, None, "bad_alloc"));
                }
                if at("hang") {
                    self.pause(limit, true)?;
                    return Err(Fault::new(Why::Hung, None, "hung"));
                }
                if self.pause(ms("ms", 0), false)? {
                    finish = Finish::Cancelled;
                    break;
                }
                if Instant::now() > until {
                    return Err(Fault::new(Why::Hung, None, "slow"));
                }
                self.stage.tokens.fetch_add(1, SeqCst);
                let token = format!("t{count} ");
                let own = TokenLogprob {
                    token: token.clone(),
                    id: count as u32,
                    logprob: Some(-0.5),
                    top: Vec::new(),
                };
                let logprobs = request.logprobs.map_or(Vec::new(), |_| vec![own]);
                events(Event::Text { text: token, logprobs });
            }
            let usage =
                Usage { prompt_tokens: 3, completion_tokens: count as usize, cached_tokens: 0 };
            events(Event::Done { finish, usage, timing: Timing::default() });
            Ok(())
        })();
        self.stage.busy.fetch_sub(1, SeqCst);
        self.stage.answers.fetch_add(1, SeqCst);
        result
    }

    fn embed(&mut self, texts: &[String], _: Duration) -> Result<Vectors, Fault> {
        let vectors = texts.iter().map(|it| vec![it.len() as f32, 0.5]).collect();
        Ok(Vectors { vectors, tokens: texts.len() })
    }

    fn classify(&mut self, texts: &[String], _: Duration) -> Result<Vec<Labelled>, Fault> {
        let label = |label: &str, score| Label { label: label.to_owned(), score };
        let labels = vec![label("good", 0.75), label("bad", 0.25)];
        let one = |_| Labelled { labels: labels.clone(), spans: Vec::new(), tokens: 2 };
        Ok(texts.iter().map(one).collect())
    }
}
