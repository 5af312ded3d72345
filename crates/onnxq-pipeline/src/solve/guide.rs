//! What says how much tokens count for guided solvers.

use std::sync::Arc;

use crate::{Error, Job, Planned};
use onnxq_quant::window::Guided;
use onnxq_run::calibrate::{Guide, Want};

/// What guides, and its version: statistics of another are none of these.
const NAME: &str = "ones/1";

/// What statistics say of what guided them; empty if nothing did.
pub(super) fn name(wants: &[Want]) -> String {
    let guided = wants.iter().any(|it| it.guided.is_some());
    if guided { NAME.into() } else { String::new() }
}

/// How much each token of the samples counts for the outputs of these nodes of `planned.model`;
/// `None`: all the same.
///
/// Gradients come from `onnxq-train`, whose tape fills a [`Recorder`](onnxq_run::calibrate::Recorder)
/// here; without them all tokens count the same.
pub(super) fn guide(
    _planned: &Planned,
    _guided: &[Guided],
    _job: &Job,
) -> Result<Option<Arc<Guide>>, Error> {
    Ok(None)
}
