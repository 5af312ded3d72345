//! What a file declares against what ONNX Runtime makes of it: one row for each quantized weight.
//!
//! Fusions rename nodes and drop values, but the last value of a fused chain keeps its name. So a
//! node is found by the first value behind it that the optimized graph still computes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::model_index::{Grain, LARGE, ModelIndex, is_quantized_type};
use onnxq_ir::{
    Def, Model, NodeId, User, ValueId,
    ops::{self, Set, Traits},
    tensor::DType,
};

/// A quantized weight, as it is declared and as it runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Executed {
    pub node: String,
    /// `dynamic int8`, `int4 in blocks of 128`.
    pub declared: String,
    /// The kernel, as `MatMulNBits, 4 bits, block 128, accuracy level 4`.
    pub executed: String,
    /// Why this is not what was declared, or slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
}

/// A quantized weight, as a file declares it.
pub struct Declared {
    /// The node that computes with it.
    pub user: NodeId,
    pub weight: ValueId,
    /// `dynamic int8`, `int4 in blocks of 128`.
    pub text: String,
}

/// Every quantized weight, in the order of execution.
pub fn declared(l: &ModelIndex) -> Vec<Declared> {
    let sites = l.m.nodes().into_iter().filter_map(|it| Site::of(l, it));
    sites.map(|it| Declared { user: it.user, weight: it.weight, text: it.declared }).collect()
}

/// Compares a model with the graph that ONNX Runtime optimized it to.
pub fn executed(written: &Model, optimized: &Model) -> Vec<Executed> {
    let (written, optimized) = (ModelIndex::new(written), ModelIndex::new(optimized));
    let index = Index::new(&optimized);
    let mut seen = BTreeSet::new();
    let mut rows: Vec<Executed> = Vec::new();
    for node in written.m.nodes() {
        if let Some(site) = Site::of(&written, node) {
            rows.push(index.row(&written, &site, &mut seen));
        }
    }
    // What no site explains, for instance a weight that ONNX Runtime itself dequantizes.
    rows.extend(optimized.m.nodes().into_iter().filter(|it| !seen.contains(it)).filter_map(|it| {
        let weight = large_dequantized(&optimized, it)?;
        Some(Executed {
            node: optimized.m.node_label(it),
            declared: "-".into(),
            executed: format!("DequantizeLinear of {weight}"),
            differs: Some("dequantized in each run".into()),
        })
    }));
    rows
}

/// Whether this is how a node that computes in float is declared or executed. Texts of this file say
/// `weights` only of weights that are converted before they are used.
pub fn is_in_float(text: &str) -> bool {
    let op = text.split([' ', ',']).next().unwrap_or_default();
    let is_integer = ops::named(op).is_some_and(|op| op.has(Traits::INTEGER));
    let converted = [" in float", " weights", "DequantizeLinear of"];
    !is_integer && converted.iter().any(|it| text.contains(it))
}

struct Site {
    /// The node that computes with the weight.
    user: NodeId,
    declared: String,
    weight: ValueId,
    /// It is meant to run in float.
    is_stored: bool,
}

impl Site {
    fn of(l: &ModelIndex, node: NodeId) -> Option<Site> {
        let weight_at = |index: usize| {
            let value = l.input(node, index)?;
            let dtype = l.m.constant(value).ok()?.dtype;
            is_quantized_type(dtype).then_some((value, dtype))
        };
        let site = |index: usize, describe: &dyn Fn(DType) -> String| {
            let (weight, dtype) = weight_at(index)?;
            Some(Site { user: node, declared: describe(dtype), weight, is_stored: false })
        };
        let blocks = |what: &str| {
            let (bits, block) =
                (l.m.int_attr(node, "bits", 4), l.m.int_attr(node, "block_size", 128));
            format!("{what}int{bits} in blocks of {block}")
        };
        let op = &l.m.node(node).op;
        if let Some((weight, kind)) = integer(l, node) {
            return site(weight, &|it| format!("{kind} {it}"));
        }
        match op.to_string().as_str() {
            "com.microsoft.MatMulNBits" => {
                let hidden = l.producer(node, 1).filter(|it| l.has(*it, Traits::COPY));
                let weight = hidden.map_or(l.input(node, 1), |it| l.input(it, 0))?;
                Some(Site { user: node, declared: blocks(""), weight, is_stored: false })
            }
            "com.microsoft.GatherBlockQuantized" => site(0, &|_| blocks("table of ")),
            "Cast" => Site::stored(l, node),
            _ => Site::behind_dequantize(l, node),
        }
    }

    /// `Mul(Cast(quantized), scales)`: float once the model is loaded.
    fn stored(l: &ModelIndex, cast: NodeId) -> Option<Site> {
        let weight = l.input(cast, 0)?;
        let quantized = l.m.constant(weight).ok().filter(|it| it.shape.len() >= 2)?;
        let (scaled, _) =
            l.users(cast).into_iter().next().filter(|_| is_quantized_type(quantized.dtype))?;
        let is_scaled = l.is(scaled, "Mul") && (0..2).any(|it| l.constant(scaled, it).is_some());
        let (user, _) = l.users(scaled).into_iter().next().filter(|_| is_scaled)?;
        let declared = format!("{} weights, float once loaded", quantized.dtype);
        Some(Site { user, declared, weight, is_stored: true })
    }

    fn behind_dequantize(l: &ModelIndex, node: NodeId) -> Option<Site> {
        let w = l.dequantized(node)?;
        let (user, index) = l.users(node).into_iter().next()?;
        let dtype = w.quantized.dtype;
        let declared = match w.grain {
            _ if index == 1 && l.is_quantized_activation(user, 0) => format!("static {dtype}"),
            Grain::Scalar | Grain::Tensor => format!("{dtype} weights, one scale"),
            Grain::Channel { .. } => format!("{dtype} weights per channel"),
            Grain::Blocks { block, .. } => format!("{dtype} weights in blocks of {block}"),
        };
        Some(Site { user, declared, weight: l.input(node, 0)?, is_stored: false })
    }

    /// Names of the values behind the node that a fusion may end at.
    fn chain(&self, l: &ModelIndex) -> Vec<String> {
        const LONGEST: usize = 8;
        let mut names = Vec::new();
        let mut node = self.user;
        for _ in 0..LONGEST {
            let Some(&output) = l.m.node(node).outputs.first() else { break };
            names.push(l.m.value(output).name.to_string());
            let [only] = l.m.value(output).uses[..] else { break };
            match only.user {
                User::Node(next) if l.is_in(next, FUSED) => node = next,
                _ => break,
            }
        }
        names
    }
}

struct Index<'a> {
    l: &'a ModelIndex,
    outputs: BTreeMap<&'a str, NodeId>,
    names: BTreeMap<&'a str, NodeId>,
    weights: BTreeMap<&'a str, NodeId>,
}

impl<'a> Index<'a> {
    fn new(l: &'a ModelIndex) -> Index<'a> {
        let (mut outputs, mut names, mut weights) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for node in l.m.nodes() {
            let it = l.m.node(node);
            names.insert(&*it.name, node);
            for output in &it.outputs {
                outputs.insert(&*l.m.value(*output).name, node);
            }
            for input in it.inputs.iter().flatten() {
                if l.m.constant(*input).is_ok() {
                    weights.insert(&*l.m.value(*input).name, node);
                }
            }
        }
        Index { l, outputs, names, weights }
    }

    fn find(&self, l: &ModelIndex, site: &Site) -> Option<NodeId> {
        let chain = site.chain(l);
        let own = self.names.get(&*l.m.node(site.user).name);
        // Quantized values may go on under other names, and what follows take theirs.
        if let Some(it) = own.filter(|it| self.l.has(**it, Traits::INTEGER)) {
            return Some(*it);
        }
        let by_output = chain.iter().find_map(|it| self.outputs.get(&**it));
        let name = &*l.m.node(site.user).name;
        let by_name = || self.names.get(name).filter(|_| !name.is_empty());
        let by_weight = || self.weights.get(&*l.m.value(site.weight).name);
        let found = by_output.or_else(by_name).or_else(by_weight)?;
        Some(self.behind_layout(*found))
    }

    /// The node whose result is only laid out or converted here.
    fn behind_layout(&self, mut node: NodeId) -> NodeId {
        while self.l.has(node, STORAGE) {
            let Some(Def::Node(before)) = self.l.input(node, 0).map(|it| &self.l.m.value(it).def)
            else {
                break;
            };
            node = *before;
        }
        node
    }

    fn row(&self, written: &ModelIndex, site: &Site, seen: &mut BTreeSet<NodeId>) -> Executed {
        let node = written.m.node_label(site.user);
        let declared = site.declared.clone();
        if site.is_stored {
            // The names of float nodes do not survive layouts, but quantized values that are left
            // have one.
            let left = self.weights.contains_key(&*written.m.value(site.weight).name);
            let executed = format!("{} in float", written.m.node(site.user).op.name);
            let differs = left.then(|| "the weight is converted in each run".into());
            return Executed { node, declared, executed, differs };
        }
        let Some(found) = self.find(written, site) else {
            let (executed, differs) = ("not found".into(), Some("no node of it is left".into()));
            return Executed { node, declared, executed, differs };
        };
        let (executed, differs) = self.kernel(found, seen);
        Executed { node, declared, executed, differs }
    }

    /// What a node runs as, and what is wrong with it.
    fn kernel(&self, node: NodeId, seen: &mut BTreeSet<NodeId>) -> (String, Option<String>) {
        let l = self.l;
        let op = l.m.node(node).op.name.to_string();
        let weight = l.m.node(node).op.info().filter(|it| it.has(Traits::INTEGER));
        let at = weight.and_then(|it| it.weight_inputs().first().copied());
        if let Some(at) = at {
            let dtype = l.dtype(node, at).unwrap_or(DType::I8);
            let slow = dtype == DType::U8 && l.constant(node, at).is_some();
            if op == "ConvInteger" {
                let why = "ConvInteger is slower than the float convolution";
                return (format!("{op}, {dtype} weights"), Some(why.into()));
            }
            return (
                format!("{op}, {dtype} weights"),
                slow.then(|| "uint8 weights are slow".into()),
            );
        }
        match &*op {
            "MatMulNBits" => {
                let attr = |name, default| l.m.int_attr(node, name, default);
                let (bits, block) = (attr("bits", 4), attr("block_size", 0));
                let level = attr("accuracy_level", 0);
                let text = format!("{op}, {bits} bits, block {block}, accuracy level {level}");
                let float_zero = l.dtype(node, 3).is_some_and(DType::is_float);
                let slow = match (level, float_zero) {
                    (_, true) => Some("zero points are float".into()),
                    (4, _) => None,
                    _ => Some("the accuracy level is not 4".into()),
                };
                (text, slow)
            }
            "GatherBlockQuantized" => {
                let dtype = l.dtype(node, 0).unwrap_or(DType::U8);
                let slow = dtype.bits() < 8;
                (
                    format!("{op} of {dtype}"),
                    slow.then(|| "quantized values are not packed in bytes".into()),
                )
            }
            _ => self.float(node, &op, seen),
        }
    }

    fn float(
        &self,
        node: NodeId,
        op: &str,
        seen: &mut BTreeSet<NodeId>,
    ) -> (String, Option<String>) {
        let inputs = 0..self.l.m.node(node).inputs.len();
        let dequantized = inputs
            .filter_map(|it| self.l.producer(node, it))
            .find(|it| self.l.dequantized(*it).is_some() || self.l.is(*it, "Transpose"));
        let Some(dq) = dequantized else {
            return (format!("{op} in float"), Some("it runs in float".into()));
        };
        let dq = if self.l.is(dq, "Transpose") { self.l.producer(dq, 0).unwrap_or(dq) } else { dq };
        seen.insert(dq);
        // A few numbers in each run are no matter.
        let is_large = large_dequantized(self.l, dq).is_some();
        let text = format!("{op} in float of a DequantizeLinear");
        (text, is_large.then(|| "the weight is dequantized in each run".into()))
    }
}

/// What only says how numbers are stored.
const STORAGE: Traits =
    Traits::CAST.union(Traits::DEQUANTIZE).union(Traits::QUANTIZE).union(Traits::REARRANGE);

/// Operators behind a product that ONNX Runtime may make part of it, or moves it through.
const FUSED: Set =
    Set::of(STORAGE.union(Traits::ARITHMETIC)).plus(&["Clip", "Relu"]).minus(&["Div", "Sub"]);

/// The weight of a product of integers, and whether its activation has a scale of its own in each
/// run.
fn integer(l: &ModelIndex, node: NodeId) -> Option<(usize, &'static str)> {
    let op = l.m.node(node).op.info().filter(|it| it.has(Traits::INTEGER))?;
    let quantized = op.quantized?;
    let is_stated = |at: usize| l.constant(node, at).is_some();
    let is_static =
        quantized.y.is_some() || quantized.operands.iter().filter_map(|it| it.scale).any(is_stated);
    let weight = quantized.weights.first()?.values;
    Some((weight, if is_static { "static" } else { "dynamic" }))
}

fn large_dequantized(l: &ModelIndex, node: NodeId) -> Option<String> {
    let value = l.input(node, 0).filter(|_| l.has(node, Traits::DEQUANTIZE))?;
    let quantized = l.m.constant(value).ok()?;
    (quantized.numel() > LARGE)
        .then(|| format!("`{}`", onnxq_ir::untrusted::Untrusted(&l.m.value(value).name)))
}
