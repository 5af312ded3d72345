//! RoBERTa: BERT with places that skip padding, and another classifier.

use super::{
    Activation, Architecture, Head, Linear, Places, bert,
    describe::{Source, Top},
};
use crate::CheckpointError;

pub(super) const CLASSES: &[(&str, Top)] = &[
    ("RobertaForSequenceClassification", Top::Classes),
    ("RobertaForTokenClassification", Top::TokenClasses),
    ("RobertaModel", Top::Vectors),
];

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let padding = source.config.id_if("pad_token_id")?.unwrap_or(1);
    let prefix = source.prefix("roberta.");
    let mut model = bert::encoder(source, &prefix, Places::Unpadded { padding })?;
    let hidden = model.hidden;
    model.head = match source.top {
        Top::Classes => {
            let dense = Linear::new("classifier.dense", [hidden, hidden], true);
            let out = Linear::new("classifier.out_proj", [hidden, source.labels()?], true);
            Head::Classes { hidden: Some((dense, Activation::Tanh)), out }
        }
        _ => bert::head(source, hidden)?,
    };
    model.buffers.extend(["pooler.dense.weight", "pooler.dense.bias"]);
    Ok(model)
}
