//! Whether two forms of a model answer the same, bit for bit.

use super::{PackageError, made};
use crate::Error;
use onnxq_ir::tensor::{Tensor, TensorError};
use onnxq_run::{
    data::{Batch, Dataset},
    engine::{IoInfo, Session},
};

/// Samples that are run.
const SAMPLES: usize = 4;

/// What a model says to some inputs.
pub(super) struct Answers {
    runs: Vec<(Batch, Vec<(String, Tensor)>)>,
    is_made_up: bool,
}

/// Runs a model on the first samples of the data, or on inputs that are made up.
pub(super) fn answers(
    mut session: Box<dyn Session>,
    inputs: &[IoInfo],
    data: Option<&Dataset>,
    place: &str,
) -> Result<Answers, Error> {
    let Some(data) = data else {
        let runs = made::runs(&mut *session, inputs).map_err(|reason| {
            let model = place.to_owned();
            PackageError::NoInputs { model, reason }
        })?;
        return Ok(Answers { runs, is_made_up: true });
    };
    let mut batches = data.batches(inputs)?;
    batches.one_by_one();
    let mut runs = Vec::new();
    for batch in batches.take(SAMPLES) {
        let batch = batch?;
        let outputs = session.run(&feeds(&batch))?;
        runs.push((batch, outputs));
    }
    Ok(Answers { runs, is_made_up: false })
}

pub(super) fn feeds(batch: &Batch) -> Vec<(&str, &Tensor)> {
    batch.iter().map(|(name, it)| (&**name, it)).collect()
}

impl Answers {
    /// Asks another form the same; how it was compared. An error if an answer differs.
    pub(super) fn compare_with(
        &self,
        mut session: Box<dyn Session>,
        place: &str,
    ) -> Result<String, Error> {
        for (batch, expected) in &self.runs {
            let outputs = session.run(&feeds(batch))?;
            if let Some(output) = different(expected, &outputs)? {
                let model = place.to_owned();
                return Err(PackageError::Differs { model, output }.into());
            }
        }
        let count = self.runs.len();
        let s = if count == 1 { "" } else { "s" };
        Ok(match self.is_made_up {
            true => format!("{count} input{s} made up"),
            false => format!("{count} sample{s}"),
        })
    }
}

/// The first output that is not the same.
fn different(
    expected: &[(String, Tensor)],
    actual: &[(String, Tensor)],
) -> Result<Option<String>, TensorError> {
    for (name, it) in expected {
        let Some((_, other)) = actual.iter().find(|(other, _)| other == name) else {
            return Ok(Some(name.clone()));
        };
        let is_alike = it.dtype == other.dtype && it.shape == other.shape;
        let is_same = match (it.string_values(), other.string_values()) {
            (Some(own), Some(other)) => own == other,
            (None, None) => it.bytes()? == other.bytes()?,
            _ => false,
        };
        if !is_alike || !is_same {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::Code;

    /// Answers the same to whatever it is asked.
    struct Constant(Tensor);

    impl Session for Constant {
        fn inputs(&self) -> &[IoInfo] {
            &[]
        }

        fn outputs(&self) -> &[IoInfo] {
            &[]
        }

        fn run(
            &mut self,
            _: &[(&str, &Tensor)],
        ) -> Result<Vec<(String, Tensor)>, onnxq_run::engine::EngineError> {
            Ok(vec![("y".to_owned(), self.0.clone())])
        }
    }

    fn said(values: &[f32]) -> Box<Constant> {
        Box::new(Constant(Tensor::from_f32(&[values.len()], values.iter().copied())))
    }

    #[test]
    fn one_bit_is_a_difference_and_nan_is_none() {
        let expected = answers(said(&[0.0, f32::NAN]), &[], None, "m.onnx").unwrap();
        let same = expected.compare_with(said(&[0.0, f32::NAN]), "m.onnx").unwrap();
        assert_eq!(same, "1 input made up");
        for other in [&[-0.0, f32::NAN][..], &[0.0]] {
            let error = expected.compare_with(said(other), "m.onnx").unwrap_err();
            assert_eq!(error.code(), Code::E630);
            let text = "packed, `m.onnx` answers otherwise: output `y` differs";
            assert_eq!(error.to_string(), text);
        }
    }
}
