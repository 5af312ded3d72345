//! Continuing a text: the prompt, and then one token after the other until something ends the answer.

use std::time::Instant;

use super::{
    AnswerError, Event, Finish, Generate, Message, Prompt, Timing, TokenLogprob, Usage,
    assets::Assets,
    likelihood::{self, Likelihood},
    prefix::Prefix,
    sample::Sampler,
    written::Written,
};
use crate::{
    data::{ChatTemplate, Vocabulary},
    engine::{Decoder, EngineError, Logits, Rows, Stop},
};

/// Texts that end an answer.
const MOST_STOPS: usize = 64;

/// A model that continues texts.
pub(super) struct Generator {
    pub assets: Assets,
    pub decoder: Box<dyn Decoder>,
    pub vocabulary: Vocabulary,
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer, in ascending order.
    pub ends: Vec<u32>,
    /// Tokens that the model has a vector for.
    pub rows: Option<usize>,
    pub context: usize,
    pub prefix: Prefix,
}

/// A prompt as the model reads it.
struct Read {
    ids: Vec<u32>,
    /// What `echo` shows.
    text: String,
}

/// How far an answer may go.
struct Plan<'a> {
    request: &'a Generate,
    prompt: Read,
    most: usize,
}

impl Generator {
    /// Answers a request; the last event is always [`Event::Done`].
    pub(super) fn generate(
        &mut self,
        request: &Generate,
        stop: &Stop,
        on: &mut dyn FnMut(Event),
    ) -> Result<(), AnswerError> {
        let plan = self.plan(request)?;
        let choice = self.assets.choice(&request.sampling)?;
        let mut sampler = Sampler::new(choice, request.sampling.seed);
        plan.prompt.ids.iter().for_each(|id| sampler.saw(*id));
        let mut run = Run::new(&plan);
        let result = run.answer(self, &mut sampler, stop, on);
        let finish = match result {
            Err(AnswerError::Engine(EngineError::Stopped)) => Finish::Cancelled,
            result => result?,
        };
        on(Event::Done { finish, usage: run.usage, timing: run.timing() });
        Ok(())
    }

    fn plan<'a>(&self, request: &'a Generate) -> Result<Plan<'a>, AnswerError> {
        check(request)?;
        let prompt = self.read(&request.prompt)?;
        let (tokens, context) = (prompt.ids.len(), self.context);
        let room = context.saturating_sub(tokens);
        let wanted = request.max_tokens;
        let fits = match wanted {
            Some(wanted) => wanted <= room && tokens <= context,
            None => room > 0,
        };
        if !fits {
            return Err(AnswerError::Context { prompt: tokens, wanted, context });
        }
        Ok(Plan { request, prompt, most: wanted.unwrap_or(room) })
    }

    fn read(&self, prompt: &Prompt) -> Result<Read, AnswerError> {
        let (ids, text) = match prompt {
            Prompt::Chat(messages) => {
                let text = self.render(messages)?;
                (self.vocabulary.encode(&text, false)?, text)
            }
            Prompt::Text(text) => (self.vocabulary.encode(text, true)?, text.clone()),
            Prompt::Ids(ids) => (ids.clone(), self.vocabulary.decode(ids)),
        };
        // An empty text begins like every other.
        let begin = self.assets.begin().filter(|_| ids.is_empty());
        let ids: Vec<u32> = begin.into_iter().chain(ids).collect();
        if ids.is_empty() {
            return Err(AnswerError::Request("the prompt has no tokens".into()));
        }
        super::model::check_rows(&ids, self.rows, &self.vocabulary)?;
        Ok(Read { ids, text })
    }

    fn render(&self, messages: &[Message]) -> Result<String, AnswerError> {
        if messages.is_empty() {
            return Err(AnswerError::Request("there are no messages".into()));
        }
        let template = self.template.as_ref().ok_or(AnswerError::NoTemplate)?;
        let list: Vec<(&str, &str)> = messages.iter().map(|it| (&*it.role, &*it.content)).collect();
        template.render(&list, true).map_err(AnswerError::Template)
    }
}

fn check(request: &Generate) -> Result<(), AnswerError> {
    let fact = match request {
        it if it.stop.iter().any(String::is_empty) => "an empty text cannot end an answer".into(),
        it if it.stop.len() > MOST_STOPS => format!("more than {MOST_STOPS} texts end the answer"),
        it if it.logprobs.is_some_and(|it| it > likelihood::MOST) => {
            format!("logprobs is more than {}", likelihood::MOST)
        }
        _ => return Ok(()),
    };
    Err(AnswerError::Request(fact))
}

/// One answer under way.
struct Run<'a> {
    plan: &'a Plan<'a>,
    usage: Usage,
    began: Instant,
    first: Option<Instant>,
}

impl Run<'_> {
    fn new<'a>(plan: &'a Plan<'a>) -> Run<'a> {
        let usage = Usage { prompt_tokens: plan.prompt.ids.len(), ..Usage::default() };
        Run { plan, usage, began: Instant::now(), first: None }
    }

    fn timing(&self) -> Timing {
        let first = self.first.unwrap_or_else(Instant::now);
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let end = Instant::now();
        Timing { prefill_ms: ms(self.began, first), decode_ms: ms(first, end) }
    }

    fn answer(
        &mut self,
        model: &mut Generator,
        sampler: &mut Sampler,
        stop: &Stop,
        on: &mut dyn FnMut(Event),
    ) -> Result<Finish, AnswerError> {
        let request = self.plan.request;
        let (mut logits, echoed) = self.prefill(model, stop)?;
        if request.echo {
            on(Event::Text { text: self.plan.prompt.text.clone(), logprobs: echoed });
        }
        let mut written = Written::new(&model.vocabulary, &request.stop);
        let finish = loop {
            if self.usage.completion_tokens == self.plan.most {
                break Finish::Length;
            }
            if stop.is_stopped() {
                break Finish::Cancelled;
            }
            let row = logits.rows().last().unwrap_or_default();
            let id = sampler.choose(row)?;
            self.first.get_or_insert_with(Instant::now);
            if model.ends.binary_search(&id).is_ok() {
                break Finish::Stop;
            }
            let logprob =
                request.logprobs.map(|top| Likelihood::of(row).token(id, top, &model.vocabulary));
            sampler.saw(id);
            self.usage.completion_tokens += 1;
            let (event, ends) = written.push(id, logprob);
            event.into_iter().for_each(&mut *on);
            if ends {
                return Ok(Finish::Stop);
            }
            if self.usage.completion_tokens < self.plan.most {
                logits = match model.decoder.feed(&[id], Rows::Last, stop) {
                    Err(EngineError::Stopped) => break Finish::Cancelled,
                    logits => logits?,
                };
            }
        };
        let (event, ends) = written.finish();
        event.into_iter().for_each(on);
        Ok(if ends { Finish::Stop } else { finish })
    }

    /// Reads the prompt: the logits after it, and how likely its own tokens were if that is asked for.
    fn prefill(
        &mut self,
        model: &mut Generator,
        stop: &Stop,
    ) -> Result<(Logits, Vec<TokenLogprob>), AnswerError> {
        let ids = &self.plan.prompt.ids;
        let (decoder, vocabulary) = (&mut *model.decoder, &model.vocabulary);
        let top = self.plan.request.logprobs.filter(|_| self.plan.request.echo);
        match top {
            // What is likely must be computed for every token.
            Some(_) => model.prefix.clear(decoder)?,
            None => self.usage.cached_tokens = model.prefix.reuse(decoder, ids)?,
        }
        let (mut last, mut likely) = (Logits::default(), Vec::new());
        let first = |id: &u32| TokenLogprob {
            token: vocabulary.piece(*id),
            id: *id,
            logprob: None,
            top: Vec::new(),
        };
        likely.extend(ids.first().filter(|_| top.is_some()).map(first));
        let mut on = |logits: Logits| {
            for row in logits.rows().filter(|_| top.is_some()) {
                let next = ids.get(likely.len());
                let token = |id: &u32| Likelihood::of(row).token(*id, top.unwrap_or(0), vocabulary);
                likely.extend(next.map(token));
            }
            last = logits;
        };
        model.prefix.read(decoder, (ids, top.is_some()), stop, &mut on)?;
        Ok((last, likely))
    }
}
