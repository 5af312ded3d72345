//! What is shown of an answer while it comes: whole characters, nothing that may belong to its end, and
//! with each text the likelihoods of its tokens.

use super::{Event, TokenLogprob, detokenize::Detokenizer, stops::Stops};
use crate::data::Vocabulary;

pub(super) struct Written<'a> {
    tokens: Detokenizer<'a>,
    stops: Stops,
    /// Tokens whose text is not shown yet, and where their text begins.
    waiting: Vec<(usize, TokenLogprob)>,
    /// Bytes that were shown.
    shown: usize,
}

impl Written<'_> {
    pub(super) fn new<'a>(vocabulary: &'a Vocabulary, stops: &[String]) -> Written<'a> {
        let tokens = Detokenizer::new(vocabulary);
        Written { tokens, stops: Stops::new(stops), waiting: Vec::new(), shown: 0 }
    }

    /// One more token: what can be shown now, and whether the answer ends with it.
    pub(super) fn push(&mut self, id: u32, logprob: Option<TokenLogprob>) -> (Option<Event>, bool) {
        let place = self.tokens.length();
        self.waiting.extend(logprob.map(|it| (place, it)));
        let text = self.tokens.push(id);
        self.show(&text)
    }

    /// What is left when no more tokens come.
    pub(super) fn finish(&mut self) -> (Option<Event>, bool) {
        let text = self.tokens.finish();
        let (event, ends) = self.show(&text);
        if ends {
            return (event, true);
        }
        let (before, mut logprobs) = match event {
            Some(Event::Text { text, logprobs }) => (text, logprobs),
            _ => Default::default(),
        };
        let text = before + &self.stops.finish();
        logprobs.extend(self.waiting.drain(..).map(|it| it.1));
        (event_of(text, logprobs), false)
    }

    fn show(&mut self, text: &str) -> (Option<Event>, bool) {
        let (text, ends) = self.stops.push(text);
        self.shown += text.len();
        let count = self.waiting.iter().take_while(|it| it.0 < self.shown).count();
        // Tokens behind the end belong to no answer; those without a text wait for the next one.
        let logprobs = match text.is_empty() {
            true => Vec::new(),
            false => self.waiting.drain(..count).map(|it| it.1).collect(),
        };
        (event_of(text, logprobs), ends)
    }
}

fn event_of(text: String, logprobs: Vec<TokenLogprob>) -> Option<Event> {
    (!text.is_empty() || !logprobs.is_empty()).then_some(Event::Text { text, logprobs })
}
