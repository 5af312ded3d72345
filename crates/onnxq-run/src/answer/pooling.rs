//! The vectors of tokens become one, as the model's files say.

use serde_json::Value;

use super::{AnswerError, Task, assets::Assets};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// The output is one vector already.
    Whole,
    First,
    Last,
    Mean,
    Max,
}

/// How a text becomes one vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pooling {
    mode: Mode,
    normalize: bool,
}

/// What the files call each mode, before and since sentence-transformers 5.
const MODES: &[(&str, &str, Mode)] = &[
    ("pooling_mode_cls_token", "cls", Mode::First),
    ("pooling_mode_lasttoken", "lasttoken", Mode::Last),
    ("pooling_mode_max_tokens", "max", Mode::Max),
    ("pooling_mode_mean_tokens", "mean", Mode::Mean),
];

impl Pooling {
    /// Of a model whose output is one vector for a text.
    pub(super) const WHOLE: Pooling = Pooling { mode: Mode::Whole, normalize: false };

    /// What the files say, and a note if they say nothing.
    pub(super) fn of(assets: &Assets) -> Result<(Pooling, Option<String>), AnswerError> {
        let modules = assets.modules.as_array().map(Vec::as_slice).unwrap_or_default();
        let kind = |it: &Value| {
            let ty = it["type"].as_str().unwrap_or_default();
            ty.rsplit('.').next().unwrap_or_default().to_owned()
        };
        let kinds: Vec<String> = modules.iter().map(kind).collect();
        let known = ["Normalize", "Pooling", "Transformer"];
        if let Some(other) = kinds.iter().find(|it| !known.contains(&it.as_str())) {
            let fact = format!("its files want a step `{other}` after the model");
            return Err(AnswerError::task(Task::Embed, fact));
        }
        let normalize = kinds.iter().any(|it| it == "Normalize");
        if assets.pooling.is_null() {
            let note = "nothing says how the vectors of tokens become one: their mean is taken";
            return Ok((Pooling { mode: Mode::Mean, normalize }, Some(note.into())));
        }
        Ok((Pooling { mode: mode(&assets.pooling)?, normalize }, None))
    }

    /// The vector of one text, of `[1, tokens, width]` or `[1, width]`.
    pub(super) fn vector(&self, values: &[f32], shape: &[usize]) -> Result<Vec<f32>, AnswerError> {
        let width = shape.last().copied().unwrap_or(0).max(1);
        let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Err(AnswerError::task(Task::Embed, "it gives no numbers"));
        };
        let fold = |of: fn(f64, f64) -> f64| -> Vec<f64> {
            let column = |at: usize| rows.iter().map(|it| f64::from(it[at])).reduce(of);
            (0..width).filter_map(column).collect()
        };
        let wide = |row: &[f32]| row.iter().map(|it| f64::from(*it)).collect();
        let mut vector: Vec<f64> = match self.mode {
            Mode::Whole | Mode::First => wide(first),
            Mode::Last => wide(last),
            Mode::Max => fold(f64::max),
            Mode::Mean => fold(|a, b| a + b).iter().map(|it| it / rows.len() as f64).collect(),
        };
        let norm = vector.iter().map(|it| it * it).sum::<f64>().sqrt();
        if self.normalize && norm > 0.0 {
            vector.iter_mut().for_each(|it| *it /= norm);
        }
        Ok(vector.into_iter().map(|it| it as f32).collect())
    }
}

fn mode(fields: &Value) -> Result<Mode, AnswerError> {
    let on = |it: &&(&str, &str, Mode)| {
        fields[it.0].as_bool() == Some(true) || fields["pooling_mode"] == it.1
    };
    let found: Vec<Mode> = MODES.iter().filter(on).map(|it| it.2).collect();
    match found[..] {
        [only] => Ok(only),
        _ => {
            let fact = format!(
                "its files do not want one of {} of the vectors of tokens",
                MODES.iter().map(|it| it.1).collect::<Vec<_>>().join(", ")
            );
            Err(AnswerError::task(Task::Embed, fact))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_mode_takes_what_its_name_says() {
        let values = [1.0, 8.0, 3.0, -8.0, 5.0, 3.0];
        let of = |mode, normalize| Pooling { mode, normalize }.vector(&values, &[1, 3, 2]).unwrap();
        assert_eq!(of(Mode::First, false), [1.0, 8.0]);
        assert_eq!(of(Mode::Last, false), [5.0, 3.0]);
        assert_eq!(of(Mode::Mean, false), [3.0, 1.0]);
        assert_eq!(of(Mode::Max, false), [5.0, 8.0]);
        let unit = of(Mode::Mean, true);
        assert!((unit[0] * unit[0] + unit[1] * unit[1] - 1.0).abs() < 1e-6);
        assert_eq!(Pooling::WHOLE.vector(&[1.0, 2.0], &[1, 2]).unwrap(), [1.0, 2.0]);
        assert!(Pooling::WHOLE.vector(&[], &[1, 0]).is_err());
    }

    #[test]
    fn files_before_and_since_version_5_say_the_mode() {
        assert_eq!(mode(&json!({"pooling_mode_cls_token": true})).unwrap(), Mode::First);
        let both = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
        assert!(mode(&both).is_err());
        assert_eq!(mode(&json!({"pooling_mode": "lasttoken"})).unwrap(), Mode::Last);
        assert!(mode(&json!({"pooling_mode": "weightedmean"})).is_err());
    }
}
