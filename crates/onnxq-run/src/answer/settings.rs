//! What the files beside a model say of it: how long texts may be, what ends one, how to choose tokens.

use serde_json::Value;

use super::{AnswerError, Sampling, assets::Assets, sample::Choice};

/// Beyond that a number stands for no limit at all.
const ENDLESS: u64 = 1 << 30;
/// Tokens, if nothing says how many a model was made for.
const UNKNOWN: usize = 2048;
/// What transformers takes if a model samples and does not say from how many tokens.
const TOP_K: usize = 50;

impl Assets {
    /// Tokens that the model reads at once, if anything says.
    pub(super) fn context(&self) -> Option<usize> {
        let config = ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"];
        let own = config.iter().find_map(|it| count(&self.config[it]));
        // The first places of these models are those of padding.
        let is_roberta =
            self.config["model_type"].as_str().is_some_and(|it| it.contains("roberta"));
        let padding =
            if is_roberta { 1 + count(&self.config["pad_token_id"]).unwrap_or(1) } else { 0 };
        let own = own.map(|it| it.saturating_sub(padding));
        let others = [
            count(&self.genai["model"]["context_length"]),
            count(&self.sentence["max_seq_length"]),
            count(&self.tokenizer_fields["model_max_length"]),
        ];
        own.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// The context to use, and whether that was a guess.
    pub(super) fn used_context(
        &self,
        asked: Option<usize>,
        most: Option<usize>,
    ) -> Result<(usize, bool), AnswerError> {
        let known = self.context().into_iter().chain(most).min();
        match (asked, known) {
            (Some(asked), Some(most)) if asked > most => {
                Err(AnswerError::ContextTooLarge { asked, most })
            }
            (Some(asked), _) => Ok((asked, false)),
            (None, Some(known)) => Ok((known, false)),
            (None, None) => Ok((UNKNOWN, true)),
        }
    }

    /// Every token that ends an answer, by any of the files: one often knows the end of a turn only.
    pub(super) fn ends(&self) -> Vec<u32> {
        let files = [&self.generation, &self.config, &self.genai["model"]];
        let mut ends: Vec<u32> = Vec::new();
        for found in files.iter().map(|it| &it["eos_token_id"]) {
            let list = found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice);
            ends.extend(list.iter().filter_map(|it| u32::try_from(it.as_u64()?).ok()));
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// The token that begins a text.
    pub(super) fn begin(&self) -> Option<u32> {
        let files = [&self.generation, &self.config, &self.genai["model"]];
        let id = files.iter().find_map(|it| it["bos_token_id"].as_u64());
        id.and_then(|it| u32::try_from(it).ok())
    }

    /// Whether tokens are chosen by chance if nobody says otherwise.
    pub(super) fn samples(&self) -> bool {
        self.choice(&Sampling::default()).is_ok_and(|it| it.temperature > 0.0 && it.top_k != 1)
    }

    /// What a request says of choosing tokens, and else the model's files.
    pub(super) fn choice(&self, asked: &Sampling) -> Result<Choice, AnswerError> {
        let samples = self.generation["do_sample"].as_bool().unwrap_or(false);
        let own = |name: &str| self.generation[name].as_f64().filter(|_| samples);
        let wants =
            asked.top_k.is_some_and(|it| it != 1) || asked.top_p.is_some() || asked.min_p.is_some();
        let temperature = asked.temperature.or(match samples || wants {
            true => Some(own("temperature").unwrap_or(1.0) as f32),
            false => None,
        });
        let top_k = own("top_k").map(|it| it as usize).or(samples.then_some(TOP_K));
        let penalty = self.generation["repetition_penalty"].as_f64();
        Choice {
            temperature: temperature.unwrap_or(0.0),
            top_k: asked.top_k.or(top_k).unwrap_or(0),
            top_p: asked.top_p.or(own("top_p").map(|it| it as f32)).unwrap_or(1.0),
            min_p: asked.min_p.or(own("min_p").map(|it| it as f32)).unwrap_or(0.0),
            penalty: asked.repetition_penalty.or(penalty.map(|it| it as f32)).unwrap_or(1.0),
        }
        .checked()
    }

    /// The names of so many labels.
    pub(super) fn labels(&self, count: usize) -> Result<Vec<String>, AnswerError> {
        if let Some(labels) = &self.labels {
            if labels.len() == count {
                return Ok(labels.clone());
            }
            let fact = format!("there are {} labels, but the model has {count}", labels.len());
            return Err(AnswerError::Request(fact));
        }
        let name = |at: usize| {
            let name = self.config["id2label"][at.to_string()].as_str();
            name.map_or_else(|| format!("LABEL_{at}"), str::to_owned)
        };
        Ok((0..count).map(name).collect())
    }
}

/// A number of tokens, unless it stands for no limit.
fn count(value: &Value) -> Option<usize> {
    let number = value.as_u64().filter(|it| (1..ENDLESS).contains(it))?;
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn assets(config: Value, generation: Value, tokenizer_fields: Value) -> Assets {
        Assets {
            model: "m.onnx".into(),
            tokenizer: "tokenizer.json".into(),
            tokenizer_config: "tokenizer_config.json".into(),
            config,
            generation,
            genai: Value::Null,
            tokenizer_fields,
            sentence: Value::Null,
            modules: Value::Null,
            pooling: Value::Null,
            labels: None,
        }
    }

    #[test]
    fn the_context_is_the_shortest_that_is_known() {
        let long = json!({"model_max_length": 1e30});
        let of = |config, tokenizer| assets(config, Value::Null, tokenizer).context();
        assert_eq!(of(json!({"max_position_embeddings": 128}), long.clone()), Some(128));
        let roberta =
            json!({"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1});
        assert_eq!(of(roberta, long.clone()), Some(512));
        assert_eq!(of(json!({"n_positions": 64}), json!({"model_max_length": 32})), Some(32));
        let unknown = assets(Value::Null, Value::Null, long);
        assert_eq!(unknown.used_context(None, None).unwrap(), (UNKNOWN, true));
        assert_eq!(unknown.used_context(Some(9), None).unwrap(), (9, false));
        let error = unknown.used_context(Some(9), Some(8)).unwrap_err().to_string();
        assert!(error.contains("9 tokens") && error.contains('8'), "{error}");
    }

    #[test]
    fn all_files_know_tokens_that_end_an_answer() {
        let both = assets(json!({"eos_token_id": 2}), json!({"eos_token_id": [7, 2]}), Value::Null);
        assert_eq!(both.ends(), [2, 7]);
        assert!(assets(json!({"eos_token_id": null}), Value::Null, Value::Null).ends().is_empty());
    }

    #[test]
    fn requests_come_before_files_and_files_before_greedy() {
        let greedy = assets(Value::Null, json!({"temperature": 0.6, "top_k": 9}), Value::Null);
        let choice = greedy.choice(&Sampling::default()).unwrap();
        assert_eq!((choice.temperature, choice.top_k, choice.penalty), (0.0, 0, 1.0));
        let asked = Sampling { top_p: Some(0.5), ..Sampling::default() };
        let choice = greedy.choice(&asked).unwrap();
        assert_eq!((choice.temperature, choice.top_p), (1.0, 0.5));
        let samples = json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9});
        let sampling = assets(Value::Null, samples, Value::Null);
        let choice = sampling.choice(&Sampling::default()).unwrap();
        assert_eq!((choice.temperature, choice.top_k, choice.top_p), (0.6, TOP_K, 0.9));
        let asked = Sampling { temperature: Some(0.0), top_k: Some(3), ..Sampling::default() };
        let choice = sampling.choice(&asked).unwrap();
        assert_eq!((choice.temperature, choice.top_k), (0.0, 3));
    }
}
