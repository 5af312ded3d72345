//! Recipe × model → plan: every decision, with a reason for each node that stays in float.

use std::collections::BTreeSet;

use super::{
    Activation, ActivationGranularity, ActivationRange, Candidate, Merged, Recipe, RecipeError,
    Selector, Unmatched,
};
use crate::{
    as_stored,
    chain::Chains,
    format::{self, Format},
    half_scales,
    ops::{self, Site},
    plan::{self, Kept, Plan, RegionNode, SitePlan},
    region, tied,
};
use onnxq_ir::{Model, NoMatch, NodeId, no_match, tensor::DType};
use onnxq_numerics::{
    affine::QuantizedType,
    scheme::{Scales, Scheme},
    solve::SolverSpec,
};

/// What is known besides the model.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Nodes beside a rotated stream.
    pub rotated: &'a BTreeSet<NodeId>,
    /// Whether there is calibration data, or statistics of some.
    pub calibrated: bool,
}

/// Decides for each node. `finite` says whether a weight may be quantized; it is asked last, because
/// it may have to read the weight.
pub fn resolve(
    recipe: &Recipe,
    m: &Model,
    known: Known<'_>,
    finite: &dyn Fn(&Model, &Site) -> Result<(), NoMatch>,
) -> Result<Plan, RecipeError> {
    let mut selector = recipe.selector()?;
    let mut plan = Plan::default();
    let chains = Chains::of(m, recipe.quantize.iter().filter_map(|it| it.min_intensity));
    for node in m.nodes() {
        let label = m.node(node).name.clone();
        let site = match ops::site(m, node) {
            Some(Ok(site)) => site,
            other => {
                match region_node(m, node, known.calibrated, &mut selector) {
                    Some(Ok(it)) => plan.region.push(it),
                    Some(Err(reason)) => plan.kept.push(Kept::of(m, node, reason)),
                    None => {
                        plan.kept
                            .extend(other.and_then(Result::err).map(|it| Kept::of(m, node, it)));
                    }
                }
                continue;
            }
        };
        let op = m.node(node).op.to_string();
        let reached = chains.reached(node);
        let candidate = Candidate {
            op: &op,
            name: &label,
            elements: m.constant(site.weight).map_or(0, |it| it.numel()),
            after_activation_function: ops::is_after_activation_function(m, node),
            head: ops::is_head(m, node),
            attention_value: ops::is_attention_value(m, node),
            after_attention: ops::is_after_attention(m, node),
            rotated: known.rotated.contains(&node),
            calibrated: known.calibrated,
            depthwise: ops::is_depthwise(m, node),
            batched: ops::is_batched(&site),
            intensity: ops::intensity(m, &site),
            chained: &reached,
            weightless: false,
        };
        let merged = match selector.entry_for(candidate) {
            Ok(it) => it,
            Err(reason) => {
                let usual = ops::unasked(site.kind).filter(|_| reason == Unmatched::NoEntry);
                let reason = usual.map_or_else(|| no_match!("{reason}"), |it| NoMatch(it.into()));
                plan.kept.push(Kept::of(m, node, reason));
                continue;
            }
        };
        match decide(recipe, m, site, &merged)? {
            Ok(site) => match finite(m, &site.site) {
                Ok(()) => plan.sites.push(site),
                Err(reason) => plan.kept.push(Kept::of(m, node, reason)),
            },
            Err(reason) => plan.kept.push(Kept::of(m, node, reason)),
        }
    }
    if let Some(error) = selector.unmatched().into_iter().next() {
        return Err(error);
    }
    one_code_type(recipe, &plan)?;
    tied::unify(m, &mut plan.sites);
    Ok(plan)
}

/// Quantized values go from node to node, and kernels want the same type on all sides.
fn one_code_type(recipe: &Recipe, plan: &Plan) -> Result<(), RecipeError> {
    let sites = plan.sites.iter().filter(|it| it.activation == Some(plan::Activation::Static));
    let mut types = sites.map(|it| it.quantized.dtype);
    let Some(first) = types.next() else { return Ok(()) };
    match types.all(|it| it == first) {
        true => Ok(()),
        false => Err(RecipeError::Conflict {
            at: recipe.place.at("quantize"),
            what: "static activations are int8 here and uint8 there: choose one".to_owned(),
        }),
    }
}

/// A node without a weight that the recipe allows to compute with quantized values, or why it
/// cannot. `None`: the recipe says nothing of it.
fn region_node(
    m: &Model,
    node: NodeId,
    calibrated: bool,
    selector: &mut Selector,
) -> Option<Result<RegionNode, NoMatch>> {
    // Shapes and indices have no quantized values: no reason is reported for them.
    let is_float = m.dtype(m.node(node).output()).is_none_or(|it| it == DType::F32);
    if !is_float {
        selector.see(&m.node(node).name);
        return None;
    }
    let op = m.node(node).op.to_string();
    let candidate = Candidate {
        op: &op,
        name: &m.node(node).name,
        elements: 0,
        after_activation_function: false,
        head: false,
        attention_value: false,
        after_attention: false,
        rotated: false,
        calibrated,
        depthwise: false,
        batched: false,
        intensity: 0,
        chained: &[],
        weightless: true,
    };
    let merged = selector.entry_for(candidate).ok().filter(|it| !it.skip)?;
    let activation = merged.activation.filter(|it| it.range == ActivationRange::Static)?;
    let quantized = activation.quantized;
    Some(region::role(m, node).map(|_| RegionNode { node, quantized }))
}

/// The outer error is the recipe's, the inner one a reason that lies in the model.
fn decide(
    recipe: &Recipe,
    m: &Model,
    site: Site,
    merged: &Merged,
) -> Result<Result<SitePlan, NoMatch>, RecipeError> {
    if merged.skip {
        let reason = merged.reason.clone().unwrap_or_else(|| "the recipe skips it".to_owned());
        return Ok(Err(NoMatch(reason.into())));
    }
    let Some(weight) = merged.weight else {
        return Ok(Err(NoMatch("the recipe does not say how to store its weight".into())));
    };
    let mut weight = weight;
    let mut wanted = weight.scheme;
    let conflict = |what: String| RecipeError::Conflict { at: merged.position.clone(), what };
    if let Some(field) = weight.beside_ggml {
        return Err(conflict(format!("`{field}` is for integers; a type of ggml says it itself")));
    }
    if weight.as_stored {
        let Some(origin) = as_stored::origin(m, &site) else {
            return Ok(Err(NoMatch("the checkpoint has it in float".into())));
        };
        (wanted, weight.scales) = as_stored::scheme_of(origin.grid);
    }
    if let Err(reason) = weight.solver.solver().fits(&wanted) {
        return Err(conflict(format!("solver `{}`: {reason}", weight.solver.name())));
    }
    let columns =
        ops::rows(&site, m.constant(site.weight).expect("sites have constant weights")).shape[1];
    let quantized = merged.activation.map(|it| it.quantized).unwrap_or_default();
    if let Some(what) = merged.activation.and_then(contradiction) {
        return Err(RecipeError::Conflict { at: merged.position.clone(), what: what.to_owned() });
    }
    let activation = merged.activation.map(activation);
    let (mut misfits, mut reasons, mut formats) = (Vec::new(), Vec::new(), Vec::new());
    for name in &merged.format {
        let format = named(name, merged)?;
        match (format.place)(m, &site) {
            Ok(()) => formats.push(format),
            Err(reason) => refuse(&mut reasons, name, &reason),
        }
    }
    let mut reasons: Vec<String> =
        reasons.into_iter().map(|(names, reason)| format!("{names}: {reason}")).collect();
    for &format in &formats {
        let name = format.name;
        // As a way out it leaves in float what no other format of the list can quantize.
        let is_fallback = format.float_when_loaded && merged.format.len() > 1;
        let activation = if is_fallback { None } else { activation };
        if let Err(reason) = format.holds(&wanted) {
            misfits.push(format!("{name}: {reason}"));
            continue;
        }
        if weight.scales == Scales::Float16 && !format.half_scales {
            misfits.push(format!("{name}: its scales are float, not float16"));
            continue;
        }
        let is_int8 =
            activation == Some(plan::Activation::Static) && quantized.dtype == QuantizedType::Int8;
        if is_int8 && !format.int8_activations {
            misfits.push(format!("{name}: its activations are uint8; int8 is slow on x86 there"));
            continue;
        }
        match (format.scheme)(wanted, activation) {
            // What the file has is no fault of the recipe.
            Err(reason) if weight.as_stored => reasons.push(format!("{name}: {reason}")),
            Err(reason) => misfits.push(format!("{name}: {reason}")),
            Ok(scheme) => {
                let (scheme, other) = match (format.fitted)(scheme, columns) {
                    Ok(it) => it,
                    Err(reason) => {
                        refuse_late(&mut reasons, name, &reason);
                        continue;
                    }
                };
                let (solver, measured) = (weight.solver, weight.is_measured);
                let (scales, note) = scales(m, &site, format, &scheme, weight.scales);
                let note = other.or(note);
                let why = merged.reason.clone().filter(|_| activation.is_none());
                let note = note.or(why.map(|it| NoMatch(it.into())));
                let passed = (is_fallback && !reasons.is_empty()).then(|| reasons.join("; "));
                let note = note.or(passed.map(|it| NoMatch(it.into())));
                let plan = SitePlan {
                    site,
                    scheme,
                    scales,
                    solver,
                    activation,
                    quantized,
                    format,
                    formats,
                    note,
                    measured,
                };
                return Ok(Ok(plan));
            }
        }
    }
    if misfits.is_empty() && !reasons.is_empty() {
        reasons.extend(unraised(recipe, m, activation));
        let why = NoMatch(reasons.join("; ").into());
        let scales = Scales::Float;
        let own = otherwise(recipe, m, (site, wanted, scales, weight.solver), activation, &why);
        return Ok(own.ok_or(why));
    }
    let why = match misfits.is_empty() {
        true => "no format is given".to_owned(),
        false => misfits.join("; "),
    };
    Err(RecipeError::Conflict { at: merged.position.clone(), what: why })
}

/// A format that cannot hold rows of this length.
fn refuse_late(reasons: &mut Vec<String>, name: &str, reason: &NoMatch) {
    reasons.push(format!("{name}: {reason}"));
}

/// Formats that refuse a place for the same reason say so together.
fn refuse(reasons: &mut Vec<(String, String)>, name: &str, reason: &NoMatch) {
    let reason = reason.to_string();
    match reasons.iter_mut().find(|it| it.1 == reason) {
        Some((names, _)) => *names = format!("{names}, {name}"),
        None => reasons.push((name.to_owned(), reason)),
    }
}

/// What a recipe lacks that wants static activations in a model of an old operator set.
fn unraised(recipe: &Recipe, m: &Model, activation: Option<plan::Activation>) -> Option<String> {
    const PASS: &str = "raise-opset-static";
    let is_old = activation == Some(plan::Activation::Static) && m.opset("") < format::PER_CHANNEL;
    let lists = recipe.prepare.iter().flatten().any(|it| it == PASS);
    (is_old && !lists).then(|| format!("`{PASS}` in `prepare` raises models that can be raised"))
}

/// A node that can have none of its formats, by the first of the ways that activations choose from
/// (`adapt`) which it can have.
fn otherwise(
    recipe: &Recipe,
    m: &Model,
    (site, scheme, scales, solver): (Site, Scheme, Scales, SolverSpec),
    activation: Option<plan::Activation>,
    why: &NoMatch,
) -> Option<SitePlan> {
    // What the recipe computes in float is not made of integers.
    let wanted = match activation? {
        plan::Activation::Static => "static",
        _ => "dynamic",
    };
    let like = SitePlan {
        site,
        scheme,
        scales,
        solver,
        activation,
        quantized: plan::ActivationScheme::default(),
        format: format::FORMATS[0],
        formats: Vec::new(),
        measured: false,
        note: Some(no_match!("not {wanted}: {why}")),
    };
    let ways = recipe.adapt.iter().flat_map(|it| &it.candidates).filter(|it| it.format.is_some());
    // In float, a weight that others read too would be there twice.
    let is_own = m.only_use(site.weight).is_ok();
    let fits = |it: &SitePlan| it.activation.is_some() || is_own;
    ways.filter_map(|it| it.of(m, &like).ok()?).find(fits)
}

/// What settings of an activation exclude each other.
fn contradiction(it: Activation) -> Option<&'static str> {
    match (it.range, it.granularity) {
        (ActivationRange::Static, ActivationGranularity::Row) => {
            Some("a static range is for the whole tensor, not for rows")
        }
        (ActivationRange::Dynamic, _) if it.quantized.dtype == QuantizedType::Int8 => {
            Some("dynamic ranges have uint8 values; int8 needs `range: static`")
        }
        _ => None,
    }
}

/// The scales as this weight can have them, and why they are not as wanted.
pub fn scales(
    m: &Model,
    site: &Site,
    format: &Format,
    scheme: &Scheme,
    wanted: Scales,
) -> (Scales, Option<NoMatch>) {
    let is_half = m.constant(site.weight).is_ok_and(|it| it.dtype == DType::F16);
    // Files of ggml have no other ones.
    if format.is_gguf() {
        return (Scales::Float16, None);
    }
    // Scales of a half weight are float16 without being asked.
    if wanted == Scales::Float || is_half {
        return (Scales::Float, None);
    }
    // Those of the file are float16 already, whatever they lose.
    let stored = as_stored::origin(m, site).filter(|it| it.integers.is_some());
    if stored.is_some_and(|it| as_stored::holds(scheme, DType::F16, it.grid)) {
        return (Scales::Float16, None);
    }
    match half_scales::fit(m, site, scheme) {
        Ok(()) => (Scales::Float16, None),
        Err(reason) => (Scales::Float, Some(reason)),
    }
}

/// An activation's settings as the plan has them.
pub fn activation(it: Activation) -> plan::Activation {
    match (it.range, it.granularity) {
        (ActivationRange::Static, ActivationGranularity::Tensor) => plan::Activation::Static,
        (_, ActivationGranularity::Row) => plan::Activation::DynamicPerToken,
        (_, ActivationGranularity::Tensor) => plan::Activation::DynamicPerTensor,
    }
}

fn named(name: &str, merged: &Merged) -> Result<&'static Format, RecipeError> {
    format::format(name).ok_or_else(|| RecipeError::Word {
        at: merged.position.clone(),
        what: "format".into(),
        word: name.to_owned(),
        known: format::FORMATS.iter().map(|it| it.name).collect(),
    })
}
