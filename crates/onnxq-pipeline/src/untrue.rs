//! Names of dimensions that the data disproves are forgotten.
//!
//! To ONNX Runtime a name of an input's dimension is documentation, which a model runs without.

use onnxq_ir::{
    Model, ValueId,
    diag::{Code, Warning},
    onnx::Files,
    tensor::{Dim, Tensor},
    untrusted::Untrusted,
};
use onnxq_run::{
    calibrate::model_inputs,
    data::{Batch, Batches, DataError},
    engine::{IoInfo, Runtime, SessionOptions},
};

use super::{Error, open};

/// Forgets names that the first samples disprove, if the model runs on these. Other data that does not
/// fit is an error where it is read.
pub(crate) fn forget(
    model: &mut Model,
    files: &Files,
    data: &dyn Fn(&[IoInfo]) -> Result<Batches, Error>,
    runtime: &Runtime,
) -> Result<Vec<Warning>, Error> {
    let (mut known, mut warnings) = (model.clone(), Vec::new());
    let mut first: Option<DataError> = None;
    loop {
        let Ok(mut batches) = data(&model_inputs(&known)) else { return Ok(Vec::new()) };
        let (error, symbol) = match batches.next() {
            Some(Err(error)) => match untrue(&error) {
                Some((symbol, warning)) => {
                    warnings.push(warning);
                    (error, symbol)
                }
                None => return Ok(Vec::new()),
            },
            Some(Ok(batch)) => {
                let Some(error) = first else { return Ok(warnings) };
                if !runs(&known, files, &batch, runtime) {
                    return Err(error.into());
                }
                *model = known;
                return Ok(warnings);
            }
            None => return Ok(Vec::new()),
        };
        forget_name(&mut known, &symbol);
        first.get_or_insert(error);
    }
}

/// The name that the data disproves, and what is said of it.
fn untrue(error: &DataError) -> Option<(String, Warning)> {
    let DataError::Symbol { input, symbol, actual, expected } = error else { return None };
    let text = format!(
        "the name `{}` of a dimension is not true and is forgotten: it is {expected} in one input and \
         {actual} in `{}`; without it the model runs",
        Untrusted(symbol),
        Untrusted(input)
    );
    Some((symbol.to_string(), Warning::new(Code::W214, text)))
}

/// No value has a dimension of that name any more: what was inferred from it is as untrue.
fn forget_name(model: &mut Model, symbol: &str) {
    let all: Vec<ValueId> = model.values().map(|it| it.0).collect();
    for value in all {
        let shape = model.value_mut(value).ty.as_mut().and_then(|it| it.shape.as_mut());
        for dim in shape.into_iter().flatten() {
            if matches!(dim, Dim::Symbol(it) if **it == *symbol) {
                *dim = Dim::Unknown;
            }
        }
    }
}

fn runs(model: &Model, files: &Files, batch: &Batch, runtime: &Runtime) -> bool {
    let options = SessionOptions { lean: true, ..SessionOptions::default() };
    let session = open::session(model, files, "the original model", &options, runtime);
    let inputs: Vec<(&str, &Tensor)> = batch.iter().map(|(name, it)| (&**name, it)).collect();
    session.is_ok_and(|mut it| it.run(&inputs).is_ok())
}
