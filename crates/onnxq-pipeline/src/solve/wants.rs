//! What must be known of the inputs of weights, and what else that depends on.

use std::collections::BTreeMap;

use crate::Planned;
use onnxq_ir::{Model, digest::sha256_hex};
use onnxq_numerics::stats::Needs;
use onnxq_quant::{
    plan::{Plan, SitePlan},
    recipe::Recipe,
    sources::Sources,
    window::{Guided, Operand},
};
use onnxq_run::calibrate::{self, Want};

/// What statistics depend on besides the float model: a digest of the plan in sequential mode and
/// of the transforms.
pub(super) fn prefix(recipe: &Recipe, planned: &Planned, sequential: bool) -> String {
    let transforms = recipe.transforms.as_deref().unwrap_or_default();
    if !sequential && transforms.is_empty() {
        return String::new();
    }
    let mut text = format!("{transforms:?}");
    for it in planned.plan.sites.iter().filter(|_| sequential) {
        let label = planned.model.node_label(it.site.node);
        text += &format!("\n{label} {:?} {:?} {:?}", it.scheme, it.scales, it.solver);
    }
    sha256_hex(text)
}

/// The values to observe for weights that are not solved yet. Where that is impossible, the user is told.
pub(super) fn observable(m: &Model, known: &Sources, plan: &mut Plan) -> Vec<Want> {
    let mut wants: BTreeMap<(Operand, Option<Guided>), Needs> = BTreeMap::new();
    let mut notes = Vec::new();
    for site in plan.sites.iter().filter(|it| !known.contains(m, it)) {
        let needs = site.needs(m);
        if needs == Needs::Nothing {
            continue;
        }
        match calibrate::observable(m, site) {
            Ok(None) => {}
            Ok(Some(operand)) => {
                let it = wants.entry((operand, site.guided(m))).or_default();
                *it = needs.max(*it);
            }
            Err(reason) => {
                notes.push((site.site.node, format!("nothing is known of its input: {reason}")));
            }
        }
    }
    notes.into_iter().for_each(|(node, note)| plan.note(node, note));
    let want = |((operand, guided), needs)| Want { operand, needs, guided };
    wants.into_iter().map(want).collect()
}

/// Whether the weight of a site is solved with what is learnt of an operand's rows.
pub(super) fn reads(m: &Model, site: &SitePlan, operand: &Operand, guided: Option<Guided>) -> bool {
    site.guided(m) == guided && site.wants(m).is_some_and(|it| it.0 == *operand)
}
