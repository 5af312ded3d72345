//! Fixed ranges of activations, from calibration data.

use super::{Calibration, Error, Planned};
use crate::{
    calibrate::{self, can_tap},
    codes::Fault,
    ctx::Ctx,
    ir::ValueId,
    quant::plan::{Activation, Codes, Plan, SitePlan},
    untrusted::Untrusted,
};

#[derive(Debug, thiserror::Error)]
#[error(
    "the activation of `{}` gets a fixed range, which calibration data must tell, and there is none",
    Untrusted(node)
)]
pub struct RangesNeedData {
    pub node: String,
}

impl Fault for RangesNeedData {
    fn code(&self) -> &'static str {
        "E610"
    }

    fn hint(&self) -> Option<String> {
        Some(
            "pass --calibration with data like the model's own: text (and --tokenizer), images \
             (and --preprocess), .npy or .npz; or take a recipe without `range: static`"
                .into(),
        )
    }
}

/// Levels of an 8-bit code.
const LEVELS: u32 = 256;

/// Fills in the ranges of all values that static sites, those of `others` among them, and the
/// chain need.
pub(super) fn collect(
    planned: &mut Planned,
    others: Vec<SitePlan>,
    calibration: &Calibration,
    ctx: &Ctx,
) -> Result<(), Error> {
    let m = &planned.model;
    let is_static = |it: &&SitePlan| it.activation == Some(Activation::Static);
    let sites: Vec<SitePlan> =
        planned.plan.sites.iter().chain(&others).filter(is_static).cloned().collect();
    let first = sites.first().map(|it| it.site.node);
    let Some(first) = first.or(planned.plan.chain.first().map(|it| it.node)) else {
        return Ok(());
    };
    if calibration.data.is_none() {
        return Err(RangesNeedData { node: m.node_label(first) }.into());
    }
    let plan = Plan { sites, chain: planned.plan.chain.clone(), ..Plan::default() };
    let wanted = plan.observed(m).into_iter().filter(|it| can_tap(m, it.0).is_ok());
    let wanted: Vec<(ValueId, Codes)> = wanted.collect();
    let values: Vec<ValueId> = wanted.iter().map(|it| it.0).collect();
    let batches = calibration.batches(m)?;
    let (files, options) = (&planned.files, calibration.collect(false));
    let stats = calibrate::ranges(m, files, &values, batches, options, &calibration.runtime, ctx)?;
    for (value, codes) in wanted {
        // A histogram is not needed again, and there may be many.
        let Some(stats) = stats.get(&value) else { continue };
        let range = codes.observer.range(stats, LEVELS, codes.symmetric);
        planned.plan.ranges.insert(value, range);
    }
    Ok(())
}
