//! Which int8 weights keep their 8th bit although some CPUs add pairs of products in 16 bits, by
//! what calibration data shows; and on which CPUs a result is exact.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Error, Inputs, Job, Planned, decide::Deciding};
use onnxq_ir::{Model, NoMatch, ValueId, ctx::Ctx, no_match};
use onnxq_numerics::{affine::Affine, scheme::Range};
use onnxq_quant::{
    ops::rows,
    plan::{Activation, Plan, PlanRow, SitePlan},
    region,
    saturation::{self, Choice, Layout, Safety, SampledRows},
    sources::{self, Sources},
    window::Window,
};
use onnxq_run::calibrate::{self, Target, can_tap};

/// Rows of an activation that are looked at: at most, and however long they are.
const ROWS: usize = 256;
const LEAST_ROWS: usize = 8;

/// Bytes for the rows of all activations together. Not what the user allows: the same data must
/// give the same model.
const BYTES: usize = 256 << 20;

/// The range of weights that keep all bits.
const EIGHT: Range = Range::Narrow;

/// Weights that are float again before anything is computed lose nothing by their 8th bit.
pub(crate) fn release(plan: &mut Plan) {
    let float = |it: &&mut SitePlan| it.measured && it.activation.is_none();
    plan.sites.iter_mut().filter(float).for_each(|it| it.scheme.range = EIGHT);
}

/// Gives weights whose range is to be measured the one that loses less without VNNI.
pub(crate) fn choose(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let planned = &mut deciding.planned;
    // Activations may have been chosen in the meantime.
    release(&mut planned.plan);
    let of_quantized = |it: &SitePlan| it.measured && it.activation.is_some();
    let all = planned.plan.sites.iter().enumerate();
    let sites: Vec<usize> = all.filter(|it| of_quantized(it.1)).map(|it| it.0).collect();
    if sites.is_empty() {
        return Ok(deciding);
    }
    let mut verdicts = match job.inputs.data {
        Some(_) => measure(planned, &sites, job.inputs, job.ctx)?,
        None => {
            let reason = no_match!("no calibration data shows what 8 bits would saturate");
            sites.iter().map(|it| (*it, Err(reason.clone()))).collect()
        }
    };
    agree(planned, &mut verdicts);
    for (at, verdict) in verdicts {
        apply(&mut planned.plan, at, verdict);
    }
    Ok(deciding)
}

/// By site; the reason why a layer could not be simulated, if so.
type Verdicts = BTreeMap<usize, Result<Choice, NoMatch>>;

fn measure(
    planned: &Planned,
    sites: &[usize],
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<Verdicts, Error> {
    let m = &planned.model;
    let quantized = region::Layout::new(m, &planned.plan);
    let mut verdicts = Verdicts::new();
    let (mut layers, mut views) = (Vec::new(), Vec::new());
    for &at in sites {
        match Layer::new(m, at, &planned.plan.sites[at], &quantized, &mut views) {
            Ok(layer) => layers.push(layer),
            Err(reason) => drop(verdicts.insert(at, Err(reason))),
        }
    }
    let rows = observe(planned, &views, inputs, ctx)?;
    ctx.progress.start("saturation", layers.len() as u64);
    for it in &layers {
        let choice = it.choose(m, &planned.plan.sites[it.at], &rows[it.view])?;
        verdicts.insert(it.at, choice);
        ctx.progress.step(1);
    }
    let kept = verdicts.values().flatten().filter(|it| !it.reduced).count();
    ctx.progress.done(&format!("{kept} of {} int8 weights keep 8 bits", sites.len()));
    Ok(verdicts)
}

/// Rows of an activation, for all sites that read it the same way.
#[derive(PartialEq)]
struct View {
    x: ValueId,
    window: Window,
    by_row: bool,
    /// Values of a row.
    width: usize,
}

/// Some rows of each view, from one pass over the data if memory allows.
fn observe(
    planned: &Planned,
    views: &[View],
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<Vec<SampledRows>, Error> {
    let total: usize = views.iter().map(|it| SampledRows::bytes(it.width, 1)).sum();
    let limit = (BYTES / total.max(1)).clamp(LEAST_ROWS, ROWS);
    let start = |it: &View| SampledRows::new(it.window.clone(), limit, it.by_row);
    let mut rows: Vec<SampledRows> = views.iter().map(start).collect();
    if views.is_empty() {
        return Ok(rows);
    }
    let targets = views.iter().zip(&mut rows).map(|(view, observer)| {
        let bytes = SampledRows::bytes(view.width, limit) as u64;
        Target { value: view.x, bytes, observer }
    });
    let batches = inputs.batches(&planned.model)?;
    let run = inputs.run(&planned.model, &planned.files, batches);
    calibrate::observe(run, targets.collect(), ctx)?;
    Ok(rows)
}

/// A site that can be simulated.
struct Layer {
    at: usize,
    /// Which view has its rows.
    view: usize,
    layout: Layout,
    /// `None`: found in each run.
    affine: Option<Affine>,
}

impl Layer {
    fn new(
        m: &Model,
        at: usize,
        site: &SitePlan,
        quantized: &region::Layout,
        views: &mut Vec<View>,
    ) -> Result<Layer, NoMatch> {
        let (window, layout) = saturation::layer(m, &site.site)?;
        let x = m.operand(site.site.node, 0)?;
        can_tap(m, x)?;
        let affine = match site.activation {
            Some(Activation::Static) => {
                let name = &m.value(x).name;
                let known = quantized.values.get(&x).copied();
                Some(known.ok_or_else(|| no_match!("no range of `{name}` is known"))?)
            }
            _ => None,
        };
        let shape = rows(&site.site, m.constant(site.site.weight)?).shape;
        let width = shape[1].saturating_mul(layout.groups);
        let by_row = site.activation == Some(Activation::DynamicPerToken);
        let view = View { x, window, by_row, width };
        let known = views.iter().position(|it| *it == view);
        let view = known.unwrap_or_else(|| {
            views.push(view);
            views.len() - 1
        });
        Ok(Layer { at, view, layout, affine })
    }

    fn choose(
        &self,
        m: &Model,
        site: &SitePlan,
        sampled: &SampledRows,
    ) -> Result<Result<Choice, NoMatch>, Error> {
        if sampled.is_empty() {
            return Ok(Err(NoMatch("it computes nothing on the calibration data".into())));
        }
        let Ok(tensor) = m.constant(site.site.weight) else {
            return Ok(Err(NoMatch("its weight is computed".into())));
        };
        let (weight, scale) = (rows(&site.site, tensor), sources::scale(m, site));
        let (affine, layout) = (self.affine, &self.layout);
        let found = saturation::measure(sampled, affine, &weight, &site.scheme, scale, layout)?;
        Ok(Ok(found.decide()))
    }
}

/// Sites that share a weight share its quantized values: one that needs 7 bits decides for all.
fn agree(planned: &Planned, verdicts: &mut Verdicts) {
    let (m, sites) = (&planned.model, &planned.plan.sites);
    let reduces = |it: &Result<Choice, NoMatch>| it.as_ref().map_or(true, |it| it.reduced);
    let reduced: Vec<usize> = verdicts.iter().filter(|it| reduces(it.1)).map(|it| *it.0).collect();
    for (at, verdict) in verdicts.iter_mut().filter(|it| !reduces(it.1)) {
        let other = reduced.iter().find(|it| Sources::are_one(m, &sites[*at], &sites[**it]));
        if let Some(other) = other {
            let label = m.node_label(sites[*other].site.node);
            let reason = format!("7 bits: {label} needs them of the same weight");
            *verdict = Ok(Choice { reduced: true, reason });
        }
    }
}

fn apply(plan: &mut Plan, at: usize, verdict: Result<Choice, NoMatch>) {
    let site = &mut plan.sites[at];
    let node = site.site.node;
    match verdict {
        Ok(choice) => {
            site.scheme.range = choice.range(EIGHT);
            plan.saturation.insert(node, choice);
        }
        Err(reason) => plan.note(node, format!("7 bits: {reason}")),
    }
}

/// On which CPUs the int8 layers of a model compute what they say.
#[derive(Clone, Debug, Serialize)]
pub struct Exactness {
    pub exact_on: &'static [&'static str],
    /// One line.
    pub text: String,
    #[serde(flatten)]
    pub safety: Safety,
    /// What was measured, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Bits>,
}

/// Weights by the bits that lose less, what saturates without VNNI included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Bits {
    pub eight: usize,
    pub seven: usize,
}

impl Exactness {
    /// `None` for a model without layers that could saturate anywhere.
    pub(crate) fn of(m: &Model, rows: &[PlanRow]) -> Result<Option<Exactness>, Error> {
        let safety = saturation::safety(m)?;
        let Some(text) = safety.text() else { return Ok(None) };
        let choices: Vec<&Choice> = rows.iter().filter_map(|it| it.saturation.as_ref()).collect();
        let seven = choices.iter().filter(|it| it.reduced).count();
        let bits = Bits { eight: choices.len() - seven, seven };
        let measured = (!choices.is_empty()).then_some(bits);
        Ok(Some(Exactness { exact_on: safety.safe_on(), text, safety, measured }))
    }
}
