//! The plan: what happens to each node, and why. Data only: printable, comparable.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    as_stored,
    format::{Format, ggml},
    ops::{Site, Weight, rows},
    region, saturation,
    weight::WeightError,
    window::{Guided, Operand, Patches},
};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match, tensor::ZeroPoints};
use onnxq_numerics::{
    affine::{Interval, QuantizedType},
    observe::ObserverSpec,
    scheme::{Granularity, Scales, Scheme},
    solve::SolverSpec,
    stats::Needs,
};

/// The decisions for one model.
#[derive(Clone, Default)]
pub struct Plan {
    pub sites: Vec<SitePlan>,
    /// Nodes without weights that may compute with quantized values, where their neighbours do.
    pub region: Vec<RegionNode>,
    pub kept: Vec<Kept>,
    /// What the quantized values of activations must span. A static site or a node of the region
    /// that lacks a range stays in float; more ranges than needed do no harm.
    pub ranges: BTreeMap<ValueId, Interval>,
    /// What is to be said of nodes besides: why a transform left them alone, what is not known.
    pub notes: BTreeMap<NodeId, Vec<String>>,
    /// Which weights keep all bits of their integers, as data shows.
    pub saturation: BTreeMap<NodeId, saturation::Choice>,
}

/// A node without weights that may compute with quantized values.
#[derive(Clone, Copy, Debug)]
pub struct RegionNode {
    pub node: NodeId,
    pub quantized: ActivationScheme,
}

/// How an activation of fixed range becomes quantized values.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct ActivationScheme {
    pub dtype: QuantizedType,
    /// As many quantized values below zero as above, except where a `Relu` or `Clip` wants
    /// otherwise.
    pub symmetric: bool,
    /// Who decides which values quantized values must span.
    pub observer: ObserverSpec,
}

/// A node whose weight will be quantized.
#[derive(Clone)]
pub struct SitePlan {
    pub site: Site,
    pub scheme: Scheme,
    pub scales: Scales,
    pub solver: SolverSpec,
    pub activation: Option<Activation>,
    /// Of a static activation; unused otherwise.
    pub quantized: ActivationScheme,
    pub format: &'static Format,
    /// All formats of the recipe that the place can have, in its order.
    pub formats: Vec<&'static Format>,
    /// Whether data may show that its weight needs no reduced range; see `saturation`.
    pub measured: bool,
    /// What the recipe asks for and this weight cannot have, and why.
    pub note: Option<NoMatch>,
}

/// A node that stays as it is.
#[derive(Clone, Debug)]
pub struct Kept {
    pub node: NodeId,
    /// Elements of its constant operands: what could have been smaller.
    pub elements: usize,
    pub reason: NoMatch,
}

impl Kept {
    pub fn of(m: &Model, node: NodeId, reason: NoMatch) -> Kept {
        let inputs = m.node(node).inputs.iter().flatten();
        let elements = inputs.filter_map(|it| Some(m.constant(*it).ok()?.numel())).sum();
        Kept { node, elements, reason }
    }
}

/// How an activation is quantized while the model runs.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// One range for the whole tensor, found anew in each run.
    #[default]
    #[serde(rename = "tensor")]
    DynamicPerTensor,
    /// Each row is first divided by its largest magnitude: one token with huge values no longer
    /// costs the others their precision.
    #[serde(rename = "row")]
    DynamicPerToken,
    /// One range for the whole tensor, found once from calibration data.
    Static,
}

/// The lines of the plan as users and scripts see them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanRow {
    #[serde(skip)]
    pub id: NodeId,
    pub node: String,
    pub op: String,
    /// The weight's name and float shape.
    pub weight: String,
    pub shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver: Option<&'static str>,
    /// The type that the file has of it, if that has integers: `Q4_0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// How far the weight's output is off, once it is solved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WeightError>,
    /// Whether its weight keeps all bits of its quantized values, as data shows, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturation: Option<saturation::Choice>,
    /// What the recipe asks for and this weight cannot have, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it stays in float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl Plan {
    /// Rows in execution order; to be taken before the plan is carried out.
    pub fn rows(&self, m: &Model) -> Vec<PlanRow> {
        let mut rows: Vec<(NodeId, PlanRow)> = Vec::new();
        rows.extend(self.sites.iter().map(|it| (it.site.node, it.row(m))));
        rows.extend(self.region.iter().map(|it| (it.node, it.row(m))));
        rows.extend(self.kept.iter().map(|it| (it.node, it.row(m))));
        let order = m.nodes();
        let place: BTreeMap<NodeId, usize> =
            order.iter().enumerate().map(|(at, node)| (*node, at)).collect();
        rows.sort_by_key(|(node, _)| place.get(node).copied());
        rows.into_iter().map(|(node, row)| self.with_findings(node, row)).collect()
    }

    /// Leaves a planned node in float after all.
    pub fn keep(&mut self, m: &Model, node: NodeId, reason: NoMatch) {
        let before = self.sites.len();
        self.sites.retain(|it| it.site.node != node);
        if self.sites.len() < before {
            self.kept.push(Kept::of(m, node, reason));
        }
    }

    /// Keeps something to say of a node.
    pub fn note(&mut self, node: NodeId, note: String) {
        self.notes.entry(node).or_default().push(note);
    }

    /// The row with what data showed.
    fn with_findings(&self, node: NodeId, row: PlanRow) -> PlanRow {
        let notes = self.notes.get(&node).into_iter().flatten().cloned();
        let notes: Vec<String> = row.note.into_iter().chain(notes).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        PlanRow { note, saturation: self.saturation.get(&node).cloned(), ..row }
    }
}

impl Plan {
    /// The values whose ranges a static site or a node of the region could need, in execution
    /// order, each with how it becomes quantized values.
    pub fn observed(&self, m: &Model) -> Vec<(ValueId, ActivationScheme)> {
        region::observed(m, self)
    }
}

impl RegionNode {
    fn row(&self, m: &Model) -> PlanRow {
        PlanRow {
            activation: Some(Activation::Static),
            weight: String::new(),
            shape: Vec::new(),
            ..bare_row(m, self.node, None)
        }
    }
}

/// The most values of a patch whose second moments are kept, a quarter of a gigabyte: those of 512
/// channels and 3 × 3 pixels, and some more. Errors of wider ones average out by themselves.
const WIDEST_PATCH: usize = 5120;

impl SitePlan {
    /// What the weight is multiplied with, as far as its rows can be told apart. Tables are looked
    /// up, so they have none.
    pub fn operand(&self, m: &Model) -> Result<Option<Operand>, NoMatch> {
        let (node, value) = (self.site.node, m.operand(self.site.node, 0));
        match self.site.kind {
            Weight::MatMul => Ok(Some(value?.into())),
            Weight::Conv => {
                let patches = Patches::of(m, node, &m.constant(self.site.weight)?.shape)?;
                if patches.groups > 1 {
                    return Err(no_match!("its kernels see one group of channels each"));
                }
                if patches.width() > WIDEST_PATCH {
                    let width = patches.width();
                    return Err(no_match!("its patches have {width} values, too many to relate"));
                }
                Ok(Some(Operand { value: value?, patches: Some(patches) }))
            }
            _ => Ok(None),
        }
    }

    /// What its solver must know of its inputs: nothing if the file has its integers.
    pub fn needs(&self, m: &Model) -> Needs {
        match self.solver.solver().needs() {
            Needs::Nothing => Needs::Nothing,
            _ if as_stored::source(m, self).is_some() => Needs::Nothing,
            needs => needs,
        }
    }

    /// The operand of the weight, and what the solver must know of it.
    pub fn wants(&self, m: &Model) -> Option<(Operand, Needs)> {
        let needs = self.needs(m);
        (needs != Needs::Nothing).then(|| self.operand(m).ok()?).flatten().map(|it| (it, needs))
    }

    /// Whose outputs guide the solver, if they do.
    pub fn guided(&self, m: &Model) -> Option<Guided> {
        let groups = self.solver.solver().groups().filter(|_| self.needs(m) != Needs::Nothing)?;
        let n = rows(&self.site, m.constant(self.site.weight).ok()?).shape[0];
        Some(Guided { node: self.site.node, groups: groups.clamp(1, n.max(1)) })
    }

    /// `q4_k` in GGUF files, `int4 block 32 asymmetric, float16 scales` in others.
    pub fn scheme_name(&self) -> String {
        match ggml(&self.scheme).filter(|_| self.format.is_gguf()) {
            Some(it) => it.name.to_owned(),
            None => describe(&self.scheme, self.scales),
        }
    }

    fn row(&self, m: &Model) -> PlanRow {
        let is_kept = as_stored::source(m, self).is_some();
        PlanRow {
            format: Some(self.format.name),
            scheme: Some(self.scheme_name()),
            activation: self.activation,
            solver: Some(if is_kept { as_stored::NAME } else { self.solver.name() }),
            stored: as_stored::origin(m, &self.site).map(|it| it.kind.to_string()),
            note: self.note.as_ref().map(NoMatch::to_string),
            ..bare_row(m, self.site.node, Some(self.site.weight))
        }
    }
}

impl Kept {
    fn row(&self, m: &Model) -> PlanRow {
        PlanRow { kept: Some(self.reason.to_string()), ..bare_row(m, self.node, None) }
    }
}

impl PlanRow {
    /// Whether this is a node without a weight that may compute with quantized values.
    pub fn is_of_region(&self) -> bool {
        self.format.is_none() && self.activation.is_some()
    }

    /// What is known of a node before anything is decided.
    pub fn of(m: &Model, node: NodeId) -> PlanRow {
        bare_row(m, node, None)
    }
}

fn bare_row(m: &Model, node: NodeId, weight: Option<onnxq_ir::ValueId>) -> PlanRow {
    let weight = weight.or_else(|| {
        let inputs = m.node(node).inputs.iter().flatten().copied();
        inputs
            .filter(|it| m.constant(*it).is_ok())
            .max_by_key(|it| m.constant(*it).map_or(0, |it| it.numel()))
    });
    PlanRow {
        id: node,
        node: m.node_label(node),
        op: m.node(node).op.to_string(),
        weight: weight.map_or(String::new(), |it| m.value(it).name.to_string()),
        shape: weight.and_then(|it| Some(m.constant(it).ok()?.shape.clone())).unwrap_or_default(),
        format: None,
        scheme: None,
        activation: None,
        solver: None,
        stored: None,
        error: None,
        saturation: None,
        note: None,
        kept: None,
    }
}

/// `int8 per channel`, `int4 block 32 asymmetric, float16 scales`.
fn describe(scheme: &Scheme, scales: Scales) -> String {
    let mut text = match scheme.granularity {
        Granularity::Channel => format!("int{} per channel", scheme.bits),
        Granularity::Block(it) => format!("int{} block {it}", scheme.bits),
    };
    if scheme.zero_points == ZeroPoints::Asymmetric {
        text.push_str(" asymmetric");
    }
    if scheme.range == onnxq_numerics::scheme::Range::Reduced {
        text.push_str(" reduced range");
    }
    if scales == Scales::Float16 {
        text.push_str(", float16 scales");
    }
    text
}
