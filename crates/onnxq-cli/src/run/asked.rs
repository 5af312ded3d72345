//! Whether the flags make sense for the model at hand.

use super::{
    super::{Failure, shared::no_effect},
    Args,
};
use onnxq_run::answer::{ModelFacts, Task};

impl Args {
    /// Fails if a flag would have no effect.
    pub(super) fn check(&self, facts: &ModelFacts) -> Result<(), Failure> {
        let without = match facts.task {
            Task::Generate => return self.check_generate(facts),
            Task::Classify => "the model classifies texts",
            Task::Embed => "the model makes vectors of texts",
        };
        let labels = ("--labels", self.labels.is_some() && facts.task == Task::Embed);
        let others = [("--system", self.system.is_some()), ("--raw", self.raw), labels];
        no_effect(self.generates().into_iter().chain(others), without)
    }

    fn check_generate(&self, facts: &ModelFacts) -> Result<(), Failure> {
        no_effect([("--labels", self.labels.is_some())], "the model continues texts")?;
        let template = match facts.chat {
            true => "--raw leaves out the chat template, which would write it",
            false => "the model has no chat template, which would write it",
        };
        no_effect([("--system", self.system.is_some() && (self.raw || !facts.chat))], template)?;
        no_effect([("--raw", self.raw && !facts.chat)], "the model has no chat template")?;
        // Lines of a batch have their own temperature.
        if self.jsonl.is_none() && !self.chooses(facts) {
            no_effect(self.chance(), "at temperature 0 the most likely token is always taken")?;
        }
        Ok(())
    }

    /// Whether tokens are chosen by chance.
    fn chooses(&self, facts: &ModelFacts) -> bool {
        let flags = &self.generate;
        match flags.temperature {
            Some(temperature) => temperature != 0.0,
            None => {
                let limits =
                    flags.top_k.is_some() || flags.top_p.is_some() || flags.min_p.is_some();
                facts.samples || limits
            }
        }
    }

    /// Flags that say how chance works.
    fn chance(&self) -> [(&'static str, bool); 4] {
        let flags = &self.generate;
        [
            ("--top-k", flags.top_k.is_some()),
            ("--top-p", flags.top_p.is_some()),
            ("--min-p", flags.min_p.is_some()),
            ("--seed", flags.seed.is_some()),
        ]
    }

    /// Flags of models that continue texts.
    fn generates(&self) -> Vec<(&'static str, bool)> {
        let flags = &self.generate;
        let others = [
            ("--max-tokens", flags.max_tokens.is_some()),
            ("--temperature", flags.temperature.is_some()),
            ("--repetition-penalty", flags.repetition_penalty.is_some()),
            ("--stop", !flags.stop.is_empty()),
        ];
        self.chance().into_iter().chain(others).collect()
    }
}
