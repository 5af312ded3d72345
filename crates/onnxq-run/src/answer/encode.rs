//! Models that read a text once: one vector for it, one label, or a label for each token.

use super::{
    AnswerError, Label, Labelled, Task, Vectors,
    assets::Assets,
    model::check_rows,
    pooling::Pooling,
    spans::{TokenLabel, spans},
};
use crate::{
    data::{Encoded, Vocabulary},
    engine::{IoInfo, Session, roles},
};
use onnxq_ir::tensor::Tensor;

/// A model that reads whole texts.
pub(super) struct Encoder {
    pub session: Box<dyn Session>,
    pub vocabulary: Vocabulary,
    /// The output that is the answer.
    pub output: String,
    pub rows: Option<usize>,
    pub context: usize,
}

/// What the numbers of a classifier mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scores {
    /// One label is right.
    Softmax,
    /// Each label is right or not.
    Sigmoid,
    /// A quantity.
    Plain,
}

impl Scores {
    pub(super) fn of(assets: &Assets, labels: usize) -> Scores {
        match assets.config["problem_type"].as_str() {
            Some("multi_label_classification") => Scores::Sigmoid,
            Some("regression") => Scores::Plain,
            _ if labels == 1 => Scores::Sigmoid,
            _ => Scores::Softmax,
        }
    }

    fn apply(self, logits: &[f32]) -> Vec<f32> {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |it: &f32| f64::from(it - top).exp();
        let sum: f64 = logits.iter().map(weight).sum();
        let one = |it: &f32| match self {
            Scores::Softmax => (weight(it) / sum) as f32,
            Scores::Sigmoid => (1.0 / (1.0 + f64::from(-it).exp())) as f32,
            Scores::Plain => *it,
        };
        logits.iter().map(one).collect()
    }
}

impl Encoder {
    pub(super) fn embed(
        &mut self,
        texts: &[String],
        pooling: &Pooling,
    ) -> Result<Vectors, AnswerError> {
        let mut result = Vectors::default();
        for text in texts {
            let (encoded, output) = self.run(text)?;
            result.vectors.push(pooling.vector(&self.values(&output)?, &output.shape)?);
            result.tokens += encoded.ids.len();
        }
        Ok(result)
    }

    pub(super) fn classify(
        &mut self,
        texts: &[String],
        assets: &Assets,
    ) -> Result<Vec<Labelled>, AnswerError> {
        texts.iter().map(|text| self.label(text, assets)).collect()
    }

    fn label(&mut self, text: &str, assets: &Assets) -> Result<Labelled, AnswerError> {
        let (encoded, output) = self.run(text)?;
        let width = output.shape.last().copied().unwrap_or(0);
        let (values, tokens) = (self.values(&output)?, encoded.ids.len());
        let (labels, scores) = (assets.labels(width)?, Scores::of(assets, width));
        let rows: Vec<Vec<f32>> =
            values.chunks_exact(width.max(1)).map(|it| scores.apply(it)).collect();
        if output.shape.len() == 2 {
            let row = rows.into_iter().next().unwrap_or_default();
            return Ok(Labelled { labels: ranked(&labels, row), spans: Vec::new(), tokens });
        }
        if rows.len() != tokens || width == 0 {
            let fact = format!("its output has shape {:?} for {tokens} tokens", output.shape);
            return Err(AnswerError::task(Task::Classify, fact));
        }
        let best = |row: &Vec<f32>| {
            let (at, score) = row.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1))?;
            Some(TokenLabel { label: &labels[at], score: *score })
        };
        let best: Vec<TokenLabel<'_>> = rows.iter().filter_map(best).collect();
        Ok(Labelled { labels: Vec::new(), spans: spans(text, &encoded, &best), tokens })
    }

    /// The tokens of a text, and what the model makes of them.
    fn run(&mut self, text: &str) -> Result<(Encoded, Tensor), AnswerError> {
        let encoded = self.vocabulary.places(text)?;
        let tokens = encoded.ids.len();
        if tokens == 0 {
            return Err(AnswerError::Request("a text has no tokens".into()));
        }
        if tokens > self.context {
            return Err(AnswerError::TextTooLong { tokens, context: self.context });
        }
        check_rows(&encoded.ids, self.rows, &self.vocabulary)?;
        let inputs = inputs(self.session.inputs(), &encoded.ids)?;
        let named: Vec<(&str, &Tensor)> = inputs.iter().map(|it| (&*it.0, &it.1)).collect();
        let outputs = self.session.run(&named)?;
        let output = outputs.into_iter().find(|it| it.0 == self.output);
        let missing = || AnswerError::task(Task::Embed, "its output is missing");
        Ok((encoded, output.ok_or_else(missing)?.1))
    }

    fn values(&self, output: &Tensor) -> Result<Vec<f32>, AnswerError> {
        let unreadable =
            |it| AnswerError::task(Task::Embed, format!("`{}` cannot be read: {it}", self.output));
        let values = output.to_f32().map_err(unreadable)?;
        match values.iter().all(|it| it.is_finite()) {
            true => Ok(values),
            false => Err(AnswerError::NotFinite),
        }
    }
}

/// Everything that a model takes of one text.
fn inputs(inputs: &[IoInfo], ids: &[u32]) -> Result<Vec<(String, Tensor)>, AnswerError> {
    let tensor = |input: &IoInfo| {
        let tensor = match input.name.as_str() {
            "input_ids" => roles::ids(input, ids),
            _ => roles::make(input, (1, ids.len())),
        };
        let fact = || format!("nobody knows what input `{}` wants", input.name);
        Ok((input.name.clone(), tensor.ok_or_else(|| AnswerError::task(Task::Embed, fact()))?))
    };
    inputs.iter().map(tensor).collect()
}

/// Labels with their scores, the best one first.
fn ranked(labels: &[String], scores: Vec<f32>) -> Vec<Label> {
    let label = |(label, score): (&String, f32)| Label { label: label.clone(), score };
    let mut list: Vec<Label> = labels.iter().zip(scores).map(label).collect();
    list.sort_by(|a, b| b.score.total_cmp(&a.score));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_what_the_labels_mean() {
        let logits = [0.0, 3f32.ln()];
        let near = |a: Vec<f32>, b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(Scores::Softmax.apply(&logits), [0.25, 0.75]));
        assert!(near(Scores::Sigmoid.apply(&logits), [0.5, 0.75]));
        assert!(near(Scores::Plain.apply(&logits), logits));
        let list = ranked(&["a".into(), "b".into()], vec![0.25, 0.75]);
        assert_eq!(list[0], Label { label: "b".into(), score: 0.75 });
    }
}
