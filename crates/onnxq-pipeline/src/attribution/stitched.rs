//! Parts of both models run one after the other, as if they were one model.

use std::{borrow::Cow, collections::BTreeMap};

use super::Side;
use crate::Error;
use onnxq_ir::{
    Feed, Model, ValueId, extract,
    onnx::{self, Attached},
    tensor::{DType, Tensor},
};
use onnxq_run::{
    data::{Batch, converted},
    engine::{EngineError, IoInfo, Session, SessionOptions},
};

/// A part of a model, ready to run.
pub(super) struct Runner {
    session: Box<dyn Session>,
    feeds: Vec<Feed>,
}

impl Runner {
    /// The part of `model`, whose weights are those of `side`, from `cut` to `wanted`.
    pub(super) fn open(
        model: &Model,
        side: &Side,
        cut: &[ValueId],
        wanted: &[ValueId],
    ) -> Result<Runner, Error> {
        let part = extract(model, cut, wanted);
        let attached = onnx::attach(&part.model, &side.files)?;
        // As it is written: fusions depend on which values are outputs, and so would the numbers.
        let options =
            SessionOptions { threads: 1, optimize: false, lean: true, ..Default::default() };
        let folder = Some(Attached::folder());
        let session = side.runtime.open_bytes(&attached.graph, folder, &options)?;
        Ok(Runner { session, feeds: part.feeds })
    }

    /// The wanted values; of `cut` only those that are needed have to be there.
    pub(super) fn run(
        &mut self,
        data: &Batch,
        cut: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, EngineError> {
        let mut given = Vec::new();
        for (input, feed) in self.session.inputs().iter().zip(&self.feeds) {
            let tensor = match feed {
                Feed::Input(name) => data.get(&**name),
                Feed::Value(at) => cut.get(*at).copied().flatten(),
            };
            let missing = || EngineError::MissingInput {
                name: input.name.clone(),
                given: data.keys().cloned().collect(),
            };
            given.push((
                input.name.clone(),
                fit(&input.name, tensor.ok_or_else(missing)?, input.ty.dtype)?,
            ));
        }
        let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, it)| (&**name, &**it)).collect();
        Ok(self.session.run(&given)?.into_iter().map(|it| it.1).collect())
    }
}

/// Rounded if the other model computes with narrower floats.
fn fit<'a>(name: &str, tensor: &'a Tensor, dtype: DType) -> Result<Cow<'a, Tensor>, EngineError> {
    if tensor.dtype == dtype {
        return Ok(Cow::Borrowed(tensor));
    }
    let unreadable = |source| EngineError::Unreadable { name: name.to_owned(), source };
    Ok(Cow::Owned(converted(tensor, dtype).map_err(unreadable)?.0))
}

/// Output `.1` of stage `.0`.
pub(super) type Place = (usize, usize);

/// A part, and where the values of its cut come from.
pub(super) struct Stage {
    pub runner: Runner,
    pub cut: Vec<Option<Place>>,
}

/// Legs that together compute the outputs of a whole model.
pub(super) struct StitchedSession {
    pub inputs: Vec<IoInfo>,
    pub stages: Vec<Stage>,
    pub outputs: Vec<(String, Place)>,
}

impl Session for StitchedSession {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &[]
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let data: Batch =
            inputs.iter().map(|(name, it)| ((*name).to_owned(), (*it).clone())).collect();
        let mut done: Vec<Vec<Tensor>> = Vec::new();
        for stage in &mut self.stages {
            let at = |it: &Option<Place>| it.map(|(stage, output)| &done[stage][output]);
            let cut: Vec<Option<&Tensor>> = stage.cut.iter().map(at).collect();
            let outputs = stage.runner.run(&data, &cut)?;
            done.push(outputs);
        }
        Ok(self
            .outputs
            .iter()
            .map(|(name, (stage, it))| (name.clone(), done[*stage][*it].clone()))
            .collect())
    }
}

/// Ends a stitched session: `side` computes its model's outputs from the values of `cut`, which lie
/// where `place` says. An output that is itself a value of the cut is handed on.
pub(super) fn finish(
    side: &Side,
    cut: &[ValueId],
    mut stages: Vec<Stage>,
    place: &dyn Fn(usize) -> Option<Place>,
    inputs: Vec<IoInfo>,
) -> Result<StitchedSession, Error> {
    let m = &side.model;
    let at: BTreeMap<ValueId, usize> = cut.iter().enumerate().map(|(at, it)| (*it, at)).collect();
    let ends = &m.graph(m.main).outputs;
    let wanted: Vec<ValueId> = ends.iter().copied().filter(|it| !at.contains_key(it)).collect();
    let last = stages.len();
    let mut computed = 0;
    let mut outputs = Vec::new();
    for value in ends {
        let found = match at.get(value).and_then(|it| place(*it)) {
            Some(place) => place,
            None => (last, (computed, computed += 1).0),
        };
        outputs.push((m.value(*value).name.to_string(), found));
    }
    if !wanted.is_empty() {
        let runner = Runner::open(m, side, cut, &wanted)?;
        stages.push(Stage { runner, cut: (0..cut.len()).map(place).collect() });
    }
    Ok(StitchedSession { inputs, stages, outputs })
}
