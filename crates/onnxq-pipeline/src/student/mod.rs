//! Which parts of a model to leave out, so that a student loses least before it is trained.

mod layers;
mod width;

use serde::Serialize;

pub use self::{
    layers::{ChosenLayers, Removal, Round, choose_layers},
    width::{ChosenWidth, choose_width},
};
use crate::{Error, Inputs, NeedsData, search::evaluator::Evaluator};
use onnxq_ir::{
    Model,
    diag::{Code, Diagnostic},
    onnx::Files,
};
use onnxq_rewrite::prune;

/// Samples that losses are measured on. They are means over all tokens, and candidates are many.
const SAMPLES: usize = 16;

/// Why there is no such student.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum NoStudent {
    #[error("{asked} layers are to stay, and the model has {count}")]
    Layers { asked: usize, count: usize },
    #[error(
        "{asked} hidden channels are to stay, and the feed-forward block of layer {layer} has {width}"
    )]
    Width { asked: usize, layer: usize, width: usize },
}

impl Diagnostic for NoStudent {
    fn code(&self) -> Code {
        Code::E412
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            NoStudent::Layers { count, .. } => format!("keep from 1 to {count}"),
            NoStudent::Width { width, .. } => format!("keep from 1 to {width}"),
        })
    }
}

/// A model without the outputs of its caches: what stays is what can be compared.
fn comparable(model: &Model) -> Result<Model, Error> {
    Ok(prune::without_caches(model, &prune::layers(model)?))
}

/// Measures what changed models lose.
fn evaluator<'a>(
    model: &'a Model,
    files: &'a Files,
    inputs: &Inputs<'a>,
) -> Result<Evaluator<'a>, Error> {
    if inputs.data.is_none() {
        return Err(NeedsData { who: "choosing what a student leaves out".into() }.into());
    }
    let runtime = (inputs.runtime.clone(), inputs.threads);
    Evaluator::over(model, files, inputs.batches(model)?, SAMPLES, runtime)
}
